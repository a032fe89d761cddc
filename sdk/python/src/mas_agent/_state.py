"""An agent's state: fields of text with a version, and changes that lose nobody's change."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel

from ._calls import Calls
from ._payload import Payload, from_fields, to_fields
from ._proto import runtime_pb2 as pb
from .errors import NotConnected, SetupError, VersionMismatch

M = TypeVar("M", bound=BaseModel)
Change = Callable[[M], M | None | Awaitable[M | None]]
"""Changes the model in place, or returns another one; may be called several times."""

# Waits before a change is made again after somebody else's, in seconds: doubling, of nothing to all.
AGAIN_FIRST_S = 0.005
AGAIN_LAST_S = 0.5


@dataclass(frozen=True)
class State:
    """The agent's state: fields of text."""

    fields: dict[str, str]
    version: int
    """Grows with every change; 0: there is none, or the server does not count."""

    def parse(self, model: type[M]) -> M:
        """The state as a model; missing fields take their defaults."""
        return from_fields(model, self.fields)


class Store:
    """The state of one agent at the server."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # Changes of this process wait for each other here; those of others are seen by the version.
        self._changing = asyncio.Lock()

    async def read(self, timeout: float | None = None) -> State:
        """The state now."""
        response = await self._calls.get_state(timeout)
        return State(dict(response.state), response.version)

    async def update(
        self, updates: Payload, expected_version: int | None, ttl_ms: int, timeout: float | None
    ) -> int:
        """Sets fields; the new version."""
        request = pb.UpdateStateRequest(updates=to_fields(updates), ttl_ms=ttl_ms)
        if expected_version is not None:
            request.expected_version = expected_version
        return (await self._calls.update_state(request, timeout)).version

    async def reset(self, timeout: float | None) -> None:
        """Removes the state."""
        await self._calls.reset_state(timeout)

    async def change(self, model: type[M], change: Change[M], timeout: float | None) -> tuple[M, State]:
        """Reads, changes, and writes if nobody else has written meanwhile; again from the start where somebody has."""
        give_up = self._calls.give_up(timeout)
        try:
            await asyncio.wait_for(self._changing.acquire(), max(0.0, give_up - time.monotonic()))
        except asyncio.TimeoutError:
            raise NotConnected("change_state: other changes of this process took all of its time") from None
        try:
            pause = AGAIN_FIRST_S
            while True:
                try:
                    return await self._change_once(model, change, give_up)
                except VersionMismatch:
                    wait = random.uniform(0, pause)
                    if time.monotonic() + wait >= give_up:
                        raise
                    await asyncio.sleep(wait)
                    pause = min(pause * 2, AGAIN_LAST_S)
        finally:
            self._changing.release()

    async def _change_once(self, model: type[M], change: Change[M], give_up: float) -> tuple[M, State]:
        state = await self.read(_left(give_up))
        value = state.parse(model)
        before = to_fields(value)
        changed = change(value)
        if inspect.isawaitable(changed):
            changed = await changed
        if changed is not None:
            if not isinstance(changed, model):
                returned = type(changed).__name__
                raise SetupError(f"change_state: the change returned a {returned}, and no {model.__name__}")
            value = changed
        after = to_fields(value)
        updates = {name: text for name, text in after.items() if before.get(name) != text}
        if not updates:
            return value, state
        version = await self.update(updates, state.version, 0, _left(give_up))
        return value, State({**state.fields, **updates}, version)


class StateOf(Generic[M]):
    """The agent's state as a model: a parameter of a handler, ``memory: StateOf[Memory]``.

    ``value`` is the state as it was when the handler began. Write with :meth:`change`, which begins at what the state
    is then.
    """

    _is_state: ClassVar[bool] = True

    def __init__(self, store: Store, model: type[M], state: State) -> None:
        self._store = store
        self._model = model
        self.value = state.parse(model)
        """The state as the handler has last read or changed it."""
        self.version = state.version
        """The version of ``value``."""

    async def change(self, change: Change[M], *, timeout: float | None = None) -> M:
        """Changes the state so that nobody's change is lost; ``change`` may be called several times."""
        self.value, state = await self._store.change(self._model, change, timeout)
        self.version = state.version
        return self.value

    async def read(self) -> M:
        """The state now."""
        state = await self._store.read()
        self.value, self.version = state.parse(self._model), state.version
        return self.value


def _left(give_up: float) -> float:
    left = give_up - time.monotonic()
    if left <= 0:
        raise NotConnected("change_state: no time is left, nothing was changed")
    return left


