"""What becomes of deliveries: find the handler, run it, acknowledge or refuse."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _wire
from ._handlers import CallNext, Handler, Middleware, WrongPayload
from ._link import Link
from ._payload import named_fields
from ._proto import runtime_pb2 as pb
from ._replies import Unanswered
from ._threads import handler_task
from ._tracing import Operation, Outcome
from .errors import NoReply, NotConnected, OutcomeUnknown, Refused, Reject, Retry, VersionMismatch
from .message import Message

if TYPE_CHECKING:
    from ._context import Context

log = logging.getLogger("mas_agent")

# Deliveries whose end is remembered, so that a redelivery after a lost acknowledgement is not handled again
# by this process; and as many that are to come later.
REMEMBERED = 4096
# Longest reason of a refusal, in characters.
MAX_REASON = 200
# Failures that another delivery may not meet again.
UNCERTAIN = (NoReply, VersionMismatch)
# How long a message waits that cannot be handled now, in seconds: doubling.
LATER_FIRST_S = 0.25
LATER_LAST_S = 60.0
# And at most, where the server says when to try again: at the server, and in this process.
LATER_AT_MOST_S = 3600.0
LATER_AT_MOST_HERE_S = 60.0
# After how long a message comes again that had not begun when the agent stopped, while handlers go on; in seconds.
STOPPING_S = 1.0
# And what is left at the end: at once. The server has a shortest wait of its own.
AT_ONCE_S = 0.001
# What is on record of such a message.
STOPPED = "agent_stopped"
# How long handlers that were cancelled may take to end, in seconds.
CANCEL_S = 1.0


@dataclass(slots=True)
class Running:
    """A message that this process has taken."""

    message: Message
    task: asyncio.Task[None] | None = None
    """``None``: it arrived when the agent was stopping."""
    handling: bool = False
    """Its handler has begun and has not ended."""


class Intake:
    """Runs handlers, at most ``concurrency`` at a time; the server's credit bounds what waits."""

    def __init__(
        self,
        handlers: dict[str, Handler],
        fallback: list[Handler],
        middleware: Sequence[Middleware],
        concurrency: int,
    ) -> None:
        self._handlers = handlers
        self._fallback = fallback
        self._middleware = middleware
        self._slots = asyncio.Semaphore(concurrency)
        self._running: dict[str, Running] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        # How often a message was put off.
        self._put_off: OrderedDict[str, int] = OrderedDict()
        self._ready = asyncio.Event()
        self._stopping = False
        # Whether handlers have had their time, after which everything goes back at once.
        self._drained = False
        self._link: Link
        self._context: Context

    def connect(self, context: Context) -> None:
        """Where answers go."""
        self._link = context.link
        self._context = context

    def begin(self) -> None:
        """Handlers may run: what has arrived before waits for this."""
        self._ready.set()

    def take(self, delivery: pb.Delivery) -> None:
        """A delivery has arrived."""
        delivery_id = delivery.delivery_id
        try:
            message = Message._read(delivery, self._context.calls)
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
            current = self._running[message.id].message
            current._delivery_id = delivery_id
            if current._given_up:
                self._give_back(current, AT_ONCE_S)
            return
        if message.is_reply:
            # Replies go to their request, not through the handlers.
            self._context.calls.replies.arrived(message.correlation_id or "", message)
            self._ack(delivery_id)
        elif self._drained:
            self._give_back(message, AT_ONCE_S)
        else:
            running = self._running[message.id] = Running(message)
            # What comes while stopping is given back at its end.
            if not self._stopping:
                running.task = asyncio.create_task(self._handle(running), name=f"mas-agent {message.type}")

    def unanswered(self, request: pb.RequestFailed) -> None:
        """No reply will come to a request of this agent's."""
        self._context.calls.replies.failed(request.correlation_id, Unanswered(request.message_id, request.reason))

    def is_handler(self, task: asyncio.Task[object] | None) -> bool:
        """Whether the task runs a handler: it cannot wait for its own end."""
        return task is not None and any(one.task is task for one in self._running.values())

    async def drain(self, timeout: float) -> None:
        """Takes no further messages and lets handlers finish, until ``timeout``; then they are cancelled. What is not
        finished goes back to the server."""
        self._stopping = True
        # A plain handler that has asked for this cannot be waited for either.
        asking = (asyncio.current_task(), handler_task.get())
        try:
            await self._let_finish(asking, timeout)
        finally:
            # Also where whoever stops the agent waits no longer.
            self._drained = True
            left = self._others(asking)
            self._give_up(left)
            try:
                await _ended(left)
            finally:
                for one in left:
                    self._give_back(one.message, AT_ONCE_S)
                    if one.task is None:
                        self._running.pop(one.message.id, None)

    async def _let_finish(self, asking: tuple[object, ...], timeout: float) -> None:
        others = self._others(asking)
        handling = {one.task for one in others if one.task is not None and one.handling}
        if not handling:
            return
        # These have not begun: another instance may have them meanwhile.
        waiting = [one for one in others if not one.handling]
        self._give_up(waiting)
        for one in waiting:
            self._give_back(one.message, STOPPING_S)
        _, late = await asyncio.wait(handling, timeout=timeout)
        if late:
            log.warning("%d handlers did not finish within %s s: their messages come again", len(late), timeout)

    def _others(self, asking: tuple[object, ...]) -> list[Running]:
        """What this process holds, apart from that of who waits for its end."""
        return [
            one
            for one in self._running.values()
            if not one.message._given_up and (one.task is None or one.task not in asking)
        ]

    def _give_up(self, given_up: list[Running]) -> None:
        """What their handlers say from now on is not sent."""
        for one in given_up:
            one.message._given_up = True
            if one.task is not None:
                one.task.cancel()

    def _give_back(self, message: Message, wait: float) -> None:
        """Puts a message off that is not handled here, which is no attempt of it. Where the server cannot be told so, the
        end of the session gives it back."""
        if self._tells_when() and not message._settled:
            self._put_back(message, STOPPED, wait)

    async def _handle(self, running: Running) -> None:
        message = running.message
        wait: float | None = None
        try:
            if not self._ready.is_set():
                await self._ready.wait()
            async with self._slots:
                if self._stopping:
                    return
                running.handling = True
                try:
                    wait = await self._run(message)
                except Exception:
                    # Not the handler: what became of it could not be worked out.
                    log.exception("%s %s: it is delivered again, after the server's wait", message.type, message.id)
                    if not message._settled and not message._given_up:
                        self._nack(message._delivery_id, "handler_error:internal", True)
                finally:
                    running.handling = False
            if wait is not None and not self._stopping:
                # This server cannot be told when: the message waits here, where it keeps nobody else waiting.
                await asyncio.sleep(wait)
                self._put_back(message, "later", 0.0)
        finally:
            self._running.pop(message.id, None)

    async def _run(self, message: Message) -> float | None:
        """Handles it; for how long it has to wait here, where it does."""
        handler = self._handlers.get(message.type) or (self._fallback[0] if self._fallback else None)
        if handler is None:
            log.warning("no handler for %r from %s: %s is a dead letter", message.type, message.sender, message.id)
            self._nack(message._delivery_id, f"no_handler:{message.type}", False)
            return None
        with self._context.calls.tracing.processing(message) as operation:
            try:
                if self._middleware:
                    await self._through_middleware(handler)(message)
                else:
                    await handler.run(message, self._context)
            except asyncio.CancelledError as error:
                operation.settled(self._given_back(message) if message._given_up else "ack" if message._settled else "nack")
                if not message._given_up and not message._settled:
                    # Not ours: something that it waited for was cancelled, or the whole loop ends.
                    self._nack(message._delivery_id, f"handler_error:{type(error).__name__}", True)
                raise
            except Exception as error:
                return self._failed(message, error, handler, operation)
            if message._given_up:
                operation.settled(self._given_back(message))
                return None
            self._finish(message)
            operation.settled("ack")
            return None

    def _through_middleware(self, handler: Handler) -> CallNext:
        async def innermost(message: Message) -> None:
            await handler.run(message, self._context)

        call: CallNext = innermost
        for one in reversed(self._middleware):
            call = functools.partial(_with_next, one, call)
        return call

    def _failed(self, message: Message, error: Exception, handler: Handler, operation: Operation) -> float | None:
        what = f"{message.type} {message.id} from {message.sender}"
        error = _reduced(error, (Retry, *UNCERTAIN, *handler.retry_on))
        cause = error.cause if isinstance(error, WrongPayload) else error
        if message._settled:
            # It was committed: it is handled, whatever came after.
            self._finish(message)
            operation.settled("ack", cause)
            log.error("%s: failed after its commit, which stands", what, exc_info=error)
            return None
        if message._given_up:
            operation.settled(self._given_back(message), cause)
            log.warning("%s: failed when it was given up: it comes again", what, exc_info=error)
            return None
        if _is_later(error):
            operation.settled("later", error)
            return self._later(message, error, what)
        if isinstance(error, WrongPayload):
            reason, retryable = f"invalid_payload:{named_fields(error.cause)}", False
        elif isinstance(error, (Retry, Reject)):
            reason, retryable = str(error), isinstance(error, Retry)
        else:
            reason = f"handler_error:{type(error).__name__}"
            retryable = isinstance(error, (*UNCERTAIN, *handler.retry_on))
        if retryable:
            told = error if error.__cause__ is not None or not isinstance(error, Retry) else None
            log.warning("%s failed (%s): it is delivered again, after the server's wait", what, reason, exc_info=told)
        else:
            log.error("%s failed: it is a dead letter", what, exc_info=error)
        self._nack(message._delivery_id, reason, retryable)
        operation.settled("nack" if retryable else "dead", cause)
        return None

    def _later(self, message: Message, error: Exception, what: str) -> float | None:
        """Puts a message off; for how long it has to wait here, where the server cannot be told."""
        times = self._put_off.pop(message.id, 0)
        self._put_off[message.id] = times + 1
        if len(self._put_off) > REMEMBERED:
            self._put_off.popitem(last=False)
        waits_here = not self._tells_when()
        wait: float = min(LATER_FIRST_S * 2 ** min(times, 16), LATER_LAST_S)
        if isinstance(error, Refused) and error.retry_after is not None:
            wait = max(wait, min(error.retry_after, LATER_AT_MOST_HERE_S if waits_here else LATER_AT_MOST_S))
        log.warning("%s cannot be handled now, it comes again in %.3g s: %s", what, wait, error)
        if waits_here:
            return wait
        self._put_back(message, _reason_of_later(error), wait)
        return None

    def _given_back(self, message: Message) -> Outcome:
        """What becomes of a message that was given up."""
        if message._settled:
            return "ack"
        return "later" if self._tells_when() else "lost"

    def _tells_when(self) -> bool:
        """Whether the server can be told when a message is to come again."""
        session = self._link.current
        return session is not None and _wire.LATER in session.features

    def _put_back(self, message: Message, reason: str, wait: float) -> None:
        """To the server, which delivers it again; no attempt of it where the server can be told so."""
        session = self._link.current
        if session is not None:
            milliseconds = max(1, round(wait * 1000)) if self._tells_when() else 0
            session.nack(message._delivery_id, _sendable(reason), True, milliseconds)

    def _finish(self, message: Message) -> None:
        if self._put_off:
            self._put_off.pop(message.id, None)
        self._done[message.id] = None
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
        if not message._settled:
            self._ack(message._delivery_id)

    def _ack(self, delivery_id: str) -> None:
        # Without a session it is lost, and the delivery comes again.
        session = self._link.current
        if session is not None:
            session.ack(delivery_id)

    def _nack(self, delivery_id: str, reason: str, retryable: bool) -> None:
        session = self._link.current
        if session is not None:
            session.nack(delivery_id, _sendable(reason), retryable)


