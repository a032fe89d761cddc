"""The SDK against the real server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from mas_agent import (
    Agent,
    CircuitOpen,
    Credentials,
    DlpBlocked,
    InvalidRequest,
    Message,
    NoReply,
    NotAuthorized,
    NotConnected,
    RateLimited,
    Refused,
    Reject,
    Retry,
    SetupError,
    Unauthenticated,
    Unsupported,
)
from pydantic import BaseModel

from world import HERE, PATIENCE_S, Server, World

AGENTS = """
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
  - {type: allow, sender: gamma, targets: [beta]}
  - {type: allow, sender: limited, targets: [beta]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta, capabilities: [work], metadata: {level: 3}}
  - {agent_id: gamma}
  - {agent_id: limited, rate_limit: {per_minute: 3, per_hour: 100}}
"""
SETTINGS = "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [20, 40], max_attempts: 4}\n"
GATEWAY = (
    "rate_limit: {per_minute: 1000000, per_hour: 10000000}, "
    "circuit_breaker: {failure_threshold: 3, timeout_seconds: 60}"
)


class Ping(BaseModel):
    number: int


class Pong(BaseModel):
    number: int
    by: str


class Progress(BaseModel):
    rounds: int = 0
    seen: list[int] = []
    note: str = ""
    last: str | None = None


@pytest.fixture
def world() -> Iterator[World]:
    with World(AGENTS, gateway=GATEWAY, settings=SETTINGS) as world:
        world.issue("alpha", "beta", "gamma", "limited")
        yield world


@pytest.fixture
def server(world: World) -> Server:
    return world.server()


def agent(world: World, server: Server, name: str, **options: Any) -> Agent:
    ca, cert, key = world.files(name)
    options.setdefault("instance_id", "i0")
    return Agent(server.addr, credentials=Credentials(ca, cert, key), **options)


async def until(condition: Any, what: str) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not in time: {what}"
        await asyncio.sleep(0.01)
    return value


def collecting(beta: Agent, kind: str = "work") -> asyncio.Queue[Message]:
    """What arrives of this type."""
    arrived: asyncio.Queue[Message] = asyncio.Queue()

    @beta.on_raw(kind)
    async def take(message: Message) -> None:
        arrived.put_nowait(message)

    return arrived


async def test_ping_pong_with_state_and_typed_handlers(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")

    @beta.on("ping", Ping)
    async def pong(message: Message, ping: Ping) -> None:
        state = (await beta.get_state()).parse(Progress)
        state.rounds += 1
        state.seen.append(ping.number)
        state.note = "123"
        await beta.update_state(state)
        await message.reply("pong", Pong(number=ping.number, by=beta.agent_id))

    async with alpha, beta:
        assert (alpha.agent_id, alpha.instance_id, alpha.is_connected) == ("alpha", "i0", True)
        for number in range(10):
            reply = await alpha.request("beta", "ping", Ping(number=number), timeout=10)
            assert reply.parse(Pong) == Pong(number=number, by="beta")
            assert (reply.sender, reply.type, reply.is_reply) == ("beta", "pong", True)
        [peer] = await alpha.discover("work", "rest")
        assert (peer.agent_id, peer.capabilities, peer.metadata) == ("beta", ("work",), {"level": 3})
        assert await alpha.discover("rest") == []
        state = await beta.get_state()
        assert state.parse(Progress) == Progress(rounds=10, seen=list(range(10)), note="123")
        await beta.reset_state()
        assert (await beta.get_state()).fields == {}


async def test_three_workers_share_what_two_senders_send(world: World, server: Server) -> None:
    done: Counter[str] = Counter()
    by: Counter[str] = Counter()
    workers = [agent(world, server, "beta", instance_id=f"w{n}", concurrency=1) for n in range(3)]
    for worker in workers:

        async def work(message: Message, name: str = worker.instance_id) -> None:
            done[f"{message.sender}-{message.data['n']}"] += 1
            by[name] += 1
            await asyncio.sleep(0)

        worker.on_raw("work")(work)
    alpha, gamma = agent(world, server, "alpha"), agent(world, server, "gamma")
    for one in (*workers, alpha, gamma):
        await one.start()
    try:
        each = 150
        sends = [sender.send("beta", "work", {"n": n}) for n in range(each) for sender in (alpha, gamma)]
        await asyncio.gather(*sends)
        await until(lambda: len(done) == 2 * each, "all are done")
        assert set(done.values()) == {1}
        assert len(by) == 3, by
    finally:
        for one in (*workers, alpha, gamma):
            await one.stop()


async def test_refusals_have_their_classes(world: World, server: Server) -> None:
    alpha = agent(world, server, "alpha", concurrency=4)
    limited = agent(world, server, "limited")
    async with alpha, limited:
        with pytest.raises(DlpBlocked) as blocked:
            await alpha.send("beta", "t", {"card": "4111 1111 1111 1111"})
        assert (blocked.value.code, blocked.value.detail) == ("PERMISSION_DENIED", "dlp_blocked")
        with pytest.raises(NotAuthorized) as denied:
            await alpha.request("gamma", "t")
        assert (denied.value.code, denied.value.detail) == ("PERMISSION_DENIED", "not_authorized")
        for _ in range(3):
            await limited.send("beta", "t")
        with pytest.raises(RateLimited) as rate:
            await limited.send("beta", "t")
        assert (rate.value.code, rate.value.detail) == ("RESOURCE_EXHAUSTED", "rate_limited")
        assert rate.value.retry_after is not None and 0 < rate.value.retry_after <= 61
        with pytest.raises(SetupError, match="JSON"):
            await alpha.send("beta", "t", {"a": float("nan")})
        with pytest.raises(SetupError, match="timeout"):
            await alpha.request("beta", "t", timeout=0)
        with pytest.raises(NoReply):
            await alpha.request("beta", "t", timeout=0.05)


async def test_a_failing_handler_opens_the_circuit(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")

    @beta.on("ping", Ping)
    async def fail(message: Message, ping: Ping) -> None:
        raise ZeroDivisionError

    async with alpha, beta:
        for _ in range(2):
            await alpha.send("beta", "ping", {"number": 1})
        # A payload that is none of the model's is a failure, too.
        await alpha.send("beta", "ping", {"number": "none"})
        await until(lambda: world.redis("XLEN", "dlq:messages") == "3", "three dead letters")

        async def send() -> None:
            give_up = time.monotonic() + PATIENCE_S
            while time.monotonic() < give_up:
                await alpha.send("beta", "ping", {"number": 1})

        with pytest.raises(CircuitOpen):
            await send()


async def test_what_a_handler_says_decides(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    tries: Counter[str] = Counter()
    times: list[float] = []

    @beta.on_raw("later")
    async def later(message: Message) -> None:
        tries["later"] += 1
        times.append(time.monotonic())
        if tries["later"] < 3:
            raise Retry("not yet")

    @beta.on_raw("flaky", retry_on=[ConnectionError])
    async def flaky(message: Message) -> None:
        tries["flaky"] += 1
        if tries["flaky"] < 2:
            raise ConnectionResetError

    @beta.on_raw("never")
    async def never(message: Message) -> None:
        tries["never"] += 1
        raise Reject("cannot be done")

    async with alpha, beta:
        for kind in ("later", "flaky", "never", "unknown"):
            await alpha.send("beta", kind)
        await until(lambda: tries == {"later": 3, "flaky": 2, "never": 1}, "every try")
        # The server waits between two deliveries.
        assert times[1] - times[0] >= 0.02 and times[2] - times[1] >= 0.04
        await until(lambda: world.redis("XLEN", "dlq:messages") == "2", "two dead letters")
        letters = world.redis("XRANGE", "dlq:messages", "-", "+")
        assert "cannot be done" in letters and "no_handler:unknown" in letters


async def test_reconnect_after_a_restart_of_the_server(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        await alpha.send("beta", "work", {"n": 0})
        assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data == {"n": 0}
        await beta.update_state({"kept": True})
        await asyncio.to_thread(server.kill)
        await until(lambda: not (alpha.is_connected or beta.is_connected), "the loss is seen")
        # Asked for while nobody answers: it waits for the session.
        sending = asyncio.create_task(alpha.send("beta", "work", {"n": 1}))
        restarted = await asyncio.to_thread(world.server, server.addr)
        assert (await asyncio.wait_for(sending, PATIENCE_S)).message_id
        assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data == {"n": 1}
        assert (await beta.get_state()).fields == {"kept": "true"}
        # And in order.
        assert await asyncio.to_thread(restarted.stop) == 0
        await until(lambda: not alpha.is_connected, "the loss is seen")
        await asyncio.to_thread(world.server, server.addr)
        await until(lambda: alpha.is_connected and beta.is_connected, "both are back")


async def test_a_reply_finds_its_request_over_a_restart(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    asked, answer = asyncio.Event(), asyncio.Event()

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        asked.set()
        await answer.wait()
        await message.reply("answer", {"late": True})

    async with alpha, beta:
        requesting = asyncio.create_task(alpha.request("beta", "ask", timeout=30))
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(world.server, server.addr)
        await until(lambda: alpha.is_connected and beta.is_connected, "both are back")
        answer.set()
        assert (await asyncio.wait_for(requesting, PATIENCE_S)).data == {"late": True}


async def test_kill_of_an_agent_in_mid_handler(world: World, server: Server) -> None:
    alpha = agent(world, server, "alpha")
    words = [sys.executable, str(HERE / "holding_agent.py")]
    async with alpha:
        holding = world.start(words, world.env("beta", server.addr, "w0"))
        await asyncio.to_thread(holding.json, "connected")
        sent = await alpha.send("beta", "work", {"n": 7})
        held = await asyncio.to_thread(holding.json, "handling")
        assert held["id"] == sent.message_id
        os.kill(holding.pid, signal.SIGKILL)
        holding.kill()
        beta = agent(world, server, "beta", instance_id="w1")
        arrived = collecting(beta)
        async with beta:
            again = await asyncio.wait_for(arrived.get(), PATIENCE_S)
            assert (again.id, again.data) == (sent.message_id, {"n": 7})


async def test_a_program_ends_in_order(world: World, server: Server) -> None:
    alpha = agent(world, server, "alpha")
    words = [sys.executable, str(HERE / "holding_agent.py")]
    async with alpha:
        holding = world.start(words, world.env("beta", server.addr, "w0"))
        await asyncio.to_thread(holding.json, "connected")
        await alpha.send("beta", "quick", {})
        await asyncio.to_thread(holding.json, "handling")
        assert await asyncio.to_thread(holding.stop) == 0
        # What it had handled is acknowledged.
        pending = lambda: world.redis("XPENDING", "agent.stream:beta", "agents").split("\n")[0]  # noqa: E731
        await until(lambda: pending() == "0", "nothing is left pending")


async def test_one_who_may_not_connect_is_told(world: World, server: Server) -> None:
    stranger = agent(world, server, "stranger")
    with pytest.raises(Unauthenticated) as refused:
        await stranger.start()
    assert refused.value.detail == "agent_not_allowlisted"
    with pytest.raises(SetupError, match="MAS_TLS_CA"):
        await Agent(server.addr).start()
    with pytest.raises(SetupError, match="instance id"):
        agent(world, server, "alpha", instance_id="a b")
    ca, cert, key = world.files("alpha")
    nobody = Agent("127.0.0.1:1", credentials=Credentials(ca, cert, key), connect_timeout=0.3)
    with pytest.raises(NotConnected):
        await nobody.start()


async def test_large_messages_do_not_end_the_session(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        for size in (1_100_000, 6_000_000):
            with pytest.raises(Refused) as refused:
                await alpha.send("beta", "work", {"a": "x" * size})
            assert refused.value.code == "RESOURCE_EXHAUSTED"
        # Together they are more than one event may have.
        sizes = [30_000, 60_000, 100_000, 900_000, 10] * 8
        await asyncio.gather(*(alpha.send("beta", "work", {"a": "x" * size}) for size in sizes))
        got = [len((await asyncio.wait_for(arrived.get(), PATIENCE_S)).data["a"]) for _ in sizes]
        assert sorted(got) == sorted(sizes)
        if "commit" in alpha.features:
            with pytest.raises(SetupError, match="^commit: [0-9]+ bytes, and the server takes at most [0-9]+$"):
                async with alpha.commit() as commit:
                    for _ in range(2):
                        commit.send("beta", "work", {"a": "x" * 900_000})


async def test_a_reply_needs_a_request(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        await alpha.send("beta", "work")
        message = await asyncio.wait_for(arrived.get(), PATIENCE_S)
        with pytest.raises(InvalidRequest, match="missing_correlation_id"):
            await message.reply("answer")


# What the server may or may not offer yet


def need(agent: Agent, *features: str) -> None:
    """Skips, loudly, where the server does not list one of these."""
    if agent.features.isdisjoint(features):
        pytest.skip(f"this server offers {sorted(agent.features)} and none of {features}")


async def test_what_the_server_does_not_offer_is_not_sent(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    errors: list[BaseException] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        try:
            async with message.commit() as commit:
                commit.update_state({"a": 1})
        except Unsupported as error:
            errors.append(error)

    async with alpha, beta:
        if "commit" in alpha.features:
            pytest.skip("this server offers everything")
        await alpha.send("beta", "work")
        await until(lambda: errors, "the refusal")
        assert (await beta.get_state()).fields == {}
        with pytest.raises(Unsupported):
            await alpha.send("beta", "work", idempotency_key="k1")
        with pytest.raises(Unsupported):
            await alpha.send("beta", "work", ttl=1)
        with pytest.raises(Unsupported):
            await alpha.update_state({"a": 1}, expected_version=0)


async def test_receipts(world: World, server: Server) -> None:
    async with agent(world, server, "alpha") as alpha:
        sent = await alpha.send("beta", "work")
        if sent.receipt is None:
            pytest.skip("this server gives no receipts")
        second = (await alpha.send("beta", "work")).receipt
        assert second is not None and sent.receipt.lane == second.lane
        assert second.sequence > sent.receipt.sequence >= 1 and len(second.record_hash) == 32
        assert second.sender_sequence == sent.receipt.sender_sequence + 1
        with pytest.raises(NotAuthorized) as refused:
            await alpha.send("gamma", "work")
        assert refused.value.receipt is not None


async def test_idempotency_keys(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        need(alpha, "idempotency", "commit")
        first = await alpha.send("beta", "work", {"n": 1}, idempotency_key="k1")
        again = await alpha.send("beta", "work", {"n": 1}, idempotency_key="k1")
        other = await alpha.send("beta", "work", {"n": 2}, idempotency_key="k2")
        assert first.message_id == again.message_id != other.message_id
        ids = [(await asyncio.wait_for(arrived.get(), PATIENCE_S)).id for _ in range(2)]
        assert sorted(ids) == sorted([first.message_id, other.message_id]) and arrived.empty()


async def test_a_lost_answer_is_asked_for_again(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        need(alpha, "idempotency", "commit")
        count = 300
        sends = [
            asyncio.create_task(alpha.send("beta", "work", {"n": n}, idempotency_key=f"k{n}")) for n in range(count)
        ]
        # Some are answered, some are on their way, some have not begun.
        await asyncio.wait(sends, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(world.server, server.addr)
        sent = await asyncio.gather(*sends)
        ids = {one.message_id for one in sent}
        assert len(ids) == count
        seen: dict[int, set[str]] = {}
        while len(seen) < count:
            message = await asyncio.wait_for(arrived.get(), PATIENCE_S)
            seen.setdefault(message.data["n"], set()).add(message.id)
        assert seen == {n: {one.message_id} for n, one in enumerate(sent)}


async def test_times_of_a_message(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        need(alpha, "ttl", "commit")
        not_before = time.time() + 0.5
        await alpha.send("beta", "work", {"n": "later"}, not_before=not_before)
        await alpha.send("beta", "work", {"n": "now"})
        assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data["n"] == "now"
        assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data["n"] == "later"
        assert time.time() >= not_before
    # Nobody is there to take it in time.
    async with alpha:
        await alpha.send("beta", "work", {"n": "gone"}, ttl=0.001)
        await alpha.send("beta", "work", {"n": "stays"}, ttl=600)
        async with beta:
            assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data["n"] == "stays"
            assert arrived.empty()


async def test_versions_of_the_state(world: World, server: Server) -> None:
    async with agent(world, server, "alpha") as alpha:
        need(alpha, "versions", "commit")
        first = await alpha.update_state({"a": 1}, expected_version=0)
        second = await alpha.update_state({"a": 2}, expected_version=first)
        assert second > first and (await alpha.get_state()).version == second
        with pytest.raises(Refused) as stale:
            await alpha.update_state({"a": 3}, expected_version=first)
        assert (stale.value.code, stale.value.detail) == ("ABORTED", "version_mismatch")
        assert (await alpha.get_state()).fields == {"a": "2"}


async def test_the_atomic_commit(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(alpha, "next")
    failed: list[Refused] = []

    @beta.on_raw("work")
    async def work(message: Message) -> None:
        try:
            async with message.commit() as commit:
                commit.update_state({"done": message.data["n"]})
                commit.send("alpha", "next", {"n": message.data["n"]})
                if message.data.get("forbidden"):
                    commit.send("gamma", "next")
            assert len(commit.sent) == 1 and commit.version > 0
        except Refused as error:
            failed.append(error)
            raise

    @beta.on_raw("ask")
    async def ask(message: Message) -> None:
        async with message.commit() as commit:
            commit.reply("answer", {"ok": True})

    async with alpha, beta:
        need(alpha, "commit")
        await alpha.send("beta", "work", {"n": 1})
        assert (await asyncio.wait_for(arrived.get(), PATIENCE_S)).data == {"n": 1}
        assert (await alpha.request("beta", "ask", timeout=10)).data == {"ok": True}
        # One refusal refuses the whole.
        await alpha.send("beta", "work", {"n": 2, "forbidden": True})
        await until(lambda: failed, "the refusal")
        assert failed[0].detail == "not_authorized"
        assert (await beta.get_state()).fields == {"done": "1"} and arrived.empty()
        await until(
            lambda: world.redis("XPENDING", "agent.stream:beta", "agents").split("\n")[0] == "0", "all settled"
        )


async def test_many_calls_on_the_stream(world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived = collecting(beta)
    async with alpha, beta:
        need(alpha, "submit")
        sent = await asyncio.gather(*(alpha.send("beta", "work", {"n": n}) for n in range(1000)))
        assert len({one.message_id for one in sent}) == 1000
        await until(lambda: arrived.qsize() == 1000, "all have arrived")
        with pytest.raises(DlpBlocked):
            await alpha.send("beta", "work", {"card": "4111 1111 1111 1111"})
