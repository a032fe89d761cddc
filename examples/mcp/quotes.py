"""Knows prices, and tells the client when it has been asked three times."""

import itertools

from mas_agent import Agent, Message
from pydantic import BaseModel

agent = Agent()
asked = itertools.count(1)


class Question(BaseModel):
    symbol: str


@agent.on("quote.get")
async def quote(question: Question, message: Message) -> None:
    await message.reply("quote", {"symbol": question.symbol, "price": 10 * len(question.symbol)})
    if next(asked) == 3:
        await agent.send(message.sender, "note", {"text": "You have asked three times."})


agent.run()