async def _ended(cancelled: list[Running]) -> None:
    """Returns when these tasks have ended, within a bound."""
    tasks = {one.task for one in cancelled if one.task is not None}
    if tasks:
        _, stubborn = await asyncio.wait(tasks, timeout=CANCEL_S)
        if stubborn:
            log.warning("%d handlers go on although they were cancelled", len(stubborn))


async def _with_next(middleware: Middleware, call_next: CallNext, message: Message) -> None:
    await middleware(message, call_next)


def _sendable(reason: str) -> str:
    """As a message of the protocol can carry it."""
    return reason[:MAX_REASON].encode("utf-8", "replace").decode()


def _reduced(error: Exception, retryable: tuple[type[Exception], ...]) -> Exception:
    """The one exception that says what a group of them (of a ``TaskGroup``) means; the group where they disagree."""
    leaves = _leaves(error)
    if len(leaves) == 1:
        return leaves[0]
    rest = [one for one in leaves if not _is_later(one)]
    if not rest:
        return max(leaves, key=lambda one: (one.retry_after or 0.0) if isinstance(one, Refused) else 0.0)
    return rest[0] if all(isinstance(one, retryable) for one in rest) else error


def _leaves(error: Exception) -> list[Exception]:
    if sys.version_info < (3, 11) or not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


def _is_later(error: Exception) -> bool:
    return isinstance(error, (NotConnected, OutcomeUnknown)) or (isinstance(error, Refused) and error.is_later)


def _reason_of_later(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.detail
    return "outcome_unknown" if isinstance(error, OutcomeUnknown) else "not_connected"
