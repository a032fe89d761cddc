"""The transport over streamable HTTP."""

from __future__ import annotations

import contextlib
import hmac
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl

from ._place import is_loopback
from ._serve import Bridge

# How long open connections may take to end; seconds.
SHUTDOWN_S = 2
# Requests that are served at a time; what is more is answered 503.
MAX_REQUESTS = 256
PATH = "/mcp"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Verifier:
    """Takes one token."""

    def __init__(self, expected: str) -> None:
        self._expected = expected.encode()

    async def verify_token(self, token: str) -> AccessToken | None:
        """Compares in constant time."""
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self._expected):
            return None
        return AccessToken(token=token, client_id="mcp", scopes=[])


class QuietServer(uvicorn.Server):
    """A server that leaves signals to its program."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


class Http:
    """Serves clients at a socket."""

    def __init__(
        self, bridge: Bridge, listening: socket.socket, host: str, names: list[str], token: str | None
    ) -> None:
        self._listening = listening
        shown = f"[{host}]" if ":" in host else host
        hosts = [*LOOPBACK_NAMES, shown, *names] if is_loopback(host) else [shown, *names]
        forms = [form for one in hosts for form in (one, f"{one}:*")]
        # The Host and Origin of a request have to be of these names: no web page reaches this by a name of its own.
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=forms,
            allowed_origins=[f"{scheme}://{form}" for form in forms for scheme in ("http", "https")],
        )
        # The library wants an issuer; nothing is fetched from it.
        auth = AuthSettings(issuer_url=AnyHttpUrl("http://localhost"), resource_server_url=None)
        app = bridge.server.streamable_http_app(
            streamable_http_path=PATH,
            host=host,
            transport_security=security,
            auth=auth if token is not None else None,
            token_verifier=Verifier(token) if token is not None else None,
        )
        self._server = QuietServer(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                ws="none",
                timeout_graceful_shutdown=SHUTDOWN_S,
                limit_concurrency=MAX_REQUESTS,
            )
        )
        self._shown = f"http://{shown}:{listening.getsockname()[1]}{PATH}"

    async def serve(self) -> None:
        """Serves until :meth:`end`."""
        print(f"mas-agent: listening on {self._shown}", file=sys.stderr, flush=True)
        await self._server.serve(sockets=[self._listening])

    def end(self) -> None:
        """Takes no further requests."""
        self._server.should_exit = True
