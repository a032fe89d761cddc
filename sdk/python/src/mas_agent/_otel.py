"""Spans and metrics by OpenTelemetry's conventions for messaging. Imported where OpenTelemetry is installed only.

Who configures no provider pays for the API's own doing nothing. The trace context stands in the message itself, so
that the receiver gets what the sender wrote, whatever is between them.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import time
import traceback
from collections.abc import Mapping
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING

from opentelemetry import context, metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from ._payload import named_fields
from ._receipt import Receipt, Sent
from ._tracing import Operation, Outcome, Outgoing, TraceParent, Tracing
from .errors import NotConnected, Refused, SetupError, Unsupported

if TYPE_CHECKING:
    from .message import Message

if "explicit_bucket_boundaries_advisory" not in inspect.signature(metrics.Meter.create_histogram).parameters:
    raise ImportError("opentelemetry-api is older than 1.30", name="opentelemetry-api")

# Boundaries of the conventions for durations, in seconds.
BOUNDARIES_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# Failures after which nothing has left the process.
NOT_SENT = (NotConnected, SetupError, Unsupported)

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
CONVERSATION_ID = "messaging.message.conversation_id"
CONSUMER_GROUP = "messaging.consumer.group.name"
CLIENT_ID = "messaging.client.id"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

# A refusal's word, as the server's contract has them. A text of gRPC's own is none, and has no bound.
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_HOST_AND_PORT = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?(?:\[([^]]+)\]|([^][/:]+)):([0-9]{1,5})")
_W3C = TraceContextTextMapPropagator()

Attributes = dict[str, str | int]


class OpenTelemetry(Tracing):
    """Tells the tracer and the meter of the application's providers."""

    def __init__(self, trace_parent: TraceParent, address: str, instance_id: str) -> None:
        self._as_parent = trace_parent == "parent"
        version = _version()
        self._tracer = trace.get_tracer("mas_agent", version)
        self._meters = Meters(metrics.get_meter("mas_agent", version))
        self._common: Attributes = {SYSTEM: "mas", **_server(address)}
        self._client: Attributes = {CLIENT_ID: instance_id}

    def sending(
        self, operation: str, target: str, request: Outgoing, *, correlation_id: str = "", collected: bool = False
    ) -> Operation:
        shared = self._shared(operation, "send", {DESTINATION: target})
        of_message: Attributes = {CONVERSATION_ID: correlation_id} if correlation_id else {}
        waits = operation == "request" and not collected
        kind = SpanKind.CLIENT if waits else SpanKind.PRODUCER
        span = self._tracer.start_span(
            f"{operation} {target}", kind=kind, attributes={**shared, **self._client, **of_message}
        )
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span))
        request.traceparent = carrier.get("traceparent", "")
        request.tracestate = carrier.get("tracestate", "")
        return Sending(self._meters, span, shared, current=not collected)

    def receiving(self, correlation_id: str) -> Operation:
        shared = self._shared("receive", "receive", {})
        span = self._tracer.start_span(
            "receive", kind=SpanKind.CLIENT, attributes={**shared, **self._client, CONVERSATION_ID: correlation_id}
        )
        return Receiving(self._meters, span, shared)

    def processing(self, message: Message) -> Operation:
        shared = self._shared("process", "process", _consumer(message))
        of_message: Attributes = {MESSAGE_ID: message.id, "mas.sender": message.sender}
        if message.correlation_id:
            of_message[CONVERSATION_ID] = message.correlation_id
        if message.attempt:
            of_message["mas.attempt"] = message.attempt
        created = _creation_context(message)
        # Whatever was current when the agent was started is no parent of this.
        parent = created if created is not None and self._as_parent else Context()
        span = self._tracer.start_span(
            f"process {message.target}",
            parent,
            SpanKind.CONSUMER,
            {**shared, **self._client, **of_message},
            [_link(created)] if created is not None else None,
        )
        return Processing(self._meters, span, shared)

    def _shared(self, name: str, kind: str, more: Attributes) -> Attributes:
        """What the spans and the metrics of an operation have."""
        return {OPERATION_NAME: name, OPERATION_TYPE: kind, **more, **self._common}


class Meters:
    """The instruments of the conventions."""

    def __init__(self, meter: metrics.Meter) -> None:
        def histogram(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=BOUNDARIES_S
            )

        def counter(name: str, description: str) -> metrics.Counter:
            return meter.create_counter(name, "{message}", description)

        self.operation = histogram(
            "messaging.client.operation.duration", "Duration of an operation that the agent began."
        )
        self.process = histogram("messaging.process.duration", "Duration of handling a message.")
        self.sent = counter("messaging.client.sent.messages", "Messages that the agent tried to send.")
        self.consumed = counter("messaging.client.consumed.messages", "Messages that were handed to the agent's code.")


