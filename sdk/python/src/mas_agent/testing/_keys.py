"""The idempotency keys that the server in memory remembers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .._proto import runtime_pb2 as pb
from ._refusals import Refusal

# How long a key is remembered, and at most where the client says how long; in seconds.
WINDOW_S = 600.0

Keyed = pb.SendRequest | pb.RequestRequest
Answer = pb.SendResponse | pb.RequestResponse


@dataclass(frozen=True)
class Known:
    """What happened under a key."""

    content: str
    answer: Answer
    until: float


class Keys:
    """Answers by sender and key."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Known] = {}

    def answer(self, agent: str, request: Keyed) -> Answer | None:
        """The answer that this key has got before."""
        if not request.idempotency_key:
            return None
        known = self._known.get((agent, request.idempotency_key))
        if known is None or known.until <= time.monotonic():
            return None
        if known.content != _content_of(request):
            raise Refusal("idempotency_key_reused")
        return known.answer

    def remember(self, agent: str, request: Keyed, answer: Answer) -> None:
        """From now on this key has this answer."""
        if not request.idempotency_key:
            return
        now = time.monotonic()
        self._known = {key: known for key, known in self._known.items() if known.until > now}
        window = min(request.idempotency_window_ms / 1000 or WINDOW_S, WINDOW_S)
        self._known[agent, request.idempotency_key] = Known(_content_of(request), answer, now + window)

    def lifetimes(self, agent: str) -> dict[str, float]:
        """For how long each key of an agent is still remembered, in seconds."""
        now = time.monotonic()
        return {key: known.until - now for (sender, key), known in self._known.items() if sender == agent}


def _content_of(request: Keyed) -> str:
    """What makes a message the same: its content, apart from who sends it when."""
    return f"{request.target_id}\n{request.message_type}\n{request.data_json}"
