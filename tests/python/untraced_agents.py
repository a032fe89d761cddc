"""Two agents and what they can do, in a process that configures no provider; `refuse` makes every import of
OpenTelemetry fail, as where it is not installed. Says what it saw as one JSON object."""

from __future__ import annotations

import asyncio
import importlib.abc
import json
import logging
import sys
from pathlib import Path
from typing import Any


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: Any) -> None:
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def imported() -> bool:
    return any(name.partition(".")[0] == "opentelemetry" for name in sys.modules)


async def play(addr: str, certs: Path) -> dict[str, Any]:
    from mas_agent import Agent, Credentials, Message, NotAuthorized

    after_import = imported()

    def agent(name: str) -> Agent:
        cert = certs / "agents" / f"{name}.pem"
        credentials = Credentials(certs / "ca.pem", cert, cert.with_suffix(".key"))
        return Agent(addr, credentials=credentials, trace_parent="parent")

    alpha, beta = agent("alpha"), agent("beta")
    seen: asyncio.Queue[Any] = asyncio.Queue()

    @beta.on_raw("note")
    async def note(message: Message) -> None:
        seen.put_nowait(message.meta["traceparent"])

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        async with message.commit() as commit:
            commit.send("alpha", "aside")
            commit.reply("answer", {"ok": True})

    @alpha.on_raw("aside")
    async def aside(message: Message) -> None:
        pass

    async with alpha, beta:
        await alpha.send("beta", "note")
        reply = await alpha.request("beta", "ask", timeout=10)
        try:
            await alpha.send("nobody", "note")
            refused = ""
        except NotAuthorized as error:
            refused = error.detail
        async with alpha.commit() as commit:
            pending = commit.request("beta", "ask", timeout=10)
        return {
            "after_import": after_import,
            "after_start": imported(),
            "context": await seen.get(),
            "answers": [reply.data, (await pending.get()).data],
            "refused": refused,
        }


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    if "refuse" in sys.argv:
        sys.meta_path.insert(0, Refuse())
    print(json.dumps(asyncio.run(play(sys.argv[1], Path(sys.argv[2])))))
