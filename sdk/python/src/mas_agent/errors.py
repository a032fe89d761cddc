"""What can go wrong, for callers and for handlers."""

from __future__ import annotations

from ._receipt import Receipt


class MasError(Exception):
    """The root of what this package raises."""


class SetupError(MasError):
    """A file, an environment variable or an argument: nothing was sent."""


class NotConnected(MasError):
    """No session with the server in time: nothing was done."""


class OutcomeUnknown(MasError):
    """The connection or the store broke on the way: it may or may not have happened."""


class NoReply(MasError):
    """The request was accepted, and no reply came in time."""


class Unsupported(MasError):
    """The server does not offer this; nothing was sent."""


class Refused(MasError):
    """The server refused; nothing happened.

    ``code`` is gRPC's name of the status, ``detail`` the contract's word for the case, ``retry_after``
    the seconds after which another try may help, ``receipt`` where the refusal is on record.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        receipt: Receipt | None = None,
    ) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.receipt = receipt


class Unauthenticated(Refused):
    """The certificate is not one of an agent that may connect."""


class InvalidRequest(Refused):
    """The request itself is wrong."""


class NotAuthorized(Refused):
    """No rule allows it, or there is no such agent: both look the same."""


class DlpBlocked(Refused):
    """The payload holds what must not be sent."""


class RateLimited(Refused):
    """Too many messages; ``retry_after`` says when there is room again."""


class CircuitOpen(Refused):
    """The target's handlers fail too often."""


class QueueFull(Refused):
    """The target has too many messages waiting."""


class VersionMismatch(Refused):
    """The state has another version than the one that was expected."""


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


def refused(code: str, detail: str, retry_after: float | None, receipt: Receipt | None) -> Refused:
    """The refusal in its own class, where it has one."""
    kind = _BY_DETAIL.get(detail) or _BY_CODE.get(code) or Refused
    return kind(code, detail, retry_after=retry_after, receipt=receipt)


class Retry(Exception):
    """Raised by a handler: deliver the message again later. The server waits longer each time."""


class Reject(Exception):
    """Raised by a handler: no further delivery will help; the message goes to the dead letters."""
