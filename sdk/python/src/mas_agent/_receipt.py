"""Receipts: where the server's decision stands in its audit trail, and what it found in the payload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ._proto import runtime_pb2 as pb


@dataclass(frozen=True)
class Receipt:
    """Proof of a decision, to be checked against the trail."""

    lane: str
    """The lane that holds the record."""
    sequence: int
    """The record's position in it, from 1."""
    record_hash: bytes
    """The leaf hash of the record."""
    policy_version: bytes
    """Digest of the configuration that decided."""
    sender_sequence: int
    """The number of this decision among the sender's in this lane."""

    @classmethod
    def read(cls, receipt: pb.Receipt) -> Receipt:
        """From its form on the wire."""
        return cls(
            receipt.lane,
            receipt.sequence,
            receipt.record_hash,
            receipt.policy_version,
            receipt.sender_sequence,
        )


@dataclass(frozen=True)
class Finding:
    """What data-loss prevention found in a payload; never the text itself."""

    type: str
    """Such as ``credit_card``."""
    pointer: str
    """Where in the payload (RFC 6901); ``message_type`` for the message's type."""
    action: str
    """``block``, ``redact`` or ``alert``."""


def findings(found: Iterable[pb.Finding]) -> tuple[Finding, ...]:
    """From their form on the wire."""
    return tuple(Finding(one.type, one.pointer, one.action) for one in found)


@dataclass(frozen=True)
class Sent:
    """An accepted message: stored and on record."""

    message_id: str
    receipt: Receipt | None = None
    """``None`` where the server gives no receipts."""
    findings: tuple[Finding, ...] = ()
    """What was found in the payload, and redacted where it says so."""
    late: bool = False
    """A reply that nobody waits for any more: it was not sent, and has no id."""
