"""An agent that says what it handles, and never finishes with `work`."""

from __future__ import annotations

import asyncio
import json

from mas_agent import Agent, Message

agent = Agent()


def say(event: str, **values: object) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


@agent.on_raw("work")
async def work(message: Message) -> None:
    say("handling", id=message.id)
    await asyncio.Event().wait()


@agent.on_raw("quick")
async def quick(message: Message) -> None:
    say("handling", id=message.id)


async def main() -> None:
    serving = asyncio.create_task(agent.serve())
    while not agent.is_connected and not serving.done():
        await asyncio.sleep(0.01)
    say("connected")
    await serving


asyncio.run(main())
