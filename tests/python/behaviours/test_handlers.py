"""The life of a handler."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest
from mas_agent import (
    Agent,
    Message,
    NoReply,
    OutcomeUnknown,
    Refused,
    Reject,
    Retry,
    StateOf,
    VersionMismatch,
)
from mas_agent.testing import FakeServer
from places import Fake, Place, Real, behaviour, both, fake, real, soon, until
from pydantic import BaseModel



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
