"""Writes, and has the critic look at it. To its model the critic is a tool."""

import pydantic_ai
from mas_agent import Agent, Message, NoReply, Refused
from models import model
from pydantic import BaseModel

agent = Agent()
writer = pydantic_ai.Agent(model(), instructions="Write one sentence. Have it reviewed before you answer.")
author = pydantic_ai.Agent(
    model("It is for people who are new to this."), instructions="Answer questions about your text."
)


class Question(BaseModel):
    text: str


@writer.tool_plain
async def review(draft: str) -> str:
    """Has another agent review a draft; returns what it says."""
    try:
        reply = await agent.request("critic", "review", {"draft": draft}, timeout=60)
    except (Refused, NoReply) as error:
        # The model reads why, and can do something else.
        raise pydantic_ai.ModelRetry(str(error)) from error
    return str(reply.data["verdict"])


@agent.on("question", retry_on=[ConnectionError])
async def answer(question: Question, message: Message) -> None:
    result = await author.run(question.text)
    await message.reply("answer", {"text": result.output})


@agent.task
async def write() -> None:
    result = await writer.run("What is a lease?")
    print(f"written: {result.output}", flush=True)


agent.run()
