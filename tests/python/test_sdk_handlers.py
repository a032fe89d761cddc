"""How handlers, middleware, hooks and tasks are written, against the server in memory."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from mas_agent import Agent, Message, NotConnected, SetupError, StateOf, blocking
from mas_agent.testing import FakeServer
from pydantic import BaseModel
from typing_extensions import TypedDict


class Question(BaseModel):
    text: str


@dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    name: str


class Memory(BaseModel):
    count: int = 0


async def asked(register: Callable[[Agent], None], data: Any = None, **options: Any) -> Any:
    """The data of the reply to one question."""
    async with FakeServer() as server:
        alpha, beta = server.agent("alpha"), server.agent("beta", **options)
        register(beta)
        async with alpha, beta:
            return (await alpha.request("beta", "question", data, timeout=5)).data


async def test_the_payload_is_what_the_annotation_says() -> None:
    def model(agent: Agent) -> None:
        @agent.on("question")
        async def answer(question: Question, message: Message) -> None:
            await message.reply("answer", {"said": question.text})

    def plain(agent: Agent) -> None:
        @agent.on("question")
        async def answer(message: Message, data: dict[str, str]) -> None:
            await message.reply("answer", data)

    def row(agent: Agent) -> None:
        @agent.on("question")
        async def answer(row: Row, *, message: Message) -> None:
            await message.reply("answer", {"name": row["name"]})

    def unannotated(agent: Agent) -> None:
        @agent.on("question")
        async def answer(data, message):  # type: ignore[no-untyped-def]
            await message.reply("answer", data)

    def point(agent: Agent) -> None:
        @agent.on("question")
        async def answer(message: Message, point: Point) -> None:
            await message.reply("answer", Point(point.y, point.x))

    def either(agent: Agent) -> None:
        @agent.on("question")
        async def answer(data: Question | Point, message: Message) -> None:
            await message.reply("answer", {"is": type(data).__name__})

    assert await asked(model, Question(text="Why?")) == {"said": "Why?"}
    assert await asked(plain, {"a": "b"}) == {"a": "b"}
    assert await asked(row, Row(name="n")) == {"name": "n"}
    assert await asked(unannotated, {"a": [1]}) == {"a": [1]}
    assert await asked(point, Point(1, 2)) == {"x": 2, "y": 1}
    assert await asked(either, {"x": 1}) == {"is": "Point"}


async def test_the_first_form_goes_on_working() -> None:
    def named(agent: Agent) -> None:
        @agent.on("question", Question)
        async def answer(m, d):  # type: ignore[no-untyped-def]
            await m.reply("answer", d)

    def annotated(agent: Agent) -> None:
        @agent.on("question", Question, retry_on=[ConnectionError])
        async def answer(message: Message, data: Question) -> None:
            await message.reply("answer", data)

    class Service:
        async def answer(self, message: Message, data: Question) -> None:
            await message.reply("answer", data)

    async def partial(prefix: str, message: Message, data: Question) -> None:
        await message.reply("answer", {"text": prefix + data.text})

    assert await asked(named, {"text": "a"}) == {"text": "a"}
    assert await asked(annotated, {"text": "a"}) == {"text": "a"}
    assert await asked(lambda agent: void(agent.on("question", Question)(Service().answer)), {"text": "a"}) == {"text": "a"}
    wrapped = functools.partial(partial, "> ")
    assert await asked(lambda agent: void(agent.on("question")(wrapped)), {"text": "a"}) == {"text": "> a"}

    class Answer:
        async def __call__(self, data: Question, message: Message) -> None:
            await message.reply("answer", data)

    def same(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(*arguments: Any, **keywords: Any) -> None:
            await function(*arguments, **keywords)

        return wrapper

    for handler in (Answer(), same(Service().answer), same(Answer().__call__)):
        assert await asked(lambda agent: void(agent.on("question")(handler)), {"text": "a"}) == {"text": "a"}


def void(_: object) -> None: ...


async def test_everything_in_any_order() -> None:
    def register(agent: Agent) -> None:
        @agent.on("question")
        async def answer(
            memory: StateOf[Memory], me: Agent, question: Question, note: str = "default", *, message: Message
        ) -> None:
            assert me is agent and memory.value.count == 0
            changed = await memory.change(lambda one: Memory(count=one.count + 2))
            assert changed.count == memory.value.count == 2 and memory.version == 1
            await message.reply("answer", {"text": question.text, "note": note, **(await memory.read()).model_dump()})

    assert await asked(register, {"text": "a"}) == {"text": "a", "note": "default", "count": 2}


async def test_what_cannot_be_a_handler_is_refused_with_the_line_to_write_instead() -> None:
    agent = Agent("in memory")

    async def two(first, second):  # type: ignore[no-untyped-def]
        pass

    async def three(first: Question, second: Point, message: Message) -> None: ...

    async def unreadable(data: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    async def no_object(data: int) -> None: ...

    async def raw(message: Message, data: Question) -> None: ...

    async def state(memory: StateOf) -> None: ...  # type: ignore[type-arg]

    async def blocks(message: blocking.Message) -> None: ...

    async def yields(message: Message):  # type: ignore[no-untyped-def]
        yield message

    async def good(message: Message) -> None: ...

    on = agent.on("question")
    for register, said in [
        (lambda: agent.on(good), r'write @agent.on\("TYPE"\) above good'),
        (lambda: on(two), r'which of first, second is the payload: write @agent.on\("question"\) with `async def two\('),
        (lambda: on(three), "which of first, second is the payload"),
        (lambda: on(unreadable), "the annotation 'Nowhere' of data cannot be read here"),
        (lambda: on(no_object), "a payload is a JSON object, and <class 'int'> is none; write @agent.on"),
        (lambda: agent.on("question", list[int])(good), r"list\[int\] is none"),
        (lambda: agent.on("question", Question(text="a"))(good), "is no model of a payload"),
        (lambda: agent.on("question", good)(good), "is no model of a payload"),
        (lambda: agent.on_raw("question")(raw), r"nothing fills data: write `async def raw\(message: Message\)`"),
        (lambda: on(state), r"write memory: StateOf\[Memory\]"),
        (lambda: on(blocks), "would block the event loop: write `def blocks"),
        (lambda: on(yields), "yields, and a handler returns"),
        (lambda: on(Question), "is no handler"),
        (lambda: on(None), "is no handler"),
        (lambda: agent.middleware(lambda message, call_next: None), r"`async def around\(message, call_next\)`"),
        (lambda: agent.task(lambda: None), r"`async def work\(\)`"),
    ]:
        with pytest.raises(SetupError, match=said):
            register()  # type: ignore[no-untyped-call]
    on(good)
    with pytest.raises(SetupError, match="already"):
        on(good)
    agent.on_other(good)
    with pytest.raises(SetupError, match="already"):
        agent.on_other(good)


async def test_names_for_type_checkers_only_are_known_all_the_same() -> None:
    """As where `Message` is imported under `if TYPE_CHECKING`."""
    names: dict[str, Any] = {}
    exec(
        "from __future__ import annotations\n"
        "async def answer(message: Message, me: mas_agent.Agent, data: dict) -> None:\n"
        "    await message.reply('answer', {**data, 'id': me.agent_id})\n",
        names,
    )
    assert await asked(lambda agent: void(agent.on("question")(names["answer"])), {"a": 1}) == {"a": 1, "id": "beta"}


async def test_plain_functions_run_in_threads_with_blocking_calls(caplog: pytest.LogCaptureFixture) -> None:
    def register(agent: Agent) -> None:
        @agent.on("question")
        def answer(
            question: Question, message: blocking.Message, me: blocking.Agent, memory: blocking.StateOf[Memory]
        ) -> None:
            assert memory.value.count == 0
            assert memory.change(lambda one: Memory(count=one.count + 1)).count == memory.read().count == 1
            me.send("alpha", "note", {"n": 1})
            assert me.change_state(Memory, lambda one: Memory(count=one.count + 1)).count == 2
            assert [peer.agent_id for peer in me.discover()] == ["alpha"]
            with message.commit() as commit:
                commit.update_state({"done": True})
                pending = commit.request("alpha", "ask", timeout=5)
                commit.reply("answer", {"text": question.text, **me.get_state().fields})
            assert pending.get().data == {"n": 2} and commit.version == 3 and len(commit.sent) == 2

    async with FakeServer() as server:
        alpha, beta = server.agent("alpha"), server.agent("beta")
        register(beta)
        noted = asyncio.Event()

        @alpha.on("note")
        async def note() -> None:
            noted.set()

        @alpha.on("ask")
        async def ask(message: Message) -> None:
            await message.reply("answer", {"n": 2})

        @beta.on("fails", retry_on=[ConnectionError])
        def fails(message: blocking.Message) -> None:
            if message.attempt == 1:
                raise ConnectionError
            raise LookupError

        async with alpha, beta:
            reply = await alpha.request("beta", "question", {"text": "a"}, timeout=5)
            assert reply.data == {"text": "a", "count": "2"}
            await asyncio.wait_for(noted.wait(), 5)
            await alpha.send("beta", "fails")
            await server.idle()
        assert server.state("beta") == {"count": "2", "done": "true"}
        assert [(one.reason, one.attempts) for one in server.dead_letters] == [("handler_error:LookupError", 2)]


async def test_threads_are_as_many_as_the_concurrency() -> None:
    running, most = 0, 0

    async with FakeServer() as server:
        alpha, beta = server.agent("alpha"), server.agent("beta", concurrency=3)
        loop = asyncio.get_running_loop()

        async def count(by: int) -> None:
            nonlocal running, most
            running += by
            most = max(most, running)
            await asyncio.sleep(0.01)

        @beta.on("work")
        def work(data: dict[str, int]) -> None:
            asyncio.run_coroutine_threadsafe(count(1), loop).result()
            asyncio.run_coroutine_threadsafe(count(-1), loop).result()

        async with alpha, beta:
            await asyncio.gather(*(alpha.send("beta", "work") for _ in range(12)))
            await server.idle()
    assert (running, most) == (0, 3) and not server.dead_letters


async def test_middleware_is_around_every_handler() -> None:
    seen: list[str] = []

    def register(agent: Agent) -> None:
        @agent.middleware
        async def outer(message: Message, call_next: Callable[[Message], Any]) -> None:
            seen.append(f"before {message.type}")
            await call_next(message)
            seen.append("after")

        @agent.middleware
        async def inner(message: Message, call_next: Callable[[Message], Any]) -> None:
            message.data["text"] += "!"
            await call_next(message)

        @agent.on("question")
        async def answer(question: Question, message: Message) -> None:
            seen.append("handler")
            await message.reply("answer", question)

    assert await asked(register, {"text": "a"}) == {"text": "a!"}
    assert seen == ["before question", "handler", "after"]


async def test_the_start_comes_before_the_first_message() -> None:
    order: list[str] = []
    async with FakeServer() as server:
        beta = server.agent("beta")

        @beta.on_start
        async def begin() -> None:
            await beta.update_state({"begun": True})
            await asyncio.sleep(0.02)
            order.append("started")

        @beta.on("work")
        async def work() -> None:
            order.append("handled")

        async with server.agent("alpha") as alpha:
            await alpha.send("beta", "work")
            async with beta:
                order.append("running")
                await server.idle()
    assert order == ["started", "running", "handled"]


async def test_a_start_that_fails_is_no_start() -> None:
    async with FakeServer() as server:
        beta = server.agent("beta")

        @beta.on_start
        async def begin() -> None:
            raise LookupError("no model")

        with pytest.raises(LookupError, match="no model"):
            await beta.start()
        assert beta.closed and not server.connected()


async def test_a_task_begins_with_the_agent_and_ends_with_it(caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    async with FakeServer() as server:
        beta = server.agent("beta")

        @beta.task
        async def work() -> None:
            assert beta.is_connected
            order.append("begun")
            try:
                await asyncio.Event().wait()
            finally:
                await beta.update_state({"last": True})
                order.append("ended")

        @beta.task
        async def short() -> None:
            order.append("short")

        async with beta:
            await asyncio.sleep(0.02)
        assert order == ["begun", "short", "ended"] and server.state("beta") == {"last": "true"}

        gamma = server.agent("gamma")

        @gamma.task
        async def fails() -> None:
            raise LookupError("gone")

        await gamma.start()
        with pytest.raises(LookupError, match="gone"):
            await asyncio.wait_for(gamma.wait(), 5)
        assert gamma.closed and server.connected() == set()
        with pytest.raises(LookupError, match="gone"):
            await asyncio.wait_for(gamma.serve(), 5)
    assert any(one.levelno == logging.ERROR and "which ends the agent" in one.getMessage() for one in caplog.records)


async def test_a_handler_may_stop_its_agent_and_draining_leaves_it_connected() -> None:
    async with FakeServer() as server:
        alpha, beta = server.agent("alpha"), server.agent("beta")

        @beta.on("stop")
        async def stop(agent: Agent) -> None:
            await agent.stop()

        @beta.on("stop in a thread")
        def stop_too(agent: blocking.Agent) -> None:
            agent.stop()

        async with alpha:
            for kind in ("stop", "stop in a thread"):
                await beta.start()
                await alpha.send("beta", kind)
                await asyncio.wait_for(beta.wait(), 5)
                assert beta.closed
                # It is acknowledged: otherwise the next start would stop at once.
                assert server._core.inboxes._inboxes["beta"] == deque()
        gamma = server.agent("gamma")
        async with gamma:
            await gamma.drain(0.1)
            assert gamma.is_connected and (await gamma.get_state()).fields == {}
        with pytest.raises(NotConnected):
            await gamma.drain()


async def test_a_handler_whose_own_wait_is_cancelled_gets_its_message_again() -> None:
    """It is no stop: otherwise the message would be nobody's until the session ends."""
    attempts: list[int] = []
    async with FakeServer() as server:
        alpha, beta = server.agent("alpha"), server.agent("beta")

        @beta.on("work")
        async def work(message: Message) -> None:
            attempts.append(message.attempt)
            if message.attempt == 1:
                inner = asyncio.ensure_future(asyncio.sleep(5))
                asyncio.get_running_loop().call_soon(inner.cancel)
                await inner

        async with alpha, beta:
            await alpha.send("beta", "work")
            await server.idle()
    assert attempts == [1, 2] and not server.dead_letters
