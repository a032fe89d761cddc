"""The agent of programs without an event loop, and how a program ends, against the real server."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from mas_agent import Credentials, Message, NoReply, NotAuthorized, SetupError, blocking
from pydantic import BaseModel

from world import PATIENCE_S, UNLIMITED, Server, World

AGENTS = """
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta, capabilities: [work]}
"""


class Memory(BaseModel):
    count: int = 0


@pytest.fixture
def world() -> Iterator[World]:
    with World(AGENTS, gateway=UNLIMITED) as world:
        world.issue("alpha", "beta", "stranger")
        yield world


@pytest.fixture
def server(world: World) -> Server:
    return world.server()


def agent(world: World, server: Server, name: str) -> blocking.Agent:
    return blocking.Agent(server.addr, credentials=Credentials(*world.files(name)))


def play(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")

    @beta.on("ask")
    def ask(message: blocking.Message, me: blocking.Agent) -> None:
        me.update_state({"asked": message.data["n"]})
        message.reply("answer", {"n": message.data["n"] + 1})

    @beta.on("wait")
    async def wait(message: Message) -> None: ...

    with alpha, beta:
        assert (alpha.agent_id, alpha.is_connected, alpha.closed, alpha.backlog) == ("alpha", True, False, 0)
        assert alpha.request("beta", "ask", {"n": 1}, timeout=10).data == {"n": 2}
        assert alpha.send("beta", "wait").message_id
        assert [peer.agent_id for peer in alpha.discover("work")] == ["beta"]
        assert beta.get_state().fields == {"asked": "1"}
        assert alpha.change_state(Memory, lambda one: Memory(count=one.count + 1)).count == 1
        with alpha.commit() as commit:
            commit.update_state({"a": 1})
            pending = commit.request("beta", "ask", {"n": 2}, timeout=10)
        assert pending.get().data == {"n": 3} and commit.version == 2
        alpha.reset_state()
        with pytest.raises(NotAuthorized) as refused:
            alpha.send("nobody", "ask")
        with pytest.raises(NoReply):
            alpha.request("beta", "wait", timeout=0.2)
        beta.drain()
        # As a pool of processes hands it on.
        assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert alpha.closed
    with pytest.raises(SetupError, match="not started"):
        alpha.send("beta", "ask")
    with agent(world, server, "alpha") as again:
        assert again.is_connected


def test_a_script(world: World, server: Server) -> None:
    play(world, server)
    assert not [one for one in threading.enumerate() if one.name.startswith("mas-agent")]


async def test_inside_a_running_loop(world: World, server: Server) -> None:
    """As in a notebook."""
    play(world, server)
    await asyncio.sleep(0)


def test_a_start_that_fails_leaves_no_thread(world: World, server: Server) -> None:
    stranger = agent(world, server, "stranger")
    with pytest.raises(Exception, match="agent_not_allowlisted"):
        stranger.start()
    assert not [one for one in threading.enumerate() if one.name == "mas-agent"]


async def test_a_blocking_call_in_the_loop_that_it_waits_for_is_refused(world: World, server: Server) -> None:
    alpha = agent(world, server, "alpha")
    failed: list[BaseException] = []

    @alpha.on("ask")
    async def ask(message: Message) -> None:
        try:
            alpha.get_state()
        except SetupError as error:
            failed.append(error)
        await message.reply("answer")

    with alpha, agent(world, server, "beta") as beta:
        beta.request("alpha", "ask", timeout=10)
    assert "would stop the event loop" in str(failed[0])


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "MAS_SERVER_ADDR, MAS_TLS_CA, MAS_TLS_CERT and MAS_TLS_KEY are not set"),
        ({"stranger": "1"}, "agent_not_allowlisted"),
    ],
)
def test_a_program_that_cannot_start_ends_with_one_line(
    world: World, server: Server, environment: dict[str, str], said: str
) -> None:
    """As `python agent.py` by hand."""
    env = world.env("stranger", server.addr) if environment else {}
    done = subprocess.run(
        [sys.executable, "-c", "from mas_agent import Agent; Agent().run()"],
        env={**{"PATH": "", "PYTHONPATH": ":".join(sys.path)}, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1 and said in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("mas_agent: ")
