"""The agent that the MCP client is: joins the fleet, and stays in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..agent import Agent
from ..errors import MasError, NotConnected, Refused, SetupError
from ._identity import Identity
from ._inbox import INBOX, Inbox

log = logging.getLogger("mas_agent.mcp")

# How long the end may take for messages that nobody has looked at; they stay with the server. Seconds.
STOP_S = 0.1
# Between two beginnings, where the server was not there at all or refuses the agent. Seconds.
AGAIN_S = 2.0
REFUSED_AGAIN_S = 10.0

T = TypeVar("T")


class Member:
    """An agent whose first connection may be late: until then its calls wait, within their time."""

    def __init__(self, identity: Identity, inbox: Inbox) -> None:
        self._expected = identity.agent
        self.agent = Agent(
            identity.address,
            credentials=identity.credentials,
            concurrency=INBOX,
            drain_timeout=STOP_S,
            refused_retry=REFUSED_AGAIN_S,
        )
        self._inbox = inbox
        self.agent.on_other(inbox.take)
        self.agent.on_connected(self._connected)
        self.agent.on_refused(self._was_refused)
        self._joined = False
        self._refusal: MasError | None = None
        self._why = "the connection is being made"
        # It has joined, or was refused.
        self._known = asyncio.Event()

    @property
    def name(self) -> str:
        """The agent's id."""
        return self.agent.agent_id or self._expected or ""

    async def join(self) -> None:
        """Returns when the agent is connected for the first time; from then on it connects again by itself."""
        while True:
            pause = AGAIN_S
            try:
                await self.agent.start()
            except Refused as error:
                self._was_refused(error)
                pause = REFUSED_AGAIN_S
            except MasError as error:
                self._why = str(error)
                log.warning("%s", error)
            else:
                self._check_name()
                self._joined = True
                self._known.set()
                log.info("connected as %s", self.name)
                return
            await asyncio.sleep(pause)

    async def leave(self) -> None:
        """Gives back what nobody has looked at, and closes the session."""
        self._inbox.release()
        await self.agent.stop()

    async def call(self, timeout: float, make: Callable[[Agent, float], Awaitable[T]]) -> T:
        """A call with what is left of its time when the agent has joined."""
        give_up = time.monotonic() + timeout
        if not self._known.is_set():
            try:
                await asyncio.wait_for(self._known.wait(), timeout)
            except asyncio.TimeoutError:
                raise NotConnected(self._why) from None
        if self._refusal is not None:
            # The same one may be raised often; it does not collect where.
            raise self._refusal.with_traceback(None)
        return await make(self.agent, max(0.001, give_up - time.monotonic()))

    def _connected(self) -> None:
        self._refusal = None
        if self._joined:
            self._known.set()

    def _was_refused(self, refusal: Refused) -> None:
        self._refusal = refusal
        self._known.set()

    def _check_name(self) -> None:
        if self._expected and self.agent.agent_id != self._expected:
            raise SetupError(f"the certificate is of agent {self.agent.agent_id}, not of {self._expected}")
