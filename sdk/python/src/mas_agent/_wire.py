"""The methods of the protocol, and what their failures mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio

from ._proto import runtime_pb2 as pb
from ._proto import status_pb2
from ._receipt import Receipt
from .errors import MasError, OutcomeUnknown, refused

SERVICE = "/mas.runtime.v1.RuntimeService/"

# Nothing happened, and trying again may help.
PASSING = frozenset({"overloaded", "storage_unavailable", "server_stopping", "session_not_connected"})
# Statuses under which an answer may have been lost.
UNCERTAIN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})

# What the server may list in Welcome.features.
SUBMIT = "submit"
ACKS = "acks"
DELIVERIES = "deliveries"
COMMIT = "commit"
# A server that commits has versions, keys and times, too.
IDEMPOTENCY = frozenset({"idempotency", COMMIT})
TIMES = frozenset({"ttl", COMMIT})
VERSIONS = frozenset({"versions", COMMIT})

Q = TypeVar("Q", contravariant=True)
R = TypeVar("R", covariant=True)


class Method(Protocol, Generic[Q, R]):
    """A unary call."""

    async def __call__(self, request: Q, *, timeout: float) -> R: ...


class Methods:
    """The calls of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def unary(name: str, request: Any, response: Any) -> Any:
            return channel.unary_unary(
                SERVICE + name,
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

        self.send: Method[pb.SendRequest, pb.SendResponse] = unary("Send", pb.SendRequest, pb.SendResponse)
        self.request: Method[pb.RequestRequest, pb.RequestResponse] = unary(
            "Request", pb.RequestRequest, pb.RequestResponse
        )
        self.reply: Method[pb.ReplyRequest, pb.ReplyResponse] = unary("Reply", pb.ReplyRequest, pb.ReplyResponse)
        self.discover: Method[pb.DiscoverRequest, pb.DiscoverResponse] = unary(
            "Discover", pb.DiscoverRequest, pb.DiscoverResponse
        )
        self.get_state: Method[pb.GetStateRequest, pb.GetStateResponse] = unary(
            "GetState", pb.GetStateRequest, pb.GetStateResponse
        )
        self.update_state: Method[pb.UpdateStateRequest, pb.UpdateStateResponse] = unary(
            "UpdateState", pb.UpdateStateRequest, pb.UpdateStateResponse
        )
        self.reset_state: Method[pb.ResetStateRequest, pb.ResetStateResponse] = unary(
            "ResetState", pb.ResetStateRequest, pb.ResetStateResponse
        )
        self.transport: Any = channel.stream_stream(
            SERVICE + "Transport",
            request_serializer=pb.ClientEvent.SerializeToString,
            response_deserializer=pb.ServerEvent.FromString,
        )


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
    receipt = _receipt(error.trailing_metadata() or ())
    return failure(error.code().name, error.details() or "", retry_after, receipt)


def failure_of_submission(failed: pb.Failure) -> MasError:
    """What the failure of a submission on the stream means."""
    code = _CODES.get(failed.code, "UNKNOWN")
    retry_after = failed.retry_after_ms / 1000 if failed.retry_after_ms else None
    receipt = Receipt.read(failed.receipt) if failed.HasField("receipt") else None
    return failure(code, failed.detail, retry_after, receipt)


def failure(code: str, detail: str, retry_after: float | None, receipt: Receipt | None) -> MasError:
    """The exception for a status."""
    if detail in PASSING:
        return Passing(refused(code, detail, retry_after, receipt))
    if code in UNCERTAIN:
        return OutcomeUnknown(f"{detail} ({code})")
    return refused(code, detail, retry_after, receipt)


_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


def _seconds(milliseconds: str) -> float | None:
    return int(milliseconds) / 1000 if milliseconds.isdecimal() else None


def _receipt(trailers: Iterable[tuple[str, str | bytes]]) -> Receipt | None:
    for name, value in trailers:
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            receipt = pb.Receipt()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(receipt):
                    return Receipt.read(receipt)
    return None
