"""Keeps a session open: connects, and connects again with growing, jittered waits."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from . import _wire
from ._proto import runtime_pb2 as pb
from ._session import FEATURES, Session
from .errors import MasError, NotConnected, OutcomeUnknown, Refused

log = logging.getLogger("mas_agent")

# Waits before connecting again, in seconds: doubling, of each half to all, anew after a session.
RECONNECT_FIRST_S = 0.05
RECONNECT_LAST_S = 2.0
# How long a new stream may take until the server welcomes it.
WELCOME_TIMEOUT_S = 10.0
# How long the server may take to end a stream that was half-closed.
CLOSE_TIMEOUT_S = 2.0
# Statuses that no further attempt changes until somebody does something.
FATAL = frozenset({"UNAUTHENTICATED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "FAILED_PRECONDITION"})
# This process's own lost session: the server will notice.
STILL_CONNECTED = "instance_already_connected"


class Link:
    """The agent's connection."""

    def __init__(self, methods: _wire.Methods, instance_id: str, deliver: Callable[[pb.Delivery], None]) -> None:
        self._methods = methods
        self._instance_id = instance_id
        self._deliver = deliver
        self._session: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._call: Any = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._why = "not connected yet"

    def start(self) -> None:
        """Begins connecting."""
        self._task = asyncio.create_task(self._run(), name="mas-agent-link")

    @property
    def current(self) -> Session | None:
        """The session, while there is one."""
        ready = self._session.done() and not self._session.cancelled() and self._session.exception() is None
        return self._session.result() if ready else None

    async def session(self, timeout: float) -> Session:
        """The session, waited for. Raises the server's refusal where waiting cannot help."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._session), timeout)
        except asyncio.TimeoutError:
            raise NotConnected(f"no session within {timeout:.3g} s: {self._why}") from None

    async def ended(self) -> None:
        """Returns when no further connection will be made; raises why, unless it was closed."""
        if self._task is not None:
            await asyncio.shield(self._task)
        if self._session.done() and self._session.exception() is not None and not self._closing:
            self._session.result()

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
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._fail(NotConnected("the agent is closed"))

    async def _half_close(self, session: Session) -> None:
        await session.flushed()
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            log.debug("the stream was gone before it was closed: %s", error)

    async def _run(self) -> None:
        pause = RECONNECT_FIRST_S
        while not self._closing:
            try:
                await self._one_session()
                self._why = "the server ended the stream"
            except grpc.aio.AioRpcError as error:
                code, detail = error.code().name, error.details() or ""
                self._why = f"{detail} ({code})"
                if code in FATAL and detail != STILL_CONNECTED:
                    log.error("the server refuses this agent: %s", self._why)
                    refusal = _wire.failure(code, detail, None, None)
                    self._fail(refusal if isinstance(refusal, Refused) else OutcomeUnknown(self._why))
                    return
            except asyncio.TimeoutError:
                self._why = f"no welcome within {WELCOME_TIMEOUT_S} s"
            if self.current is not None:
                pause = RECONNECT_FIRST_S
                self._session = asyncio.get_running_loop().create_future()
            if self._closing:
                return
            log.info("not connected: %s", self._why)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, RECONNECT_LAST_S)

    async def _one_session(self) -> None:
        self._call = call = self._methods.transport()
        try:
            welcome = await asyncio.wait_for(self._open(call), WELCOME_TIMEOUT_S)
            if welcome is None:
                return
            session = Session(call, welcome, self._deliver)
            self._session.set_result(session)
            log.info("connected as %s/%s", session.agent_id, self._instance_id)
            await session.run()
        finally:
            call.cancel()

    async def _open(self, call: Any) -> pb.Welcome | None:
        hello = pb.Hello(instance_id=self._instance_id, features=FEATURES)
        try:
            await call.write(pb.ClientEvent(hello=hello))
        except asyncio.InvalidStateError:
            pass  # Ended already: reading tells how.
        event = await call.read()
        # Welcome is the first event of a stream that the server takes.
        return event.welcome if event is not grpc.aio.EOF else None

    def _fail(self, error: MasError) -> None:
        if self._session.done():
            self._session = asyncio.get_running_loop().create_future()
        self._session.set_exception(error)
        # It may be that nobody waits for it.
        self._session.exception()
