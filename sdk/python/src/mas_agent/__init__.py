"""Agents for MAS server.

An :class:`Agent` connects with its certificate, handles messages with typed handlers, and sends, requests,
replies, discovers and keeps state. It connects again by itself when the connection is lost. :mod:`mas_agent.blocking`
is the same for programs without an event loop, :mod:`mas_agent.testing` a server in memory for the tests of agents.
"""

from ._handlers import CallNext
from ._payload import Payload
from ._receipt import Finding, Receipt, Sent
from ._state import StateOf
from .agent import Agent, Credentials, Peer, State
from .errors import (
    Called,
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
    "CallNext",
    "Called",
    "CircuitOpen",
    "Commit",
    "Credentials",
    "DlpBlocked",
    "Finding",
    "InvalidRequest",
    "MasError",
    "Message",
    "NoReply",
    "NotAuthorized",
    "NotConnected",
    "OutcomeUnknown",
    "Payload",
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
    "StateOf",
    "Unauthenticated",
    "Unsupported",
    "VersionMismatch",
]
