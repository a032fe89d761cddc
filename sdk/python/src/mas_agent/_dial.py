"""How a connection is made: addresses in turn, files read anew, gRPC's options."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import grpc.aio

from . import _credentials, _wire
from ._proto import runtime_pb2 as pb
from .errors import NotConnected, OutcomeUnknown, SetupError

# A silent connection is pinged after this, and is given up when no answer comes in time; milliseconds. Sooner than the
# server would (20 s), for which answering a ping is cheaper than sending one.
KEEPALIVE_TIME_MS = 19_000
KEEPALIVE_TIMEOUT_MS = 10_000
# Longest message that is received: the server's are shorter than gRPC's usual 4 MiB.
MAX_RECEIVE_BYTES = 4 * 1024 * 1024
# Calls that are under way when their connection is replaced may take this long, in seconds.
RETIRE_S = 30.0

_HOST = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?(?:\[([^]]+)\]|([^][/:]+)|([0-9a-fA-F:]+)):[0-9]{1,5}")

Q = TypeVar("Q")
R = TypeVar("R")


class Connection(Protocol):
    """A connection to one server."""

    @property
    def methods(self) -> _wire.Methods: ...

    async def close(self, grace: float = 0.0) -> None: ...


class Dialer(Protocol):
    """Makes connections."""

    @property
    def address(self) -> str:
        """Where the next connection leads."""

    @property
    def addresses(self) -> int:
        """How many take turns."""

    def check(self) -> None:
        """``SetupError`` where no connection can ever be made."""

    def open(self) -> Connection:
        """A new connection, with the files as they are now."""

    def next(self) -> None:
        """The last one failed: the next address's turn."""


class TlsDialer:
    """Real servers, with mutual TLS. The addresses take turns, from the one that worked last."""

    def __init__(self, addresses: Sequence[str], credentials: _credentials.Credentials, proxy: bool) -> None:
        self._addresses = tuple(addresses)
        self._credentials = credentials
        self._proxy = proxy
        self._index = 0

    @property
    def address(self) -> str:
        return self._addresses[self._index]

    @property
    def addresses(self) -> int:
        return len(self._addresses)

    def check(self) -> None:
        self._credentials.check()

    def open(self) -> Connection:
        options = [*OPTIONS, ("grpc.enable_http_proxy", int(self._proxy and not is_loopback(self.address)))]
        return TlsConnection(grpc.aio.secure_channel(self.address, self._credentials.load(), options=options))

    def next(self) -> None:
        self._index = (self._index + 1) % len(self._addresses)


OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # A connection of its own, and not what another channel has left: the files are read anew for each.
    ("grpc.use_local_subchannel_pool", 1),
]


class TlsConnection:
    """A channel and its calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.methods: _wire.Methods = TlsMethods(channel)

    async def close(self, grace: float = 0.0) -> None:
        await self._channel.close(grace or None)


class TlsMethods:
    """The calls of one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def unary(name: str, request: Any, response: Any) -> Any:
            return _outliving(
                channel.unary_unary(
                    _wire.SERVICE + name,
                    request_serializer=request.SerializeToString,
                    response_deserializer=response.FromString,
                )
            )

        self.send: _wire.Method[pb.SendRequest, pb.SendResponse] = unary("Send", pb.SendRequest, pb.SendResponse)
        self.request: _wire.Method[pb.RequestRequest, pb.RequestResponse] = unary(
            "Request", pb.RequestRequest, pb.RequestResponse
        )
        self.reply: _wire.Method[pb.ReplyRequest, pb.ReplyResponse] = unary(
            "Reply", pb.ReplyRequest, pb.ReplyResponse
        )
        self.discover: _wire.Method[pb.DiscoverRequest, pb.DiscoverResponse] = unary(
            "Discover", pb.DiscoverRequest, pb.DiscoverResponse
        )
        self.get_state: _wire.Method[pb.GetStateRequest, pb.GetStateResponse] = unary(
            "GetState", pb.GetStateRequest, pb.GetStateResponse
        )
        self.update_state: _wire.Method[pb.UpdateStateRequest, pb.UpdateStateResponse] = unary(
            "UpdateState", pb.UpdateStateRequest, pb.UpdateStateResponse
        )
        self.reset_state: _wire.Method[pb.ResetStateRequest, pb.ResetStateResponse] = unary(
            "ResetState", pb.ResetStateRequest, pb.ResetStateResponse
        )
        self.transport: _wire.Transport = channel.stream_stream(
            _wire.SERVICE + "Transport",
            request_serializer=pb.ClientEvent.SerializeToString,
            response_deserializer=pb.ServerEvent.FromString,
        )


def _outliving(method: Callable[..., Awaitable[R]]) -> Callable[..., Awaitable[R]]:
    """Calls whose channel may be closed while they are under way. gRPC then cancels who waits for the call, which
    would look as if the caller had been cancelled."""

    async def call(request: Any, *, timeout: float) -> R:
        try:
            pending = asyncio.ensure_future(method(request, timeout=timeout))
        except grpc.aio.UsageError as error:
            raise _wire.Passing(NotConnected("the connection was closed")) from error
        try:
            await asyncio.wait({pending})
        except asyncio.CancelledError:
            pending.cancel()
            raise
        if pending.cancelled():
            raise OutcomeUnknown("the connection was closed before the answer")
        return pending.result()

    return call


def addresses(given: str | Sequence[str]) -> tuple[str, ...]:
    """One address, several separated by commas, or a sequence. gRPC's own lists (``ipv4:a,b``) stay one."""
    if isinstance(given, str):
        given = [given] if given.startswith(("ipv4:", "ipv6:")) else given.split(",")
    found = tuple(one.strip() for one in given if one.strip())
    if not found:
        raise SetupError("address: expected HOST:PORT, or several")
    return found


def is_loopback(address: str) -> bool:
    """Whether this is the same machine, which no proxy leads to."""
    parts = _HOST.fullmatch(address)
    if parts is None:
        return address.startswith("unix:")
    host = parts[1] or parts[2] or parts[3]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
