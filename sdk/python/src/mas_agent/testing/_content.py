"""What makes a message the same under its idempotency key."""

from __future__ import annotations

from .._proto import runtime_pb2 as pb


def content_of(request: pb.SendRequest | pb.RequestRequest) -> str:
    """Its content, apart from who sends it when."""
    return f"{request.target_id}\n{request.message_type}\n{request.data_json}"
