"""The agent whose calls block."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel

from .. import _tracing
from .._calling import Peer
from .._credentials import Credentials
from .._payload import Payload
from .._receipt import Sent
from .._state import State
from .._threads import Portal, handler_task
from ..agent import Agent as AsyncAgent
from ..errors import SetupError
from ._loop import LoopThread
from ._parts import Commit, Message, beside_loop

M = TypeVar("M", bound=BaseModel)
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
A = TypeVar("A", bound="Agent")


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
        self._inner = AsyncAgent(
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
        self._loop: LoopThread | None = None

    @classmethod
    def _of(cls, inner: AsyncAgent, portal: Portal | None = None) -> Agent:
        """Around an agent, for example one that runs already."""
        blocking = cls.__new__(cls)
        blocking._inner, blocking._portal, blocking._loop = inner, portal, None
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
        self._loop = LoopThread()
        self._portal = self._loop.portal
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
        if self._loop is None or (handler is not None and handler.get_loop() is self._portal.loop):
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

    def __enter__(self: A) -> A:
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
        return self._call(self._inner.change_state(model, beside_loop(change), timeout=timeout))

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
        loop, self._loop, self._portal = self._loop, None, None
        if loop is not None:
            loop.end()
