"""As many SDK agents as asked for in one process; each says what it gets, until the input ends."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from mas_agent import Agent, Credentials, Message


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def one(name: str) -> Agent:
    certs = Path(os.environ["CERTS"])
    credentials = Credentials(certs / "ca.pem", certs / f"agents/{name}.pem", certs / f"agents/{name}.key")
    agent = Agent(credentials=credentials)

    @agent.on_raw("work")
    async def work(message: Message) -> None:
        say("got", agent=name, n=message.data["n"])

    return agent


async def main(first: int, count: int) -> None:
    agents = [one(f"p{number}") for number in range(first, first + count)]
    await asyncio.gather(*(agent.start() for agent in agents))
    say("ready")
    await asyncio.to_thread(sys.stdin.read)
    await asyncio.gather(*(agent.stop() for agent in agents))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
