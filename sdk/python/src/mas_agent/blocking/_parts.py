"""What plain functions get: a message, its commit, the state, each with calls that block."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from .. import _commit, _state
from .._payload import Payload
from .._receipt import Sent
from .._threads import Portal, in_thread
from ..message import Message as AsyncMessage
from ..message import Received

M = TypeVar("M", bound=BaseModel)


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
        return self._portal.call(self._inner.change(beside_loop(change), timeout=timeout))

    def read(self) -> M:
        """The state now."""
        return self._portal.call(self._inner.read())


def beside_loop(change: Callable[[M], M | None]) -> Callable[[M], Awaitable[M | None]]:
    """The change, made beside the event loop: it may take its time, and make blocking calls."""

    async def changing(value: M) -> M | None:
        return await in_thread(functools.partial(change, value))

    return changing
