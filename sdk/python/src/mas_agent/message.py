"""A message that arrived, and the atomic commit of what its handler did."""

from __future__ import annotations

import asyncio
import builtins
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from pydantic import BaseModel

from ._calls import Calls, Options, parse_envelope, require_versions, sent
from ._payload import Payload, to_fields
from ._proto import runtime_pb2 as pb
from ._receipt import Sent
from ._tracing import Operation
from .errors import InvalidRequest, SetupError

M = TypeVar("M", bound=BaseModel)


@dataclass
class Message:
    """One message from another agent."""

    id: str
    sender: str
    """Who sent it, from the sender's certificate."""
    target: str
    type: str
    data: dict[str, Any]
    timestamp: float
    """When the server accepted it, Unix seconds."""
    correlation_id: str | None
    expects_reply: bool
    is_reply: bool
    attempt: int
    """Which delivery of this message it is, from 1; 0 where the server does not count."""
    meta: dict[str, Any] = field(repr=False)
    _delivery_id: str = field(repr=False)
    _calls: Calls = field(repr=False)
    _settled: bool = field(default=False, repr=False)

    @classmethod
    def _read(cls, delivery: pb.Delivery, calls: Calls) -> Message:
        envelope = parse_envelope(delivery.envelope_json)
        meta = envelope["meta"]
        return cls(
            id=envelope["message_id"],
            sender=envelope["sender_id"],
            target=envelope["target_id"],
            type=envelope["message_type"],
            data=envelope["data"],
            timestamp=envelope["timestamp"],
            correlation_id=meta.get("correlation_id"),
            expects_reply=bool(meta.get("expects_reply")),
            is_reply=bool(meta.get("is_reply")),
            attempt=delivery.attempt,
            meta=meta,
            _delivery_id=delivery.delivery_id,
            _calls=calls,
        )

    def parse(self, model: builtins.type[M]) -> M:
        """The payload as a model."""
        return model.model_validate(self.data)

    async def reply(self, message_type: str, data: Payload | None = None) -> Sent:
        """Answers a request."""
        return await self._calls.reply(
            self._calls.reply_request(self._reply_to(), message_type, data), self.sender
        )

    def commit(self) -> Commit:
        """What the handler does as one step: see :class:`Commit`."""
        return Commit(self._calls, self)

    def _reply_to(self) -> str:
        if not self.correlation_id or self.is_reply:
            raise InvalidRequest("INVALID_ARGUMENT", "missing_correlation_id")
        return self.correlation_id


class Commit:
    """Acknowledges a message, sets state and sends messages: all of it or nothing.

    ``async with message.commit() as commit:`` collects; leaving the block commits, an exception in it drops
    everything. A message that was committed needs no further acknowledgement, and its handler may go on.
    ``Unsupported`` where the server has no atomic commit: nothing is emulated.
    """

    def __init__(self, calls: Calls, message: Message | None) -> None:
        self._calls = calls
        self._message = message
        self._updates: dict[str, str] = {}
        self._expected: int | None = None
        self._messages: list[pb.Submission] = []
        self._options: list[Options] = []
        self._replies: list[tuple[int, PendingReply]] = []
        self.sent: list[Sent] = []
        """The accepted messages in their order, after the commit."""
        self.version = 0
        """The state's version after the commit; 0 where it was not touched."""

    def send(
        self,
        target: str,
        message_type: str,
        data: Payload | None = None,
        *,
        idempotency_key: str | None = None,
        ttl: float | None = None,
        not_before: float | None = None,
    ) -> None:
        """Sends a message with the commit."""
        options = Options(idempotency_key, ttl, not_before)
        self._add(pb.Submission(send=self._calls.send_request(target, message_type, data, options)), options)

    def request(
        self, target: str, message_type: str, data: Payload | None = None, *, timeout: float = 60.0
    ) -> PendingReply:
        """Sends a request with the commit; the reply can be awaited after it."""
        request = self._calls.request_request(target, message_type, data, timeout, Options())
        reply = PendingReply(self._calls, timeout)
        self._replies.append((len(self._messages), reply))
        self._add(pb.Submission(request=request), Options())
        return reply

    def reply(self, message_type: str, data: Payload | None = None) -> None:
        """Answers the message with the commit."""
        if self._message is None:
            raise SetupError("a commit without a message has nothing to reply to")
        request = self._calls.reply_request(self._message._reply_to(), message_type, data)
        self._add(pb.Submission(reply=request), Options())

    def update_state(self, updates: Mapping[str, Any] | BaseModel, *, expected_version: int | None = None) -> None:
        """Sets fields of the agent's state with the commit, if the state has the version that is expected."""
        self._updates.update(to_fields(updates))
        if expected_version is not None:
            self._expected = expected_version

    async def __aenter__(self) -> Commit:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            with ExitStack() as operations:
                await self._commit([operations.enter_context(self._sending(one)) for one in self._messages])

    def _add(self, submission: pb.Submission, options: Options) -> None:
        submission.reference = len(self._messages) + 1
        self._messages.append(submission)
        self._options.append(options)

    def _sending(self, submission: pb.Submission) -> Operation:
        tracing = self._calls.tracing
        if submission.HasField("send"):
            return tracing.sending("send", submission.send.target_id, submission.send, collected=True)
        if submission.HasField("request"):
            return tracing.sending("request", submission.request.target_id, submission.request, collected=True)
        target, reply = self._message.sender if self._message else "", submission.reply
        return tracing.sending("reply", target, reply, correlation_id=reply.correlation_id, collected=True)

    async def _commit(self, operations: list[Operation]) -> None:
        commit = pb.Commit(
            delivery_id=self._message._delivery_id if self._message else "",
            updates=self._updates,
            messages=self._messages,
        )
        if self._expected is not None:
            commit.expected_version = self._expected
        self._calls.asking(len(self._replies))
        try:
            response = await self._calls.commit(commit)
            for index, reply in self._replies:
                reply._accepted(response.results[index].request.correlation_id)
        finally:
            self._calls.asking(-len(self._replies))
        for operation, result in zip(operations, response.results):
            outcome = result.WhichOneof("outcome")
            if outcome in ("send", "request", "reply"):
                accepted = sent(getattr(result, outcome))
                self.sent.append(accepted)
                operation.accepted(accepted, result.request.correlation_id)
        self.version = response.version
        if self._message is not None:
            self._message._settled = True


class PendingReply:
    """The reply to a request that was part of a commit."""

    def __init__(self, calls: Calls, timeout: float) -> None:
        self._calls = calls
        self._timeout = timeout
        self._give_up = 0.0
        self._correlation_id = ""
        self._reply: asyncio.Future[Message] | None = None

    def _accepted(self, correlation_id: str) -> None:
        self._correlation_id = correlation_id
        self._give_up = time.monotonic() + self._timeout
        self._reply = self._calls.expect_reply(correlation_id)

    async def get(self) -> Message:
        """The reply; ``NoReply`` after the timeout."""
        if self._reply is None:
            raise SetupError("the request is sent when its commit is done")
        with self._calls.tracing.receiving(self._correlation_id) as operation:
            reply: Message = await self._calls.await_reply(self._correlation_id, self._reply, self._give_up)
            operation.answered(reply)
            return reply


