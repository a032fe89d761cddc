"""An agent that says what it handles; its handlers run until they are told, or for ever."""

from __future__ import annotations

import asyncio
import json
import sys

from mas_agent import Agent, Message

agent = Agent(drain_timeout=float(sys.argv[1]))


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


@agent.on_start
def connected() -> None:
    say("connected")


@agent.on("short")
async def short(message: Message) -> None:
    say("handling", type="short")
    await asyncio.to_thread(sys.stdin.readline)
    await agent.update_state({"done": True})
    await message.reply("answer", {"done": True})


@agent.on("long")
async def long(message: Message) -> None:
    say("handling", type="long")
    await asyncio.Event().wait()


agent.run()
