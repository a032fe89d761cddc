"""The agents that may be messaged, and their capabilities as tools."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from ..agent import Agent, Peer
from ..errors import MasError
from ._member import Member

log = logging.getLogger("mas_agent.mcp")

# Peers are looked at this often by default, and never more often than MIN_LOOK_S; seconds.
LOOK_S = 5.0
MIN_LOOK_S = 0.2
# How long one look may take; seconds.
LOOK_TIMEOUT_S = 2.0
# Tools of peers that are shown.
MAX_TOOLS = 200
# Longest description of one, in characters.
MAX_DESCRIPTION = 1000
# Longest name that MCP clients take everywhere, and what it may not hold.
MAX_NAME = 64
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
# Digits that make a name unique that would not be.
_DIGITS = 8

ANY_OBJECT: dict[str, Any] = {"type": "object"}
DEFAULT_TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class PeerTool:
    """One capability of one agent."""

    name: str
    agent_id: str
    capability: str
    description: str
    message_type: str
    input_schema: dict[str, Any]
    timeout: float


class Peers:
    """Looks at the peers at a bounded rate and tells when their tools have changed."""

    def __init__(self, member: Member, every: float, changed: Callable[[], Awaitable[None]]) -> None:
        self._member = member
        self._every = max(every, MIN_LOOK_S)
        self._changed = changed
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self.tools: dict[str, PeerTool] = {}

    async def watch(self) -> None:
        """Looks again and again."""
        while True:
            await self.look(self._every)
            await asyncio.sleep(self._every)

    async def look(self, no_older_than: float = MIN_LOOK_S) -> None:
        """Looks, unless what is known is younger than this. What cannot be looked at stays as it was."""
        async with self._looking:
            if time.monotonic() - self._looked < no_older_than:
                return
            try:
                found = await self._member.call(LOOK_TIMEOUT_S, _discover)
            except MasError as error:
                log.debug("peers cannot be looked at: %s", error)
                return
            finally:
                self._looked = time.monotonic()
            tools = tools_of(found)
            if tools == self.tools:
                return
            self.tools = tools
            log.info("tools of peers: %s", ", ".join(tools) or "none")
        await self._changed()


async def _discover(agent: Agent, timeout: float) -> list[Peer]:
    return await agent.discover(timeout=timeout)


def tools_of(peers: Iterable[Peer]) -> dict[str, PeerTool]:
    """The capabilities of these agents, by the names of their tools."""
    offered = sorted({(peer.agent_id, capability): peer for peer in peers for capability in peer.capabilities}.items())
    if len(offered) > MAX_TOOLS:
        log.warning("%d capabilities of peers: only the first %d are tools", len(offered), MAX_TOOLS)
    plain = Counter(f"{agent_id}__{capability}" for (agent_id, capability), _ in offered)
    tools = {}
    for (agent_id, capability), peer in offered[:MAX_TOOLS]:
        name = _name(agent_id, capability, plain)
        tools[name] = _tool(name, peer, capability)
    return tools


def _name(agent_id: str, capability: str, plain: Counter[str]) -> str:
    """AGENT__CAPABILITY; with some digits where that is no name, too long, or means two."""
    wanted = f"{agent_id}__{capability}"
    if plain[wanted] == 1 and len(wanted) <= MAX_NAME and not _NOT_IN_NAMES.search(wanted):
        return wanted
    digits = hashlib.sha256(json.dumps([agent_id, capability]).encode()).hexdigest()[:_DIGITS]
    return f"{_NOT_IN_NAMES.sub('_', wanted)[: MAX_NAME - _DIGITS - 1]}_{digits}"


def _tool(name: str, peer: Peer, capability: str) -> PeerTool:
    """By the convention that this package's page describes; what does not follow it is left out and logged."""
    said = peer.metadata.get("tools")
    said = said.get(capability) if isinstance(said, dict) else None
    if said is not None and not isinstance(said, dict):
        log.warning("metadata of %s: tools.%s: expected keys and values", peer.agent_id, capability)
    given = said if isinstance(said, dict) else {}

    def take(key: str, is_right: Callable[[Any], bool], expected: str, otherwise: Any) -> Any:
        value = given.get(key)
        if value is None:
            return otherwise
        if is_right(value):
            return value
        log.warning("metadata of %s: tools.%s.%s: expected %s", peer.agent_id, capability, key, expected)
        return otherwise

    words = take("description", _is_text, "a text", "Sends a request and returns the reply.")
    asks = f" (Asks agent {peer.agent_id}, capability {capability}.)"
    return PeerTool(
        name=name,
        agent_id=peer.agent_id,
        capability=capability,
        description=words[: max(0, MAX_DESCRIPTION - len(asks))] + asks,
        message_type=take("message_type", _is_text, "a text", capability),
        input_schema=take("input_schema", _is_object_schema, "a JSON Schema with `type: object`", ANY_OBJECT),
        timeout=float(take("timeout_seconds", _is_timeout, f"a number up to {MAX_TIMEOUT_S:.0f}", DEFAULT_TIMEOUT_S)),
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_timeout(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_TIMEOUT_S


def _is_object_schema(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("type") != "object":
        return False
    try:
        Draft202012Validator.check_schema(value)
    except SchemaError:
        return False
    return True
