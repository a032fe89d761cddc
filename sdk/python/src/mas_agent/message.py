"""A message that arrived."""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel

from ._calls import Calls, parse_envelope
from ._commit import Commit, PendingReply
from ._payload import Payload
from ._proto import runtime_pb2 as pb
from ._receipt import Sent
from .errors import InvalidRequest

M = TypeVar("M", bound=BaseModel)

__all__ = ["Commit", "Message", "PendingReply", "Received"]


@dataclass
class Received:
    """What a message says."""

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

    def parse(self, model: builtins.type[M]) -> M:
        """The payload as a model."""
        return model.model_validate(self.data)


@dataclass
class Message(Received):
    """One message from another agent."""

    _is_message: ClassVar[bool] = True

    asked: Sent | None = field(default=None, repr=False, kw_only=True)
    """Of a reply: how the server took the request; its ``findings`` are those of the request's payload."""
    _delivery_id: str = field(repr=False, kw_only=True)
    _calls: Calls = field(repr=False, kw_only=True)
    # Committed, and so acknowledged.
    _settled: bool = field(default=False, repr=False, kw_only=True)
    _answered: bool = field(default=False, repr=False, kw_only=True)
    # Stopping has given it up: it goes back to the server, whatever its handler says.
    _given_up: bool = field(default=False, repr=False, kw_only=True)

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

    async def reply(
        self, message_type: str, data: Payload | None = None, *, timeout: float | None = None
    ) -> Sent:
        """Answers a request. Where nobody waits for the answer any more this is logged, and the result says
        ``late``."""
        request = self._calls.reply_request(self._reply_to(message_type), message_type, data)
        sent = await self._calls.reply(request, self.sender, timeout)
        self._answered = True
        return sent

    def commit(self, *, timeout: float | None = None) -> Commit:
        """What the handler does as one step: see :class:`Commit`."""
        return Commit(self._calls, self, timeout)

    def _reply_to(self, message_type: str) -> str:
        what = f'"{self.type}" from {self.sender} ({self.id})'
        if not self.correlation_id or self.is_reply:
            words = f'reply "{message_type}": {what} asked for no reply; answer with agent.send'
            raise InvalidRequest("INVALID_ARGUMENT", "missing_correlation_id", words=words)
        if self._answered:
            words = f'reply "{message_type}": {what} was answered already'
            raise InvalidRequest("INVALID_ARGUMENT", "unknown_correlation_id", words=words)
        return self.correlation_id
