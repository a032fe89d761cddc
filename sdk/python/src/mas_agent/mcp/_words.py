"""What went wrong, in words that a model can act on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._receipt import Finding
from ..errors import MasError, NoReply, NotConnected, OutcomeUnknown, Refused, SetupError, Unsupported

LATER = "Nothing is wrong with the message: try again later."
# By the server's word; {target} is who was called.
MEANINGS = {
    "not_authorized": (
        "No rule lets this agent message {target}, or there is no such agent. Trying again does not help; "
        "discover_peers lists who may be messaged."
    ),
    "dlp_blocked": (
        "The payload holds what must not be sent. Remove what was found from the places named below, and send again "
        "without it."
    ),
    "rate_limited": "This agent has sent too many messages. Wait as long as said below, then try again.",
    "queue_full": "Too many messages wait for {target} already. " + LATER,
    "circuit_open": (
        "{target} fails too often just now, so that nothing is sent to it for a while. Try again later, or ask another "
        "agent."
    ),
    "target_offline": "{target} is not connected. Try again later, or ask another agent.",
    "quarantined": "An operator has shut this agent out. Trying again does not help.",
    "agent_not_allowlisted": "This agent is not among the agents of the server's mas.yaml. An operator has to add it.",
    "certificate_revoked": "The certificate of this agent was revoked. An operator has to issue another one.",
    "certificate_expired": "The certificate of this agent has expired. An operator has to renew it.",
    "unknown_correlation_id": (
        "Nobody waits for a reply to that message: its sender has given up, or it was answered already."
    ),
    "missing_correlation_id": (
        "The sender of that message did not ask for a reply. Use send_message to tell it something."
    ),
    "reply_sender_mismatch": "That message was for another agent.",
    "invalid_json": "The payload holds what JSON cannot, or is nested too deep.",
}
# Why no reply will come.
UNANSWERED = {
    "handler_failed": "it failed on the request. The same request will fail again; another one may not",
    "no_handler": "it does not take messages of this type",
    "max_attempts": "it has failed on the request as often as it may be tried",
    "expired": "the request was not taken in time",
}
BY_CODE = {
    "UNAUTHENTICATED": "The server does not accept the certificate of this agent. An operator has to look at it.",
    "INVALID_ARGUMENT": "The call itself is wrong; the word says how.",
    "RESOURCE_EXHAUSTED": "Too much, or too long: the word says of what.",
}


def explain(error: MasError, target: str = "") -> dict[str, Any]:
    """The error as fields: `error` is the contract's word, `message` says what it means and what to do."""
    told: dict[str, Any] = {}
    if isinstance(error, Refused):
        told = _refused(error, target or "that agent")
    elif isinstance(error, NoReply):
        told["error"] = "no_reply"
        if error.reason is None:
            told["message"] = (
                f"{target} got the request, and did not reply in time. It may still be working on it, or have failed. "
                "Asking again may have it done twice; a longer timeout_seconds may help."
            )
        else:
            meaning = UNANSWERED.get(error.reason, "the request could not be handled")
            told["reason"] = error.reason
            told["message"] = f"No reply will come from {target}: {meaning}."
        told["message_id"] = error.message_id
    elif isinstance(error, NotConnected):
        told["error"] = "not_connected"
        told["message"] = (
            f"There is no connection to the server, and nothing was sent: {error}. It is made again by itself; "
            "try again later."
        )
    elif isinstance(error, OutcomeUnknown):
        told["error"] = "outcome_unknown"
        told["message"] = (
            "The connection broke before the answer: it may or may not have happened. Ask before doing it again, if "
            "twice would do harm."
        )
    elif isinstance(error, Unsupported):
        told["error"] = "unsupported"
        told["message"] = f"This server does not offer that; nothing was sent: {error}"
    else:
        told["error"] = "invalid_request" if isinstance(error, SetupError) else "failed"
        told["message"] = str(error)
    receipt = getattr(error, "receipt", None)
    if receipt is not None:
        told["receipt"] = f"{receipt.lane}:{receipt.sequence}"
    return told


def _refused(error: Refused, target: str) -> dict[str, Any]:
    meaning = MEANINGS.get(error.detail)
    if meaning is None:
        meaning = LATER if error.is_later else BY_CODE.get(error.code, "The server refused; nothing happened.")
    told: dict[str, Any] = {"error": error.detail, "message": meaning.format(target=target)}
    if error.retry_after is not None:
        told["retry_after_seconds"] = round(error.retry_after, 3)
    told.update(found(error.findings))
    if error.message_id:
        told["message_id"] = error.message_id
    return told


def found(findings: Iterable[Finding]) -> dict[str, Any]:
    """What data-loss prevention found, where it found something; never the text."""
    told = [{"type": one.type, "at": one.pointer, "action": one.action} for one in findings]
    return {"findings": told} if told else {}


def sentence(told: dict[str, Any]) -> str:
    """The same for reading."""
    lines = [f"{told['error']}: {told['message']}"]
    lines += [f"Found: {one['type']} at {one['at'] or '/'} ({one['action']})." for one in told.get("findings", ())]
    if "retry_after_seconds" in told:
        lines.append(f"Try again in {told['retry_after_seconds']:g} seconds.")
    if told.get("message_id"):
        lines.append(f"On record as message {told['message_id']}.")
    return "\n".join(lines)
