"""The inboxes of the server in memory: what waits, who holds it, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._proto import runtime_pb2 as pb

# Deliveries that a session may hold without acknowledging them.
MAX_IN_FLIGHT = 200
# How long a message waits at least that cannot be handled now, in seconds: doubling, so often at most.
PUT_OFF_FIRST_S = 0.25
PUT_OFF_LAST_S = 60.0
MAX_DOUBLINGS = 8


@dataclass(frozen=True)
class Recorded:
    """A message that was accepted."""

    message_id: str
    sender: str
    target: str
    type: str
    data: dict[str, Any]
    is_reply: bool


@dataclass(frozen=True)
class DeadLetter:
    """A message that no handler could handle."""

    message: Recorded
    reason: str
    attempts: int


@dataclass
class Entry:
    """A message in an inbox."""

    message: Recorded
    envelope: str
    instance: str = ""
    """Of a reply: the instance that asked."""
    asked: str = ""
    """Of a request: its correlation id."""
    attempt: int = 1
    put_off: int = 0
    """How often it could not be handled now."""
    not_before: float = 0.0
    expires: float = float("inf")


@dataclass
class Open:
    """A session: what the server may send to it, and what it holds."""

    agent_id: str
    instance: str
    push: Callable[[pb.Delivery], None]
    unanswered: Callable[[pb.RequestFailed], None] | None = None
    """Takes the word that no reply will come, where the client understands it."""
    held: dict[str, Entry] = field(default_factory=dict)


class Inboxes:
    """Messages and sessions. ``died``: told of each message that nobody will handle."""

    def __init__(self, max_attempts: int, backoff: Sequence[float], died: Callable[[Entry, str], None]) -> None:
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._died = died
        self.sessions: list[Open] = []
        self.dead: list[DeadLetter] = []
        self.waiting = 0
        """Messages that are to come later."""
        self._inboxes: dict[str, deque[Entry]] = {}
        self._count = itertools.count(1)
        self._turn = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, and no session holds anything."""
        here = {one.agent_id for one in self.sessions}
        waits = any(inbox for agent, inbox in self._inboxes.items() if agent in here)
        return not waits and not self.waiting and not any(one.held for one in self.sessions)

    def has_session(self, agent: str, instance: str) -> bool:
        """Whether this instance is connected."""
        return any(one.agent_id == agent and one.instance == instance for one in self.sessions)

    def join(self, session: Open) -> None:
        """A session has begun."""
        self.sessions.append(session)
        self.deliver(session.agent_id)

    def leave(self, session: Open) -> None:
        """A session has ended: what it held is for the next one, and this was an attempt of it."""
        if session in self.sessions:
            self.sessions.remove(session)
            inbox = self._inboxes.setdefault(session.agent_id, deque())
            for entry in reversed(session.held.values()):
                if entry.attempt >= self._max_attempts:
                    self._bury(entry, "max_attempts")
                else:
                    entry.attempt += 1
                    inbox.appendleft(entry)
            session.held.clear()
            self.deliver(session.agent_id)

    def post(self, entry: Entry) -> None:
        """A message was accepted."""
        self._inboxes.setdefault(entry.message.target, deque()).append(entry)
        self.deliver(entry.message.target)

    def ack(self, session: Open, delivery_id: str) -> None:
        """A delivery was handled."""
        session.held.pop(delivery_id, None)
        self.deliver(session.agent_id)

    def nack(self, session: Open, nack: pb.Nack) -> None:
        """A delivery was not handled."""
        entry = session.held.pop(nack.delivery_id, None)
        if entry is None:
            return
        if nack.retryable and nack.retry_after_ms:
            growing = min(PUT_OFF_FIRST_S * 2 ** min(entry.put_off, MAX_DOUBLINGS), PUT_OFF_LAST_S)
            entry.put_off += 1
            self._later(entry, max(growing, nack.retry_after_ms / 1000))
        elif nack.retryable and entry.attempt < self._max_attempts:
            wait = self._backoff[min(entry.attempt, len(self._backoff)) - 1]
            entry.attempt += 1
            self._later(entry, wait)
        else:
            self._bury(entry, nack.reason)
        self.deliver(session.agent_id)

    def deliver(self, agent: str) -> None:
        """Hands out what waits, in turn."""
        inbox = self._inboxes.get(agent, deque())
        skipped: deque[Entry] = deque()
        while inbox:
            entry = inbox.popleft()
            if entry.expires < time.time():
                self._died(entry, "expired")
                continue
            if (left := entry.not_before - time.time()) > 0:
                self._later(entry, left)
                continue
            free = [
                one
                for one in self.sessions
                if one.agent_id == agent
                and (not entry.instance or one.instance == entry.instance)
                and len(one.held) < MAX_IN_FLIGHT
            ]
            if not free:
                skipped.append(entry)
                continue
            self._turn += 1
            session = free[self._turn % len(free)]
            delivery_id = f"d{next(self._count)}"
            session.held[delivery_id] = entry
            delivery = pb.Delivery(delivery_id=delivery_id, envelope_json=entry.envelope, attempt=entry.attempt)
            session.push(delivery)
        if agent in self._inboxes:
            inbox.extend(skipped)

    def _bury(self, entry: Entry, reason: str) -> None:
        self.dead.append(DeadLetter(entry.message, reason, entry.attempt))
        self._died(entry, reason)

    def _later(self, entry: Entry, seconds: float) -> None:
        self.waiting += 1

        def back() -> None:
            self.waiting -= 1
            self.post(entry)

        asyncio.get_running_loop().call_later(seconds, back)
