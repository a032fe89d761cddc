"""The life of a handler."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest
from mas_agent import (
    Agent,
    InvalidRequest,
    Message,
    NoReply,
    OutcomeUnknown,
    Refused,
    Reject,
    Retry,
    SetupError,
    StateOf,
    Unsupported,
    VersionMismatch,
)
from mas_agent.testing import FakeServer
from places import Fake, Place, Real, agent_of, behaviour, both, configuration, fake, real, soon, until
from pydantic import BaseModel

from world import World


class Order(BaseModel):
    number: int
    name: str


class Memory(BaseModel):
    count: int = 0


@behaviour("handler.done")
@both
async def test_a_handler_that_returns_acknowledges(place: Place) -> None:
    alpha, beta, handled = place.agent(), place.agent(name := place.name()), asyncio.Event()

    @beta.on("work")
    async def work(message: Message) -> None:
        handled.set()

    async with alpha, beta:
        await alpha.send(name, "work")
        await soon(handled.wait())
        await until(lambda: place.is_settled(name), "the acknowledgement")


@behaviour("handler.retry")
@both
async def test_a_handler_that_asks_for_it_gets_the_message_again(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    attempts: dict[str, list[int]] = {"asks": [], "fails": [], "never": []}

    @beta.on_raw("asks")
    async def asks(message: Message) -> None:
        attempts["asks"].append(message.attempt)
        if message.attempt < 3:
            raise Retry("not yet")

    @beta.on_raw("fails", retry_on=[ConnectionError])
    async def fails(message: Message) -> None:
        attempts["fails"].append(message.attempt)
        if message.attempt < 2:
            raise ConnectionResetError

    @beta.on_raw("never", retry_on=[ConnectionError])
    async def never(message: Message) -> None:
        attempts["never"].append(message.attempt)
        raise ConnectionRefusedError

    async with alpha, beta:
        sent = [await alpha.send(name, kind) for kind in ("asks", "fails", "never")]
        assert await until(lambda: place.dead(sent[2].message_id), "a dead letter") == (
            "handler_error:ConnectionRefusedError"
        )
        await until(lambda: len(attempts["asks"]) == 3, "every delivery")
    assert attempts == {"asks": [1, 2, 3], "fails": [1, 2], "never": [1, 2, 3, 4]}


@behaviour("handler.failed")
@both
async def test_a_handler_that_fails_makes_a_dead_letter_without_the_text(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    alpha, beta = place.agent(sender := place.name()), place.agent(name := place.name())

    @beta.on_raw("broken")
    async def broken(message: Message) -> None:
        raise LookupError("a text with the payload in it")

    @beta.on_raw("says")
    async def says(message: Message) -> None:
        raise Reject("cannot be done")

    async with alpha, beta:
        sent = [await alpha.send(name, kind) for kind in ("broken", "says")]
        assert await until(lambda: place.dead(sent[0].message_id), "a dead letter") == "handler_error:LookupError"
        assert await until(lambda: place.dead(sent[1].message_id), "a dead letter") == "cannot be done"
    [record] = [one for one in caplog.records if sent[0].message_id in one.getMessage()]
    assert record.levelno == logging.ERROR and record.exc_info is not None
    assert record.getMessage() == f"broken {sent[0].message_id} from {sender} failed: it is a dead letter"


@behaviour("handler.payload")
@both
async def test_a_payload_of_another_shape_is_a_dead_letter_that_names_the_fields(place: Place) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())

    @beta.on("order")
    async def order(order: Order) -> None:
        raise AssertionError("not called")

    @beta.on_raw("own")
    async def own(message: Message) -> None:
        Order.model_validate({})

    async with alpha, beta:
        sent = await alpha.send(name, "order", {"number": "a secret"})
        reason = await until(lambda: place.dead(sent.message_id), "a dead letter")
        assert reason == "invalid_payload:number: int_parsing; name: missing"
        # What a handler itself cannot read is a failure of the handler.
        sent = await alpha.send(name, "own")
        assert await until(lambda: place.dead(sent.message_id), "a dead letter") == "handler_error:ValidationError"


@behaviour("handler.none")
@both
async def test_a_type_without_a_handler_is_a_dead_letter_unless_there_is_one_for_all(place: Place) -> None:
    alpha, beta, gamma = place.agent(), place.agent(name := place.name()), place.agent(other := place.name())
    arrived: asyncio.Queue[Message] = asyncio.Queue()

    @gamma.on_other
    async def take(message: Message) -> None:
        arrived.put_nowait(message)

    async with alpha, beta, gamma:
        sent = await alpha.send(name, "unknown")
        assert await until(lambda: place.dead(sent.message_id), "a dead letter") == "no_handler:unknown"
        await alpha.send(other, "unknown")
        assert (await soon(arrived.get())).type == "unknown"


@behaviour("handler.later")
@real
async def test_what_cannot_be_handled_now_is_handled_later(place: Real) -> None:
    """The target's circuit is open for a second: what is forwarded to it meanwhile waits, and nothing is buried."""
    alpha, beta, gamma = place.agent(), place.agent(middle := place.name()), place.agent(last := place.name())
    broken, got, attempts = True, Counter[int](), set()

    @beta.on_raw("forward")
    async def forward(message: Message) -> None:
        attempts.add(message.attempt)
        await beta.send(last, "work", message.data)

    @beta.on_raw("ping")
    async def ping(message: Message) -> None:
        await message.reply("pong")

    @gamma.on_raw("work")
    async def work(message: Message) -> None:
        if broken:
            raise ValueError
        got[message.data["n"]] += 1

    async with alpha, beta, gamma:
        bad = [(await alpha.send(last, "work")).message_id for _ in range(3)]
        await until(lambda: all(place.dead(one) for one in bad), "the circuit is open")
        broken = False
        sent = [await alpha.send(middle, "forward", {"n": n}) for n in range(20)]
        # Others are handled meanwhile.
        await alpha.request(middle, "ping", timeout=10)
        await until(lambda: len(got) == 20, "all have arrived")
        assert set(got.values()) == {1} and not any(place.dead(one.message_id) for one in sent)
        if "later" in beta.features:
            # None of it counts.
            assert attempts == {1}


