"""What a caller may say about a call: its time, its key, its message's times. Checked before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from . import _wire
from ._session import Session
from .errors import SetupError, Unsupported

# What a call may take at most, and the longest time that can be sent; in seconds.
MAX_TIMEOUT_S = 86_400.0
MAX_TIME_S = 1e12

_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Options:
    """What a message may carry beyond the base protocol."""

    idempotency_key: str | None = None
    ttl: float | None = None
    not_before: float | None = None

    def __post_init__(self) -> None:
        if self.idempotency_key is not None and not _KEY.fullmatch(self.idempotency_key):
            raise SetupError(f"idempotency_key {self.idempotency_key!r}: expected 1 to 64 of A-Z a-z 0-9 _ -")

    def require(self, session: Session) -> None:
        """A server that would ignore them must not get them."""
        if self.idempotency_key is not None and not session.offers(_wire.IDEMPOTENCY):
            raise Unsupported("this server has no idempotency keys")
        if (self.ttl is not None or self.not_before is not None) and not session.offers(_wire.TIMES):
            raise Unsupported("this server has no times to live")

    def fields(self) -> dict[str, Any]:
        """As fields of SendRequest and RequestRequest."""
        return {
            "idempotency_key": self.idempotency_key or "",
            "ttl_ms": milliseconds(self.ttl),
            "not_before_ms": milliseconds(self.not_before),
        }


def milliseconds(seconds: float | None) -> int:
    """Seconds as milliseconds; ``None`` is 0, and what is more than 0 stays so."""
    if seconds is None:
        return 0
    if not 0 < seconds <= MAX_TIME_S:
        raise SetupError(f"{seconds} is no time: expected more than 0 and at most {MAX_TIME_S:.0f} seconds")
    return max(1, round(seconds * 1000))


def checked_timeout(timeout: float, name: str = "timeout") -> float:
    """The seconds, where a call can take so many."""
    if not 0 < timeout <= MAX_TIMEOUT_S:
        raise SetupError(f"{name} {timeout}: expected more than 0 and at most {MAX_TIMEOUT_S:.0f} seconds")
    return timeout
