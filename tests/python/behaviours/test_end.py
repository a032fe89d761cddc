"""The end of an agent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections import Counter

import pytest
from mas_agent import Agent, Message, NotConnected, Reject, Retry, blocking
from mas_agent.testing import FakeServer
from places import Place, Real, behaviour, both, real, soon, until
from pydantic import BaseModel

from world import HERE, PATIENCE_S


class Memory(BaseModel):
    count: int = 0


@behaviour("stop.drain")
@both
async def test_stopping_lets_handlers_finish_with_everything_that_they_can_do(place: Place) -> None:
    alpha, beta = place.agent(sender := place.name()), place.agent(name := place.name(), concurrency=3)
    begun, go, noted, handled = Counter[str](), asyncio.Event(), asyncio.Event(), Counter[str]()

    @alpha.on("note")
    async def note(message: Message) -> None:
        noted.set()

    @beta.on("work")
    async def work(message: Message, agent: Agent) -> None:
        begun["work"] += 1
        await go.wait()
        await agent.change_state(Memory, lambda memory: Memory(count=memory.count + 1))
        await agent.send(sender, "note")
        assert await agent.discover()
        assert (await agent.get_state()).parse(Memory).count == 1
        async with message.commit() as commit:
            commit.reply("answer", {"count": 1})
        handled["work"] += 1

    @beta.on("plain")
    async def plain(message: Message) -> None:
        begun["plain"] += 1
        await go.wait()
        await message.reply("answer")
        handled["plain"] += 1

    @beta.on("thread")
    def thread(message: blocking.Message, agent: blocking.Agent) -> None:
        begun["thread"] += 1
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
        agent.update_state({"thread": True})
        message.reply("answer")
        handled["thread"] += 1

    loop = asyncio.get_running_loop()
    async with alpha:
        await beta.start()
        asked = [asyncio.create_task(alpha.request(name, kind, timeout=20)) for kind in ("work", "plain", "thread")]
        await until(lambda: begun.total() == 3, "all have begun")
        # One more, for which there is no room: it is not begun any more.
        waits = await alpha.send(name, "plain")
        stopping = asyncio.create_task(beta.stop())
        await asyncio.sleep(0.05)
        assert not stopping.done() and not beta.closed
        # What comes now is for the next session.
        sent = await alpha.send(name, "work")
        go.set()
        await soon(stopping)
        assert beta.closed
        await soon(noted.wait())
        assert len(await asyncio.gather(*asked)) == 3
        assert handled == {"work": 1, "plain": 1, "thread": 1} and begun.total() == 3
        assert not any(place.dead(one.message_id) for one in (sent, waits))
        arrived: set[str] = set()
        again = place.agent(name)

        @again.on_other
        async def take(message: Message) -> None:
            arrived.add(message.id)

        async with again:
            await until(lambda: arrived == {sent.message_id, waits.message_id}, "they come to the next session")
        with pytest.raises(NotConnected, match="stopped"):
            await beta.get_state()


@behaviour("stop.untouched")
@both
@pytest.mark.parametrize("way", ["cancelled", "returns", "raises", "retries", "rejects", "commits", "ignores", "thread"])
async def test_what_is_not_finished_stays_with_the_server(place: Place, way: str) -> None:
    alpha, beta = place.agent(), place.agent(name := place.name(), drain_timeout=0.05)
    begun, end = asyncio.Event(), threading.Event()
    ends: dict[str, Exception] = {"raises": RuntimeError("cleanup"), "retries": Retry("x"), "rejects": Reject("x")}

    async def work(message: Message) -> None:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            if way == "cancelled":
                raise
            if way == "commits":
                async with message.commit() as commit:
                    commit.update_state({"a": 1})
            if way == "ignores":
                await asyncio.sleep(PATIENCE_S)
            if way in ends:
                raise ends[way] from None

    def thread(message: blocking.Message) -> None:
        loop.call_soon_threadsafe(begun.set)
        end.wait(PATIENCE_S)

    loop = asyncio.get_running_loop()
    beta.on("work")(thread if way == "thread" else work)
    async with alpha:
        await beta.start()
        sent = await alpha.send(name, "work")
        await soon(begun.wait())
        began = time.monotonic()
        await beta.stop()
        assert time.monotonic() - began < 8
        end.set()
        arrived: list[Message] = []
        again = place.agent(name)

        @again.on("work")
        async def take(message: Message) -> None:
            arrived.append(message)

        async with again:
            await until(lambda: arrived, "it comes again")
            assert (await again.get_state()).fields == {}
        assert (arrived[0].id, place.dead(sent.message_id)) == (sent.message_id, None)
        # It was put off, which is no attempt.
        assert arrived[0].attempt == 1


@behaviour("stop.untouched")
@both
async def test_all_that_a_session_holds_goes_to_another_instance(place: Place) -> None:
    """What has begun, what waits for its turn, and what arrives meanwhile."""
    alpha, beta = place.agent(), place.agent(name := place.name(), instance_id="first", concurrency=1, drain_timeout=0.5)
    begun, arrived = asyncio.Event(), dict[str, int]()

    @beta.on_other
    async def work(message: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with alpha:
        await beta.start()
        sent = [await alpha.send(name, "work") for _ in range(20)]
        await soon(begun.wait())
        stopping = asyncio.create_task(beta.stop())
        await asyncio.sleep(0)
        sent += [await alpha.send(name, "work") for _ in range(20)]
        other = place.agent(name, instance_id="other")

        @other.on_other
        async def take(message: Message) -> None:
            arrived[message.id] = message.attempt

        async with other:
            await until(lambda: len(arrived) == 40, "all of them come to the other instance")
            await soon(stopping)
            await until(lambda: place.is_settled(name), "they are acknowledged")
    assert arrived == {one.message_id: 1 for one in sent}


@behaviour("stop.untouched")
@both
async def test_so_it_is_where_nobody_waits_for_the_stop(place: Place) -> None:
    alpha, beta, begun = place.agent(), place.agent(name := place.name(), drain_timeout=PATIENCE_S), asyncio.Event()

    @beta.on_other
    async def work(message: Message) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with alpha:
        await beta.start()
        await alpha.send(name, "work")
        await soon(begun.wait())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(beta.stop(), 0.1)
        assert beta.closed
        arrived: list[int] = []
        again = place.agent(name)

        @again.on_other
        async def take(message: Message) -> None:
            arrived.append(message.attempt)

        async with again:
            await until(lambda: arrived, "it comes again")
    assert arrived == [1]


@behaviour("stop.untouched")
async def test_a_server_that_cannot_put_a_message_off_is_told_nothing() -> None:
    features = ["submit", "acks", "deliveries", "commit"]
    async with FakeServer(features=features) as server, server.agent("alpha") as alpha:
        beta, begun = server.agent("beta", drain_timeout=0.05), asyncio.Event()

        @beta.on_other
        async def work(message: Message) -> None:
            begun.set()
            await asyncio.Event().wait()

        await beta.start()
        await alpha.send("beta", "work")
        await soon(begun.wait())
        await beta.stop()
        arrived: list[int] = []
        again = server.agent("beta")

        @again.on_other
        async def take(message: Message) -> None:
            arrived.append(message.attempt)

        async with again:
            await until(lambda: arrived, "it comes again")
    # Its session ended with it, which was an attempt.
    assert arrived == [2] and not server.dead_letters


@behaviour("stop.untouched")
@both
async def test_what_a_given_up_thread_says_is_not_sent(place: Place) -> None:
    """Its commit waits in the library when the agent gives its message up, and is tried no further."""
    beta, alpha = place.agent(name := place.name(), drain_timeout=0.05), place.agent()
    begun, end, said = asyncio.Event(), threading.Event(), asyncio.Event()
    errors: list[Exception] = []

    @beta.on("work")
    def work(message: blocking.Message) -> None:
        loop.call_soon_threadsafe(begun.set)
        end.wait(PATIENCE_S)
        try:
            with message.commit(timeout=5) as commit:
                commit.update_state({"a": 1})
        except NotConnected as error:
            errors.append(error)
        loop.call_soon_threadsafe(said.set)

    loop = asyncio.get_running_loop()
    async with alpha:
        await beta.start()
        await alpha.send(name, "work")
        await soon(begun.wait())
        # The session stays open for what it does after the drain.
        await beta.drain()
        end.set()
        await soon(said.wait())
        assert (await beta.get_state()).fields == {} and "stopped" in str(errors[0])
        await beta.stop()
        arrived: list[Message] = []
        again = place.agent(name)

        @again.on("work")
        async def take(message: Message) -> None:
            arrived.append(message)

        async with again:
            await until(lambda: arrived, "it comes again")
        assert arrived[0].attempt == 1


@behaviour("stop.signals")
@real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_a_second_one_ends_it_at_once(place: Real, number: signal.Signals) -> None:
    program = [sys.executable, str(HERE / "behaviours" / "signalled_agent.py")]
    async with place.agent() as alpha:
        name = place.name()
        env = place.world.env(name, place.server.addr)
        first = place.world.start([*program, "20"], env)
        await asyncio.to_thread(first.json, "connected")
        asking = asyncio.create_task(alpha.request(name, "short", timeout=20))
        await asyncio.to_thread(first.json, "handling")
        os.kill(first.pid, number)
        await asyncio.sleep(0.1)
        assert first.popen.poll() is None
        first.say("go on")
        assert (await asking).data == {"done": True}
        assert await asyncio.to_thread(first.popen.wait, PATIENCE_S) == 0
        await until(lambda: place.is_settled(name), "it is acknowledged")

        second = place.world.start([*program, "20"], env)
        await asyncio.to_thread(second.json, "connected")
        await alpha.send(name, "long")
        await asyncio.to_thread(second.json, "handling")
        os.kill(second.pid, number)
        await asyncio.sleep(0.1)
        assert second.popen.poll() is None
        os.kill(second.pid, number)
        assert await asyncio.to_thread(second.popen.wait, 5) == -number