@behaviour("handler.later")
@pytest.mark.parametrize(
    "detail",
    [
        "rate_limited",
        "queue_full",
        "circuit_open",
        "storage_full",
        "overloaded",
        "storage_unavailable",
        "audit_unavailable",
        "audit_full",
        "server_stopping",
        "target_offline",
        "session_not_connected",
        "quarantined",
        "certificate_revoked",
    ],
)
@pytest.mark.parametrize("told", [True, False])
async def test_each_refusal_that_passes_puts_the_message_off(detail: str, told: bool) -> None:
    """``told``: whether the server can be told when."""
    features = ["submit", "acks", "deliveries", "commit", *(["later"] if told else [])]
    server, attempts = FakeServer(features=features, max_attempts=3, backoff=[0.01]), []
    async with server:
        alpha, beta, gamma = server.agent("alpha"), server.agent("beta", call_timeout=0.01), server.agent("gamma")

        @beta.on_raw("forward")
        async def forward(message: Message) -> None:
            attempts.append(message.attempt)
            await beta.send("gamma", "work")

        @gamma.on_other
        async def take(message: Message) -> None: ...

        async with alpha, beta, gamma:
            server.refuse(detail, sender="beta", retry_after=0.02, times=1)
            await alpha.send("beta", "forward")
            await until(lambda: any(one.target == "gamma" for one in server.messages), "it is forwarded")
            await server.idle()
    assert not server.dead_letters and attempts == ([1, 1] if told else [1, 2])


@behaviour("handler.later")
@fake
async def test_without_a_connection_a_message_is_put_off(place: Fake) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name(), call_timeout=0.05)
    attempts: list[int] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        attempts.append(message.attempt)
        if len(attempts) == 1:
            place.server.shut_out(name, "overloaded")
            await until(lambda: not beta.is_connected, "the connection is lost")
            await beta.get_state()

    async with alpha, beta:
        sent = await alpha.send(name, "work")
        await until(lambda: attempts and not beta.is_connected and not beta.backlog, "the call has failed")
        place.server.let_in(name)
        await until(lambda: len(attempts) > 1, "it comes again")
        await place.server.idle()
        # The lost session was an attempt; putting it off was none.
        assert place.dead(sent.message_id) is None and attempts == [1, 2]


