"""Keeps a session open: connects, and connects again with growing, jittered waits."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
import grpc.aio

from . import _wire
from ._dial import RETIRE_S, Connection, Dialer
from ._proto import runtime_pb2 as pb
from ._session import FEATURES, Session
from .errors import MasError, NotConnected, Refused, SetupError, refused

log = logging.getLogger("mas_agent")

# Waits before connecting again, in seconds: doubling, of each half to all, anew after a session.
RECONNECT_FIRST_S = 0.05
RECONNECT_LAST_S = 2.0
# How long a new stream may take until the server welcomes it: a share of the time that a start has, so that every
# address has its turn in it, between these.
WELCOME_AT_LEAST_S = 0.5
WELCOME_AT_MOST_S = 10.0
# How long the server may take to end a stream that was half-closed.
CLOSE_TIMEOUT_S = 2.0
# Statuses that no further attempt changes until somebody does something.
REFUSALS = frozenset({"UNAUTHENTICATED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION"})
QUARANTINED = "quarantined"
# This process's own lost session: the server will notice.
STILL_CONNECTED = "instance_already_connected"


class Events(Protocol):
    """What the program can be told."""

    def connected(self) -> None: ...

    def lost(self, reason: str) -> None: ...

    def refused(self, refusal: Refused) -> None: ...

    def ended(self, error: MasError) -> None:
        """No further connection will be made."""


@dataclass(frozen=True)
class Waits:
    """What a program may say about waiting, and about refusals of the agent itself."""

    refused_retry: float
    refused_is_final: bool
    connect: float = 10.0
    """How long the first session may take."""


class Link:
    """The agent's connection."""

    def __init__(
        self,
        dialer: Dialer,
        instance_id: str,
        deliver: Callable[[pb.Delivery], None],
        unanswered: Callable[[pb.RequestFailed], None],
        events: Events,
        waits: Waits,
    ) -> None:
        self._dialer = dialer
        self._instance_id = instance_id
        self._deliver = deliver
        self._unanswered = unanswered
        self._events = events
        self._waits = waits
        share = waits.connect / (dialer.addresses + 1)
        self._welcome_timeout = min(max(share, WELCOME_AT_LEAST_S), WELCOME_AT_MOST_S)
        self.current: Session | None = None
        """The session, while there is one."""
        self.waiting = 0
        """Calls that wait for a session."""
        self.agent_id = ""
        """Of the last session; empty before the first."""
        self._over: MasError | None = None
        self._why = "not connected yet"
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The first session, or the refusal that came before it.
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._call: _wire.Stream | None = None
        self._closing = False
        # Whether the last connection had become a session.
        self._had_session = False
        self._task: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begins connecting."""
        self._task = asyncio.create_task(self._run(), name="mas-agent-link")

    async def first(self, timeout: float) -> None:
        """Returns when the first session is open; raises a refusal that comes before it."""
        await asyncio.wait((self._first,), timeout=timeout)
        if not self._first.done():
            raise NotConnected(f"no session with {self._dialer.address} within {timeout:.3g} s: {self._why}")
        self._first.result()

    async def session(self, give_up: float) -> Session:
        """The session, waited for until ``give_up`` (of the monotonic clock)."""
        while self.current is None:
            if self._over is not None:
                raise copy.copy(self._over)
            left = give_up - time.monotonic()
            if left <= 0:
                raise NotConnected(f"no session with {self._dialer.address} in time: {self._why}")
            self.waiting += 1
            try:
                await asyncio.wait((self._news,), timeout=left)
            finally:
                self.waiting -= 1
        return self.current

    async def close(self) -> None:
        """Sends what waits, half-closes the stream and waits for the server to end it."""
        self._closing = True
        if self._task is None:
            return
        session = self.current
        try:
            if session is not None:
                await asyncio.wait_for(self._half_close(session), CLOSE_TIMEOUT_S)
                await asyncio.wait_for(asyncio.shield(self._task), CLOSE_TIMEOUT_S)
        except asyncio.TimeoutError:
            log.warning("the server did not end the stream within %s s", CLOSE_TIMEOUT_S)
        finally:
            left: set[asyncio.Task[None]] = {self._task, *self._retiring}
            for task in left:
                task.cancel()
            _, stubborn = await asyncio.wait(left, timeout=CLOSE_TIMEOUT_S)
            if stubborn:
                log.warning("the connection did not end within %s s after it was cancelled", CLOSE_TIMEOUT_S)
            self._end(self._over or NotConnected("the agent is stopped"))

    async def _half_close(self, session: Session) -> None:
        await session.flushed()
        try:
            if self._call is not None:
                await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            log.debug("the stream was gone before it was closed: %s", error)

    async def _run(self) -> None:
        pause = RECONNECT_FIRST_S
        told = ""
        while not self._closing:
            refusal: Refused | None = None
            self._had_session = False
            try:
                await self._one_session()
                self._why = "the server ended the stream"
            except _Lost as lost:
                refusal, self._why = lost.refusal, lost.why
            except Exception as error:
                log.exception("the connection failed unexpectedly; it is made again")
                self._why = f"{type(error).__name__}: {error}"
            if self._closing:
                return
            if self._had_session:
                pause, told = RECONNECT_FIRST_S, ""
                if refusal is None:
                    log.warning("the connection was lost: %s", self._why)
                self._events.lost(self._why)
            if refusal is not None:
                log.error("the server refuses this agent: %s", self._why)
                self._events.refused(refusal)
                if not self._first.done():
                    self._first.set_exception(refusal)
                    self._first.exception()
                if self._waits.refused_is_final:
                    self._end(refusal)
                    self._events.ended(refusal)
                    return
                self._dialer.next()
                await asyncio.sleep(self._waits.refused_retry)
                continue
            if not self._had_session:
                # The same once, however often it is tried.
                log.log(logging.DEBUG if told == self._why else logging.WARNING, "not connected: %s", self._why)
                told = self._why
                self._dialer.next()
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, RECONNECT_LAST_S)

    async def _one_session(self) -> None:
        """From dialling to the end of the stream."""
        try:
            connection = self._dialer.open()
        except SetupError as error:
            # A file that is being replaced, for example.
            raise _Lost(str(error)) from error
        call = self._call = connection.methods.transport()
        try:
            welcome = await asyncio.wait_for(self._open(call), self._welcome_timeout)
            # Before Python 3.12 a cancellation at this moment is lost in wait_for.
            if welcome is None or self._closing:
                return
            self._had_session = True
            session = Session(connection.methods, call, welcome, self._deliver, self._unanswered)
            self._welcomed(session)
            await session.run()
        except grpc.aio.AioRpcError as error:
            raise _lost(error) from error
        except asyncio.TimeoutError as error:
            raise _Lost(f"no welcome within {self._welcome_timeout:.3g} s") from error
        finally:
            self.current = None
            call.cancel()
            await self._retire(connection)

    def _welcomed(self, session: Session) -> None:
        again = self._first.done()
        self.current = session
        self.agent_id = session.agent_id
        if not again:
            self._first.set_result(None)
        where = f"{self._dialer.address} as {session.agent_id}/{self._instance_id}"
        log.log(logging.WARNING if again else logging.INFO, "connected %sto %s", "again " if again else "", where)
        self._tell()
        self._events.connected()

    async def _retire(self, connection: Connection) -> None:
        """Closes a connection, after the calls that are under way on it."""
        if self._closing or not self._had_session:
            await connection.close()
            return
        task = asyncio.create_task(connection.close(RETIRE_S))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _open(self, call: _wire.Stream) -> pb.Welcome | None:
        hello = pb.Hello(instance_id=self._instance_id, features=FEATURES)
        try:
            await call.write(pb.ClientEvent(hello=hello))
        except asyncio.InvalidStateError:
            pass  # Ended already: reading tells how.
        event = await call.read()
        # Welcome is the first event of a stream that the server takes.
        return event.welcome if event is not grpc.aio.EOF else None

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    def _end(self, error: MasError) -> None:
        self._over = error
        self._tell()


class _Lost(Exception):
    """A connection that was lost, or never made."""

    def __init__(self, why: str, refusal: Refused | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.refusal = refusal


def _lost(error: grpc.aio.AioRpcError) -> _Lost:
    code, detail = error.code().name, error.details() or ""
    is_refusal = (code in REFUSALS and detail != STILL_CONNECTED) or detail == QUARANTINED
    return _Lost(f"{detail} ({code})", refused(code, detail) if is_refusal else None)
