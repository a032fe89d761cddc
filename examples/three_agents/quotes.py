"""Knows prices. Where it gets them from, every second call fails; the message is then delivered again."""

import itertools

from mas_agent import Agent, Message
from pydantic import BaseModel

agent = Agent()
calls = itertools.count()


class Question(BaseModel):
    symbol: str


def fetch(symbol: str) -> int:
    """Stands for a call of somebody else's service."""
    if next(calls) % 2 == 0:
        raise ConnectionError("the exchange has hung up")
    return 10 * len(symbol) + ord(symbol[0])


@agent.on("quote", retry_on=[ConnectionError])
async def quote(question: Question, message: Message) -> None:
    price = fetch(question.symbol)
    print(f"{question.symbol}: attempt {message.attempt} succeeds", flush=True)
    await message.reply("quote", {"price": price})


agent.run()
