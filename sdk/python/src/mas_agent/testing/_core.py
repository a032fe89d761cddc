"""What the server in memory decides about calls, as the real one does; and what it was told to refuse."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._proto import runtime_pb2 as pb
from ._inboxes import Entry, Inboxes, Open, Recorded
from ._keys import Keys
from ._refusals import Fault, Refusal
from ._states import States

DEFAULT_REQUEST_S = 60
# Why no reply will come to a request; everything else is a handler's failure.
REASONS = frozenset({"handler_failed", "no_handler", "max_attempts", "expired"})

Outgoing = pb.SendRequest | pb.RequestRequest | pb.ReplyRequest


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
        self.inboxes = Inboxes(max_attempts, backoff, self._died)
        self.states = States()
        self.keys = Keys()
        self.faults: list[Fault] = []
        self.recorded: list[Recorded] = []
        self._pending: dict[str, Pending] = {}
        self._count = itertools.count(1)

    def check(self, agent: str, request: Outgoing) -> None:
        """Raises the refusal of a message."""
        operation = {pb.SendRequest: "send", pb.RequestRequest: "request", pb.ReplyRequest: "reply"}[type(request)]
        target = "" if isinstance(request, pb.ReplyRequest) else request.target_id
        self.fault(operation, agent, target)
        if not self.inboxes.has_session(agent, request.instance_id):
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
        self.keys.remember(agent, request, response)
        return response

    def one(self, agent: str, request: Outgoing) -> pb.SendResponse | pb.RequestResponse | pb.ReplyResponse:
        """A message of its own."""
        before = None if isinstance(request, pb.ReplyRequest) else self.keys.answer(agent, request)
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
        if commit.HasField("expected_version"):
            self.states.require(agent, commit.expected_version)
        requests: list[Outgoing] = [getattr(one, one.WhichOneof("call") or "send") for one in commit.messages]
        for request in requests:
            self.check(agent, request)
        replies = [request.correlation_id for request in requests if isinstance(request, pb.ReplyRequest)]
        if len(set(replies)) < len(replies):
            raise Refusal("unknown_correlation_id", message_id=str(uuid.uuid4()))
        if commit.delivery_id:
            self.inboxes.ack(session, commit.delivery_id)
        response = pb.CommitResponse(version=self.states.set(agent, commit.updates) if commit.updates else 0)
        for one, request in zip(commit.messages, requests):
            result = response.results.add(reference=one.reference)
            getattr(result, one.WhichOneof("call") or "send").CopyFrom(self.accept(agent, request))
        return response

    def discover(self, agent: str, wanted: Sequence[str]) -> pb.DiscoverResponse:
        """Who is connected, may be messaged and offers any of these."""
        found = pb.DiscoverResponse()
        for other in sorted({one.agent_id for one in self.inboxes.sessions}):
            offers = list(self._capabilities.get(other, ()))
            may = other != agent if self._permissions is None else (agent, other) in self._permissions
            if may and (not wanted or set(wanted) & set(offers)):
                found.agents.add(agent_id=other, capabilities=offers, metadata_json="{}", status="ACTIVE")
        return found

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

    def _died(self, entry: Entry, reason: str) -> None:
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
        for one in self.inboxes.sessions:
            is_requester = one.agent_id == pending.requester and one.instance == pending.instance
            if is_requester and one.unanswered is not None:
                one.unanswered(failed)

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
        self.inboxes.post(entry)
        return message.message_id
