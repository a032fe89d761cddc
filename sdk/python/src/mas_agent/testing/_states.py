"""The states that the server in memory keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .._proto import runtime_pb2 as pb
from ._refusals import Refusal


class States:
    """Fields of text by agent, and how often each state was changed."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, str]] = {}
        self._versions: dict[str, int] = {}
        self._expiring: dict[str, asyncio.TimerHandle] = {}

    def fields(self, agent: str) -> dict[str, str]:
        """A copy of a state."""
        return dict(self._fields.get(agent, {}))

    def get(self, agent: str) -> pb.GetStateResponse:
        """A state."""
        return pb.GetStateResponse(state=self._fields.get(agent, {}), version=self._versions.get(agent, 0))

    def require(self, agent: str, version: int) -> None:
        """Refuses what expects another version."""
        if version != self._versions.get(agent, 0):
            raise Refusal("version_mismatch")

    def update(self, agent: str, request: pb.UpdateStateRequest) -> int:
        """Sets fields, as a call of its own."""
        if request.HasField("expected_version"):
            self.require(agent, request.expected_version)
        version = self.set(agent, request.updates)
        if request.ttl_ms:
            loop = asyncio.get_running_loop()
            self._expiring[agent] = loop.call_later(request.ttl_ms / 1000, self.reset, agent)
        return version

    def set(self, agent: str, updates: Mapping[str, str]) -> int:
        """Sets fields; the version."""
        self._fields.setdefault(agent, {}).update(updates)
        self._versions[agent] = self._versions.get(agent, 0) + 1
        self._stays(agent)
        return self._versions[agent]

    def reset(self, agent: str) -> None:
        """Removes a state."""
        self._fields.pop(agent, None)
        self._versions.pop(agent, None)
        self._stays(agent)

    def _stays(self, agent: str) -> None:
        if timer := self._expiring.pop(agent, None):
            timer.cancel()
