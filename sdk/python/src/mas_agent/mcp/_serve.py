"""The MCP server, and its transport over standard input and output."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mcp import types
from mcp.server import NotificationOptions, Server
from mcp.server.context import ServerRequestContext
from mcp.server.models import InitializationOptions
from mcp.server.session import ServerSession
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged

from ._identity import Identity
from ._inbox import Inbox
from ._member import Member
from ._peers import Peers
from ._tools import INSTRUCTIONS, Tools

log = logging.getLogger("mas_agent.mcp")

# Clients of the older protocol that are told of changes, and how long one may take to be told; seconds.
MAX_CLIENTS = 100
TELL_S = 1.0

Context = ServerRequestContext[Any, Any]


class ToolServer(Server[Any]):
    """An MCP server that says that its tools may change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        options = notification_options or NotificationOptions(tools_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)


class Bridge:
    """An agent, and the MCP server that makes its calls."""

    def __init__(self, identity: Identity, look_every: float) -> None:
        inbox = Inbox()
        self.member = Member(identity, inbox)
        self._peers = Peers(self.member, look_every, self._tools_changed)
        self._tools = Tools(self.member, inbox, self._peers)
        # Clients of the newer protocol subscribe; those of the older one are told without.
        self._bus = InMemorySubscriptionBus()
        self._older: OrderedDict[int, ServerSession] = OrderedDict()
        self.server = ToolServer(
            "mas-agent",
            title=f"MAS agent {identity.agent}" if identity.agent else "MAS agent",
            version=_version(),
            instructions=INSTRUCTIONS,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_subscriptions_listen=ListenHandler(self._bus, max_subscriptions=MAX_CLIENTS),
        )
        self.server.add_notification_handler("notifications/initialized", types.NotificationParams, self._initialized)

    async def live(self) -> None:
        """Joins the fleet and watches the peers, until it is cancelled."""
        await self.member.join()
        await self._peers.watch()

    async def stdio(self) -> None:
        """Serves one client, until it closes standard input."""
        async with stdio_server() as (read, write):
            await self.server.run(read, write, self.server.create_initialization_options())

    async def _list_tools(self, _: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=await self._tools.listed())

    async def _call_tool(self, _: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await self._tools.call(params.name, params.arguments or {})

    async def _initialized(self, context: Context, _: types.NotificationParams) -> None:
        self._older[id(context.session)] = context.session
        if len(self._older) > MAX_CLIENTS:
            self._older.popitem(last=False)

    async def _tools_changed(self) -> None:
        await self._bus.publish(ToolsListChanged())
        for key, session in list(self._older.items()):
            try:
                await asyncio.wait_for(session.send_tool_list_changed(), TELL_S)
            except Exception as error:
                log.info("a client is gone: %s", type(error).__name__)
                self._older.pop(key, None)


def _version() -> str:
    try:
        return version("mas-agent")
    except PackageNotFoundError:
        return ""  # Run from a checkout that is not installed.
