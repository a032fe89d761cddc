"""The life of a call."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from mas_agent import (
    Agent,
    DlpBlocked,
    Finding,
    Message,
    NoReply,
    NotAuthorized,
    NotConnected,
    OutcomeUnknown,
    RateLimited,
    Refused,
    Reject,
    Retry,
    SetupError,
    Unsupported,
    VersionMismatch,
)
from mas_agent._replies import MAX_EARLY_REPLIES, Replies, Unanswered
from mas_agent.testing import FakeServer
from places import Fake, Place, Real, agent_of, behaviour, both, configuration, fake, real, soon, until
from pydantic import BaseModel

from world import UNLIMITED, World


class Memory(BaseModel):
    count: int = 0
    notes: list[str] = []


def hears(agent: Agent, kind: str = "work") -> list[Message]:
    """What arrives at an agent."""
    arrived: list[Message] = []

    @agent.on_raw(kind)
    async def take(message: Message) -> None:
        arrived.append(message)

    return arrived


@behaviour("call.deadline")
@both
async def test_a_calls_time_bounds_all_of_it(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())

    @beta.on_raw("silent")
    async def silent(message: Message) -> None: ...

    async with alpha, beta:
        began = time.monotonic()
        with pytest.raises(NoReply):
            await alpha.request(name, "silent", timeout=0.2)
        assert 0.15 < time.monotonic() - began < 5
        nan, infinite = float("nan"), float("inf")
        for timeout in (0, -1, nan, infinite):
            for call in (
                lambda: alpha.request(name, "silent", timeout=timeout),
                lambda: alpha.send(name, "silent", timeout=timeout),
                lambda: alpha.get_state(timeout=timeout),
                lambda: alpha.change_state(Memory, lambda memory: None, timeout=timeout),
            ):
                with pytest.raises(SetupError, match=f"^[^ ]*timeout {timeout}: expected more than 0"):
                    await soon(call())
        for time_to_live in (0, nan, infinite, 1e30):
            with pytest.raises(SetupError, match="is no time"):
                await alpha.send(name, "silent", ttl=time_to_live)


@behaviour("call.repeat")
@fake
async def test_a_key_that_is_none_is_refused_before_it_is_sent(place: Fake) -> None:
    """An empty one would be no key, and a lost answer would be asked for again without one."""
    async with place.agent() as alpha:
        for key in ("", "ä", "a b", "x" * 65):
            place.server.lose_answers("send")
            with pytest.raises(SetupError, match="idempotency_key"):
                await alpha.send("n1", "work", idempotency_key=key)
            with pytest.raises(SetupError, match="idempotency_key"):
                alpha.commit().send("n1", "work", idempotency_key=key)
        assert not place.server.messages


@behaviour("call.deadline")
@fake
async def test_a_calls_time_bounds_the_wait_for_a_connection(place: Fake) -> None:
    alpha = place.agent(name := place.name(), refused_retry=0.01)
    async with alpha:
        place.server.shut_out(name, "overloaded")
        await until(lambda: not alpha.is_connected, "the loss is seen")
        for call in (
            alpha.send("n1", "work", timeout=0.05),
            alpha.request("n1", "work", timeout=0.05),
            alpha.get_state(timeout=0.05),
            alpha.change_state(Memory, lambda memory: None, timeout=0.05),
        ):
            began = time.monotonic()
            with pytest.raises(NotConnected, match="overloaded"):
                await call
            assert time.monotonic() - began < 5


@behaviour("call.passing")
@fake
async def test_what_passes_is_waited_for(place: Fake) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    async with alpha, beta:
        for detail in ("overloaded", "storage_unavailable", "server_stopping", "session_not_connected"):
            place.server.refuse(detail, times=2)
            assert (await alpha.send(name, "work")).message_id
            place.server.refuse(detail, times=2)
            assert (await alpha.get_state()).fields == {}
        place.server.refuse("overloaded", retry_after=0.3)
        began = time.monotonic()
        await alpha.send(name, "work")
        assert time.monotonic() - began >= 0.3
        # Not longer than the call's time.
        place.server.refuse("overloaded", retry_after=60, times=1)
        with pytest.raises(Refused, match="overloaded"):
            await alpha.send(name, "work", timeout=0.2)
        # Others are the caller's.
        place.server.refuse("rate_limited", retry_after=0.01)
        with pytest.raises(RateLimited):
            await alpha.send(name, "work")


@behaviour("call.repeat")
@fake
async def test_a_lost_answer_is_asked_for_again(place: Fake) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    arrived = hears(beta)

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        await message.reply("answer", {"n": 1})

    async with alpha, beta:
        place.server.lose_answers("send", "request", "get_state")
        sent = await alpha.send(name, "work")
        assert (await alpha.request(name, "ask", timeout=10)).data == {"n": 1}
        assert (await alpha.get_state()).version == 0
        # Too long for the stream.
        place.server.lose_answers("send")
        long = await alpha.send(name, "work", {"a": "x" * 100_000})
        await place.server.idle()
        assert [one.id for one in arrived] == [sent.message_id, long.message_id]
        assert Counter(one.type for one in place.server.messages) == {"work": 2, "ask": 1, "answer": 1}


@behaviour("call.repeat")
async def test_many_lost_answers_of_a_killed_server_are_asked_for_again() -> None:
    with World(configuration(["alpha", "beta"]), gateway=UNLIMITED, settings="delivery: {reclaim_idle_ms: 300}\n") as world:
        world.issue("alpha", "beta")
        server = await asyncio.to_thread(world.server)
        alpha, beta = agent_of(world, server, "alpha"), agent_of(world, server, "beta")
        arrived = hears(beta)
        async with alpha, beta:
            sends = [asyncio.create_task(alpha.send("beta", "work", {"n": n})) for n in range(300)]
            await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(world.server, server.addr)
            sent = await soon(asyncio.gather(*sends))
            await until(lambda: len({one.data["n"] for one in arrived}) == 300, "all have arrived")
        assert {one.id for one in arrived} == {one.message_id for one in sent}


@behaviour("call.repeat")
@both
async def test_a_key_of_the_librarys_is_remembered_for_the_calls_time_and_a_minute(place: Place) -> None:
    alpha = place.agent(one := place.name(), call_timeout=40)
    beta = place.agent(other := place.name(), repeat_sends=False)

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        await message.reply("answer")

    hears(alpha)
    hears(beta)

    def lifetimes(name: str) -> list[float]:
        return sorted(place.key_lifetimes(name).values())

    async with alpha, beta:
        await alpha.send(other, "work")
        await alpha.send(other, "work", {"a": "x" * 100_000}, timeout=7)
        await alpha.request(other, "ask", timeout=20)
        found = await asyncio.to_thread(lifetimes, one)
        assert len(found) == 3 and all(near - 5 < one <= near for one, near in zip(found, (67, 80, 100))), found
        # As long as the server remembers any: the caller may come back to it.
        await alpha.send(other, "work", idempotency_key="mine")
        assert (await asyncio.to_thread(place.key_lifetimes, one))["mine"] > 590
        await beta.send(one, "work")
        assert not await asyncio.to_thread(lifetimes, other)
        await beta.send(one, "work", idempotency_key="its")
        assert list(await asyncio.to_thread(place.key_lifetimes, other)) == ["its"]


@behaviour("call.repeat")
@fake
async def test_without_keys_of_the_librarys_a_lost_answer_is_unknown(place: Fake) -> None:
    alpha, beta = place.agent(repeat_sends=False), place.agent(name := place.name())
    hears(beta)

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        await message.reply("answer")

    async with alpha, beta:
        for size in (0, 100_000):
            place.server.lose_answers("send")
            with pytest.raises(OutcomeUnknown, match=f'^send "work" to {name}: '):
                await alpha.send(name, "work", {"a": "x" * size})
        place.server.lose_answers("request")
        with pytest.raises(OutcomeUnknown, match=f'^request "ask" to {name}: '):
            await alpha.request(name, "ask", timeout=10)
        await place.server.idle()
        before = len(place.server.messages)
        # What has happened for sure, or not at all, goes on as usual.
        place.server.refuse("overloaded")
        await alpha.send(name, "work")
        # A caller's key does.
        place.server.lose_answers("send", "request")
        await alpha.send(name, "work", idempotency_key="a")
        await alpha.request(name, "ask", timeout=10, idempotency_key="b")
        await place.server.idle()
        assert len(place.server.messages) == before + 4


@behaviour("call.unknown")
@fake
async def test_what_is_not_made_again_is_unknown_only_where_the_answer_was_lost(place: Fake) -> None:
    async with place.agent() as alpha:
        for operation, call in [
            ("update_state", lambda: alpha.update_state({"a": 1})),
            ("reset_state", lambda: alpha.reset_state()),
            ("commit", lambda: commit(alpha)),
        ]:
            place.server.lose_answers(operation)
            with pytest.raises(OutcomeUnknown, match=f"^{operation}: "):
                await call()
            await until(lambda: alpha.is_connected, "it is back")
        for detail in ("audit_unavailable", "storage_full", "audit_full"):
            place.server.refuse(detail)
            with pytest.raises(Refused, match=detail):
                await alpha.update_state({"a": 1})
        place.server.refuse("commit_unknown", operation="update_state")
        with pytest.raises(OutcomeUnknown):
            await alpha.update_state({"a": 1})
    async with FakeServer(features=["submit"]) as server, server.agent("alpha") as alpha:
        # It knows no keys.
        server.lose_answers("send")
        with pytest.raises(OutcomeUnknown, match='^send "work" to beta: '):
            await alpha.send("beta", "work")
        assert len(server.messages) == 1


async def commit(agent: Agent) -> None:
    async with agent.commit() as commit:
        commit.update_state({"a": 1})


@behaviour("call.cancelled")
@both
async def test_a_cancelled_call_leaves_nothing_behind(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    asked = hears(beta, "silent")
    async with alpha, beta:
        calls = alpha._opened().calls
        asking = asyncio.create_task(alpha.request(name, "silent"))
        await until(lambda: asked, "it is asked")
        asking.cancel()
        # Not sent yet.
        sends = [asyncio.create_task(alpha.send(name, "silent")) for _ in range(600)]
        await asyncio.sleep(0)
        for one in sends:
            one.cancel()
        await asyncio.gather(asking, *sends, return_exceptions=True)
        async with alpha.commit() as commit:
            commit.request(name, "silent", timeout=0.1)  # Nobody waits for it.
        await until(lambda: not len(calls.replies), "no reply is waited for")
        session = alpha._opened().link.current
        assert session is not None and calls.backlog == 0
        await until(lambda: not session._results and not session._submissions, "no answer is waited for")
        assert session._slots._value == 256
        # What had not been sent yet was not sent any more.
        assert len(asked) < 200


@behaviour("call.errors")
@both
async def test_a_failure_says_what_was_called(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    hears(beta, "silent")
    async with alpha, beta:
        for size in (0, 100_000):
            with pytest.raises(NotAuthorized) as refused:
                await alpha.send("nobody-at-all", "quote", {"a": "x" * size})
            error = refused.value
            assert error.called is not None and error.receipt is not None
            assert (error.called.operation, error.called.target, error.called.message_type) == (
                "send",
                "nobody-at-all",
                "quote",
            )
            assert str(error) == (
                f'send "quote" to nobody-at-all refused: not_authorized [`mas audit show {error.message_id}`, '
                f"receipt {error.receipt.lane}:{error.receipt.sequence}]"
            )
            if place.is_real:
                shown = await asyncio.to_thread(
                    place.world.mas, "audit", "show", error.message_id, "--config", str(place.world.config)
                )
                assert "not_authorized" in shown or "denied" in shown.lower()
        with pytest.raises(NoReply) as none:
            await alpha.request(name, "silent", timeout=0.2)
        text = str(none.value)
        assert none.value.message_id in text and text.startswith(f'request "silent" to {name}: no reply in time')
        assert none.value.receipt is not None and none.value.correlation_id


@behaviour("call.errors")
@fake
async def test_a_failure_says_when_to_try_again(place: Fake) -> None:
    async with place.agent() as alpha:
        place.server.refuse("rate_limited", retry_after=27)
        with pytest.raises(RateLimited, match=r'request "quote" to n9 refused: rate_limited, try again in 27 s'):
            await alpha.request("n9", "quote")
        place.server.refuse("state_too_large")
        with pytest.raises(Refused, match=r"^update_state refused: state_too_large"):
            await alpha.update_state({"a": 1})


@behaviour("call.unanswered")
@both
async def test_a_request_whose_message_is_dead_fails_at_once(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())

    @beta.on_raw("rejects")
    async def rejects(message: Message) -> None:
        raise Reject("not this one")

    @beta.on_raw("tries")
    async def tries(message: Message) -> None:
        raise Retry("not yet")

    async def ask(kind: str) -> NoReply:
        with pytest.raises(NoReply) as none:
            await soon(alpha.request(name, kind, timeout=120))
        return none.value

    async def commit() -> NoReply:
        async with alpha.commit() as commit:
            pending = commit.request(name, "rejects", timeout=120)
        with pytest.raises(NoReply) as none:
            await soon(pending.get())
        return none.value

    async with alpha, beta:
        errors = await asyncio.gather(ask("rejects"), ask("unknown"), ask("tries"), commit())
        assert [one.reason for one in errors] == ["handler_failed", "no_handler", "handler_failed", "handler_failed"]
        error = errors[0]
        assert error.called is not None and error.receipt is not None and error.correlation_id
        assert str(error) == (
            f"no reply will come from {name} to 'rejects': handler_failed (message {error.message_id}; "
            f"`mas audit show {error.message_id}`, receipt {error.receipt.lane}:{error.receipt.sequence})"
        )
        assert not len(alpha._opened().calls.replies)
        assert all([await asyncio.to_thread(place.dead, one.message_id) for one in errors])


@behaviour("call.unanswered")
async def test_a_word_that_comes_before_the_requests_own_answer_is_kept() -> None:
    replies, word = Replies(), Unanswered("m", "no_handler")
    replies.asking(1)
    replies.failed("c", word)
    assert await replies.expect("c", 60) is word
    # As many as replies that come early, and no longer than somebody asks.
    for number in range(MAX_EARLY_REPLIES + 10):
        replies.failed(str(number), word)
    assert len(replies) == MAX_EARLY_REPLIES + 1
    replies.asking(-1)
    replies.failed("late", word)
    assert not len(replies)


@behaviour("call.unanswered")
async def test_a_server_that_does_not_tell_of_it_is_waited_for() -> None:
    async with FakeServer(features=["submit"]) as server:
        async with server.agent("alpha") as alpha, server.agent("beta"):
            with pytest.raises(NoReply, match="no reply in time") as none:
                await alpha.request("beta", "unknown", timeout=0.2)
            assert none.value.reason is None and len(server.dead_letters) == 1


@behaviour("call.findings")
@both
async def test_what_was_found_in_the_payload_is_told(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        await message.reply("answer", message.data)

    async with alpha, beta:
        for size in (0, 100_000):
            if not place.is_real:
                place.server.refuse("dlp_blocked", findings=[Finding("credit_card", "/card", "block")])
            with pytest.raises(DlpBlocked) as blocked:
                await alpha.send(name, "ask", {"card": "4111 1111 1111 1111", "more": "word " * (size // 5)})
            assert blocked.value.findings == (Finding("credit_card", "/card", "block"),)
            assert "credit_card at /card (block)" in str(blocked.value) and "4111" not in str(blocked.value)
        if place.is_real:
            sent = await alpha.send(name, "ask", {"note": "ssn 123-45-6789"})
            assert sent.findings == (Finding("ssn", "/note", "redact"),)
            reply = await alpha.request(name, "ask", {"note": "ssn 123-45-6789"}, timeout=10)
            assert reply.asked is not None and reply.asked.findings == (Finding("ssn", "/note", "redact"),)
            assert reply.data == {"note": "ssn XXX-XX-6789"}


@behaviour("call.backpressure")
@both
async def test_calls_beyond_what_the_server_takes_wait(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    arrived = hears(beta)
    async with alpha, beta:
        sends = [asyncio.create_task(alpha.send(name, "work", {"n": n})) for n in range(1000)]
        await asyncio.sleep(0)
        assert alpha.backlog == 1000 - 256
        assert len(await soon(asyncio.gather(*sends))) == 1000 and alpha.backlog == 0
        await until(lambda: len(arrived) == 1000, "all have arrived")
        # Within their time.
        crowd = [asyncio.create_task(alpha.send(name, "work")) for _ in range(400)]
        await asyncio.sleep(0)
        with pytest.raises(NotConnected, match="no room"):
            await alpha.send(name, "work", timeout=0.000_001)
        await asyncio.gather(*crowd)


@behaviour("call.unsupported")
async def test_what_a_server_does_not_offer_is_not_sent() -> None:
    async with FakeServer(features=["submit"]) as server, server.agent("alpha") as alpha:
        for call in (
            alpha.send("beta", "work", idempotency_key="k"),
            alpha.request("beta", "work", idempotency_key="k"),
            alpha.send("beta", "work", ttl=1),
            alpha.send("beta", "work", not_before=time.time()),
            alpha.update_state({"a": 1}, expected_version=0),
            alpha.update_state({"a": 1}, ttl=1),
            alpha.change_state(Memory, lambda memory: Memory(count=1)),
            commit(alpha),
        ):
            with pytest.raises(Unsupported):
                await call
        assert not server.messages and not server.state("alpha")
        # And no key of the library's own.
        await alpha.send("beta", "work")
        assert not server._core.keys.lifetimes("alpha")


@behaviour("state.change")
@both
async def test_no_change_is_lost(place: Place) -> None:
    """As the readme's example does it: 98 requests at once, and two instances."""
    asker, name = place.agent(), place.name()
    workers = [place.agent(name, instance_id=f"w{n}") for n in range(2)]
    for worker in workers:

        @worker.on("question")
        async def answer(message: Message, agent: Agent) -> None:
            def remember(memory: Memory) -> None:
                memory.count += 1
                memory.notes = [*memory.notes[-2:], message.id]

            memory = await agent.change_state(Memory, remember)
            await message.reply("answer", {"count": memory.count})

    async with asker, workers[0], workers[1]:
        replies = await soon(asyncio.gather(*(asker.request(name, "question", timeout=20) for _ in range(98))))
        assert sorted(one.data["count"] for one in replies) == list(range(1, 99))
        state = await workers[0].get_state()
        assert state.parse(Memory).count == 98

        async def slow(memory: Memory) -> Memory:
            await asyncio.sleep(0)
            return Memory(count=memory.count + 1)

        # What does not change is not written.
        assert (await workers[0].change_state(Memory, slow)).count == 99
        version = (await workers[0].get_state()).version
        assert (await workers[0].change_state(Memory, lambda memory: None)).count == 99
        assert (await workers[0].get_state()).version == version
        with pytest.raises(SetupError, match="returned a int"):
            await workers[0].change_state(Memory, lambda memory: 1)  # type: ignore[arg-type,return-value]


@behaviour("state.versions")
@both
async def test_a_state_is_written_on_condition_of_its_version(place: Place) -> None:
    async with place.agent() as alpha:
        assert (await alpha.get_state()).version == 0
        first = await alpha.update_state({"a": 1}, expected_version=0)
        second = await alpha.update_state({"a": 2, "b": "x"}, expected_version=first)
        assert second > first and (await alpha.get_state()).version == second
        with pytest.raises(VersionMismatch):
            await alpha.update_state({"a": 3}, expected_version=first)
        assert (await alpha.get_state()).fields == {"a": "2", "b": "x"}
        await alpha.reset_state()
        assert (await alpha.get_state()).fields == {}


@real
async def test_long_and_short_calls_answer_the_same(place: Real) -> None:
    """A payload that is too long for the stream goes the unary way."""
    alpha, beta = place.agent(), place.agent(name := place.name())
    arrived = hears(beta)
    async with alpha, beta:
        sent = await asyncio.gather(*(alpha.send(name, "work", {"a": "x" * size}) for size in (10, 70_000) * 4))
        await until(lambda: len(arrived) == 8, "all have arrived")
    assert {one.id for one in arrived} == {one.message_id for one in sent}
