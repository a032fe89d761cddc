"""What neither hangs nor gets lost when something unexpected happens, against the server in memory."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from typing import Any

import pytest
from mas_agent import Message, NotConnected, RateLimited, Reject, Retry, SetupError
from mas_agent._intake import _reduced
from mas_agent._credentials import _holds_certificates
from mas_agent.mcp._inbox import Inbox
from mas_agent.testing import FakeServer

from world import PATIENCE_S


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
        assert server._core.waiting == 12


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
        assert not server._core.is_idle
        inbox.confirm()
        assert [one.data["n"] for one in inbox.show(10)] == [2]
        inbox.confirm()
        await until(lambda: server._core.is_idle)


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
