"""What a handler's parameters are filled with: the payload, the message, the agent, the state."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from .errors import SetupError

MESSAGE = "message"
AGENT = "agent"
PAYLOAD = "payload"
STATE = "state"
# Names of parameters without an annotation that say what they are.
_BY_NAME = {"message": MESSAGE, "agent": AGENT}
NO_MODEL = (PydanticSchemaGenerationError, PydanticUndefinedAnnotation, PydanticUserError)
# What a JSON object never is.
_NO_OBJECTS = frozenset({"string", "integer", "number", "boolean", "null", "array"})


@dataclass(frozen=True)
class Parameter:
    """One parameter and what fills it."""

    name: str
    by_keyword: bool
    kind: str
    model: type[BaseModel] | None = None
    """Of a state."""


@dataclass(frozen=True)
class Plan:
    """How a handler is called."""

    parameters: tuple[Parameter, ...]
    payload: Callable[[dict[str, Any]], Any] | None
    """Reads the payload; ``None``: it is taken as it is."""
    has_states: bool
    """Whether a parameter is the agent's state."""


def plan(
    function: Callable[..., Any],
    message_type: str | None,
    model: Any,
    names: dict[str, Any],
    *,
    raw: bool = False,
    is_async: bool = True,
) -> Plan:
    """Reads a handler's parameters. ``model``: what was named beside the type of the message; ``names``: what is known
    where the handler is defined; ``raw``: a handler of messages, which takes no payload."""
    what = getattr(function, "__name__", type(function).__name__)
    signature = _signature(function, what)
    hints = _hints(function, signature, names, what, has_model=model is not None or raw)
    found: list[Parameter] = []
    unknown: list[tuple[inspect.Parameter, Any]] = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        hint = hints.get(parameter.name, inspect.Parameter.empty)
        kind, state = _kind(parameter, hint, what)
        if is_async and str(getattr(hint, "__module__", "")).startswith("mas_agent.blocking."):
            raise SetupError(
                f"{what}: {parameter.name} would block the event loop: write `def {what}(…)` without async, or take the "
                f"class of that name from mas_agent"
            )
        if kind is not None:
            found.append(Parameter(parameter.name, False, kind, state))
        elif parameter.default is parameter.empty:
            unknown.append((parameter, hint))
    has_message = any(one.kind == MESSAGE for one in found)
    if not has_message and len(unknown) == (1 if raw else 2) and (raw or model is not None):
        # ``(message, data)`` and ``(message)``, under any names.
        first, _ = unknown.pop(0)
        found.append(Parameter(first.name, False, MESSAGE))
    if len(unknown) > (0 if raw else 1):
        raise SetupError(_too_many(what, message_type, [one.name for one, _ in unknown], raw))
    if unknown:
        parameter, hint = unknown[0]
        found.append(Parameter(parameter.name, False, PAYLOAD))
        if model is None and hint is not inspect.Parameter.empty:
            model = hint
    payload = None if raw else reader(model, what, message_type)
    return Plan(_in_order(found, signature), payload, any(one.kind == STATE for one in found))


def _in_order(found: list[Parameter], signature: inspect.Signature) -> tuple[Parameter, ...]:
    """As they are called: by position, and by name behind one that keeps its default."""
    by_name = {one.name: one for one in found}
    ordered, skipped = [], False
    for name, parameter in signature.parameters.items():
        one = by_name.get(name)
        if one is None:
            skipped = True
        else:
            by_keyword = skipped or parameter.kind is parameter.KEYWORD_ONLY
            ordered.append(Parameter(name, by_keyword, one.kind, one.model))
    return tuple(ordered)