class Traced(Operation):
    """A span and the duration of an operation; ``shared`` are the attributes of both."""

    def __init__(
        self, meters: Meters, duration: metrics.Histogram, span: Span, shared: Attributes, *, current: bool = True
    ) -> None:
        self._meters = meters
        self._duration = duration
        self._span = span
        self._shared = shared
        self._current = current
        self._token: Token[Context] | None = None
        self._began = time.perf_counter()

    def __enter__(self) -> Operation:
        if self._current:
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        self._duration.record(time.perf_counter() - self._began, self._shared)
        if self._token is not None:
            context.detach(self._token)
        self._span.end()

    def _fail(self, error: BaseException) -> None:
        self._shared[ERROR_TYPE] = kind = _error_type(error)
        self._span.set_attribute(ERROR_TYPE, kind)
        self._span.set_status(StatusCode.ERROR, _text(error))
        if isinstance(error, Refused):
            _on_record(self._span, error.receipt)

    def _consumed(self, message: Message) -> None:
        self._meters.consumed.add(1, {OPERATION_NAME: "receive", **_consumer(message), **_server_of(self._shared)})


class Sending(Traced):
    """A message from its way out to its answer, or to its reply."""

    def __init__(self, meters: Meters, span: Span, shared: Attributes, *, current: bool) -> None:
        super().__init__(meters, meters.operation, span, shared, current=current)
        self._counted = False

    def accepted(self, sent: Sent, correlation_id: str = "") -> None:
        self._span.set_attribute(MESSAGE_ID, sent.message_id)
        if correlation_id:
            self._span.set_attribute(CONVERSATION_ID, correlation_id)
        _on_record(self._span, sent.receipt)
        self._count()

    def answered(self, reply: Message) -> None:
        _link_to(self._span, reply)
        self._consumed(reply)

    def _fail(self, error: BaseException) -> None:
        super()._fail(error)
        if not self._counted and not isinstance(error, NOT_SENT):
            self._count()

    def _count(self) -> None:
        self._counted = True
        self._meters.sent.add(1, self._shared)


class Receiving(Traced):
    """The wait for the reply to a request of a commit."""

    def __init__(self, meters: Meters, span: Span, shared: Attributes) -> None:
        super().__init__(meters, meters.operation, span, shared)

    def answered(self, reply: Message) -> None:
        self._shared.update(_consumer(reply))
        self._span.update_name(f"receive {reply.target}")
        self._span.set_attributes({**_consumer(reply), MESSAGE_ID: reply.id})
        _link_to(self._span, reply)
        self._consumed(reply)


class Processing(Traced):
    """A handler, from its first line to the message's settlement."""

    def __init__(self, meters: Meters, span: Span, shared: Attributes) -> None:
        super().__init__(meters, meters.process, span, shared)
        meters.consumed.add(1, dict(shared))

    def settled(self, outcome: Outcome, error: Exception | None = None) -> None:
        self._span.set_attribute("mas.outcome", outcome)
        if error is not None:
            self._span.record_exception(error, _without_payload(error))
            self._fail(error)


def _consumer(message: Message) -> Attributes:
    # The instances of an agent are the group that shares its inbox.
    return {DESTINATION: message.target, CONSUMER_GROUP: message.target}


def _server_of(shared: Mapping[str, str | int]) -> Attributes:
    return {name: shared[name] for name in (SYSTEM, SERVER_ADDRESS, SERVER_PORT) if name in shared}


def _creation_context(message: Message) -> Context | None:
    """That in which the message was sent; ``None``: there is none, or none that can be read."""
    carrier = {name: value for name in _W3C.fields if isinstance(value := message.meta.get(name), str)}
    if not carrier:
        return None
    created = _W3C.extract(carrier, Context())
    return created if trace.get_current_span(created).get_span_context().is_valid else None


def _link(created: Context) -> Link:
    return Link(trace.get_current_span(created).get_span_context())


def _link_to(span: Span, message: Message) -> None:
    created = _creation_context(message)
    if created is not None:
        span.add_link(_link(created).context)


def _on_record(span: Span, receipt: Receipt | None) -> None:
    if receipt is not None:
        span.set_attributes({"mas.receipt.lane": receipt.lane, "mas.receipt.sequence": receipt.sequence})


def _error_type(error: BaseException) -> str:
    """Few values: the word of a refusal, or the class."""
    if isinstance(error, Refused):
        return error.detail if _WORD.fullmatch(error.detail) else error.code
    kind = type(error)
    own = kind.__module__ == "builtins" or kind.__module__.startswith("mas_agent.")
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    """What it says; of a payload that a model does not take the fields, and not what is in them."""
    if not isinstance(error, ValidationError):
        return str(error)
    return f"{error.error_count()} of {error.title}: {named_fields(error)}"


def _without_payload(error: Exception) -> dict[str, str] | None:
    """What stands in the place of a text, and of a stack trace that ends with it."""
    if not isinstance(error, ValidationError):
        return None
    stack = "".join(traceback.format_tb(error.__traceback__))
    return {"exception.message": _text(error), "exception.stacktrace": stack}


def _server(address: str) -> Attributes:
    """The server by the conventions, from gRPC's name of it; none where that has no port."""
    parts = _HOST_AND_PORT.fullmatch(address)
    return {SERVER_ADDRESS: parts[1] or parts[2], SERVER_PORT: int(parts[3])} if parts else {}


def _version() -> str:
    try:
        return importlib.metadata.version("mas-agent")
    except importlib.metadata.PackageNotFoundError:
        return ""  # Run from its source.
