"""What an agent has between its start and its stop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ._calls import Calls
from ._link import Link
from ._state import Store
from ._threads import Portal

if TYPE_CHECKING:
    from . import blocking
    from ._hooks import Told
    from ._intake import Intake
    from .agent import Agent


@dataclass
class Context:
    """The parts of a running agent."""

    agent: Agent
    link: Link
    calls: Calls
    store: Store
    intake: Intake
    told: Told
    portal: Portal
    over: asyncio.Future[None]
    """Done when the agent has stopped; with what ended it, where it was not asked to."""
    reason: BaseException | None = None
    """What ended it."""
    stopping: bool = False
    background: set[asyncio.Future[None]] = field(default_factory=set)
    ending: asyncio.Future[None] | None = None
    """The stop that the agent began by itself."""
    _blocking: blocking.Agent | None = None

    def blocking_agent(self) -> blocking.Agent:
        """The agent for plain functions."""
        from . import blocking

        if self._blocking is None:
            self._blocking = blocking.Agent._of(self.agent, self.portal)
        return self._blocking
