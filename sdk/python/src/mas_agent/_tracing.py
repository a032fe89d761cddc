"""What the package tells OpenTelemetry, where the application has it installed; nothing is imported and nothing
is done where it has not. :mod:`_otel` is the one place that imports it."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from ._proto import runtime_pb2 as pb
from ._receipt import Sent

if TYPE_CHECKING:
    from .message import Message

log = logging.getLogger("mas_agent")

TraceParent = Literal["link", "parent"]
"""What the span around a handler makes of the sender's: a link from a trace of its own, or its parent."""

Outgoing = pb.SendRequest | pb.RequestRequest | pb.ReplyRequest
"""What carries the sender's trace context."""

Outcome = Literal["ack", "nack", "later", "dead", "lost"]
"""What becomes of a message: handled, to be delivered again, put off (no attempt of it), a dead letter, or given back
by the end of the session. The words are those of the server's spans."""


class Operation:
    """One operation, from entering it to leaving it. This one is told to nobody."""

    def __enter__(self) -> Operation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def accepted(self, sent: Sent, correlation_id: str = "") -> None:
        """The server has taken the message."""

    def answered(self, reply: Message) -> None:
        """The reply is handed to who asked."""

    def settled(self, outcome: Outcome, error: Exception | None = None) -> None:
        """The handler is through; ``error``: what it raised."""


NOTHING = Operation()


class Tracing:
    """What the calls and the intake tell. This one tells nobody."""

    def sending(
        self, operation: str, target: str, request: Outgoing, *, correlation_id: str = "", collected: bool = False
    ) -> Operation:
        """A message is sent, with the trace context that this writes into ``request``. ``collected``: as one of
        those of a commit, where none is the parent of another and a request does not wait for its reply."""
        return NOTHING

    def receiving(self, correlation_id: str) -> Operation:
        """A reply is waited for whose request was sent before."""
        return NOTHING

    def processing(self, message: Message) -> Operation:
        """A handler runs."""
        return NOTHING


def find(trace_parent: TraceParent, address: str, instance_id: str) -> Tracing:
    """That of the installed OpenTelemetry, else one that does nothing."""
    try:
        from ._otel import OpenTelemetry
    except ImportError as error:
        # Absent is usual. One that is there and cannot be used is worth a word.
        if error.name != "opentelemetry":
            log.warning("nothing is traced, OpenTelemetry cannot be used: %s", error)
        return Tracing()
    return OpenTelemetry(trace_parent, address, instance_id)
