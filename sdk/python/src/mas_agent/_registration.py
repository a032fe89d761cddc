"""What a program says about its agent before it starts: handlers, middleware, hooks, tasks."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar, overload

from . import _handlers
from ._handlers import Handler, Middleware
from ._hooks import Hooks
from .errors import Refused, SetupError

F = TypeVar("F", bound=Callable[..., Any])
MiddlewareT = TypeVar("MiddlewareT", bound=Middleware)
HookT = TypeVar("HookT", bound=Callable[[], Any])
LostT = TypeVar("LostT", bound=Callable[[str], Any])
RefusedT = TypeVar("RefusedT", bound=Callable[[Refused], Any])
TaskT = TypeVar("TaskT", bound=Callable[[], Awaitable[None]])


class Registration:
    """The decorators of :class:`Agent`."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        # At most one.
        self._fallback: list[Handler] = []
        self._middleware: list[Middleware] = []
        self._hooks = Hooks()

    def on(
        self, message_type: str, model: Any = None, *, retry_on: Iterable[type[Exception]] = ()
    ) -> Callable[[F], F]:
        """Registers the handler of a type of message.

        Its parameters are filled by their annotations, in any order: a pydantic model, a dataclass, a TypedDict or
        ``dict`` is the payload, ``Message`` the message, ``Agent`` the agent, ``StateOf[Memory]`` the agent's state as
        a model. ``model`` says the payload's model where no annotation does; ``(message, data)`` needs none. A plain
        function runs in a thread; for its calls it takes ``Message`` and ``Agent`` of :mod:`mas_agent.blocking`.
        """
        if not isinstance(message_type, str):
            name = getattr(message_type, "__name__", "handler")
            raise SetupError(f'write @agent.on("TYPE") above {name}: the type of the messages that it takes')

        def register(function: F) -> F:
            handler = _handlers.make(function, message_type, model, _callers_names(), tuple(retry_on))
            self._register(message_type, handler)
            return function

        return register

    def on_raw(self, message_type: str, *, retry_on: Iterable[type[Exception]] = ()) -> Callable[[F], F]:
        """Registers ``async def handler(message)``; ``message.data`` is the payload."""
        if not isinstance(message_type, str):
            raise SetupError('write @agent.on_raw("TYPE"): the type of the messages that it takes')

        def register(function: F) -> F:
            handler = _handlers.make(function, message_type, None, _callers_names(), tuple(retry_on), raw=True)
            self._register(message_type, handler)
            return function

        return register

    @overload
    def on_other(self, function: F) -> F: ...

    @overload
    def on_other(self, *, retry_on: Iterable[type[Exception]] = ()) -> Callable[[F], F]: ...

    def on_other(
        self, function: F | None = None, *, retry_on: Iterable[type[Exception]] = ()
    ) -> F | Callable[[F], F]:
        """Registers the handler of all types that have none; without it they go to the dead letters."""
        names = _callers_names()

        def register(function: F) -> F:
            if self._fallback:
                raise SetupError("there is a handler of other types already")
            self._fallback.append(_handlers.make(function, None, None, names, tuple(retry_on), raw=True))
            return function

        return register if function is None else register(function)

    def middleware(self, function: MiddlewareT) -> MiddlewareT:
        """Registers ``async def around(message, call_next)``, which runs around every handler and goes on with
        ``await call_next(message)``. The first one registered is the outermost."""
        _require_async(function, "middleware", "async def around(message, call_next)")
        self._middleware.append(function)
        return function

    def on_start(self, function: HookT) -> HookT:
        """Registers what runs once when the agent is connected, before its first message is handled and before
        ``start`` returns; a failure of it is one of ``start``."""
        self._hooks.start.append(function)
        return function

    def on_connected(self, function: HookT) -> HookT:
        """Registers what is called whenever a session is open."""
        self._hooks.connected.append(function)
        return function

    def on_lost(self, function: LostT) -> LostT:
        """Registers ``lost(reason)``, called when a session was lost; it is made again by itself."""
        self._hooks.lost.append(function)
        return function

    def on_refused(self, function: RefusedT) -> RefusedT:
        """Registers ``refused(refusal)``, called when the server refuses this agent."""
        self._hooks.refused.append(function)
        return function

    def task(self, function: TaskT) -> TaskT:
        """Registers a coroutine that begins when the agent has started and is cancelled when it stops. It may end
        before; its failure ends the agent, with that reason."""
        _require_async(function, "a task", "async def work()")
        self._hooks.tasks.append(function)
        return function

    def _register(self, message_type: str, handler: Handler) -> None:
        if message_type in self._handlers:
            raise SetupError(f"there is a handler of {message_type!r} already")
        self._handlers[message_type] = handler


def _callers_names() -> dict[str, Any]:
    """The local names where a handler is registered: its annotations may be among them."""
    return dict(sys._getframe(2).f_locals)


def _require_async(function: Any, what: str, right: str) -> None:
    called = getattr(function, "__call__", None)
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)):
        raise SetupError(f"{getattr(function, '__name__', function)!r}: write {what} as `{right}`")
