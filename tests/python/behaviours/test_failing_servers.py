"""Beside servers that fail: an agent that forwards, asks and counts, and nothing of it is lost or buried."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
from mas_agent import Agent, MasError, Message
from places import GATEWAY, agent_of, behaviour, configuration, until
from pydantic import BaseModel

from world import Server, World

SETTINGS = "delivery: {reclaim_idle_ms: 500, retry_backoff_ms: [20, 40], max_attempts: 4}\n"
NAMES = ["alpha", "beta", "gamma"]
# Longer than what a server's lease lasts without a renewal.
PAUSE_S = 6.0


class Memory(BaseModel):
    count: int = 0


@pytest.fixture
def world() -> Iterator[World]:
    with World(configuration(NAMES), gateway=GATEWAY, settings=SETTINGS) as world:
        world.issue(*NAMES)
        yield world


class Traffic:
    """alpha sends to beta, whose handler asks gamma, counts in its state, and forwards to gamma."""

    def __init__(self, world: World, server: Server) -> None:
        self.world = world
        self.alpha, self.beta, self.gamma = (agent_of(world, server, name, instance_id="i0") for name in NAMES)
        self.sent: dict[str, str] = {}
        self.got: Counter[str] = Counter()
        self.failed: list[MasError] = []
        beta, gamma = self.beta, self.gamma

        @beta.on("work")
        async def work(message: Message, agent: Agent) -> None:
            await agent.request("gamma", "ask", timeout=5)
            await agent.change_state(Memory, lambda memory: Memory(count=memory.count + 1))
            await agent.send("gamma", "done", message.data)

        @gamma.on("ask")
        async def ask(message: Message) -> None:
            await message.reply("answer")

        @gamma.on("done")
        async def done(message: Message) -> None:
            self.got[message.data["n"]] += 1

    async def run(self, disturb: Callable[[], Awaitable[None]], seconds: float = 1.5) -> None:
        async with self.alpha, self.beta, self.gamma:
            sending = asyncio.create_task(self._send(seconds))
            await until(lambda: len(self.got) >= 20, "it runs")
            await disturb()
            await sending
            await until(lambda: set(self.sent) <= set(self.got), "everything has arrived")
            state = (await self.beta.get_state()).parse(Memory)
        assert not self.failed and len(self.sent) > 20
        assert state.count >= len(self.sent)
        assert self.world.redis("XLEN", "dlq:messages") == "0"

    async def _send(self, seconds: float) -> None:
        give_up = asyncio.get_running_loop().time() + seconds
        number = 0
        while asyncio.get_running_loop().time() < give_up or number < 60:
            number += 1
            try:
                sent = await self.alpha.send("beta", "work", {"n": str(number)})
                self.sent[str(number)] = sent.message_id
            except MasError as error:
                self.failed.append(error)
            await asyncio.sleep(0.01)


@behaviour("survives.kill")
async def test_killed_servers(world: World) -> None:
    server = await asyncio.to_thread(world.server)
    current = server

    async def disturb() -> None:
        nonlocal current
        for _ in range(3):
            await asyncio.to_thread(current.kill)
            await asyncio.sleep(0.1)
            current = await asyncio.to_thread(world.server, server.addr)
            await asyncio.sleep(0.3)

    await Traffic(world, server).run(disturb)


@behaviour("survives.pause")
async def test_a_server_that_is_stopped_for_longer_than_its_lease(world: World) -> None:
    """The other one takes over what it served, and it may end when it goes on: its agents have the other's address, too."""
    first = await asyncio.to_thread(world.server)
    second = await asyncio.to_thread(world.server)
    traffic = Traffic(world, first)
    traffic.gamma._address = second.addr
    for agent in (traffic.alpha, traffic.beta):
        agent._address = [first.addr, second.addr]

    async def disturb() -> None:
        os.kill(first.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S)
        finally:
            os.kill(first.pid, signal.SIGCONT)

    await traffic.run(disturb)


@behaviour("survives.pause")
async def test_a_server_that_is_stopped_for_longer_than_its_lease_alone(world: World) -> None:
    server = await asyncio.to_thread(world.server)

    async def disturb() -> None:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(PAUSE_S)
        finally:
            os.kill(server.pid, signal.SIGCONT)

    await Traffic(world, server).run(disturb)


@behaviour("survives.reload")
async def test_a_server_that_is_reloaded(world: World) -> None:
    server = await asyncio.to_thread(world.server)

    async def disturb() -> None:
        for backoff in (30, 40, 50):
            settings = SETTINGS.replace("[20, 40]", f"[20, {backoff}]")
            world.configure(configuration(NAMES), gateway=GATEWAY, settings=settings)
            os.kill(server.pid, signal.SIGHUP)
            await asyncio.sleep(0.2)

    await Traffic(world, server).run(disturb)


@behaviour("survives.limits")
async def test_an_agent_that_forwards_to_a_full_inbox(world: World) -> None:
    world.configure(configuration(NAMES), gateway=GATEWAY, settings=f"{SETTINGS}limits: {{max_queue_len: 10}}\n")
    server = await asyncio.to_thread(world.server)
    alpha, beta, gamma = (agent_of(world, server, name, instance_id="i0") for name in NAMES)
    gone: Counter[str] = Counter()
    got: Counter[int] = Counter()

    @beta.on("work")
    async def forward(message: Message, agent: Agent) -> None:
        gone["tried"] += 1
        await agent.send("gamma", "done", message.data)

    @gamma.on("done")
    async def done(message: Message) -> None:
        got[message.data["n"]] += 1

    async with beta:
        async with alpha:
            for n in range(10):
                await alpha.send("gamma", "done", {"n": n})
            for n in range(10, 18):
                await alpha.send("beta", "work", {"n": n})
            await until(lambda: gone["tried"] > 16, "the inbox is full, and they come again")
            assert world.redis("XLEN", "dlq:messages") == "0"
        async with gamma:
            await until(lambda: len(got) == 18, "everything has arrived")
    assert set(got.values()) == {1} and world.redis("XLEN", "dlq:messages") == "0"


@behaviour("survives.limits")
async def test_an_agent_that_sends_more_than_its_rate_allows(world: World) -> None:
    """What is over the limit comes again a minute later, by the server's time: until then it lies there, unburied, and
    nothing is shut out."""
    world.configure(LIMITED, gateway=GATEWAY, settings=SETTINGS)
    server = await asyncio.to_thread(world.server)
    alpha, beta, gamma = (agent_of(world, server, name, instance_id="i0") for name in NAMES)
    tried: Counter[str] = Counter()

    @beta.on("work")
    async def forward(message: Message, agent: Agent) -> None:
        tried[message.id] += 1
        await agent.send("gamma", "done")

    @beta.on("ping")
    async def ping(message: Message, agent: Agent) -> None:
        assert (await agent.get_state()).fields == {}
        tried["ping"] += 1

    gamma.on_other(lambda message: None)
    async with alpha, beta, gamma:
        await asyncio.gather(*(alpha.send("beta", "work") for _ in range(60)))
        await until(lambda: len(tried) == 60, "all were tried")
        # No circuit is open, and others are handled.
        await alpha.send("beta", "ping")
        await until(lambda: tried["ping"], "another message")
        assert world.redis("XLEN", "dlq:messages") == "0"
        assert max(tried.values()) == 1


LIMITED = """agents:
  - {agent_id: alpha}
  - {agent_id: gamma}
  - {agent_id: beta, rate_limit: {per_minute: 20, per_hour: 100000}}
permissions: [{type: allow_wildcard, agent_id: alpha}, {type: allow_wildcard, agent_id: beta}]
"""
