"""Payloads and state values: from Python to JSON text and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar, cast

import pydantic_core
from pydantic import BaseModel, TypeAdapter, ValidationError

from .errors import SetupError

M = TypeVar("M", bound=BaseModel)

# Fields of a payload that the failure to read it names.
MAX_NAMED_FIELDS = 8


class IsDataclass(Protocol):
    """An instance of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Payload = BaseModel | Mapping[str, Any] | IsDataclass
"""What can be sent: a model, a dataclass, or a mapping of what JSON can hold."""


def to_json(data: Payload | None) -> str:
    """The payload as the JSON object that is sent; ``None`` is the empty one."""
    if data is None:
        return "{}"
    try:
        if isinstance(data, BaseModel):
            return data.model_dump_json()
        if isinstance(data, Mapping):
            return _sendable(json.dumps(dict(data), allow_nan=False, ensure_ascii=False, separators=(",", ":")))
        if dataclasses.is_dataclass(data) and not isinstance(data, type):
            return pydantic_core.to_json(data).decode()
    except (TypeError, ValueError) as error:
        raise SetupError(f"the payload is no JSON object: {error}") from error
    raise SetupError(f"the payload is no JSON object: a {type(data).__name__} is no model, dataclass or mapping")


def _sendable(text: str) -> str:
    """The text; ``UnicodeEncodeError``, a ``ValueError``, where it holds half a character (a lone surrogate)."""
    if not text.isascii():
        text.encode()
    return text


def to_fields(updates: Payload) -> dict[str, str]:
    """State fields: a text stays as it is, everything else becomes JSON text."""
    if isinstance(updates, BaseModel):
        values = updates.model_dump(mode="json")
    elif isinstance(updates, Mapping):
        values = dict(updates)
    else:
        values = cast(dict[str, Any], pydantic_core.to_jsonable_python(updates))
    return {name: to_text(value) if isinstance(value, str) else to_value(value) for name, value in values.items()}


def to_text(value: str) -> str:
    """A text as it is."""
    try:
        return _sendable(value)
    except ValueError as error:
        raise SetupError(f"the value cannot be sent: {error}") from error


def to_value(value: Any) -> str:
    """One value as JSON text."""
    try:
        if isinstance(value, BaseModel):
            return value.model_dump_json()
        return _sendable(json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError) as error:
        raise SetupError(f"the value cannot be written as JSON: {error}") from error


def from_fields(model: type[M], fields: Mapping[str, str]) -> M:
    """The model from state fields; what is missing takes the model's default. Fields that other clients
    wrote as plain texts are read, too."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        text = fields.get(name)
        if text is not None:
            annotation: Any = field.annotation
            values[name] = _value(TypeAdapter(annotation), text)
    return model.model_validate(values)


def _value(adapter: TypeAdapter[Any], text: str) -> Any:
    if text == "null":
        try:
            return adapter.validate_python(None)
        except ValidationError:
            pass  # The field takes no None: then the text is meant.
    try:
        return adapter.validate_python(text)
    except ValidationError:
        # Not a plain text: JSON, or an error that names the field.
        return adapter.validate_json(text)


def named_fields(error: ValidationError) -> str:
    """The fields that a payload has wrong, and how; never what is in them."""
    named = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_NAMED_FIELDS]
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['type']}" for one in named)
