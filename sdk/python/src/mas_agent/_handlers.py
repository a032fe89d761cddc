"""Handlers: what takes a type of message, and how it is called."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from . import _parameters
from ._parameters import AGENT, MESSAGE, PAYLOAD, STATE, Plan
from ._state import StateOf
from ._threads import handler_task, in_thread

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
    taken = [(one.kind, one.by_keyword) for one in plan.parameters]
    if is_async and plan.payload is None and taken == [(MESSAGE, False)]:
        return Handler(functools.partial(_run_plain, function), retry_on)
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


def _run_plain(function: Callable[..., Any], message: Message, _: Context) -> Awaitable[None]:
    """The shortest way, for who takes the message alone."""
    handling: Awaitable[None] = function(message)
    return handling


async def _run_async(function: Callable[..., Any], plan: Plan, message: Message, context: Context) -> None:
    payload = _payload(plan, message)
    states = await _states(plan, context) if plan.has_states else {}
    positional, keywords = _arguments(plan, {MESSAGE: message, AGENT: context.agent, PAYLOAD: payload}, states)
    await function(*positional, **keywords)


async def _run_sync(function: Callable[..., Any], plan: Plan, message: Message, context: Context) -> None:
    from . import blocking

    payload = _payload(plan, message)
    states = await _states(plan, context) if plan.has_states else {}
    blocks = {name: blocking.StateOf(state, context.portal) for name, state in states.items()}
    shown = blocking.Message._of(message, context.portal)
    values = {MESSAGE: shown, AGENT: context.blocking_agent(), PAYLOAD: payload}
    positional, keywords = _arguments(plan, values, blocks)
    before = handler_task.set(asyncio.current_task())
    try:
        result = await in_thread(functools.partial(function, *positional, **keywords))
    finally:
        handler_task.reset(before)
    if inspect.isawaitable(result):
        await result


def _payload(plan: Plan, message: Message) -> Any:
    if plan.payload is None:
        return message.data
    try:
        return plan.payload(message.data)
    except ValidationError as error:
        raise WrongPayload(error) from None


async def _states(plan: Plan, context: Context) -> dict[str, StateOf[Any]]:
    """The agent's state, for each parameter that is one."""
    state = await context.store.read()
    models = {one.name: one.model for one in plan.parameters if one.model is not None}
    return {name: StateOf(context.store, model, state) for name, model in models.items()}


def _arguments(
    plan: Plan, values: Mapping[str, Any], states: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in plan.parameters:
        value = states[parameter.name] if parameter.kind == STATE else values[parameter.kind]
        if parameter.by_keyword:
            keywords[parameter.name] = value
        else:
            positional.append(value)
    return positional, keywords
