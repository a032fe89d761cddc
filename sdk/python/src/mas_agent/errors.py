"""What can go wrong, for callers and for handlers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ._receipt import Finding, Receipt


@dataclass(frozen=True)
class Called:
    """Which call failed."""

    operation: str
    """As the agent's method is called: "send", "request", "get_state", …"""
    target: str = ""
    message_type: str = ""

    def __str__(self) -> str:
        kind = f' "{self.message_type}"' if self.message_type else ""
        return f"{self.operation}{kind}" + (f" to {self.target}" if self.target else "")


class MasError(Exception):
    """The root of what this package raises."""

    called: Called | None = None
    """The call that failed, where it was one."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{self.called}: {text}" if self.called else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The usual way calls the class with its text alone.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[MasError], args: tuple[Any, ...], values: dict[str, Any]) -> MasError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(values)
    return error


def _where(message_id: str, receipt: Receipt | None) -> list[str]:
    """Where the trail tells more."""
    where = [f"`mas audit show {message_id}`"] if message_id else []
    if receipt is not None:
        where.append(f"receipt {receipt.lane}:{receipt.sequence}")
    return where


def _on_record(message_id: str, receipt: Receipt | None) -> str:
    where = _where(message_id, receipt)
    return f" [{', '.join(where)}]" if where else ""


class SetupError(MasError):
    """A file, an environment variable or an argument: nothing was sent."""


class NotConnected(MasError):
    """No session with the server in time: nothing was done."""


class OutcomeUnknown(MasError):
    """The connection or the store broke on the way: it may or may not have happened."""


class NoReply(MasError):
    """The request was accepted, and no reply came in time, or none will come."""

    def __init__(
        self,
        text: str,
        *,
        message_id: str = "",
        correlation_id: str = "",
        receipt: Receipt | None = None,
        reason: str | None = None,
    ) -> None:
        if reason is None:
            text += _on_record(message_id, receipt)
        else:
            text += f" (message {message_id}; {', '.join(_where(message_id, receipt))})"
        super().__init__(text)
        self.reason = reason
        """Why none will come: ``handler_failed``, ``no_handler``, ``max_attempts`` or ``expired``, the request's message
        is a dead letter. ``None``: nothing came in time."""
        self.message_id = message_id
        """Under which the request is on record (`mas audit show ID`)."""
        self.correlation_id = correlation_id
        self.receipt = receipt
        """Where the request's acceptance is on record."""

    def __str__(self) -> str:
        # A text with a reason names the call itself.
        return super().__str__() if self.reason is None else Exception.__str__(self)


class Unsupported(MasError):
    """The server does not offer this; nothing was sent."""


class Refused(MasError):
    """The server refused; nothing happened.

    ``code`` is gRPC's name of the status, ``detail`` the server's word for the case, ``retry_after`` the seconds after
    which another try may help, ``receipt`` and ``message_id`` where the refusal is on record, ``findings`` what
    data-loss prevention found in the payload.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        receipt: Receipt | None = None,
        message_id: str = "",
        findings: Iterable[Finding] = (),
        words: str = "",
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.receipt = receipt
        self.message_id = message_id
        self.findings = tuple(findings)
        self._words = words

    def __str__(self) -> str:
        text = f"{self._words} ({self.detail})" if self._words else f"refused: {self.detail}"
        if self.findings:
            text += ": " + ", ".join(f"{one.type} at {one.pointer or '/'} ({one.action})" for one in self.findings)
        if self.retry_after is not None:
            text += f", try again in {self.retry_after:.3g} s"
        text += _on_record(self.message_id, self.receipt)
        return f"{self.called} {text}" if self.called else text

    @property
    def is_later(self) -> bool:
        """Whether the same call may succeed later, without anything wrong with it."""
        return self.detail in LATER or self.code == "UNAUTHENTICATED"


class Unauthenticated(Refused):
    """The certificate is not one of an agent that may connect."""


class InvalidRequest(Refused):
    """The request itself is wrong."""


class NotAuthorized(Refused):
    """No rule allows it, or there is no such agent: both look the same."""


class DlpBlocked(Refused):
    """The payload holds what must not be sent; ``findings`` says what and where."""


class RateLimited(Refused):
    """Too many messages; ``retry_after`` says when there is room again."""


class CircuitOpen(Refused):
    """The target's handlers fail too often."""


class QueueFull(Refused):
    """The target has too many messages waiting."""


class VersionMismatch(Refused):
    """The state has another version than the one that was expected."""


# The delivery that was committed is with another session by now, or was delivered anew.
NOT_HELD = "delivery_not_held"
# Refusals that say "not now": nobody's failure. So does every UNAUTHENTICATED: it is of the agent itself.
LATER = frozenset(
    {
        "rate_limited",
        "queue_full",
        "circuit_open",
        "storage_full",
        "overloaded",
        "storage_unavailable",
        "audit_unavailable",
        "audit_full",
        "server_stopping",
        "target_offline",
        "session_not_connected",
        "quarantined",
        NOT_HELD,
    }
)

_BY_DETAIL: dict[str, type[Refused]] = {
    "not_authorized": NotAuthorized,
    "reply_sender_mismatch": NotAuthorized,
    "dlp_blocked": DlpBlocked,
    "rate_limited": RateLimited,
    "circuit_open": CircuitOpen,
    "queue_full": QueueFull,
    "version_mismatch": VersionMismatch,
}
_BY_CODE: dict[str, type[Refused]] = {
    "UNAUTHENTICATED": Unauthenticated,
    "INVALID_ARGUMENT": InvalidRequest,
}


def refused(
    code: str,
    detail: str,
    retry_after: float | None = None,
    receipt: Receipt | None = None,
    message_id: str = "",
    findings: Iterable[Finding] = (),
) -> Refused:
    """The refusal in its own class, where it has one."""
    kind = _BY_DETAIL.get(detail) or _BY_CODE.get(code) or Refused
    return kind(
        code, detail, retry_after=retry_after, receipt=receipt, message_id=message_id, findings=findings
    )


class Retry(Exception):
    """Raised by a handler: deliver the message again later. The server waits longer each time."""


class Reject(Exception):
    """Raised by a handler: no further delivery will help; the message goes to the dead letters."""
