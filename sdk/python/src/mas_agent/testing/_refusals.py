"""Refusals of the server in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import grpc

from .._receipt import Finding

# The status of each of the server's words; FAILED_PRECONDITION for others.
CODES = {
    "agent_not_allowlisted": grpc.StatusCode.UNAUTHENTICATED,
    "certificate_revoked": grpc.StatusCode.UNAUTHENTICATED,
    "invalid_certificate": grpc.StatusCode.UNAUTHENTICATED,
    "quarantined": grpc.StatusCode.PERMISSION_DENIED,
    "not_authorized": grpc.StatusCode.PERMISSION_DENIED,
    "reply_sender_mismatch": grpc.StatusCode.PERMISSION_DENIED,
    "dlp_blocked": grpc.StatusCode.PERMISSION_DENIED,
    "invalid_json": grpc.StatusCode.INVALID_ARGUMENT,
    "payload_must_be_object": grpc.StatusCode.INVALID_ARGUMENT,
    "missing_correlation_id": grpc.StatusCode.INVALID_ARGUMENT,
    "unknown_correlation_id": grpc.StatusCode.INVALID_ARGUMENT,
    "invalid_message_type": grpc.StatusCode.INVALID_ARGUMENT,
    "idempotency_key_reused": grpc.StatusCode.INVALID_ARGUMENT,
    "message_too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "queue_full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "rate_limited": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "state_too_large": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "storage_full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "audit_full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "too_many_sessions": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "version_mismatch": grpc.StatusCode.ABORTED,
    "overloaded": grpc.StatusCode.UNAVAILABLE,
    "storage_unavailable": grpc.StatusCode.UNAVAILABLE,
    "audit_unavailable": grpc.StatusCode.UNAVAILABLE,
    "server_stopping": grpc.StatusCode.UNAVAILABLE,
    "commit_unknown": grpc.StatusCode.UNAVAILABLE,
}


class Refusal(Exception):
    """What a caller is told."""

    def __init__(
        self, detail: str, retry_after: float | None = None, findings: Iterable[Finding] = (), message_id: str = ""
    ) -> None:
        super().__init__(detail)
        self.code = CODES.get(detail, grpc.StatusCode.FAILED_PRECONDITION)
        self.detail = detail
        self.retry_after_ms = round(retry_after * 1000) if retry_after else 0
        self.findings = tuple(findings)
        self.message_id = message_id


@dataclass
class Fault:
    """What is to be refused; an empty name stands for all of them."""

    detail: str
    operation: str
    sender: str
    target: str
    retry_after: float | None
    findings: tuple[Finding, ...]
    times: int

    def meets(self, operation: str, sender: str, target: str) -> bool:
        """Whether it is about this call."""
        given = ((self.operation, operation), (self.sender, sender), (self.target, target))
        return all(not wanted or wanted == what for wanted, what in given)
