"""What the program is told of, and its own tasks."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import Refused

log = logging.getLogger("mas_agent")

Hook = Callable[..., Any]


@dataclass
class Hooks:
    """The functions that were registered."""

    start: list[Hook] = field(default_factory=list)
    connected: list[Hook] = field(default_factory=list)
    lost: list[Hook] = field(default_factory=list)
    refused: list[Hook] = field(default_factory=list)
    tasks: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def started(self) -> None:
        """Runs the hooks of the start, one after the other."""
        for hook in self.start:
            result = hook()
            if inspect.isawaitable(result):
                await result


class Told:
    """Calls the hooks of the connection, in their order."""

    def __init__(self, hooks: Hooks, ended: Callable[[BaseException], None]) -> None:
        self._hooks = hooks
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(self) -> None:
        self._tell(self._hooks.connected)

    def lost(self, reason: str) -> None:
        self._tell(self._hooks.lost, reason)

    def refused(self, refusal: Refused) -> None:
        self._tell(self._hooks.refused, refusal)

    def ended(self, error: BaseException) -> None:
        self._ended(error)

    def cancel(self) -> None:
        """The agent has stopped."""
        for task in self._tasks:
            task.cancel()

    def _tell(self, hooks: list[Hook], *arguments: object) -> None:
        if hooks:
            task = asyncio.create_task(_call(hooks, arguments), name="mas-agent hook")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _call(hooks: list[Hook], arguments: tuple[object, ...]) -> None:
    for hook in hooks:
        try:
            result = hook(*arguments)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("the hook %r failed; the agent goes on", getattr(hook, "__name__", hook))
