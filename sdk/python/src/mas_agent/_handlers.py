"""Handlers: what takes a type of message, and how it is called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from . import _parameters
from ._parameters import AGENT, MESSAGE, PAYLOAD, STATE, Plan
from ._state import StateOf
from ._threads import in_thread

if TYPE_CHECKING:
    from ._context import Context
    from .message import Message

CallNext = Callable[["Message"], Awaitable[None]]
Middleware = Callable[["Message", CallNext], Awaitable[None]]


class WrongPayload(Exception):
    """The payload is not what the handler takes."""

    def __init__(self, cause: ValidationError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class Handler:
    """What handles a type of message."""

    run: Callable[[Message, Context], Awaitable[None]]
    retry_on: tuple[type[Exception], ...]


def make(
    function: Callable[..., Any],
    message_type: str | None,
    model: Any,
    names: dict[str, Any],
    retry_on: tuple[type[Exception], ...],
    *,
    raw: bool = False,
) -> Handler:
    """A handler of a function; refuses what cannot be one."""
    is_async = _is_async(function)
    plan = _parameters.plan(function, message_type, model, names, raw=raw, is_async=is_async)
    if is_async:
        return Handler(functools.partial(_run_async, function, plan), retry_on)
    return Handler(functools.partial(_run_sync, function, plan), retry_on)


def _is_async(function: Callable[..., Any]) -> bool:
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    return any(
        inspect.iscoroutinefunction(one) or inspect.iscoroutinefunction(getattr(one, "__call__", None))
        for one in (inner, inspect.unwrap(inner))
    )


async def _run_async(function: Callable[..., Any], plan: Plan, message: Message, context: Context) -> None:
    positional, keywords = await _arguments(plan, message, context, message, context.agent)
    await function(*positional, **keywords)


async def _run_sync(function: Callable[..., Any], plan: Plan, message: Message, context: Context) -> None:
    from . import blocking

    portal, agent = context.portal, context.blocking_agent()
    shown = blocking.Message._of(message, portal)
    positional, keywords = await _arguments(plan, message, context, shown, agent)

    def blocks(value: Any) -> Any:
        return blocking.StateOf(value, portal) if isinstance(value, StateOf) else value

    positional = [blocks(value) for value in positional]
    keywords = {name: blocks(value) for name, value in keywords.items()}
    result = await in_thread(functools.partial(function, *positional, **keywords))
    if inspect.isawaitable(result):
        await result


async def _arguments(
    plan: Plan, message: Message, context: Context, shown: Any, agent: Any
) -> tuple[list[Any], dict[str, Any]]:
    payload: Any = message.data
    if plan.payload is not None:
        try:
            payload = plan.payload(message.data)
        except ValidationError as error:
            raise WrongPayload(error) from None
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in plan.parameters:
        value: Any
        if parameter.kind == MESSAGE:
            value = shown
        elif parameter.kind == PAYLOAD:
            value = payload
        elif parameter.kind == AGENT:
            value = agent
        else:
            assert parameter.kind == STATE and parameter.model is not None
            store = context.store
            value = StateOf(store, parameter.model, await store.read())
        if parameter.by_keyword:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    return positional, keywords
