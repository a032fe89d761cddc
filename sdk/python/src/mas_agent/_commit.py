"""The atomic commit of what a handler did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ._calls import NOBODY_WAITS, Calls, sent, too_late
from ._options import Options
from ._payload import Payload, to_fields
from ._proto import runtime_pb2 as pb
from ._receipt import Sent
from ._replies import Unanswered
from ._tracing import Operation
from .errors import Called, InvalidRequest, NotConnected, SetupError

if TYPE_CHECKING:
    from .message import Message


class Commit:
    """Acknowledges a message, sets state and sends messages: all of it or nothing.

    ``async with message.commit() as commit:`` collects; leaving the block commits, an exception in it drops
    everything. A message that was committed needs no further acknowledgement, and its handler may go on.
    ``Unsupported`` where the server has no atomic commit: nothing is emulated. A reply that nobody waits for any more
    is logged and left out.
    """

    def __init__(self, calls: Calls, message: Message | None, timeout: float | None = None) -> None:
        self._calls = calls
        self._message = message
        self._timeout = timeout
        self._updates: dict[str, str] = {}
        self._expected: int | None = None
        self._parts: list[_Part] = []
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
        request = self._calls.send_request(target, message_type, data, options)
        self._parts.append(_Part(pb.Submission(send=request), Called("send", target, message_type)))

    def request(
        self, target: str, message_type: str, data: Payload | None = None, *, timeout: float = 60.0
    ) -> PendingReply:
        """Sends a request with the commit; the reply can be awaited after it."""
        request = self._calls.request_request(target, message_type, data, timeout, Options())
        called = Called("request", target, message_type)
        reply = PendingReply(self._calls, called, timeout)
        self._parts.append(_Part(pb.Submission(request=request), called, reply))
        return reply

    def reply(self, message_type: str, data: Payload | None = None) -> None:
        """Answers the message with the commit; once."""
        if self._message is None:
            raise SetupError("a commit without a message has nothing to reply to")
        if any(part.submission.HasField("reply") for part in self._parts):
            raise SetupError("this commit answers its message already")
        request = self._calls.reply_request(self._message._reply_to(message_type), message_type, data)
        self._parts.append(
            _Part(pb.Submission(reply=request), Called("reply", self._message.sender, message_type))
        )

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
        if error is not None:
            return
        with ExitStack() as operations:
            for part in self._parts:
                part.operation = operations.enter_context(self._sending(part))
            await self._commit()

    def _sending(self, part: _Part) -> Operation:
        tracing, submission = self._calls.tracing, part.submission
        if submission.HasField("send"):
            return tracing.sending("send", submission.send.target_id, submission.send, collected=True)
        if submission.HasField("request"):
            return tracing.sending("request", submission.request.target_id, submission.request, collected=True)
        target, reply = part.called.target, submission.reply
        return tracing.sending("reply", target, reply, correlation_id=reply.correlation_id, collected=True)

    async def _commit(self) -> None:
        give_up = self._calls.give_up(self._timeout)
        pending = sum(part.pending is not None for part in self._parts)
        self._calls.replies.asking(pending)
        try:
            try:
                response = await self._once(self._timeout)
            except InvalidRequest as error:
                replies = [part for part in self._parts if part.submission.HasField("reply")]
                if error.detail != NOBODY_WAITS or not replies:
                    raise
                # That is no reason to drop the rest.
                for part in replies:
                    part.late = too_late(part.called, error)
                # Within the same time.
                response = await self._once(max(0.001, give_up - time.monotonic()))
            self._done(response)
        finally:
            self._calls.replies.asking(-pending)

    async def _once(self, timeout: float | None) -> pb.CommitResponse:
        message = self._message
        called = Called("commit")
        if message is not None:
            called = Called("commit", message_type=message.type)
        submissions = [part.submission for part in self._parts if part.late is None]
        for reference, submission in enumerate(submissions, 1):
            submission.reference = reference

        def build() -> pb.Commit:
            if message is not None and message._given_up:
                raise NotConnected("the agent is stopped; the message comes again")
            # The message's delivery is another one after each redelivery.
            return pb.Commit(
                delivery_id=message._delivery_id if message is not None else "",
                updates=self._updates,
                messages=submissions,
                expected_version=self._expected,
            )

        return await self._calls.commit(build, called, timeout)

    def _done(self, response: pb.CommitResponse) -> None:
        results = iter(response.results)
        for part in self._parts:
            if part.late is not None:
                self.sent.append(part.late)
                continue
            result = next(results)
            outcome = result.WhichOneof("outcome")
            if outcome not in ("send", "request", "reply"):
                continue
            accepted = sent(getattr(result, outcome))
            self.sent.append(accepted)
            if part.operation is not None:
                part.operation.accepted(accepted, result.request.correlation_id)
            if part.pending is not None:
                part.pending._accepted(accepted, result.request.correlation_id)
        self.version = response.version
        if self._message is not None:
            self._message._settled = True
            self._message._answered = any(part.submission.HasField("reply") for part in self._parts)


@dataclass
class _Part:
    """One message of a commit."""

    submission: pb.Submission
    called: Called
    pending: PendingReply | None = None
    operation: Operation | None = None
    late: Sent | None = None


class PendingReply:
    """The reply to a request that was part of a commit."""

    def __init__(self, calls: Calls, called: Called, timeout: float) -> None:
        self._calls = calls
        self._called = called
        self._timeout = timeout
        self._sent = Sent("")
        self._correlation_id = ""
        self._reply: asyncio.Future[Message | Unanswered] | None = None

    def _accepted(self, accepted: Sent, correlation_id: str) -> None:
        self._sent = accepted
        self._correlation_id = correlation_id
        self._reply = self._calls.replies.expect(correlation_id, self._timeout)

    async def get(self) -> Message:
        """The reply; ``NoReply`` after the timeout, or at once where the server says that none will come."""
        if self._reply is None:
            raise SetupError("the request is sent when its commit is done")
        with self._calls.tracing.receiving(self._correlation_id) as operation:
            reply = await self._calls.await_reply(self._called, self._sent, self._correlation_id, self._reply)
            operation.answered(reply)
            return reply
