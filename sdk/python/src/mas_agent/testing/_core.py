"""What the server in memory knows: inboxes, requests, states, and what it was told to refuse."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._proto import runtime_pb2 as pb
from ._content import content_of
from ._refusals import Fault, Refusal

# Deliveries that a session may hold without acknowledging them.
MAX_IN_FLIGHT = 200
DEFAULT_REQUEST_S = 60
# How long a message waits at least that cannot be handled now, in seconds: doubling.
PUT_OFF_FIRST_S = 0.25
PUT_OFF_LAST_S = 60.0
# Why no reply will come to a request; everything else is a handler's failure.
REASONS = frozenset({"handler_failed", "no_handler", "max_attempts", "expired"})

Outgoing = pb.SendRequest | pb.RequestRequest | pb.ReplyRequest


@dataclass(frozen=True)
class Recorded:
    """A message that was accepted."""

    message_id: str
    sender: str
    target: str
    type: str
    data: dict[str, Any]
    is_reply: bool


@dataclass(frozen=True)
class DeadLetter:
    """A message that no handler could handle."""

    message: Recorded
    reason: str
    attempts: int


@dataclass
class Entry:
    """A message in an inbox."""

    message: Recorded
    envelope: str
    instance: str = ""
    """Of a reply: the instance that asked."""
    asked: str = ""
    """Of a request: its correlation id."""
    attempt: int = 1
    put_off: int = 0
    """How often it could not be handled now."""
    not_before: float = 0.0
    expires: float = float("inf")


@dataclass
class Open:
    """A session: what the server may send to it, and what it holds."""

    agent_id: str
    instance: str
    push: Callable[[pb.Delivery], None]
    unanswered: Callable[[pb.RequestFailed], None] | None = None
    """Takes the word that no reply will come, where the client understands it."""
    held: dict[str, Entry] = field(default_factory=dict)


@dataclass
class Pending:
    """A request that may be answered."""

    requester: str
    instance: str
    target: str
    expires: float


class Core:
    """The decisions. All of it runs in one event loop."""

    def __init__(
        self,
        permissions: Iterable[tuple[str, str]] | None,
        capabilities: Mapping[str, Sequence[str]],
        max_attempts: int,
        backoff: Sequence[float],
    ) -> None:
        self._permissions = None if permissions is None else set(permissions)
        self._capabilities = capabilities
        self._max_attempts = max_attempts
        self._backoff = backoff
        self.sessions: list[Open] = []
        self.faults: list[Fault] = []
        self.recorded: list[Recorded] = []
        self.dead: list[DeadLetter] = []
        self.states: dict[str, dict[str, str]] = {}
        self._versions: dict[str, int] = {}
        self._expiring: dict[str, asyncio.TimerHandle] = {}
        self._inboxes: dict[str, deque[Entry]] = {}
        self._pending: dict[str, Pending] = {}
        self._keys: dict[tuple[str, str], tuple[str, pb.SendResponse | pb.RequestResponse]] = {}
        self._count = itertools.count(1)
        self.waiting = 0
        """Messages that are to come later."""
        self._turn = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and no session holds anything."""
        here = {one.agent_id for one in self.sessions}
        waits = any(inbox for agent, inbox in self._inboxes.items() if agent in here)
        return not waits and not self.waiting and not any(one.held for one in self.sessions)

    # Calls

    def check(self, agent: str, request: Outgoing) -> None:
        """Raises the refusal of a message."""
        operation = {pb.SendRequest: "send", pb.RequestRequest: "request", pb.ReplyRequest: "reply"}[type(request)]
        target = "" if isinstance(request, pb.ReplyRequest) else request.target_id
        self.fault(operation, agent, target)
        if not any(one.agent_id == agent and one.instance == request.instance_id for one in self.sessions):
            raise Refusal("session_not_connected")
        try:
            data = json.loads(request.data_json or "{}")
        except ValueError:
            raise Refusal("invalid_json") from None
        if not isinstance(data, dict):
            raise Refusal("payload_must_be_object")
        if isinstance(request, pb.ReplyRequest):
            if not request.correlation_id:
                raise Refusal("missing_correlation_id")
            pending = self._pending.get(request.correlation_id)
            if pending is None or pending.expires < time.monotonic():
                raise Refusal("unknown_correlation_id", message_id=str(uuid.uuid4()))
            if pending.target != agent:
                raise Refusal("reply_sender_mismatch", message_id=str(uuid.uuid4()))
        elif self._permissions is not None and (agent, target) not in self._permissions:
            raise Refusal("not_authorized", message_id=str(uuid.uuid4()))

    def accept(self, agent: str, request: Outgoing) -> pb.SendResponse | pb.RequestResponse | pb.ReplyResponse:
        """Takes a message that was checked."""
        if isinstance(request, pb.ReplyRequest):
            pending = self._pending.pop(request.correlation_id)
            asked, instance = request.correlation_id, pending.instance
            message_id = self._post(agent, pending.requester, request, asked, instance=instance)
            return pb.ReplyResponse(message_id=message_id, receipt=self.receipt())
        response: pb.SendResponse | pb.RequestResponse
        if isinstance(request, pb.RequestRequest):
            correlation_id = uuid.uuid4().hex
            seconds = -(-request.timeout_ms // 1000) if request.timeout_ms > 0 else DEFAULT_REQUEST_S
            expires = time.monotonic() + seconds
            self._pending[correlation_id] = Pending(agent, request.instance_id, request.target_id, expires)
            message_id = self._post(agent, request.target_id, request, correlation_id)
            receipt = self.receipt()
            response = pb.RequestResponse(message_id=message_id, correlation_id=correlation_id, receipt=receipt)
        else:
            message_id = self._post(agent, request.target_id, request, None)
            response = pb.SendResponse(message_id=message_id, receipt=self.receipt())
        if request.idempotency_key:
            self._keys[agent, request.idempotency_key] = (content_of(request), response)
        return response

    def known(self, agent: str, request: Outgoing) -> pb.SendResponse | pb.RequestResponse | None:
        """The answer that this key has got before."""
        if isinstance(request, pb.ReplyRequest) or not request.idempotency_key:
            return None
        content, response = self._keys.get((agent, request.idempotency_key), ("", None))
        if response is not None and content != content_of(request):
            raise Refusal("idempotency_key_reused")
        return response

    def one(self, agent: str, request: Outgoing) -> pb.SendResponse | pb.RequestResponse | pb.ReplyResponse:
        """A message of its own."""
        before = self.known(agent, request)
        if before is not None:
            return before
        self.check(agent, request)
        return self.accept(agent, request)

    def commit(self, session: Open, commit: pb.Commit) -> pb.CommitResponse:
        """All of it or nothing."""
        agent = session.agent_id
        self.fault("commit", agent, "")
        if commit.delivery_id and commit.delivery_id not in session.held:
            raise Refusal("delivery_not_held")
        if commit.HasField("expected_version") and commit.expected_version != self._versions.get(agent, 0):
            raise Refusal("version_mismatch")
        requests: list[Outgoing] = [getattr(one, one.WhichOneof("call") or "send") for one in commit.messages]
        for request in requests:
            self.check(agent, request)
        replies = [request.correlation_id for request in requests if isinstance(request, pb.ReplyRequest)]
        if len(set(replies)) < len(replies):
            raise Refusal("unknown_correlation_id", message_id=str(uuid.uuid4()))
        if commit.delivery_id:
            self.ack(session, commit.delivery_id)
        response = pb.CommitResponse(version=self.set(agent, dict(commit.updates)) if commit.updates else 0)
        for one, request in zip(commit.messages, requests):
            result = response.results.add(reference=one.reference)
            getattr(result, one.WhichOneof("call") or "send").CopyFrom(self.accept(agent, request))
        return response

    def discover(self, agent: str, wanted: Sequence[str]) -> pb.DiscoverResponse:
        """Who is connected, may be messaged and offers any of these."""
        found = pb.DiscoverResponse()
        for other in sorted({one.agent_id for one in self.sessions}):
            offers = list(self._capabilities.get(other, ()))
            may = other != agent if self._permissions is None else (agent, other) in self._permissions
            if may and (not wanted or set(wanted) & set(offers)):
                found.agents.add(agent_id=other, capabilities=offers, metadata_json="{}", status="ACTIVE")
        return found

    def get(self, agent: str) -> pb.GetStateResponse:
        """A state."""
        return pb.GetStateResponse(state=self.states.get(agent, {}), version=self._versions.get(agent, 0))

    def update(self, agent: str, request: pb.UpdateStateRequest) -> int:
        """Sets fields of a state."""
        if request.HasField("expected_version") and request.expected_version != self._versions.get(agent, 0):
            raise Refusal("version_mismatch")
        version = self.set(agent, dict(request.updates))
        if request.ttl_ms:
            loop = asyncio.get_running_loop()
            self._expiring[agent] = loop.call_later(request.ttl_ms / 1000, self.reset, agent)
        return version

    def set(self, agent: str, updates: dict[str, str]) -> int:
        """Sets fields; the version."""
        self.states.setdefault(agent, {}).update(updates)
        self._versions[agent] = self._versions.get(agent, 0) + 1
        if timer := self._expiring.pop(agent, None):
            timer.cancel()
        return self._versions[agent]

    def reset(self, agent: str) -> None:
        """Removes a state."""
        self.states.pop(agent, None)
        self._versions.pop(agent, None)

    def fault(self, operation: str, sender: str, target: str) -> None:
        """Raises the refusal that was asked for."""
        for fault in self.faults:
            if fault.meets(operation, sender, target):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                message_id = str(uuid.uuid4())
                raise Refusal(fault.detail, fault.retry_after, fault.findings, message_id)

    def receipt(self, message_id: str = "") -> pb.Receipt:
        """The next one."""
        number = next(self._count)
        return pb.Receipt(
            lane="fake",
            sequence=number,
            record_hash=hashlib.sha256(str(number).encode()).digest(),
            policy_version=bytes(32),
            sender_sequence=number,
            message_id=message_id,
        )

    # Deliveries

    def ack(self, session: Open, delivery_id: str) -> None:
        """A delivery was handled."""
        session.held.pop(delivery_id, None)
        self.deliver(session.agent_id)

    def nack(self, session: Open, nack: pb.Nack) -> None:
        """A delivery was not handled."""
        entry = session.held.pop(nack.delivery_id, None)
        if entry is None:
            return
        if nack.retryable and nack.retry_after_ms:
            growing = min(PUT_OFF_FIRST_S * 2 ** min(entry.put_off, 8), PUT_OFF_LAST_S)
            entry.put_off += 1
            self._later(entry, max(growing, nack.retry_after_ms / 1000))
        elif nack.retryable and entry.attempt < self._max_attempts:
            wait = self._backoff[min(entry.attempt, len(self._backoff)) - 1]
            entry.attempt += 1
            self._later(entry, wait)
        else:
            self._bury(entry, nack.reason)
        self.deliver(session.agent_id)

    def _bury(self, entry: Entry, reason: str) -> None:
        self.dead.append(DeadLetter(entry.message, reason, entry.attempt))
        self._tell_unanswered(entry, reason)

    def _tell_unanswered(self, entry: Entry, reason: str) -> None:
        """Tells who waits for a reply to it that none will come."""
        pending = self._pending.get(entry.asked)
        if pending is None:
            return
        kind = reason.partition(":")[0]
        failed = pb.RequestFailed(
            correlation_id=entry.asked,
            message_id=entry.message.message_id,
            reason=kind if kind in REASONS else "handler_failed",
        )
        for one in self.sessions:
            is_requester = one.agent_id == pending.requester and one.instance == pending.instance
            if is_requester and one.unanswered is not None:
                one.unanswered(failed)

    def leave(self, session: Open) -> None:
        """A session has ended: what it held is for the next one, and this was an attempt of it."""
        if session in self.sessions:
            self.sessions.remove(session)
            inbox = self._inboxes.setdefault(session.agent_id, deque())
            for entry in reversed(session.held.values()):
                if entry.attempt >= self._max_attempts:
                    self._bury(entry, "max_attempts")
                else:
                    entry.attempt += 1
                    inbox.appendleft(entry)
            session.held.clear()
            self.deliver(session.agent_id)

    def deliver(self, agent: str) -> None:
        """Hands out what waits, in turn."""
        inbox = self._inboxes.get(agent, deque())
        skipped: deque[Entry] = deque()
        while inbox:
            entry = inbox.popleft()
            if entry.expires < time.time():
                self._tell_unanswered(entry, "expired")
                continue
            if (left := entry.not_before - time.time()) > 0:
                self._later(entry, left)
                continue
            free = [
                one
                for one in self.sessions
                if one.agent_id == agent
                and (not entry.instance or one.instance == entry.instance)
                and len(one.held) < MAX_IN_FLIGHT
            ]
            if not free:
                skipped.append(entry)
                continue
            self._turn += 1
            session = free[self._turn % len(free)]
            delivery_id = f"d{next(self._count)}"
            session.held[delivery_id] = entry
            delivery = pb.Delivery(delivery_id=delivery_id, envelope_json=entry.envelope, attempt=entry.attempt)
            session.push(delivery)
        if agent in self._inboxes:
            inbox.extend(skipped)

    def _later(self, entry: Entry, seconds: float) -> None:
        self.waiting += 1

        def back() -> None:
            self.waiting -= 1
            self._inboxes.setdefault(entry.message.target, deque()).append(entry)
            self.deliver(entry.message.target)

        asyncio.get_running_loop().call_later(seconds, back)

    def _post(
        self, sender: str, target: str, request: Outgoing, correlation_id: str | None, *, instance: str = ""
    ) -> str:
        is_reply = isinstance(request, pb.ReplyRequest)
        data = json.loads(request.data_json or "{}")
        message = Recorded(str(uuid.uuid4()), sender, target, request.message_type, data, is_reply)
        envelope = {
            "message_id": message.message_id,
            "sender_id": sender,
            "target_id": target,
            "message_type": request.message_type,
            "data": data,
            "timestamp": time.time(),
            "meta": {
                "version": 1,
                "correlation_id": correlation_id,
                "expects_reply": isinstance(request, pb.RequestRequest),
                "is_reply": is_reply,
                "sender_instance_id": request.instance_id,
                "reply_to_instance_id": instance or None,
                "traceparent": request.traceparent or None,
                "tracestate": request.tracestate or None,
            },
        }
        asked = correlation_id if isinstance(request, pb.RequestRequest) else None
        entry = Entry(message, json.dumps(envelope), instance, asked or "")
        if not isinstance(request, pb.ReplyRequest):
            entry.not_before = request.not_before_ms / 1000
            if request.ttl_ms:
                entry.expires = time.time() + request.ttl_ms / 1000
        self.recorded.append(message)
        self._inboxes.setdefault(target, deque()).append(entry)
        self.deliver(target)
        return message.message_id
