"""Two hundred Python agents connected at once. The old server delivered to about 98 of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest
from mas_agent import Agent, Credentials

import conftest
from world import HERE, Process, World

COUNT = 200
EACH = 50
ROUNDS = 3
NAMES = [f"p{number}" for number in range(COUNT)]


@pytest.fixture
def world() -> Iterator[World]:
    agents = "permissions:\n  - {type: allow_wildcard, agent_id: hub}\nagents:\n  - {agent_id: hub}\n"
    agents += "".join(f"  - {{agent_id: {name}}}\n" for name in NAMES)
    with World(agents) as world:
        world.issue("hub", *NAMES)
        yield world


def programs() -> list[list[str]]:
    """Four processes: two with the real 0.4.5 client where it is there, the others with the SDK."""
    old = conftest._no_old_python() is None
    words = []
    for index, first in enumerate(range(0, COUNT, EACH)):
        if old and index % 2:
            play = str(HERE / "old_client" / "play.py")
            words.append([os.environ[conftest.OLD_PYTHON], "-u", play, "many", str(first), str(EACH)])
        else:
            words.append([sys.executable, str(HERE / "many_agents.py"), str(first), str(EACH)])
    return words


async def test_deliveries_reach_two_hundred_agents(world: World) -> None:
    server = world.server()
    env = {"MAS_SERVER_ADDR": server.addr, "CERTS": str(world.certs)}
    processes = [world.start(words, env) for words in programs()]
    for process in processes:
        await asyncio.to_thread(process.json, "ready")

    def gather(process: Process) -> set[tuple[str, int]]:
        got = (process.json("got") for _ in range(EACH * ROUNDS))
        return {(one["agent"], one["n"]) for one in got}

    gathering = [asyncio.create_task(asyncio.to_thread(gather, process)) for process in processes]
    ca, cert, key = world.files("hub")
    async with Agent(server.addr, credentials=Credentials(ca, cert, key)) as hub:
        peers = await hub.discover()
        assert len(peers) == COUNT + 1
        for number in range(ROUNDS):
            await asyncio.gather(*(hub.send(name, "work", {"n": number}) for name in NAMES))
        got = set().union(*await asyncio.gather(*gathering))
    assert got == {(name, number) for name in NAMES for number in range(ROUNDS)}
    for process in processes:
        assert process.popen.stdin is not None
        process.popen.stdin.close()
    for process in processes:
        assert await asyncio.to_thread(process.popen.wait, 30) == 0
    assert await asyncio.to_thread(server.stop) == 0
