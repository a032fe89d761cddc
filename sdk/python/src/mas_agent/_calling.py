"""The calls of an agent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from ._commit import Commit
from ._context import Context
from ._options import Options, milliseconds
from ._payload import Payload
from ._receipt import Sent
from ._state import Change, State
from .message import Message

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Peer:
    """Another agent, as the server shows it."""

    agent_id: str
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    status: str


class Calling:
    """What an agent can do, in its handlers and outside of them.

    ``timeout``: the seconds for all of a call, with waiting for a connection and all tries; ``call_timeout`` of the
    agent where it is not given.
    """

    async def send(
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
        """Sends a message: when this returns it is stored and on record.

        A lost answer is asked for again under an ``idempotency_key`` (the library makes one of its own), without a
        second effect. ``ttl``: not delivered later than this many seconds after acceptance. ``not_before``: Unix time.
        """
        calls = self._opened().calls
        options = Options(idempotency_key, ttl, not_before)
        return await calls.send(calls.send_request(target, message_type, data, options), options, timeout)

    async def request(
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
        calls = self._opened().calls
        options = Options(idempotency_key)
        request = calls.request_request(target, message_type, data, timeout, options)
        return await calls.request(request, options, timeout)

    async def discover(self, *capabilities: str, timeout: float | None = None) -> list[Peer]:
        """Connected agents that this one may message and that offer any of these (none: all)."""
        response = await self._opened().calls.discover(list(capabilities), timeout)
        return [
            Peer(
                agent.agent_id,
                tuple(agent.capabilities),
                json.loads(agent.metadata_json) if agent.metadata_json else {},
                agent.status,
            )
            for agent in response.agents
        ]

    async def get_state(self, *, timeout: float | None = None) -> State:
        """The agent's state, shared by its instances."""
        return await self._opened().store.read(timeout)

    async def change_state(self, model: type[M], change: Change[M], *, timeout: float | None = None) -> M:
        """Changes the state so that nobody's change is lost; returns what it is then.

        ``change`` gets the state as ``model`` and changes it, or returns another one. It is called again where somebody
        else has changed the state meanwhile. ``Unsupported`` where the server has no versions.
        """
        value, _ = await self._opened().store.change(model, change, timeout)
        return value

    async def update_state(
        self,
        updates: Mapping[str, Any] | BaseModel,
        *,
        expected_version: int | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> int:
        """Sets fields: texts as they are, everything else as JSON. Returns the new version.

        ``expected_version``: ``VersionMismatch`` unless the state has it. ``ttl``: the whole state is gone
        this many seconds later. What depends on what the state was belongs into :meth:`change_state`.
        """
        return await self._opened().store.update(updates, expected_version, milliseconds(ttl), timeout)

    async def reset_state(self, *, timeout: float | None = None) -> None:
        """Removes the state."""
        await self._opened().store.reset(timeout)

    def commit(self, *, timeout: float | None = None) -> Commit:
        """State and messages as one step, without a message that was handled: see :class:`Commit`."""
        return Commit(self._opened().calls, None, timeout)

    @property
    def backlog(self) -> int:
        """Calls that wait in this process: for a connection, or for room at the server."""
        return self._opened().calls.backlog

    def _opened(self) -> Context:
        raise NotImplementedError
