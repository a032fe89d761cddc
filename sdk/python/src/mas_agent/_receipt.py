"""Receipts: where the server's decision stands in its audit trail."""

from __future__ import annotations

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
class Sent:
    """An accepted message: stored and on record."""

    message_id: str
    receipt: Receipt | None = None
    """``None`` where the server gives no receipts."""
