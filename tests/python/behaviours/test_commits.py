"""Replies, and commits."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from mas_agent import (
    Agent,
    InvalidRequest,
    Message,
    NoReply,
    Refused,
    Reject,
    SetupError,
    Unsupported,
    VersionMismatch,
)
from mas_agent.testing import FakeServer
from places import Fake, Place, agent_of, behaviour, both, configuration, fake, soon, until

from world import World


@behaviour("reply.late")
@both
async def test_a_reply_that_nobody_waits_for_fails_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    asked, go, through = Counter[str](), asyncio.Event(), Counter[str]()

    @beta.on_raw("reply")
    async def reply(message: Message) -> None:
        asked["reply"] += 1
        await go.wait()
        sent = await message.reply("answer")
        assert sent.late and not sent.message_id
        through["reply"] += 1

    @beta.on_raw("commit")
    async def commit(message: Message) -> None:
        asked["commit"] += 1
        await go.wait()
        async with message.commit() as commit:
            commit.update_state({"done": True})
            commit.send(name, "aside")
            commit.reply("answer")
        assert [one.late for one in commit.sent] == [False, True]
        through["commit"] += 1

    @beta.on_raw("aside")
    async def aside(message: Message) -> None:
        through["aside"] += 1

    async def ask(kind: str) -> None:
        with pytest.raises(NoReply):
            await alpha.request(name, kind, timeout=0.5)

    async with alpha, beta:
        await asyncio.gather(ask("reply"), ask("commit"))
        assert asked == {"reply": 1, "commit": 1}
        # The server counts whole seconds.
        await asyncio.sleep(1.2)
        go.set()
        await until(lambda: through == {"reply": 1, "commit": 1, "aside": 1}, "both are through")
        await until(lambda: place.is_settled(name), "both are acknowledged")
        assert (await beta.get_state()).fields == {"done": "true"}
    assert len([one for one in caplog.records if "nobody waits for it any more" in one.getMessage()]) == 2


@behaviour("reply.unasked")
@both
async def test_a_reply_to_a_message_that_asked_for_none_says_so(place: Place) -> None:
    alpha, beta = place.agent(sender := place.name()), place.agent(name := place.name())
    errors: asyncio.Queue[Any] = asyncio.Queue()

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        try:
            await message.reply("answer")
        except InvalidRequest as error:
            errors.put_nowait(error)

    async with alpha, beta:
        sent = await alpha.send(name, "work")
        error = await soon(errors.get())
    assert str(error) == (
        f'reply "answer": "work" from {sender} ({sent.message_id}) asked for no reply; answer with agent.send '
        f"(missing_correlation_id)"
    )


@behaviour("commit.whole")
@both
async def test_a_commit_is_all_or_nothing(place: Place) -> None:
    alpha, beta = place.agent(sender := place.name()), place.agent(name := place.name())
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    failed: asyncio.Queue[Refused] = asyncio.Queue()

    @alpha.on_raw("next")
    async def take(message: Message) -> None:
        arrived.put_nowait(message)

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        try:
            async with message.commit() as commit:
                commit.update_state({"done": message.data["n"]})
                commit.send(sender, "next", message.data)
                if "forbidden" in message.data:
                    commit.send("nobody-at-all", "next")
        except Refused as error:
            failed.put_nowait(error)
            raise Reject("refused") from error

    async with alpha, beta:
        await alpha.send(name, "work", {"n": 1})
        assert (await soon(arrived.get())).data == {"n": 1}
        await until(lambda: place.is_settled(name), "it is acknowledged")
        sent = await alpha.send(name, "work", {"n": 2, "forbidden": True})
        assert (await soon(failed.get())).detail == "not_authorized"
        await until(lambda: place.dead(sent.message_id), "the dead letter")
        assert (await beta.get_state()).fields == {"done": "1"} and arrived.empty()
        with pytest.raises(VersionMismatch):
            async with beta.commit() as commit:
                commit.update_state({"done": 3}, expected_version=99)
                commit.send(sender, "next")
        assert (await beta.get_state()).fields == {"done": "1"} and arrived.empty()


@behaviour("commit.whole")
@both
async def test_a_commit_that_answers_its_message_twice_is_refused_there(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    failed: asyncio.Queue[SetupError] = asyncio.Queue()

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        commit = message.commit()
        commit.reply("answer", {"n": 1})
        with pytest.raises(SetupError, match="^this commit answers its message already$") as error:
            commit.reply("answer", {"n": 2})
        failed.put_nowait(error.value)
        # It stands as it was.
        async with commit:
            pass

    async with alpha, beta:
        assert (await alpha.request(name, "ask", timeout=20)).data == {"n": 1}
        assert failed.qsize() == 1


LONG = 200_000


@behaviour("commit.whole")
async def test_a_commit_that_is_longer_than_the_server_takes_is_not_sent() -> None:
    settings = f"limits: {{max_message_bytes: {LONG}, max_state_bytes: {LONG}}}\n"
    with World(configuration(["alpha", "beta"]), settings=settings) as world:
        server = await asyncio.to_thread(world.server)
        async with agent_of(world, server, "alpha") as alpha:
            await one_that_is_too_long(alpha)


@behaviour("commit.whole")
async def test_so_it_is_at_the_server_in_memory() -> None:
    async with FakeServer(max_event_bytes=LONG + 64 * 1024) as server, server.agent("alpha") as alpha:
        await one_that_is_too_long(alpha)
    # Where a server does not say, it is a mebibyte.
    async with FakeServer(max_event_bytes=0) as server, server.agent("alpha") as alpha:
        await commit_of(alpha, 2**20 - 100)
        with pytest.raises(SetupError, match="the server takes at most 1048576$"):
            await commit_of(alpha, 2**20)


async def one_that_is_too_long(alpha: Agent) -> None:
    session = alpha._opened().link.current
    # Longer and longer, by a byte each time: what counts is the whole event.
    most = LONG + 64 * 1024
    for size in range(most - 64, most):
        try:
            await commit_of(alpha, size)
        except SetupError as error:
            assert str(error) == f"commit: {most + 1} bytes, and the server takes at most {most}"
            break
        except Refused as error:
            assert error.detail == "state_too_large"
    else:
        raise AssertionError("none was too long")
    # The stream has gone on.
    assert alpha._opened().link.current is session
    await commit_of(alpha, 1)


async def commit_of(agent: Agent, size: int) -> None:
    """A commit of so many bytes, and a few around them."""
    async with agent.commit(timeout=20) as commit:
        commit.update_state({"a": "x" * size})


@behaviour("commit.whole")
@fake
async def test_a_commit_meets_the_bound_of_a_session_that_came_meanwhile(place: Fake) -> None:
    async with place.agent(name := place.name()) as alpha:
        await commit_of(alpha, LONG)
        place.server.refuse("overloaded", operation="commit")
        committing = asyncio.create_task(commit_of(alpha, LONG))
        await until(lambda: alpha.backlog, "it waits to be made again")
        place.server._max_event_bytes = LONG
        place.server.disconnect(name)
        with pytest.raises(SetupError, match=f"^commit: [0-9]+ bytes, and the server takes at most {LONG}$"):
            await soon(committing)


@behaviour("commit.whole")
@fake
async def test_a_commit_takes_the_newest_delivery(place: Fake) -> None:
    """The connection is lost before it: the message is delivered anew, and the commit goes on with that delivery."""
    alpha, beta = place.agent(), place.agent(name := place.name())
    handled: list[str] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        place.server.disconnect(name)
        place.server.refuse("delivery_not_held", operation="commit", sender=name, times=2)
        async with message.commit() as commit:
            commit.update_state({"done": message.id})
        handled.append(message.id)

    @beta.on_raw("moved")
    async def moved(message: Message) -> None:
        if message.attempt == 1 and not handled[1:]:
            handled.append(message.id)
            place.server.refuse("delivery_not_held", operation="commit", sender=name, times=4)
        async with message.commit() as commit:
            commit.update_state({"moved": message.id})

    async with alpha, beta:
        sent = await alpha.send(name, "work")
        await until(lambda: handled, "it is committed")
        await place.server.idle()
        assert handled == [sent.message_id] and place.server.state(name) == {"done": sent.message_id}
        # It is tried a few times, and then the message comes again later.
        sent = await alpha.send(name, "moved")
        await until(lambda: "moved" in place.server.state(name), "it is committed later")
        await place.server.idle()
    assert not place.server.dead_letters and not place.server._core.faults


async def test_a_server_without_commits_gets_none() -> None:
    async with FakeServer(features=["submit"]) as server:
        async with server.agent("alpha") as alpha:
            with pytest.raises(Unsupported, match="commit: "):
                async with alpha.commit() as commit:
                    commit.update_state({"a": 1})
