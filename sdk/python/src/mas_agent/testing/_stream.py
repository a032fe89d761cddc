"""A Transport stream to the server in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from .. import _wire
from .._proto import runtime_pb2 as pb
from ._core import Core
from ._inboxes import Open
from ._refusals import Refusal

# Submissions that may be unanswered at a time.
MAX_SUBMISSIONS = 256


@dataclass(frozen=True)
class Offers:
    """What Welcome says."""

    features: tuple[str, ...]
    max_event_bytes: int
    """0: it does not say, and takes any."""


class FakeStream:
    """What the agent's client holds of a session."""

    def __init__(
        self,
        agent_id: str,
        core: Core,
        offers: Offers,
        loses: Callable[[str], bool],
        gone: Callable[[FakeStream], None],
    ) -> None:
        self.agent_id = agent_id
        self._core = core
        self._offers = offers
        self._loses = loses
        self._gone = gone
        self._events: asyncio.Queue[pb.ServerEvent | grpc.aio.AioRpcError | None] = asyncio.Queue()
        self._session: Open | None = None
        self._ended = False

    async def write(self, event: pb.ClientEvent) -> None:
        # As on a network: others go on meanwhile.
        await asyncio.sleep(0)
        if self._ended:
            raise asyncio.InvalidStateError("the stream is over")
        if 0 < self._offers.max_event_bytes < (size := event.ByteSize()):
            self.end(ended(grpc.StatusCode.RESOURCE_EXHAUSTED, f"message too large: {size} bytes"))
            return
        kind = event.WhichOneof("event")
        if kind == "hello":
            self._hello(event.hello)
        elif self._session is None:
            self.end(ended(grpc.StatusCode.INVALID_ARGUMENT, "expected_hello"))
        elif kind == "ack":
            self._core.inboxes.ack(self._session, event.ack.delivery_id)
        elif kind == "acks":
            for delivery_id in event.acks.delivery_ids:
                self._core.inboxes.ack(self._session, delivery_id)
        elif kind == "nack":
            self._core.inboxes.nack(self._session, event.nack)
        elif kind == "submit":
            for submission in event.submit.submissions:
                if not self._ended:
                    self._submit(self._session, submission)

    async def read(self) -> Any:
        event = await self._events.get()
        if isinstance(event, pb.ServerEvent):
            return event
        # It stays over.
        self._events.put_nowait(event)
        if event is None:
            return grpc.aio.EOF
        raise event

    async def done_writing(self) -> None:
        self.end(None)

    def cancel(self) -> bool:
        self.end(None)
        return True

    def end(self, error: grpc.aio.AioRpcError | None) -> None:
        """Ends the session."""
        if self._ended:
            return
        self._ended = True
        self._events.put_nowait(error)
        self._gone(self)
        if self._session is not None:
            self._core.inboxes.leave(self._session)

    def _hello(self, hello: pb.Hello) -> None:
        if self._core.inboxes.has_session(self.agent_id, hello.instance_id):
            self.end(ended(grpc.StatusCode.FAILED_PRECONDITION, "instance_already_connected"))
            return
        welcome = pb.Welcome(
            agent_id=self.agent_id,
            instance_id=hello.instance_id,
            features=self._offers.features,
            max_submissions=MAX_SUBMISSIONS,
            max_event_bytes=self._offers.max_event_bytes,
        )
        self._events.put_nowait(pb.ServerEvent(welcome=welcome))
        hears = _wire.REQUEST_FAILED in hello.features and _wire.REQUEST_FAILED in self._offers.features
        unanswered = self._unanswered if hears else None
        self._session = Open(self.agent_id, hello.instance_id, self._deliver, unanswered)
        self._core.inboxes.join(self._session)

    def _deliver(self, delivery: pb.Delivery) -> None:
        self._events.put_nowait(pb.ServerEvent(delivery=delivery))

    def _unanswered(self, request: pb.RequestFailed) -> None:
        self._events.put_nowait(pb.ServerEvent(request_failed=request))

    def _submit(self, session: Open, submission: pb.Submission) -> None:
        result = pb.SubmissionResult(reference=submission.reference)
        call = submission.WhichOneof("call") or "send"
        try:
            if call == "commit":
                result.commit.CopyFrom(self._core.commit(session, submission.commit))
            else:
                answer = self._core.one(self.agent_id, getattr(submission, call))
                getattr(result, call).CopyFrom(answer)
        except Refusal as refusal:
            found = [pb.Finding(type=one.type, pointer=one.pointer, action=one.action) for one in refusal.findings]
            failure = pb.Failure(
                code=refusal.code.value[0],
                detail=refusal.detail,
                retry_after_ms=refusal.retry_after_ms,
                receipt=self._core.receipt(refusal.message_id),
                findings=found,
            )
            result.failure.CopyFrom(failure)
        if self._loses(call):
            self.end(ended(grpc.StatusCode.UNAVAILABLE, "the connection was lost"))
        else:
            self._events.put_nowait(pb.ServerEvent(results=pb.Results(results=[result])))


def ended(code: grpc.StatusCode, detail: str) -> grpc.aio.AioRpcError:
    """How a stream ends."""
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), detail)
