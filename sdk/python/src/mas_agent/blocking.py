"""The agent for programs without an event loop: scripts, notebooks, plain functions as handlers.

An :class:`Agent` of this module runs an event loop in a thread of its own, so that it works inside of a running loop,
too. Handlers that are plain functions take ``Message``, ``Agent`` and ``StateOf`` of this module, and their calls
block.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from . import _commit, _state, _tracing, agent
from ._calling import Peer
from ._credentials import Credentials
from ._payload import Payload
from ._receipt import Sent
from ._state import State
from ._threads import Portal, handler_task, in_thread
from .errors import SetupError
from .message import Message as AsyncMessage
from .message import Received

M = TypeVar("M", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

log = logging.getLogger("mas_agent")

# How long what was cancelled may take to end when the loop ends, and the thread after that; seconds.
CANCEL_S = 1.0
JOIN_S = 3.0

__all__ = ["Agent", "Commit", "Message", "PendingReply", "StateOf"]


@dataclass
class Message(Received):
    """One message from another agent."""

    _is_message: ClassVar[bool] = True
    asked: Sent | None = field(default=None, repr=False, kw_only=True)
    """Of a reply: how the server took the request."""
    _inner: AsyncMessage = field(repr=False, kw_only=True)
    _portal: Portal = field(repr=False, kw_only=True)

    @classmethod
    def _of(cls, inner: AsyncMessage, portal: Portal) -> Message:
        values = {one.name: getattr(inner, one.name) for one in dataclasses.fields(Received)}
        return cls(**values, asked=inner.asked, _inner=inner, _portal=portal)

    def reply(self, message_type: str, data: Payload | None = None, *, timeout: float | None = None) -> Sent:
        """Answers a request. Where nobody waits for the answer any more this is logged, and the result says
        ``late``."""
        return self._portal.call(self._inner.reply(message_type, data, timeout=timeout))

    def commit(self, *, timeout: float | None = None) -> Commit:
        """What the handler does as one step: see :class:`Commit`."""
        return Commit(self._inner.commit(timeout=timeout), self._portal)


class Commit:
    """``with message.commit() as commit:`` collects; leaving the block commits all of it or nothing."""

    def __init__(self, inner: _commit.Commit, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal
        self.update_state = inner.update_state
        self.send = inner.send
        self.reply = inner.reply

    def request(
        self, target: str, message_type: str, data: Payload | None = None, *, timeout: float = 60.0
    ) -> PendingReply:
        """Sends a request with the commit; the reply can be waited for after it."""
        return PendingReply(self._inner.request(target, message_type, data, timeout=timeout), self._portal)

    @property
    def sent(self) -> list[Sent]:
        """The accepted messages in their order, after the commit."""
        return self._inner.sent

    @property
    def version(self) -> int:
        """The state's version after the commit; 0 where it was not touched."""
        return self._inner.version

    def __enter__(self) -> Commit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._portal.call(self._inner.__aexit__(kind, error, trace))


