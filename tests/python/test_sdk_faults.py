"""What neither hangs nor gets lost when something unexpected happens, against the server in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mas_agent import Message, NoReply, NotConnected, Peer, RateLimited, Reject, Retry, SetupError, blocking
from mas_agent._intake import _reduced
from mas_agent._credentials import _holds_certificates
from mas_agent.mcp._inbox import Inbox
from mas_agent.mcp._peers import MAX_DESCRIPTION, tools_of
from mas_agent.mcp._place import token
from mas_agent.testing import FakeServer

from pydantic import BaseModel

from world import PATIENCE_S


class Memory(BaseModel):
    count: int = 0


async def until(condition: Any) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


async def test_an_unexpected_failure_of_the_connection_is_logged_and_it_is_made_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _holds_certificates("ä")
    agent = FakeServer().agent("alpha")
    dialer = agent._dialer
    assert dialer is not None
    real, tried = dialer.open, Counter[str]()

    def open_() -> Any:
        tried["open"] += 1
        if tried["open"] == 1:
            raise TypeError("unforeseen")
        return real()

    monkeypatch.setattr(dialer, "open", open_)
    async with agent:
        assert agent.is_connected
    assert any(one.exc_info and one.levelno == logging.ERROR for one in caplog.records)
    # Still known after the end.
    assert agent.agent_id == "alpha"


async def test_messages_that_nobody_looks_at_are_no_attempts() -> None:
    server = FakeServer(max_attempts=2)
    async with server.agent("alpha") as alpha:
        for _ in range(4):
            inbox = Inbox()
            desk = server.agent("desk", concurrency=1)
            desk.on_other(inbox.take)
            async with desk:
                sent = [await alpha.send("desk", "news") for _ in range(3)]
                await until(lambda: inbox.unread == 1)
                inbox.release()
        assert len(sent) == 3 and not server.dead_letters
        assert server._core.inboxes.waiting == 12


async def test_what_was_shown_is_acknowledged_when_the_client_comes_back() -> None:
    server, inbox = FakeServer(), Inbox()
    desk = server.agent("desk")
    desk.on_other(inbox.take)
    async with server.agent("alpha") as alpha, desk:
        for n in range(3):
            await alpha.send("desk", "news", {"n": n, "text": "x" * 100_000})
        await until(lambda: inbox.unread == 3)
        assert [one.data["n"] for one in inbox.show(10)] == [0, 1]
        assert [one.data["n"] for one in inbox.last_shown(10)] == [0, 1]
        await asyncio.sleep(0)
        assert not server._core.inboxes.is_idle
        inbox.confirm()
        assert [one.data["n"] for one in inbox.show(10)] == [2]
        inbox.confirm()
        await until(lambda: server._core.inboxes.is_idle)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups came with Python 3.11")
def test_a_group_of_exceptions_is_what_its_parts_are() -> None:
    soon, late = (RateLimited("RESOURCE_EXHAUSTED", "rate_limited", retry_after=wait) for wait in (1.0, 9.0))
    retry, other, gone = Retry("x"), ValueError("x"), NotConnected("x")
    for parts, meant in [([other], other), ([soon, late, gone], late), ([soon, retry], retry)]:
        group = ExceptionGroup("x", [ExceptionGroup("y", parts)])
        assert _reduced(group, (Retry,)) is meant
    group = ExceptionGroup("x", [soon, other])
    assert _reduced(group, (Retry,)) is group


async def test_half_a_character_is_refused_here_and_in_a_reason_it_is_replaced() -> None:
    server = FakeServer(backoff=(0.02,))
    beta = server.agent("beta")

    class Worse(Reject):
        def __str__(self) -> str:
            raise RuntimeError

    attempts: list[int] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        attempts.append(message.attempt)
        raise Worse if message.attempt == 1 else Reject("\ud800")

    async with server.agent("alpha") as alpha, beta:
        with pytest.raises(SetupError, match="surrogates"):
            await alpha.send("beta", "work", {"text": "\ud800"})
        with pytest.raises(SetupError, match="surrogates"):
            await alpha.update_state({"text": "\ud800"})
        await alpha.send("beta", "work")
        await until(lambda: server.dead_letters)
        assert server.dead_letters[0].reason == "?" and attempts == [1, 2]


async def test_an_address_that_swallows_packets_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = FakeServer().agent("alpha", connect_timeout=0.9)
    dialer = agent._dialer
    monkeypatch.setattr(type(dialer), "addresses", property(lambda _: 2))
    async with agent:
        assert agent._opened().link._welcome_timeout == 0.5


async def test_a_plain_handler_may_stop_and_drain_its_own_agent() -> None:
    server, handled = FakeServer(), Counter[str]()
    beta = server.agent("beta")

    @beta.on("drain")
    def drain(message: blocking.Message, agent: blocking.Agent) -> None:
        agent.drain(PATIENCE_S)
        message.reply("drained")
        agent.stop()
        handled["drain"] += 1

    async with server.agent("alpha") as alpha:
        await beta.start()
        began = time.monotonic()
        assert (await alpha.request("beta", "drain", timeout=PATIENCE_S)).type == "drained"
        await asyncio.wait_for(beta.wait(), PATIENCE_S)
        assert time.monotonic() - began < 5 and handled["drain"] == 1 and server._core.inboxes.is_idle


def facade(server: FakeServer, name: str) -> blocking.Agent:
    return blocking.Agent._of(server.agent(name, drain_timeout=0.1))


def test_a_handler_that_stops_the_facade_or_never_ends_does_not_hang_it() -> None:
    server = FakeServer()
    agent = facade(server, "alpha")
    called = threading.Event()

    @agent.on("stop")
    def stop(message: blocking.Message) -> None:
        agent.stop()
        called.set()

    @agent.on("exit")
    def leave(message: blocking.Message) -> None:
        sys.exit(3)

    @agent.on("stubborn")
    async def stubborn(message: Message) -> None:
        called.set()
        while True:
            try:
                await asyncio.sleep(PATIENCE_S)
            except asyncio.CancelledError:
                pass

    began = time.monotonic()
    with agent:
        agent.send("alpha", "exit")
        with pytest.raises(NoReply, match="handler_failed"):
            agent.request("alpha", "exit", timeout=PATIENCE_S)
        # A blocking call in the change, which runs beside the loop.
        changed = agent.change_state(Memory, lambda one: Memory(count=one.count + len(agent.discover()) + 1))
        assert changed.count == 1
        agent.send("alpha", "stubborn")
        assert called.wait(PATIENCE_S)
        called.clear()
        agent.send("alpha", "stop")
        assert called.wait(PATIENCE_S)
    assert time.monotonic() - began < 8 and agent.closed


def test_a_coroutine_that_exits_ends_the_facade_and_nobody_waits_for_ever() -> None:
    agent = facade(FakeServer(), "alpha")

    @agent.on("exit")
    async def leave(message: Message) -> None:
        sys.exit(3)

    agent.start()
    with pytest.raises(BaseException):
        agent.request("alpha", "exit", timeout=PATIENCE_S)
    with pytest.raises(NotConnected):
        agent.send("alpha", "exit")
    with pytest.raises(NotConnected):
        agent.stop()


async def test_a_wait_for_a_pending_reply_that_was_given_up_can_be_made_again() -> None:
    server, go = FakeServer(), asyncio.Event()
    beta = server.agent("beta")

    @beta.on("ask")
    async def ask(message: Message) -> None:
        await go.wait()
        await message.reply("answer")

    async with server.agent("alpha") as alpha, beta:
        async with alpha.commit() as commit:
            pending = commit.request("beta", "ask", timeout=PATIENCE_S)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(pending.get(), 0.05)
        go.set()
        assert (await pending.get()).type == "answer"


async def test_a_program_cannot_begin_a_loop_in_a_loop() -> None:
    """Of asyncio's own error a coroutine that nobody awaits would be left."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SetupError, match="await agent.serve"):
            FakeServer().agent("alpha").run()
        gc.collect()


