"""Asks the example of the SDK's README, and says what it answers."""

from __future__ import annotations

import asyncio

from mas_agent import Agent


async def main() -> None:
    async with Agent() as agent:
        for text in ("What is a lease?", "And who renews it?"):
            reply = await agent.request("assistant", "question", {"text": text}, timeout=20)
        print(f"answer: {reply.data}", flush=True)


asyncio.run(main())