class PendingReply:
    """The reply to a request that was part of a commit."""

    def __init__(self, inner: _commit.PendingReply, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    def get(self) -> Message:
        """The reply; ``NoReply`` after the timeout, or at once where the server says that none will come."""
        return Message._of(self._portal.call(self._inner.get()), self._portal)


class StateOf(Generic[M]):
    """The agent's state as a model: a parameter of a plain handler, ``memory: StateOf[Memory]``."""

    _is_state: ClassVar[bool] = True

    def __init__(self, inner: _state.StateOf[M], portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    @property
    def value(self) -> M:
        """The state as the handler has last read or changed it."""
        return self._inner.value

    @property
    def version(self) -> int:
        """The version of ``value``."""
        return self._inner.version

    def change(self, change: Callable[[M], M | None], *, timeout: float | None = None) -> M:
        """Changes the state so that nobody's change is lost; ``change`` may be called several times."""
        return self._portal.call(self._inner.change(_in_thread(change), timeout=timeout))

    def read(self) -> M:
        """The state now."""
        return self._portal.call(self._inner.read())


class Agent:
    """One instance of an agent, for programs without an event loop. What it takes is that of :class:`mas_agent.Agent`.

    ``with Agent(…) as agent:`` connects and stops. Handlers are registered before, with :meth:`on`.
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
        self._inner = agent.Agent(
            address,
            credentials=credentials,
            instance_id=instance_id,
            concurrency=concurrency,
            connect_timeout=connect_timeout,
            call_timeout=call_timeout,
            drain_timeout=drain_timeout,
            refused_retry=refused_retry,
            refused_is_final=refused_is_final,
            repeat_sends=repeat_sends,
            proxy=proxy,
            trace_parent=trace_parent,
        )
        self._portal: Portal | None = None
        self._thread: threading.Thread | None = None

    @classmethod
    def _of(cls, inner: agent.Agent, portal: Portal | None = None) -> Agent:
        """Around an agent, for example one that runs already."""
        blocking = cls.__new__(cls)
        blocking._inner, blocking._portal, blocking._thread = inner, portal, None
        return blocking

    def on(
        self, message_type: str, model: Any = None, *, retry_on: Iterable[type[Exception]] = ()
    ) -> Callable[[F], F]:
        """Registers a handler: a plain function, or a coroutine function."""
        return self._inner.on(message_type, model, retry_on=retry_on)

    def start(self) -> None:
        """Connects; returns when the session is open."""
        if self._portal is not None:
            raise SetupError("the agent is started already")
        loop = asyncio.new_event_loop()
        self._portal = Portal(loop)
        self._thread = threading.Thread(target=_run_loop, args=(loop,), name="mas-agent", daemon=True)
        self._thread.start()
        try:
            self._portal.call(self._inner.start())
        except BaseException:
            self._end_loop()
            raise

    def stop(self) -> None:
        """Lets handlers finish, sends the last acknowledgements and closes the session. In a handler it returns at
        once: the agent stops when the handler has returned, too."""
        if self._portal is None:
            return
        handler = handler_task.get()
        if self._thread is None or (handler is not None and handler.get_loop() is self._portal.loop):
            # In a context of its own, for it is to wait for the handler.
            contextvars.Context().run(asyncio.run_coroutine_threadsafe, self._inner.stop(), self._portal.loop)
            return
        try:
            self._portal.call(self._inner.stop())
        finally:
            self._end_loop()

    def wait(self) -> None:
        """Returns when the agent was stopped; raises what ended it otherwise."""
        self._call(self._inner.wait())

    def drain(self, timeout: float | None = None) -> None:
        """Takes no further messages and lets handlers finish."""
        self._call(self._inner.drain(timeout))

    def __enter__(self) -> Agent:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def send(
        self,
        target: str,
        message_type: str,
        data: Payload | None = None,
        *,
        idempotency_key: str | None = None,
        ttl: float | None = None,
        not_before: float | None = None,
        timeout: float | None = None,
    ) -> Sent:
        """Sends a message: when this returns it is stored and on record."""
        return self._call(
            self._inner.send(
                target,
                message_type,
                data,
                idempotency_key=idempotency_key,
                ttl=ttl,
                not_before=not_before,
                timeout=timeout,
            )
        )

    def request(
        self,
        target: str,
        message_type: str,
        data: Payload | None = None,
        *,
        timeout: float | None = None,
        idempotency_key: str | None = None,
    ) -> Message:
        """Sends a request and waits for its reply; ``NoReply`` after ``timeout`` seconds, 60 where none are given,
        or at once with a ``reason`` where the server says that none will come."""
        portal = self._require()
        asked = self._inner.request(target, message_type, data, timeout=timeout, idempotency_key=idempotency_key)
        return Message._of(portal.call(asked), portal)

    def discover(self, *capabilities: str, timeout: float | None = None) -> list[Peer]:
        """Connected agents that this one may message and that offer any of these (none: all)."""
        return self._call(self._inner.discover(*capabilities, timeout=timeout))

    def get_state(self, *, timeout: float | None = None) -> State:
        """The agent's state, shared by its instances."""
        return self._call(self._inner.get_state(timeout=timeout))

    def change_state(self, model: type[M], change: Callable[[M], M | None], *, timeout: float | None = None) -> M:
        """Changes the state so that nobody's change is lost; returns what it is then."""
        return self._call(self._inner.change_state(model, _in_thread(change), timeout=timeout))

    def update_state(
        self,
        updates: Mapping[str, Any] | BaseModel,
        *,
        expected_version: int | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> int:
        """Sets fields: texts as they are, everything else as JSON. Returns the new version."""
        return self._call(
            self._inner.update_state(updates, expected_version=expected_version, ttl=ttl, timeout=timeout)
        )

    def reset_state(self, *, timeout: float | None = None) -> None:
        """Removes the state."""
        self._call(self._inner.reset_state(timeout=timeout))

    def commit(self, *, timeout: float | None = None) -> Commit:
        """State and messages as one step, without a message that was handled."""
        return Commit(self._inner.commit(timeout=timeout), self._require())

    @property
    def agent_id(self) -> str:
        """The id that the server read from the certificate; empty before the first session."""
        return self._inner.agent_id

    @property
    def instance_id(self) -> str:
        """This process's instance."""
        return self._inner.instance_id

    @property
    def features(self) -> frozenset[str]:
        """What the server offers beyond the base protocol, while connected."""
        return self._inner.features

    @property
    def is_connected(self) -> bool:
        """Whether there is a session just now."""
        return self._inner.is_connected

    @property
    def backlog(self) -> int:
        """Calls that wait in this process: for a connection, or for room at the server."""
        return self._inner.backlog

    @property
    def closed(self) -> bool:
        """Whether the agent has stopped, or was never started."""
        return self._inner.closed

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._portal is None:
            coroutine.close()
        return self._require().call(coroutine)

    def _require(self) -> Portal:
        if self._portal is None:
            raise SetupError("the agent is not started")
        return self._portal

    def _end_loop(self) -> None:
        portal, self._portal = self._portal, None
        thread, self._thread = self._thread, None
        if portal is not None and thread is not None:
            try:
                portal.loop.call_soon_threadsafe(portal.loop.stop)
            except RuntimeError:
                pass  # It has ended already.
            thread.join(JOIN_S)
            if thread.is_alive():
                log.warning("the agent's thread did not end within %s s: something blocks its event loop", JOIN_S)


def _in_thread(change: Callable[[M], M | None]) -> Callable[[M], Awaitable[M | None]]:
    """The change, made beside the event loop: it may take its time, and make blocking calls."""

    async def changing(value: M) -> M | None:
        return await in_thread(functools.partial(change, value))

    return changing


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt) as error:
        log.error("a coroutine raised %r, which ends the agent's event loop", error, exc_info=error)
    finally:
        try:
            loop.run_until_complete(_cancelled(asyncio.all_tasks(loop)))
        finally:
            loop.close()


async def _cancelled(left: set[asyncio.Task[Any]]) -> None:
    """Cancels what is left, so that nobody waits for it for ever."""
    for task in left:
        task.cancel()
    if left:
        _, stubborn = await asyncio.wait(left, timeout=CANCEL_S)
        if stubborn:
            log.warning("%d tasks go on although they were cancelled", len(stubborn))
    await asyncio.get_running_loop().shutdown_asyncgens()