async def test_an_agent_that_is_stopped_while_it_starts_does_not_start() -> None:
    agent = FakeServer().agent("alpha")
    stopping: list[asyncio.Task[None]] = []

    @agent.on_start
    async def connected() -> None:
        stopping.append(asyncio.create_task(agent.stop()))
        await asyncio.sleep(0)

    @agent.task
    async def never() -> None:
        raise AssertionError("not begun")

    with pytest.raises(NotConnected, match="stopped"):
        await agent.start()
    assert agent.closed and stopping


async def test_a_lost_session_is_an_attempt_at_the_server_in_memory() -> None:
    server, attempts = FakeServer(max_attempts=2), list[int]()
    beta = server.agent("beta")

    @beta.on("work")
    async def work(message: Message) -> None:
        attempts.append(message.attempt)
        await asyncio.sleep(PATIENCE_S)

    async with server.agent("alpha") as alpha:
        await alpha.send("beta", "work")
        for number in (1, 2):
            # A process that dies stops nothing.
            beta = server.agent("beta", drain_timeout=0.01)
            beta.on("work")(work)
            await beta.start()
            await until(lambda: len(attempts) == number)
            server.disconnect("beta")
            await beta.stop()
        assert attempts == [1, 2] and [one.reason for one in server.dead_letters] == ["max_attempts"]


def test_a_token_is_a_short_text_that_its_owner_alone_can_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"x" * 20 + b"\n")
    for mode, content, said in [(0o640, b"x" * 20, "owner"), (0o600, b"\xff" * 20, "UTF-8"), (0o600, b"x" * 5000, "4096")]:
        file.write_bytes(content)
        file.chmod(mode)
        with pytest.raises(SetupError, match=said):
            token(file)


def test_what_is_cut_of_a_description_is_not_the_agents_name() -> None:
    metadata = {"tools": {"c": {"description": "long " * 2000}}}
    [tool] = tools_of([Peer("quotes", ("c",), metadata, "ACTIVE")]).values()
    assert len(tool.description) == MAX_DESCRIPTION and tool.description.endswith("(Asks agent quotes, capability c.)")