def reader(model: Any, what: str, message_type: str | None) -> Callable[[dict[str, Any]], Any] | None:
    """What makes the payload of a JSON object; refuses what no JSON object can be."""
    if model is None or model is Any or model is dict or model is object:
        return None
    if is_model(model) and not model.__pydantic_root_model__:
        validate: Callable[[dict[str, Any]], Any] = model.model_validate
        return validate
    right = f'@agent.on("{message_type or "TYPE"}") with `async def {what}(data: Model)`'
    right = f"write {right}, where Model is a pydantic model, a dataclass, a TypedDict or dict"
    try:
        if inspect.isroutine(model) or isinstance(model, BaseModel):
            raise TypeError("it is a function or an instance")
        adapter: TypeAdapter[Any] = TypeAdapter(model)
    except (*NO_MODEL, TypeError, NameError) as error:
        reason = str(error).partition("\n")[0]
        raise SetupError(f"{what}: {model!r} is no model of a payload ({reason}); {right}") from error
    try:
        schema = adapter.json_schema()
    except PydanticUserError:
        schema = {}  # It can be read, and not described.
    if schema.get("type") in _NO_OBJECTS:
        raise SetupError(f"{what}: a payload is a JSON object, and {model!r} is none; {right}")
    return adapter.validate_python


def is_model(annotation: Any) -> bool:
    """Whether it is a pydantic model. (To Python 3.10 ``dict[str, int]`` is a type, and no class.)"""
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel)


def _signature(function: Callable[..., Any], what: str) -> inspect.Signature:
    if inspect.isclass(function) or not callable(function):
        raise SetupError(f"{function!r} is no handler: write `async def handler(message: Message)`")
    inner = inspect.unwrap(function)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise SetupError(f"{what} yields, and a handler returns: write `async def {what}(…)` without yield")
    try:
        return inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise SetupError(f"{what}: its parameters cannot be read: {error}") from error


def _hints(
    function: Callable[..., Any], signature: inspect.Signature, names: dict[str, Any], what: str, *, has_model: bool
) -> dict[str, Any]:
    """The annotations as objects. Those of names and models that are known anyhow need not be readable."""
    target: Any = function
    while isinstance(target, functools.partial):
        target = target.func
    target = inspect.unwrap(target)
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, localns=names, include_extras=True)
    except (NameError, AttributeError, TypeError):
        pass  # One of them cannot be read: then one by one.
    known = {**getattr(target, "__globals__", {}), **names}
    hints: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if not isinstance(parameter.annotation, str):
            if parameter.annotation is not parameter.empty:
                hints[name] = parameter.annotation
            continue
        try:
            hints[name] = eval(parameter.annotation, known)
        except Exception as error:
            last = parameter.annotation.rpartition(".")[2].strip("'\"")
            if last in ("Message", "Agent"):
                hints[name] = _Named(last.lower())
            elif not has_model:
                raise SetupError(
                    f"{what}: the annotation {parameter.annotation!r} of {name} cannot be read here ({error}); define it "
                    f"at the top of the module, and import it there outside of `if TYPE_CHECKING`"
                ) from error
    return hints


@dataclass(frozen=True)
class _Named:
    """An annotation that is imported for type checkers only."""

    kind: str


def _kind(parameter: inspect.Parameter, hint: Any, what: str) -> tuple[str | None, type[BaseModel] | None]:
    if isinstance(hint, _Named):
        return hint.kind, None
    if hint is parameter.empty:
        return _BY_NAME.get(parameter.name), None
    if getattr(get_origin(hint) or hint, "_is_state", False):
        arguments = get_args(hint)
        if not arguments or not is_model(arguments[0]):
            raise SetupError(f"{what}: write {parameter.name}: StateOf[Memory], where Memory is a pydantic model")
        return STATE, arguments[0]
    if isinstance(hint, type):
        for name, kind in (("_is_message", MESSAGE), ("_is_agent", AGENT)):
            if getattr(hint, name, False):
                return kind, None
    return None, None


def _too_many(what: str, message_type: str | None, names: list[str], raw: bool) -> str:
    if raw:
        return f"{what}: nothing fills {', '.join(names)}: write `async def {what}(message: Message)`"
    return (
        f"{what}: nothing says which of {', '.join(names)} is the payload: write "
        f'@agent.on("{message_type}") with `async def {what}(message: Message, data: Model)`'
    )
