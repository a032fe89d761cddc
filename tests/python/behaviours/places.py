"""Where the behaviours are tried: at a real server, and at the one in memory that users' tests have."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mas_agent import Agent, Credentials
from mas_agent.testing import FakeServer

from world import PATIENCE_S, Server, World

behaviour = pytest.mark.behaviour
both = pytest.mark.parametrize("place", ["real", "fake"], indirect=True)
real = pytest.mark.parametrize("place", ["real"], indirect=True)
fake = pytest.mark.parametrize("place", ["fake"], indirect=True)

NAMES = [f"n{number}" for number in range(120)]
GATEWAY = (
    "rate_limit: {per_minute: 1000000, per_hour: 10000000}, "
    "circuit_breaker: {failure_threshold: 3, timeout_seconds: 1, success_threshold: 1}"
)
SETTINGS = "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [20, 40], max_attempts: 4}\n"
STRANGER = "stranger"


async def until(condition: Callable[[], Any], what: str) -> Any:
    """What the condition returns once it is true."""
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not in time: {what}"
        await asyncio.sleep(0.01)
    return value


async def soon(waited: Any) -> Any:
    """What is awaited, within the patience."""
    return await asyncio.wait_for(waited, PATIENCE_S)


def configuration(names: list[str]) -> str:
    """Agents that may all message each other."""
    rules = "".join(f"  - {{type: allow_wildcard, agent_id: {name}}}\n" for name in names)
    return f"permissions:\n{rules}agents:\n" + "".join(f"  - {{agent_id: {name}}}\n" for name in names)


def agent_of(world: World, server: Server, name: str, **options: Any) -> Agent:
    """An agent of a real server."""
    return Agent(server.addr, credentials=Credentials(*world.files(name)), **options)


class Real:
    """One real server for all tests; each takes agents of its own."""

    is_real = True

    def __init__(self) -> None:
        self.world = World(configuration(NAMES), gateway=GATEWAY, settings=SETTINGS)
        self.world.issue(*NAMES, STRANGER)
        self.server = self.world.server()
        self._names = iter(NAMES)

    def name(self) -> str:
        return next(self._names)

    def agent(self, name: str = "", **options: Any) -> Agent:
        return agent_of(self.world, self.server, name or self.name(), **options)

    def stranger(self, **options: Any) -> Agent:
        return self.agent(STRANGER, **options)

    def dead(self, message_id: str) -> str | None:
        """Why this message is a dead letter, if it is one."""
        lines = self.world.redis("XRANGE", "dlq:messages", "-", "+").split("\n")
        ids: list[str] = []
        for name, value in zip(lines, lines[1:]):
            if name == "envelope":
                ids.append(json.loads(value)["message_id"])
            elif name == "reason" and ids[-1] == message_id:
                return value
        return None

    def key_lifetimes(self, name: str) -> dict[str, float]:
        """For how long each idempotency key of an agent is still remembered, in seconds."""
        prefix = f"mas.idempotency:{name}:"
        found = [key for key in self.world.redis("KEYS", f"{prefix}*").split("\n") if key]
        return {key.removeprefix(prefix): int(self.world.redis("PTTL", key)) / 1000 for key in found}

    def is_settled(self, name: str) -> bool:
        """Whether nothing that was delivered waits for its acknowledgement."""
        return self.world.redis("XPENDING", f"agent.stream:{name}", "agents").split("\n")[0] == "0"

    def close(self) -> None:
        self.world.close()


class Fake:
    """A server in memory for each test."""

    is_real = False

    def __init__(self) -> None:
        self._names = (f"n{number}" for number in itertools.count())
        self.server = FakeServer(
            ((one, other) for one in NAMES for other in NAMES), max_attempts=4, backoff=(0.02, 0.04)
        )
        self.server.shut_out(STRANGER)

    def name(self) -> str:
        return next(self._names)

    def agent(self, name: str = "", **options: Any) -> Agent:
        return self.server.agent(name or self.name(), **options)

    def stranger(self, **options: Any) -> Agent:
        return self.agent(STRANGER, **options)

    def dead(self, message_id: str) -> str | None:
        return next((one.reason for one in self.server.dead_letters if one.message.message_id == message_id), None)

    def key_lifetimes(self, name: str) -> dict[str, float]:
        return self.server._core.keys.lifetimes(name)

    def is_settled(self, name: str) -> bool:
        return not any(one.held for one in self.server._core.inboxes.sessions if one.agent_id == name)

    def close(self) -> None:
        pass


Place = Real | Fake


@pytest.fixture(scope="session")
def real_place() -> Iterator[Real]:
    place = Real()
    yield place
    place.close()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Parametrised with "real" or "fake"."""
    return request.getfixturevalue("real_place") if request.param == "real" else Fake()
