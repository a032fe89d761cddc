"""The agent: its parts, and its life from start to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import ClassVar, TypeVar, get_args

from . import _credentials, _dial, _tracing
from ._calling import Calling, Peer
from ._calls import Calls
from ._context import Context
from ._credentials import Credentials
from ._hooks import Told
from ._intake import Intake
from ._link import Link, Waits
from ._options import checked_timeout
from ._registration import Registration
from ._signals import until_signal
from ._state import State, Store
from ._threads import Portal
from .errors import MasError, NotConnected, SetupError

__all__ = ["Agent", "Credentials", "Peer", "State"]

log = logging.getLogger("mas_agent")

# How long the agent's tasks may take to end after they were cancelled, in seconds.
CANCEL_S = 1.0

A = TypeVar("A", bound="Agent")

_INSTANCE_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Agent(Registration, Calling):
    """One instance of an agent. What is not given comes from the environment that ``mas run`` sets.

    Handlers run concurrently, at most ``concurrency`` at a time; 1 keeps the order of each sender. A message
    is acknowledged when its handler returns. A handler that raises ``Retry``, or what its ``retry_on`` names,
    gets the message again after a growing wait; one that was refused a call for now gets it later; any other exception
    sends it to the dead letters.

    ``address``: HOST:PORT, or several (a sequence, or separated by commas), tried in turn. Times in seconds:
    ``connect_timeout`` bounds ``start``, ``call_timeout`` a call that says nothing else, ``drain_timeout`` the
    handlers' last work; a server that refuses this agent is asked again every ``refused_retry``, or not with
    ``refused_is_final``. ``repeat_sends``: whether a send or request whose answer was lost is made again, under an
    idempotency key of the library's own. ``proxy``: whether ``https_proxy`` and its like are used; they never are for the machine
    itself.

    Where OpenTelemetry is installed, a handler runs in a span of its own. ``trace_parent``: it is in a trace of its
    own with a link to the sender's span ("link"), or that span is its parent, too ("parent").
    """

    _is_agent: ClassVar[bool] = True

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        credentials: Credentials | None = None,
        instance_id: str | None = None,
        concurrency: int = 64,
        connect_timeout: float = 10.0,
        call_timeout: float = 30.0,
        drain_timeout: float = 8.0,
        refused_retry: float = 10.0,
        refused_is_final: bool = False,
        repeat_sends: bool = True,
        proxy: bool = True,
        trace_parent: _tracing.TraceParent = "link",
    ) -> None:
        super().__init__()
        if not isinstance(concurrency, int) or concurrency < 1:
            raise SetupError(f"concurrency {concurrency!r}: expected 1 or more")
        checked_timeout(connect_timeout, "connect_timeout")
        checked_timeout(call_timeout, "call_timeout")
        checked_timeout(refused_retry, "refused_retry")
        if drain_timeout != 0:
            checked_timeout(drain_timeout, "drain_timeout")
        if trace_parent not in get_args(_tracing.TraceParent):
            raise SetupError(f"trace_parent {trace_parent!r}: expected link or parent")
        self._address = address
        self._credentials = credentials
        self._instance_id = instance_id or os.environ.get("MAS_INSTANCE_ID") or uuid.uuid4().hex[:8]
        if not _INSTANCE_ID.fullmatch(self._instance_id):
            raise SetupError(f"instance id {self._instance_id!r}: expected 1 to 32 of A-Z a-z 0-9 _ -")
        self._concurrency = concurrency
        self._connect_timeout = connect_timeout
        self._call_timeout = call_timeout
        self._drain_timeout = drain_timeout
        self._waits = Waits(refused_retry, refused_is_final, connect_timeout)
        self._repeat_sends = repeat_sends
        self._proxy = proxy
        self._trace_parent = trace_parent
        self._dialer: _dial.Dialer | None = None
        self._open: Context | None = None
        self._last: Context | None = None

    async def start(self) -> None:
        """Connects; returns when the session is open. Raises the server's refusal, or ``NotConnected`` after
        ``connect_timeout``."""
        if self._open is not None:
            raise SetupError("the agent is started already")
        dialer = self._dialer or self._real_dialer()
        dialer.check()
        # Another start begins at the address that worked last.
        self._dialer = dialer
        context = self._open = self._last = self._context(dialer)
        context.link.start()
        try:
            await context.link.first(self._connect_timeout)
            await self._hooks.started()
        except BaseException as error:
            context.reason = None if isinstance(error, asyncio.CancelledError) else error
            await self.stop()
            raise
        if context.stopping or context.ending is not None:
            await self.stop()
            raise context.reason or NotConnected("the agent was stopped while it started")
        context.intake.begin()
        for task in self._hooks.tasks:
            running = asyncio.ensure_future(task())
            context.background.add(running)
            running.add_done_callback(lambda done: self._task_done(context, done))

    async def drain(self, timeout: float | None = None) -> None:
        """Takes no further messages and lets handlers finish, until ``timeout`` (``drain_timeout``). The session stays
        open for what they do; :meth:`stop` closes it."""
        await self._opened().intake.drain(self._drain_timeout if timeout is None else timeout)

    async def stop(self) -> None:
        """Takes no further messages, lets handlers finish, sends the last acknowledgements and closes the session. In a
        handler it returns at once: the agent stops when the handler has returned, too."""
        context = self._open
        if context is None:
            return
        if context.intake.is_handler(asyncio.current_task()):
            if not context.stopping and context.ending is None:
                context.ending = asyncio.ensure_future(self.stop())
            return
        if context.stopping:
            await asyncio.wait((context.over,))
            return
        context.stopping = True
        try:
            await _cancelled(context.background)
            await context.intake.drain(self._drain_timeout)
        finally:
            try:
                await context.link.close()
            finally:
                context.told.cancel()
                self._open = None
                if context.reason is None:
                    context.over.set_result(None)
                else:
                    context.over.set_exception(context.reason)
                    # It may be that nobody waits for it.
                    context.over.exception()

    async def wait(self) -> None:
        """Returns when the agent was stopped; raises what ended it otherwise: the refusal with ``refused_is_final``,
        the failure of a task."""
        context = self._open or self._last
        if context is None:
            raise SetupError("the agent is not started")
        await asyncio.shield(context.over)

    async def __aenter__(self: A) -> A:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def serve(self) -> None:
        """Starts, handles messages until SIGINT or SIGTERM, and stops; a second signal ends the process at once. Raises
        what else ends the agent."""

        async def life() -> None:
            await self.start()
            await self.wait()

        await until_signal(life, self.stop)

    def run(self) -> None:
        """:meth:`serve` in an event loop of its own: the body of a program. Ends it with one line for what is wrong
        with its setup, or that the server refuses it."""
        if _in_loop():
            raise SetupError("run() begins an event loop of its own: in one that runs, write `await agent.serve()`")
        try:
            asyncio.run(self.serve())
        except MasError as error:
            log.debug("the agent ended", exc_info=error)
            raise SystemExit(f"mas_agent: {error}") from None

    @property
    def instance_id(self) -> str:
        """This process's instance."""
        return self._instance_id

    @property
    def agent_id(self) -> str:
        """The id that the server read from the certificate; empty before the first session."""
        context = self._open or self._last
        return context.link.agent_id if context else ""

    @property
    def features(self) -> frozenset[str]:
        """What the server offers beyond the base protocol, while connected."""
        session = self._open.link.current if self._open else None
        return session.features if session else frozenset()

    @property
    def is_connected(self) -> bool:
        """Whether there is a session just now."""
        return self._open is not None and self._open.link.current is not None

    @property
    def closed(self) -> bool:
        """Whether the agent has stopped, or was never started."""
        return self._open is None

    def _real_dialer(self) -> _dial.Dialer:
        """By what was given, and by the environment; everything that is missing is named at once."""
        needed: tuple[str, ...] = () if self._address else (_credentials.ADDRESS,)
        if self._credentials is None:
            needed += (_credentials.CA, _credentials.CERT, _credentials.KEY)
        given = _credentials.variables(*needed)
        addresses = _dial.addresses(self._address or given[_credentials.ADDRESS])
        return _dial.TlsDialer(addresses, self._credentials or Credentials.from_env(), self._proxy)

    def _context(self, dialer: _dial.Dialer) -> Context:
        loop = asyncio.get_running_loop()
        intake = Intake(self._handlers, self._fallback, self._middleware, self._concurrency)
        told = Told(self._hooks, lambda error: self._end(context, error))
        link = Link(dialer, self._instance_id, intake.take, intake.unanswered, told, self._waits)
        tracing = _tracing.find(self._trace_parent, dialer.address, self._instance_id)
        calls = Calls(link, self._instance_id, self._call_timeout, tracing, repeat_sends=self._repeat_sends)
        context = Context(
            agent=self,
            link=link,
            calls=calls,
            store=Store(calls),
            intake=intake,
            told=told,
            portal=Portal(loop),
            over=loop.create_future(),
        )
        intake.connect(context)
        return context

    def _opened(self) -> Context:
        if self._open is not None:
            return self._open
        if self._last is not None:
            raise NotConnected("the agent is stopped")
        raise SetupError("the agent is not started")

    def _task_done(self, context: Context, task: asyncio.Future[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("a task of the agent failed, which ends the agent", exc_info=error)
        self._end(context, error)

    def _end(self, context: Context, error: BaseException) -> None:
        """Stops the agent by itself."""
        if context.stopping or context.ending is not None:
            return
        context.reason = context.reason or error
        context.ending = asyncio.ensure_future(self.stop())


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _cancelled(tasks: set[asyncio.Future[None]]) -> None:
    """Cancels the agent's tasks and waits for their end, within a bound."""
    current = asyncio.current_task()
    others = {task for task in tasks if task is not current and not task.done()}
    for task in others:
        task.cancel()
    if others:
        _, stubborn = await asyncio.wait(others, timeout=CANCEL_S)
        if stubborn:
            log.warning("%d tasks go on although they were cancelled", len(stubborn))
