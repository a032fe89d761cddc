"""What becomes of deliveries: find the handler, run it, acknowledge or refuse."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from ._calls import Calls
from ._link import Link
from ._proto import runtime_pb2 as pb
from ._tracing import Operation, Tracing
from .errors import NoReply, NotConnected, OutcomeUnknown, Reject, Retry, VersionMismatch
from .message import Message

log = logging.getLogger("mas_agent")

# Deliveries whose end is remembered, so that a redelivery after a lost acknowledgement is not handled again
# by this process.
REMEMBERED = 4096
# Longest reason of a refusal, in characters.
MAX_REASON = 200
# Failures that another delivery may not meet again.
PASSING = (NotConnected, OutcomeUnknown, NoReply, VersionMismatch)


@dataclass(frozen=True)
class Handler:
    """What handles a type of message."""

    function: Callable[..., Awaitable[None]]
    model: type[BaseModel] | None
    retry_on: tuple[type[Exception], ...]


class Intake:
    """Runs handlers, at most ``concurrency`` at a time; the server's credit bounds what waits."""

    def __init__(self, handlers: dict[str, Handler], fallback: Handler | None, concurrency: int) -> None:
        self._handlers = handlers
        self._fallback = fallback
        self._slots = asyncio.Semaphore(concurrency)
        self._running: dict[str, tuple[Message, asyncio.Task[None]]] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._stopping = False
        self._link: Link
        self._calls: Calls
        self._tracing: Tracing

    def connect(self, link: Link, calls: Calls) -> None:
        """Where answers go."""
        self._link = link
        self._calls = calls
        self._tracing = calls.tracing

    def take(self, delivery: pb.Delivery) -> None:
        """A delivery has arrived."""
        delivery_id = delivery.delivery_id
        try:
            message = Message._read(delivery, self._calls)
        except (ValueError, KeyError) as error:
            log.error("an envelope that cannot be read: %s", error)
            self._nack(delivery_id, f"invalid_envelope:{type(error).__name__}", False)
            return
        if message.id in self._done:
            # Only the acknowledgement was lost.
            self._ack(delivery_id)
            return
        if message.id in self._running:
            # Its handler acknowledges by the newest delivery: no other counts any more.
            self._running[message.id][0]._delivery_id = delivery_id
            return
        if message.is_reply:
            # Replies go to their request, not through the handlers.
            self._calls.replied(message.correlation_id or "", message)
            self._ack(delivery_id)
        elif not self._stopping:
            # While stopping the server keeps it for the next session.
            task = asyncio.create_task(self._handle(message), name=f"mas-agent {message.type}")
            self._running[message.id] = (message, task)

    async def drain(self, timeout: float) -> None:
        """Lets handlers finish, until ``timeout``; then they are cancelled and their messages stay with the
        server."""
        self._stopping = True
        tasks = {task for _, task in self._running.values()} - {asyncio.current_task()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d handlers did not finish within %s s", len(late), timeout)
            await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, message: Message) -> None:
        try:
            async with self._slots:
                await self._run(message)
        finally:
            self._running.pop(message.id, None)

    async def _run(self, message: Message) -> None:
        handler = self._handlers.get(message.type, self._fallback)
        if handler is None:
            log.warning("no handler for %r from %s", message.type, message.sender)
            self._nack(message._delivery_id, f"no_handler:{message.type}", False)
            return
        with self._tracing.processing(message) as operation:
            try:
                if handler.model is None:
                    await handler.function(message)
                else:
                    await handler.function(message, message.parse(handler.model))
            except asyncio.CancelledError:
                operation.settled("ack" if message._settled else "lost")
                raise
            except Exception as error:
                self._failed(message, error, handler, operation)
                return
            self._finish(message.id)
            if not message._settled:
                self._ack(message._delivery_id)
            operation.settled("ack")

    def _failed(self, message: Message, error: Exception, handler: Handler, operation: Operation) -> None:
        if message._settled:
            # It was committed: it is handled, whatever came after.
            self._finish(message.id)
            operation.settled("ack", error)
            log.error("%s %s: failed after its commit", message.type, message.id, exc_info=error)
            return
        retryable = isinstance(error, (Retry, *PASSING, *handler.retry_on)) and not isinstance(error, Reject)
        if isinstance(error, (Retry, Reject)):
            reason = str(error)
        else:
            reason = f"handler_error:{type(error).__name__}"
            log.error("%s %s from %s failed", message.type, message.id, message.sender, exc_info=error)
        self._nack(message._delivery_id, reason, retryable)
        operation.settled("nack" if retryable else "dead", error)

    def _finish(self, message_id: str) -> None:
        self._done[message_id] = None
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def _ack(self, delivery_id: str) -> None:
        # Without a session it is lost, and the delivery comes again.
        session = self._link.current
        if session is not None:
            session.ack(delivery_id)

    def _nack(self, delivery_id: str, reason: str, retryable: bool) -> None:
        session = self._link.current
        if session is not None:
            session.nack(delivery_id, reason[:MAX_REASON], retryable)


