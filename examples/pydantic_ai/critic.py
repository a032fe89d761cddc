"""Reviews drafts, and asks the writer where something is not clear."""

import pydantic_ai
from mas_agent import Agent, Message
from models import model
from pydantic import BaseModel

agent = Agent()
critic = pydantic_ai.Agent(
    model(), instructions="Review the draft in one sentence. Ask its writer first whom it is for."
)


class Draft(BaseModel):
    draft: str


@critic.tool_plain
async def ask_writer(question: str) -> str:
    """Asks the writer of the draft something."""
    reply = await agent.request("writer", "question", {"text": question}, timeout=30)
    return str(reply.data["text"])


@agent.on("review", retry_on=[ConnectionError])
async def review(draft: Draft, message: Message) -> None:
    result = await critic.run(draft.draft)
    print(f"reviewed for {message.sender}: {result.output}", flush=True)
    await message.reply("verdict", {"verdict": result.output})


agent.run()
