"""The real client of the 0.4 generation (mas-framework 0.4.5 from PyPI), unmodified, against this server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from mas_agent import Agent, Credentials, Message
from pydantic import BaseModel

from world import HERE, Process, Server, World

AGENTS = """
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
  - {type: allow, sender: limited, targets: [beta]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta, capabilities: [work], metadata: {level: 3}}
  - {agent_id: gamma}
  - {agent_id: limited, rate_limit: {per_minute: 3, per_hour: 100}}
"""
SETTINGS = "delivery: {reclaim_idle_ms: 300}\n"


@pytest.fixture
def world(old_python: Path) -> Iterator[World]:
    with World(AGENTS, settings=SETTINGS) as world:
        world.issue("alpha", "beta", "gamma", "limited", "stranger")
        yield world


@pytest.fixture
def server(world: World) -> Server:
    return world.server()


def play(world: World, server: Server, old_python: Path, *scene: str) -> Process:
    env = {"MAS_SERVER_ADDR": server.addr, "CERTS": str(world.certs)}
    return world.start([str(old_python), "-u", str(HERE / "old_client" / "play.py"), *scene], env)


def test_ping_pong_with_state_and_typed_handlers(world: World, server: Server, old_python: Path) -> None:
    scene = play(world, server, old_python, "ping_pong")
    for number in range(10):
        assert scene.json("pong") == {"event": "pong", "number": number, "total": number + 1}
    peers = scene.json("peers")
    assert peers["peers"] == [
        {"id": "beta", "capabilities": ["work"], "metadata": {"level": 3}, "status": "ACTIVE"}
    ]
    assert peers["none"] == []
    assert scene.json("state") == {"event": "state", "total": 10, "note": "last 9"}
    assert scene.json("state") == {"event": "state", "total": 0, "note": ""}
    assert scene.popen.wait(10) == 0


def test_refusals_are_the_same_exceptions_with_the_same_details(
    world: World, server: Server, old_python: Path
) -> None:
    scene = play(world, server, old_python, "refusals")
    expected = {
        "card": ("PERMISSION_DENIED", "dlp_blocked"),
        "denied": ("PERMISSION_DENIED", "not_authorized"),
        "unknown": ("PERMISSION_DENIED", "not_authorized"),
        "denied request": ("PERMISSION_DENIED", "not_authorized"),
        "nan": ("INVALID_ARGUMENT", "invalid_json"),
        "large": ("RESOURCE_EXHAUSTED", None),
        "fine": ("OK", None),
        "rate": ("RESOURCE_EXHAUSTED", "rate_limited"),
        "no session": ("FAILED_PRECONDITION", "session_not_connected"),
        "instance": ("INVALID_ARGUMENT", "invalid_instance_id"),
    }
    for name, (code, details) in expected.items():
        seen = scene.json("refusal")
        assert (seen["of"], seen["code"]) == (name, code), seen
        if details is not None:
            assert seen["details"] == details
        if name == "rate":
            assert 0 < int(seen["retry"]) <= 61_000
    assert scene.json("stranger") == {"event": "stranger", "started": False}
    assert scene.popen.wait(10) == 0


class Ping(BaseModel):
    number: int


async def test_both_generations_side_by_side(world: World, server: Server, old_python: Path) -> None:
    ca, cert, key = world.files("alpha")
    old = play(world, server, old_python, "serve")
    await asyncio.to_thread(old.json, "ready")
    # The SDK asks an agent of the old client …
    async with Agent(server.addr, credentials=Credentials(ca, cert, key)) as alpha:
        for number in range(5):
            reply = await alpha.request("beta", "ping", Ping(number=number), timeout=10)
            assert reply.data == {"number": number, "total": number + 1}
        await alpha.send("beta", "note", {"text": "héllo", "n": [1, 2.5, None]})
        received = await asyncio.to_thread(old.json, "received")
        assert received["data"] == {"text": "héllo", "n": [1, 2.5, None]} and received["sender"] == "alpha"
        # A handler that raises is a dead letter at once.
        await alpha.send("beta", "fail")
        give_up = asyncio.get_running_loop().time() + 10
        while world.redis("XLEN", "dlq:messages") != "1":
            assert asyncio.get_running_loop().time() < give_up
            await asyncio.sleep(0.01)
        assert "handler_error:ValueError" in world.redis("XRANGE", "dlq:messages", "-", "+")
    assert old.popen.stdin is not None
    old.popen.stdin.close()
    await asyncio.to_thread(old.json, "stopped")

    # … and the other way round, over state that the old client wrote.
    ca, cert, key = world.files("beta")
    beta = Agent(server.addr, credentials=Credentials(ca, cert, key))

    class Count(BaseModel):
        total: int = 0
        note: str = ""

    @beta.on("ping", Ping)
    async def pong(message: Message, ping: Ping) -> None:
        count = (await beta.get_state()).parse(Count)
        count.total += 1
        await beta.update_state(count)
        await message.reply("pong", {"number": ping.number, "total": count.total})

    async with beta:
        assert (await beta.get_state()).parse(Count) == Count(total=5, note="last 4")
        asking = play(world, server, old_python, "ask")
        for number in range(5):
            seen = await asyncio.to_thread(asking.json, "pong")
            assert seen == {"event": "pong", "number": number, "total": 6 + number}
        assert await asyncio.to_thread(asking.popen.wait, 10) == 0
