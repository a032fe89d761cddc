"""Agents for MAS server.

An :class:`Agent` connects with its certificate, handles messages with typed handlers, and sends, requests,
replies, discovers and keeps state. It connects again by itself when the connection is lost.
"""

from ._receipt import Receipt, Sent
from .agent import Agent, Credentials, Peer, State
from .errors import (
    CircuitOpen,
    DlpBlocked,
    InvalidRequest,
    MasError,
    NoReply,
    NotAuthorized,
    NotConnected,
    OutcomeUnknown,
    QueueFull,
    RateLimited,
    Refused,
    Reject,
    Retry,
    SetupError,
    Unauthenticated,
    Unsupported,
    VersionMismatch,
)
from .message import Commit, Message, PendingReply

__all__ = [
    "Agent",
    "CircuitOpen",
    "Commit",
    "Credentials",
    "DlpBlocked",
    "InvalidRequest",
    "MasError",
    "Message",
    "NoReply",
    "NotAuthorized",
    "NotConnected",
    "OutcomeUnknown",
    "Peer",
    "PendingReply",
    "QueueFull",
    "RateLimited",
    "Receipt",
    "Refused",
    "Reject",
    "Retry",
    "Sent",
    "SetupError",
    "State",
    "Unauthenticated",
    "Unsupported",
    "VersionMismatch",
]