@behaviour("handler.later")
@both
async def test_what_is_unknown_or_moved_puts_the_message_off(place: Place) -> None:
    """It does not count: more often than a message may be tried."""
    alpha, beta = place.agent(), place.agent(name := place.name())
    attempts: dict[str, list[int]] = {"unknown": [], "moved": []}
    failures = {"unknown": OutcomeUnknown("lost"), "moved": Refused("FAILED_PRECONDITION", "delivery_not_held")}

    @beta.on_other
    async def fail(message: Message) -> None:
        attempts[message.type].append(message.attempt)
        if len(attempts[message.type]) < 3:
            raise failures[message.type]

    async with alpha, beta:
        sent = [await alpha.send(name, kind) for kind in failures]
        await until(lambda: all(len(one) == 3 for one in attempts.values()), "each comes again")
        await until(lambda: place.is_settled(name), "both are acknowledged")
        assert attempts == {"unknown": [1, 1, 1], "moved": [1, 1, 1]}
        assert not any([await asyncio.to_thread(place.dead, one.message_id) for one in sent])


@behaviour("handler.uncertain")
@fake
async def test_what_is_uncertain_is_retried(place: Fake) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    tries: Counter[str] = Counter()
    failures: dict[str, Exception] = {
        "silent": NoReply("none"),
        "version": VersionMismatch("ABORTED", "version_mismatch"),
    }

    @beta.on_other
    async def fail(message: Message) -> None:
        tries[message.type] += 1
        if message.attempt == 1:
            raise failures[message.type]

    async with alpha, beta:
        for kind in failures:
            await alpha.send(name, kind)
        await until(lambda: sum(tries.values()) == 4, "each is tried again")
        await place.server.idle()
    assert set(tries.values()) == {2} and not place.server.dead_letters


@behaviour("handler.once")
@fake
async def test_what_was_handled_is_not_handled_again_when_the_acknowledgement_is_lost(place: Fake) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name())
    handled: list[str] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        handled.append(message.id)
        # The session is over before the acknowledgement is sent.
        place.server.disconnect(name)

    async with alpha, beta:
        sent = await alpha.send(name, "work")
        await until(lambda: handled and beta.is_connected, "it is back")
        await place.server.idle()
    assert handled == [sent.message_id]


@behaviour("handler.calls")
@both
async def test_everything_can_be_done_inside_a_handler(place: Place) -> None:
    alpha, beta, gamma = place.agent(), place.agent(middle := place.name()), place.agent(last := place.name())
    noted: asyncio.Queue[Message] = asyncio.Queue()

    @beta.on("ask")
    async def ask(message: Message, agent: Agent, memory: StateOf[Memory]) -> None:
        assert memory.value.count == 0
        await memory.change(lambda one: Memory(count=one.count + 1))
        await agent.send(last, "note", {"n": 1})
        answer = await agent.request(last, "ask", timeout=10)
        peers = [peer.agent_id for peer in await agent.discover()]
        await agent.update_state({"answer": answer.data["n"]})
        state = await agent.get_state()
        async with message.commit() as commit:
            commit.update_state({"peers": last in peers}, expected_version=state.version)
            pending = commit.request(last, "ask", timeout=10)
            commit.reply("answer", {**state.fields})
        assert (await pending.get()).data == {"n": 7}

    @gamma.on("ask")
    async def answer(message: Message) -> None:
        await message.reply("answer", {"n": 7})

    @gamma.on("note")
    async def note(message: Message) -> None:
        noted.put_nowait(message)

    async with alpha, beta, gamma:
        reply = await alpha.request(middle, "ask", timeout=20)
        assert reply.data == {"count": "1", "answer": "7"}
        assert (await soon(noted.get())).data == {"n": 1}
        await until(lambda: place.is_settled(middle), "the handler is through")
        assert (await beta.get_state()).fields["peers"] == "true"


@behaviour("handler.order")
@both
async def test_one_at_a_time_keeps_the_order_of_each_sender(place: Place) -> None:
    alpha, gamma, beta = place.agent(), place.agent(), place.agent(name := place.name(), concurrency=1)
    seen: dict[str, list[int]] = {}

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        seen.setdefault(message.sender, []).append(message.data["n"])
        await asyncio.sleep(0)

    async with alpha, beta, gamma:
        for n in range(40):
            await asyncio.gather(*(one.send(name, "work", {"n": n}) for one in (alpha, gamma)))
        await until(lambda: sum(map(len, seen.values())) == 80, "all are handled")
    assert list(seen.values()) == [list(range(40))] * 2


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
