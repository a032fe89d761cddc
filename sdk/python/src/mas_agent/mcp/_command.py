"""The program `mas-agent`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._signals import until_signal
from ..errors import MasError, SetupError

if TYPE_CHECKING:
    from ._identity import Identity
    from ._serve import Bridge

log = logging.getLogger("mas_agent.mcp")

MISSING = """\
mas-agent mcp needs the MCP library, version 2 or newer ({name} is missing). This installs it:
  pip install 'mas-agent[mcp]'
or, from a checkout: pip install './sdk/python[mcp]'"""
# How long clients that are being served may take at the end; seconds.
END_S = 3.0
LEVELS = ("debug", "info", "warning", "error")


def parser() -> argparse.ArgumentParser:
    """What the command line may say."""
    top = argparse.ArgumentParser(prog="mas-agent", description="Tools around agents of MAS server.")
    commands = top.add_subparsers(dest="command", required=True)
    mcp = commands.add_parser(
        "mcp",
        help="make an MCP client an agent",
        description="Serves the Model Context Protocol: a client of it (a desktop assistant, an editor, a framework) "
        "becomes an agent of the fleet, with its certificate and under its rules. Over standard input and output, or "
        "over HTTP with --http.",
        epilog="Example, as an MCP client's configuration has it: "
        '{"mcpServers": {"fleet": {"command": "mas-agent", '
        '"args": ["mcp", "--agent", "assistant", "--config", "/srv/fleet/mas.yaml"]}}}',
    )
    who = mcp.add_argument_group(
        "who the agent is", "Without --agent: MAS_SERVER_ADDR, MAS_TLS_CA, MAS_TLS_CERT, MAS_TLS_KEY."
    )
    who.add_argument(
        "--agent",
        metavar="NAME",
        help="an agent of mas.yaml: with its tls_cert_path and tls_key_path, else with what `mas certs issue` has put "
        "beside the CA",
    )
    who.add_argument(
        "--config", metavar="FILE", type=Path, help="else MAS_CONFIG_FILE, else the nearest mas.yaml upward"
    )
    who.add_argument("--addr", metavar="HOST:PORT", help="the server; else server_listen_addr of mas.yaml")
    who.add_argument("--ca", metavar="FILE", type=Path, help="the authority; else tls_ca_path of mas.yaml")
    who.add_argument("--cert", metavar="FILE", type=Path, help="the agent's certificate")
    who.add_argument("--key", metavar="FILE", type=Path, help="its private key")
    http = mcp.add_argument_group("over HTTP", "Without a token every program of this machine can act as this agent.")
    http.add_argument("--http", metavar="HOST:PORT", help="serve streamable HTTP there, at /mcp; port 0: any free one")
    http.add_argument(
        "--not-only-loopback",
        action="store_true",
        help="allow a HOST that other machines reach; demands a token, and no TLS is made",
    )
    http.add_argument(
        "--token-file", metavar="FILE", type=Path, help="clients have to send this bearer token; else MAS_MCP_TOKEN"
    )
    http.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name that clients may call this host by; may be repeated",
    )
    mcp.add_argument(
        "--look-every",
        metavar="SECONDS",
        type=float,
        default=5.0,
        help="how often peers are looked at for their tools (5)",
    )
    mcp.add_argument("--log", choices=LEVELS, default="warning", help="what is logged, to standard error (warning)")
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """The program."""
    given = parser().parse_args(arguments)
    # Standard output belongs to the protocol.
    logging.basicConfig(stream=sys.stderr, level=given.log.upper(), format="mas-agent: %(levelname)s: %(message)s")
    # Both say everything a second time.
    for noisy in ("mcp", "uvicorn"):
        logging.getLogger(noisy).setLevel("DEBUG" if given.log == "debug" else "ERROR")
    try:
        _run(given)
    except ImportError as error:
        raise SystemExit(MISSING.format(name=error.name or error)) from None
    except MasError as error:
        print(f"mas-agent: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(given: argparse.Namespace) -> None:
    from . import _identity, _place

    who = _identity.Given(given.agent, given.config, given.addr, given.ca, given.cert, given.key)
    identity = _identity.find(who)
    if given.http is None:
        asyncio.run(_serve_stdio(identity, given.look_every))
        return
    host, port = _place.place(given.http)
    token = _place.token(given.token_file)
    if not _place.is_loopback(host):
        if not given.not_only_loopback:
            raise SetupError(
                f"--http {given.http}: other machines reach it; say --not-only-loopback where that is meant"
            )
        if token is None:
            raise SetupError(
                f"--http {given.http}: other machines reach it, which demands --token-file or {_place.TOKEN_VARIABLE}"
            )
    listening = _place.listen(host, port)
    from . import _http
    from ._serve import Bridge

    async def serve() -> None:
        bridge = Bridge(identity, given.look_every)
        server = _http.Http(bridge, listening, host, given.allow_host, token)
        await _until_end(bridge, server.serve(), server.end)

    asyncio.run(serve())


async def _serve_stdio(identity: Identity, look_every: float) -> None:
    from ._serve import Bridge

    bridge = Bridge(identity, look_every)
    await _until_end(bridge, bridge.stdio(), None)


async def _until_end(bridge: Bridge, serve: Coroutine[Any, Any, None], end: Callable[[], None] | None) -> None:
    """Serves until the client ends it, a signal does, or the agent cannot be what it should be. ``end`` asks
    for the end, where it can be asked for."""
    serving = asyncio.ensure_future(serve)
    living = asyncio.ensure_future(bridge.live())

    async def life() -> None:
        await asyncio.wait((serving, living), return_when=asyncio.FIRST_COMPLETED)

    async def stop() -> None:
        if end is not None:
            end()
            await asyncio.wait((serving,), timeout=END_S)
        living.cancel()
        await bridge.member.leave()

    await until_signal(life, stop)
    await asyncio.wait((living,))
    failures = [one.exception() for one in (living, serving) if one.done() and not one.cancelled()]
    failure = next((one for one in failures if one is not None), None)
    if serving.done():
        if failure is not None:
            raise failure
        return
    # A thread waits for standard input, which the client keeps open. It cannot be ended in another way.
    if failure is not None:
        log.error("%s", failure, exc_info=None if isinstance(failure, MasError) else failure)
    logging.shutdown()
    os._exit(0 if failure is None else 2)
