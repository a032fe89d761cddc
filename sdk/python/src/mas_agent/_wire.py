"""The methods of the protocol, and what their failures mean."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from ._proto import runtime_pb2 as pb
from ._proto import status_pb2
from ._receipt import Finding, Receipt, findings
from .errors import MasError, OutcomeUnknown, refused

SERVICE = "/mas.runtime.v1.RuntimeService/"

# Nothing happened, and trying again may help.
PASSING = frozenset({"overloaded", "storage_unavailable", "server_stopping", "session_not_connected"})
# Statuses under which an answer may have been lost.
UNCERTAIN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})
# The one word of the server's that is no refusal.
COMMIT_UNKNOWN = "commit_unknown"

# What the server may list in Welcome.features.
SUBMIT = "submit"
ACKS = "acks"
DELIVERIES = "deliveries"
COMMIT = "commit"
LATER = "later"
REQUEST_FAILED = "request_failed"
# A server that commits has versions, keys and times, too.
IDEMPOTENCY = frozenset({"idempotency", COMMIT})
TIMES = frozenset({"ttl", COMMIT})
VERSIONS = frozenset({"versions", COMMIT})

# A server's word; gRPC's own texts are sentences.
_WORD = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|overloaded|quarantined")

Q = TypeVar("Q", contravariant=True)
R = TypeVar("R", covariant=True)


class Method(Protocol, Generic[Q, R]):
    """A unary call."""

    def __call__(self, request: Q, *, timeout: float) -> Awaitable[R]: ...


class Stream(Protocol):
    """A Transport call."""

    async def write(self, event: pb.ClientEvent) -> None: ...

    async def read(self) -> Any:
        """The next ServerEvent, or ``grpc.aio.EOF``."""

    async def done_writing(self) -> None: ...

    def cancel(self) -> bool: ...


class Transport(Protocol):
    """Opens a Transport call."""

    def __call__(self) -> Stream: ...


class Methods(Protocol):
    """The calls of one connection."""

    send: Method[pb.SendRequest, pb.SendResponse]
    request: Method[pb.RequestRequest, pb.RequestResponse]
    reply: Method[pb.ReplyRequest, pb.ReplyResponse]
    discover: Method[pb.DiscoverRequest, pb.DiscoverResponse]
    get_state: Method[pb.GetStateRequest, pb.GetStateResponse]
    update_state: Method[pb.UpdateStateRequest, pb.UpdateStateResponse]
    reset_state: Method[pb.ResetStateRequest, pb.ResetStateResponse]
    transport: Transport


class Passing(MasError):
    """Nothing happened; another try may succeed. Does not leave the package."""

    def __init__(self, error: MasError) -> None:
        super().__init__(str(error))
        self.error = error


def failure_of_call(error: grpc.aio.AioRpcError) -> MasError:
    """What the failure of a unary call means."""
    retry_after = None
    for name, value in error.initial_metadata() or ():
        if name == "retry-after-ms":
            retry_after = _seconds(str(value))
    receipt, found = pb.Receipt(), pb.Findings()
    has_receipt = _details(error.trailing_metadata() or (), receipt, found)
    return failure(
        error.code().name,
        error.details() or "",
        retry_after,
        receipt if has_receipt else None,
        findings(found.findings),
    )


def failure_of_submission(failed: pb.Failure) -> MasError:
    """What the failure of a submission on the stream means."""
    code = _CODES.get(failed.code, "UNKNOWN")
    retry_after = failed.retry_after_ms / 1000 if failed.retry_after_ms else None
    receipt = failed.receipt if failed.HasField("receipt") else None
    return failure(code, failed.detail, retry_after, receipt, findings(failed.findings))


def failure(
    code: str,
    detail: str,
    retry_after: float | None = None,
    receipt: pb.Receipt | None = None,
    found: tuple[Finding, ...] = (),
) -> MasError:
    """The exception for a status."""
    is_word = _WORD.fullmatch(detail) is not None and detail != COMMIT_UNKNOWN
    if code in UNCERTAIN and not is_word:
        return OutcomeUnknown(f"the answer was lost: {detail} ({code})")
    read = Receipt.read(receipt) if receipt is not None else None
    refusal = refused(code, detail, retry_after, read, receipt.message_id if receipt is not None else "", found)
    return Passing(refusal) if detail in PASSING else refusal


_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def _seconds(milliseconds: str) -> float | None:
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None


def _details(trailers: Iterable[tuple[str, str | bytes]], receipt: pb.Receipt, found: pb.Findings) -> bool:
    """Reads what stands beside the status; whether there is a receipt."""
    has_receipt = False
    for name, value in trailers:
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                has_receipt = detail.Unpack(receipt) or has_receipt
                detail.Unpack(found)
    return has_receipt
