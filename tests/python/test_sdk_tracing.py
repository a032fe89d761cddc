"""What the SDK tells OpenTelemetry, beside what the server tells a collector of the same messages."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mas_agent import (
    Agent,
    Credentials,
    Message,
    NoReply,
    NotAuthorized,
    NotConnected,
    RateLimited,
    Reject,
    Retry,
    SetupError,
    _otel,
)
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from pydantic import BaseModel

from collector import Collector
from spans import Application, of_sdk, of_server, tree
from world import HERE, PATIENCE_S, UNLIMITED, Server, World

AGENTS = """
permissions:
  - {type: allow, sender: gamma, targets: [alpha]}
  - {type: allow_bidirectional, agents: [alpha, beta]}
agents:
  - {agent_id: alpha}
  - {agent_id: beta}
  - {agent_id: gamma}
"""
DELIVERY = "delivery: {reclaim_idle_ms: 300, retry_backoff_ms: [20, 40], max_attempts: 4}\n"


@pytest.fixture(scope="module")
def process() -> Iterator[Application]:
    application = Application()
    yield application
    # Other tests' agents tell nobody any more.
    application.spans.shutdown()


@pytest.fixture
def application(process: Application) -> Application:
    process.spans.clear()
    process.points()
    return process


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def world(collector: Collector) -> Iterator[World]:
    # Only what a sender traces.
    keys = f"enabled: true, otlp_endpoint: '{collector.url}', sample_ratio: 0.0, export_metrics: false"
    with World(AGENTS, gateway=f"{UNLIMITED}, telemetry: {{{keys}}}", settings=DELIVERY) as world:
        world.issue("alpha", "beta", "gamma")
        yield world


@pytest.fixture
def server(world: World) -> Server:
    return world.server()


def agent(world: World, server: Server, name: str, **options: Any) -> Agent:
    options.setdefault("trace_parent", "parent")
    return Agent(server.addr, credentials=Credentials(*world.files(name)), instance_id="i0", **options)


async def until(condition: Any, what: str) -> Any:
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not in time: {what}"
        await asyncio.sleep(0.01)
    return value


async def test_one_trace_from_handler_to_handler_and_back(
    application: Application, collector: Collector, world: World, server: Server
) -> None:
    alpha, beta, gamma = (agent(world, server, name) for name in ("alpha", "beta", "gamma"))
    contexts: dict[str, Any] = {}

    @alpha.on_raw("begin")
    async def begin(message: Message) -> None:
        contexts["send alpha"] = message.meta["traceparent"]
        with application.tracer.start_as_current_span("think"):
            reply = await alpha.request("beta", "question", {"n": 1}, timeout=10)
        contexts["reply alpha"] = reply.meta["traceparent"]

    @beta.on_raw("question")
    async def question(message: Message) -> None:
        contexts["request beta"] = message.meta["traceparent"]
        await message.reply("answer", {"n": 2})

    async with alpha, beta, gamma:
        sent = await gamma.send("alpha", "begin")
        await until(lambda: application.named("process alpha") and application.named("process beta"), "handlers' spans")
        await until(lambda: len(collector.spans) == 6, "the server's spans")

    ours = [of_sdk(span) for span in application.spans.get_finished_spans()]
    spans = ours + [of_server(span) for _, span in collector.spans]
    assert len({span.trace for span in spans}) == 1
    reply = ["mas_agent PRODUCER reply alpha", ["server INTERNAL deliver alpha"], ["server SERVER reply alpha"]]
    handled = ["mas_agent CONSUMER process beta", reply]
    asked = ["mas_agent CLIENT request beta", handled, ["server INTERNAL deliver beta"], ["server SERVER request beta"]]
    begun = ["mas_agent CONSUMER process alpha", ["application INTERNAL think", asked]]
    whole = ["mas_agent PRODUCER send alpha", begun, ["server INTERNAL deliver alpha"], ["server SERVER send alpha"]]
    assert tree(spans) == [whole]

    # What stood in each message is what its sender wrote.
    by_name = {span.name: span for span in ours}
    for name, written in contexts.items():
        [span] = application.named(name)
        assert span.context is not None and span.context.trace_flags.sampled
        assert written == f"00-{by_name[name].trace}-{by_name[name].id}-{span.context.trace_flags:02x}", name
    assert by_name["process alpha"].links == (by_name["send alpha"].id,)
    assert by_name["process beta"].links == (by_name["request beta"].id,)
    assert by_name["request beta"].links == (by_name["reply alpha"].id,)

    # Both sides say the same of a message.
    common = {"messaging.system": "mas", "server.address": "127.0.0.1", "server.port": int(server.addr.split(":")[1])}
    assert sent.receipt is not None
    assert by_name["send alpha"].attributes == {
        **common,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "alpha",
        "messaging.message.id": sent.message_id,
        "messaging.client.id": "i0",
        "mas.receipt.lane": sent.receipt.lane,
        "mas.receipt.sequence": sent.receipt.sequence,
    }
    assert by_name["process alpha"].attributes == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "alpha",
        "messaging.consumer.group.name": "alpha",
        "messaging.message.id": sent.message_id,
        "messaging.client.id": "i0",
        "mas.sender": "gamma",
        "mas.attempt": 1,
        "mas.outcome": "ack",
    }
    ids = ("messaging.message.id", "messaging.message.conversation_id", "mas.receipt.lane", "mas.receipt.sequence")
    for name in ("send alpha", "request beta", "reply alpha"):
        [theirs] = [span for span in spans if span.by == "server" and span.name == name]
        mine = by_name[name].attributes
        assert [mine.get(key) for key in ids] == [theirs.attributes.get(key) for key in ids], name
    conversation = by_name["request beta"].attributes["messaging.message.conversation_id"]
    assert conversation == by_name["process beta"].attributes["messaging.message.conversation_id"] != ""


async def test_a_link_is_the_default_and_no_handler_belongs_to_who_started_the_agent(
    application: Application, world: World, server: Server
) -> None:
    alpha, beta = Agent(server.addr, credentials=Credentials(*world.files("alpha"))), agent(world, server, "beta")

    @alpha.on_raw("note")
    async def note(message: Message) -> None:
        with application.tracer.start_as_current_span("think"):
            pass

    with application.tracer.start_as_current_span("startup"):
        await alpha.start()
    async with beta:
        with application.tracer.start_as_current_span("cause"):
            await beta.send("alpha", "note")
        await until(lambda: application.named("process alpha"), "the handler's span")
    await alpha.stop()
    names = ("startup", "cause", "send alpha", "process alpha", "think")
    startup, cause, sent, process, think = (of_sdk(one) for name in names for one in application.named(name))
    assert (sent.trace, sent.parent) == (cause.trace, cause.id)
    assert process.parent == "" and process.trace not in (startup.trace, cause.trace)
    assert process.links == (sent.id,)
    assert (think.trace, think.parent) == (process.trace, process.id)
    with pytest.raises(SetupError, match="trace_parent"):
        Agent(trace_parent="child")  # type: ignore[arg-type]


async def test_what_the_application_does_not_keep_nobody_keeps(
    application: Application, collector: Collector, world: World, server: Server
) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")
    arrived: asyncio.Queue[Message] = asyncio.Queue()

    @beta.on_raw("note")
    async def note(message: Message) -> None:
        arrived.put_nowait(message)

    kept, state = TraceFlags(TraceFlags.SAMPLED), TraceState([("vendor", "1"), ("other", "2")])
    async with alpha, beta:
        for flags, size in ((TraceFlags(0), 1), (kept, 1), (kept, 100_000)):
            with trace.use_span(NonRecordingSpan(SpanContext(0xA1, 0xB1, True, flags, state))):
                # The longest goes the unary way.
                await alpha.send("beta", "note", {"text": "x" * size})
        metas = [(await asyncio.wait_for(arrived.get(), PATIENCE_S)).meta for _ in range(3)]
        await until(lambda: len(collector.spans) == 4, "the spans of those that are kept")
    assert [meta["traceparent"][:36] for meta in metas] == [f"00-{0xA1:032x}-"] * 3
    assert sorted(meta["traceparent"][-3:] for meta in metas) == ["-00", "-01", "-01"]
    assert {meta["tracestate"] for meta in metas} == {"vendor=1,other=2"}
    sent = {of_sdk(span).id for span in application.named("send beta")}
    assert sent == {meta["traceparent"][36:52] for meta in metas if meta["traceparent"].endswith("-01")}
    assert {of_server(span).parent for _, span in collector.spans} == sent
    assert len(application.named("process beta")) == 2


async def test_the_messages_of_a_commit(application: Application, world: World, server: Server) -> None:
    alpha, beta, gamma = (agent(world, server, name) for name in ("alpha", "beta", "gamma"))
    replies: asyncio.Queue[Message] = asyncio.Queue()

    @alpha.on_raw("work")
    async def work(message: Message) -> None:
        async with message.commit() as commit:
            commit.send("beta", "note")
            pending = commit.request("beta", "question", timeout=10)
            if "forbidden" in message.data:
                commit.send("gamma", "note")
        replies.put_nowait(await pending.get())
        raise ValueError("after the commit")

    @beta.on_raw("note")
    async def note(message: Message) -> None:
        pass

    @beta.on_raw("question")
    async def question(message: Message) -> None:
        async with message.commit() as commit:
            commit.reply("answer")

    async with alpha, beta, gamma:
        await gamma.send("alpha", "work")
        await asyncio.wait_for(replies.get(), PATIENCE_S)
        await until(lambda: len(application.named("process beta")) == 2, "both handlers of beta")
        [handled] = await until(lambda: application.named("process alpha"), "the handler's span")
        spans = [of_sdk(span) for span in application.spans.get_finished_spans()]
        took = ["mas_agent CONSUMER process beta"]
        answered = [*took, ["mas_agent PRODUCER reply alpha"]]
        assert tree(spans, of_sdk(handled).id) == [
            ["mas_agent CLIENT receive alpha"],
            ["mas_agent PRODUCER request beta", answered],
            ["mas_agent PRODUCER send beta", took],
        ]
        [receive], [reply] = application.named("receive alpha"), application.named("reply alpha")
        assert of_sdk(receive).links == (of_sdk(reply).id,)
        conversations = {
            of_sdk(one).attributes["messaging.message.conversation_id"]
            for one in (receive, reply, *application.named("request beta"))
        }
        assert len(conversations) == 1
        # It was handled, and then its handler failed.
        assert of_sdk(handled).attributes["mas.outcome"] == "ack"
        assert [event.name for event in handled.events] == ["exception"] and not handled.status.is_ok
        application.points()

        application.spans.clear()
        await gamma.send("alpha", "work", {"forbidden": True})
        await until(lambda: application.named("process alpha"), "the span of the one that failed")
    names = ("send beta", "request beta", "send gamma", "process alpha")
    for span in (one for name in names for one in application.named(name)):
        assert of_sdk(span).attributes["error.type"] == "not_authorized", span.name
        assert not span.status.is_ok
    assert not application.named("process beta") and not application.named("receive alpha")
    tried = application.points()["messaging.client.sent.messages"]
    assert sum(point.value for point in tried if "error.type" in point.attributes) == 3


async def test_failures_say_which(application: Application, world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta", drain_timeout=0.05)
    hangs, done_once = asyncio.Event(), list[int]()

    @beta.on_raw("again")
    async def again(message: Message) -> None:
        if message.attempt == 1:
            raise Retry("later")

    @beta.on_raw("never")
    async def never(message: Message) -> None:
        raise Reject("no")

    @beta.on_raw("broken")
    async def broken(message: Message) -> None:
        raise json.JSONDecodeError("nothing", "", 0)

    @beta.on_raw("limited")
    async def limited(message: Message) -> None:
        if not done_once:
            done_once.append(message.attempt)
            raise RateLimited("RESOURCE_EXHAUSTED", "rate_limited", retry_after=60.0)

    @beta.on_raw("silent")
    async def silent(message: Message) -> None:
        hangs.set()
        await asyncio.sleep(PATIENCE_S)

    async with alpha:
        async with beta:
            with pytest.raises(NotAuthorized) as refused:
                await alpha.send("gamma", "note")
            for kind in ("again", "never", "broken", "limited"):
                await alpha.send("beta", kind)
            with pytest.raises(NoReply):
                await alpha.request("beta", "silent", timeout=0.2)
            await until(lambda: hangs.is_set() and len(application.named("process beta")) == 5, "the handlers' spans")
        # Its handler was cancelled.
        await until(lambda: len(application.named("process beta")) == 6, "the last handler's span")
        server.stop()
        alpha._opened().calls.timeout = 0.2
        await until(lambda: not alpha.is_connected, "the agent knows")
        with pytest.raises(NotConnected):
            await alpha.send("beta", "note")

    [denied] = application.named("send gamma")
    assert refused.value.receipt is not None
    assert of_sdk(denied).attributes["mas.receipt.sequence"] == refused.value.receipt.sequence
    assert (of_sdk(denied).attributes["error.type"], denied.status.is_ok) == ("not_authorized", False)
    [asked] = application.named("request beta")
    assert of_sdk(asked).attributes["error.type"] == "NoReply" and asked.status.description
    handled = sorted(
        (span.attributes["mas.outcome"], span.attributes.get("error.type", ""), len(span.events))
        for span in application.named("process beta")
        if span.attributes
    )
    assert handled == [
        ("ack", "", 0),
        ("dead", "Reject", 1),
        ("dead", "json.decoder.JSONDecodeError", 1),
        ("later", "asyncio.exceptions.CancelledError", 0),
        ("later", "rate_limited", 1),
        ("nack", "Retry", 1),
    ]
    keys = ("messaging.operation.name", "messaging.destination.name", "error.type")
    sent = application.points()["messaging.client.sent.messages"]
    # Without the one for which there was no connection; a request without a reply was sent.
    assert {tuple(point.attributes.get(key) for key in keys): point.value for point in sent} == {
        ("send", "gamma", "not_authorized"): 1,
        ("send", "beta", None): 4,
        ("request", "beta", None): 1,
    }


async def test_metrics(application: Application, world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")

    @beta.on_raw("question")
    async def question(message: Message) -> None:
        await message.reply("answer")

    async with alpha, beta:
        for _ in range(3):
            await alpha.request("beta", "question", timeout=10)
        await until(lambda: len(application.named("process beta")) == 3, "the handlers are through")
    points = application.points()

    def rows(name: str) -> dict[tuple[Any, ...], float]:
        keys = ("messaging.operation.name", "messaging.destination.name", "messaging.consumer.group.name")
        counted = [(point.attributes, getattr(point, "value", getattr(point, "count", 0))) for point in points[name]]
        assert all(attributes["messaging.system"] == "mas" for attributes, _ in counted)
        return {tuple(attributes.get(key) for key in keys): value for attributes, value in counted}

    calls = {("request", "beta", None): 3, ("reply", "alpha", None): 3}
    assert rows("messaging.client.sent.messages") == rows("messaging.client.operation.duration") == calls
    assert rows("messaging.process.duration") == {("process", "beta", "beta"): 3}
    consumed = {("process", "beta", "beta"): 3, ("receive", "alpha", "alpha"): 3}
    assert rows("messaging.client.consumed.messages") == consumed
    [duration] = points["messaging.process.duration"]
    assert duration.explicit_bounds[0] == 0.005 and duration.sum > 0
    # Nothing in them grows with the messages.
    allowed = {"messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"}
    allowed |= {"messaging.consumer.group.name", "server.address", "server.port"}
    assert {key for all_of in points.values() for point in all_of for key in point.attributes} <= allowed


class Order(BaseModel):
    number: int


async def test_no_payload_is_told(application: Application, world: World, server: Server) -> None:
    alpha, beta = agent(world, server, "alpha"), agent(world, server, "beta")

    @beta.on("order", Order)
    async def order(message: Message, order: Order) -> None:
        pass

    async with alpha, beta:
        await alpha.send("beta", "order", {"number": "a secret"})
        [span] = await until(lambda: application.named("process beta"), "the handler's span")
    assert span.status.description == "1 of Order: number: int_parsing"
    [event] = span.events
    assert event.attributes and event.attributes["exception.message"] == span.status.description
    assert "model_validate" in str(event.attributes["exception.stacktrace"])
    assert "secret" not in span.to_json()


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("dns:///mas.example.org:1", "mas.example.org", 1),
        ("dns://1.1.1.1/mas.example.org:1", "mas.example.org", 1),
        ("dns:mas.example.org:1", "mas.example.org", 1),
        ("[::1]:2", "::1", 2),
        ("ipv6:[::1]:2", "::1", 2),
        ("unix:/run/mas:1", None, None),
        ("unix:///run/mas", None, None),
        ("mas.example.org", None, None),
    ],
)
def test_the_server_is_named_by_its_address(address: str, host: str | None, port: int | None) -> None:
    named = _otel._server(address)
    assert (named.get("server.address"), named.get("server.port")) == (host, port)


@pytest.mark.parametrize("how", ["refuse", "api"])
def test_without_opentelemetry_and_without_a_provider(world: World, server: Server, how: str) -> None:
    program = [sys.executable, str(HERE / "untraced_agents.py"), server.addr, str(world.certs), how]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "after_import": False,
        "after_start": how == "api",
        "context": None,
        "answers": [{"ok": True}] * 2,
        "refused": "not_authorized",
    }
    assert done.stderr == ""
