"""The replies that an agent waits for, and the word that none will come."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .message import Message

log = logging.getLogger("mas_agent")

# Replies, and words that none will come, that came before their request's own answer; the oldest is forgotten.
MAX_EARLY_REPLIES = 1024


@dataclass(frozen=True)
class Unanswered:
    """No reply will come: the request's message is a dead letter."""

    message_id: str
    reason: str


class Replies:
    """Who waits for which reply. Everything in here ends with the time of its request."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Message | Unanswered]] = {}
        # Requests whose correlation id is not known yet.
        self._asking = 0
        self._early: OrderedDict[str, Message | Unanswered] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._early) + self._asking

    def asking(self, count: int) -> None:
        """Counts requests whose correlation id is not known yet."""
        self._asking += count
        if self._asking == 0:
            for outcome in self._early.values():
                _nobody_waits(outcome)
            self._early.clear()

    def expect(self, correlation_id: str, timeout: float) -> asyncio.Future[Message | Unanswered]:
        """From now on somebody waits for this reply, for so many seconds: then the future is cancelled."""
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Message | Unanswered] = loop.create_future()
        early = self._early.pop(correlation_id, None)
        if early is not None:
            reply.set_result(early)
            return reply
        self._waiting[correlation_id] = reply
        timer = loop.call_later(max(0.0, timeout), reply.cancel)

        def settled(_: object) -> None:
            timer.cancel()
            self._waiting.pop(correlation_id, None)

        reply.add_done_callback(settled)
        return reply

    def arrived(self, correlation_id: str, message: Message) -> None:
        """Hands a reply to whoever waits for it; nobody does when it is late."""
        self._settle(correlation_id, message)

    def failed(self, correlation_id: str, request: Unanswered) -> None:
        """Tells whoever waits for the reply that none will come."""
        self._settle(correlation_id, request)

    def _settle(self, correlation_id: str, outcome: Message | Unanswered) -> None:
        reply = self._waiting.pop(correlation_id, None)
        if reply is not None and not reply.done():
            reply.set_result(outcome)
        elif self._asking > 0:
            self._early[correlation_id] = outcome
            if len(self._early) > MAX_EARLY_REPLIES:
                _nobody_waits(self._early.popitem(last=False)[1])
        else:
            _nobody_waits(outcome)


def _nobody_waits(outcome: Message | Unanswered) -> None:
    if isinstance(outcome, Unanswered):
        log.info("nobody waits any more for a reply to %s; none will come: %s", outcome.message_id, outcome.reason)
    else:
        log.info("nobody waits any more for the reply %r %s from %s", outcome.type, outcome.id, outcome.sender)
