"""The agent: handlers, calls, lifecycle."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, get_args

import grpc
import grpc.aio
from pydantic import BaseModel

from . import _tracing, _wire
from ._calls import Calls, Options, milliseconds
from ._intake import Handler, Intake
from ._link import Link
from ._payload import Payload, from_fields, to_fields
from ._proto import runtime_pb2 as pb
from ._receipt import Sent
from .errors import SetupError
from .message import Commit, Message

M = TypeVar("M", bound=BaseModel)
Plain = Callable[[Message], Awaitable[None]]
Typed = Callable[[Message, M], Awaitable[None]]
PlainT = TypeVar("PlainT", bound=Plain)

# A silent connection is pinged after this, and is given up when no answer comes in time; milliseconds. Sooner than the
# server would (20 s), for which answering a ping is cheaper than sending one.
KEEPALIVE_TIME_MS = 19_000
KEEPALIVE_TIMEOUT_MS = 10_000
# gRPC's own waits before it connects again, milliseconds; its default of two minutes is too long here.
CONNECT_FIRST_MS = 50
CONNECT_LAST_MS = 2_000
# Longest message that is received: the server's are shorter than gRPC's usual 4 MiB.
MAX_RECEIVE_BYTES = 4 * 1024 * 1024

_INSTANCE_ID = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True)
class Credentials:
    """The PEM files of mutual TLS. The agent's id is in its certificate."""

    ca: Path
    cert: Path
    key: Path

    @classmethod
    def from_env(cls) -> Credentials:
        """From ``MAS_TLS_CA``, ``MAS_TLS_CERT`` and ``MAS_TLS_KEY``, as ``mas run`` sets them."""
        return cls(Path(_variable("MAS_TLS_CA")), Path(_variable("MAS_TLS_CERT")), Path(_variable("MAS_TLS_KEY")))

    def _load(self) -> grpc.ChannelCredentials:
        try:
            return grpc.ssl_channel_credentials(
                root_certificates=self.ca.read_bytes(),
                private_key=self.key.read_bytes(),
                certificate_chain=self.cert.read_bytes(),
            )
        except OSError as error:
            raise SetupError(f"{error.filename}: {error.strerror}") from error


@dataclass(frozen=True)
class Peer:
    """Another agent, as the server shows it."""

    agent_id: str
    capabilities: tuple[str, ...]
    metadata: dict[str, Any]
    status: str


@dataclass(frozen=True)
class State:
    """The agent's state: fields of text."""

    fields: dict[str, str]
    version: int
    """Grows with every change; 0: there is none, or the server does not count."""

    def parse(self, model: type[M]) -> M:
        """The state as a model; missing fields take their defaults."""
        return from_fields(model, self.fields)


class Agent:
    """One instance of an agent. What is not given comes from the environment that ``mas run`` sets.

    Handlers run concurrently, at most ``concurrency`` at a time; 1 keeps the order of each sender. A message
    is acknowledged when its handler returns. A handler that raises ``Retry``, or what its ``retry_on`` names,
    gets the message again after a growing wait; any other exception sends it to the dead letters.

    Where OpenTelemetry is installed, a handler runs in a span of its own. ``trace_parent``: it is in a trace of its
    own with a link to the sender's span ("link"), or that span is its parent, too ("parent").
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        credentials: Credentials | None = None,
        instance_id: str | None = None,
        concurrency: int = 64,
        call_timeout: float = 30.0,
        drain_timeout: float = 8.0,
        trace_parent: _tracing.TraceParent = "link",
    ) -> None:
        if concurrency < 1:
            raise SetupError("concurrency: expected 1 or more")
        if trace_parent not in get_args(_tracing.TraceParent):
            raise SetupError(f"trace_parent {trace_parent!r}: expected link or parent")
        self._address = address
        self._credentials = credentials
        self._instance_id = instance_id or os.environ.get("MAS_INSTANCE_ID") or uuid.uuid4().hex[:8]
        if not _INSTANCE_ID.fullmatch(self._instance_id):
            raise SetupError(f"instance id {self._instance_id!r}: expected 1 to 32 of A-Z a-z 0-9 _ -")
        self._concurrency = concurrency
        self._call_timeout = call_timeout
        self._drain_timeout = drain_timeout
        self._trace_parent = trace_parent
        self._handlers: dict[str, Handler] = {}
        self._fallback: Handler | None = None
        self._open: _Open | None = None

    # Handlers

    def on(
        self, message_type: str, model: type[M], *, retry_on: Iterable[type[Exception]] = ()
    ) -> Callable[[Typed[M]], Typed[M]]:
        """Registers ``async def handler(message, data)``, where ``data`` is the payload as ``model``."""

        def register(function: Typed[M]) -> Typed[M]:
            self._register(message_type, Handler(function, model, tuple(retry_on)))
            return function

        return register

    def on_raw(
        self, message_type: str, *, retry_on: Iterable[type[Exception]] = ()
    ) -> Callable[[PlainT], PlainT]:
        """Registers ``async def handler(message)``; ``message.data`` is the payload."""

        def register(function: PlainT) -> PlainT:
            self._register(message_type, Handler(function, None, tuple(retry_on)))
            return function

        return register

    def on_other(self, function: PlainT) -> PlainT:
        """Registers the handler of all types that have none; without it they go to the dead letters."""
        if self._fallback is not None:
            raise SetupError("there is a handler of other types already")
        self._fallback = Handler(function, None, ())
        return function

    def _register(self, message_type: str, handler: Handler) -> None:
        if message_type in self._handlers:
            raise SetupError(f"there is a handler of {message_type!r} already")
        self._handlers[message_type] = handler

    # Lifecycle

    async def start(self) -> None:
        """Connects; returns when the session is open. Raises the server's refusal."""
        if self._open is not None:
            raise SetupError("the agent is started already")
        intake = Intake(self._handlers, self._fallback, self._concurrency)
        address = self._address or _variable("MAS_SERVER_ADDR")
        channel = _channel(address, self._credentials or Credentials.from_env())
        methods = _wire.Methods(channel)
        link = Link(methods, self._instance_id, intake.take)
        tracing = _tracing.find(self._trace_parent, address, self._instance_id)
        calls = Calls(methods, link, self._instance_id, self._call_timeout, tracing)
        intake.connect(link, calls)
        self._open = _Open(channel, link, calls, intake)
        link.start()
        try:
            await link.session(self._call_timeout)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Lets handlers finish, sends the last acknowledgements and closes the session."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened.intake.drain(self._drain_timeout)
            await opened.link.close()
            await opened.channel.close()

    async def __aenter__(self) -> Agent:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def serve(self) -> None:
        """Starts, handles messages until SIGINT or SIGTERM, and stops. Raises when the server refuses the
        agent for good."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked.set)
        try:
            async with self:
                stop = asyncio.create_task(asked.wait())
                ended = asyncio.create_task(self._opened().link.ended())
                done, _ = await asyncio.wait({stop, ended}, return_when=asyncio.FIRST_COMPLETED)
                stop.cancel()
                if ended in done:
                    ended.result()
                ended.cancel()
                await asyncio.gather(stop, ended, return_exceptions=True)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def run(self) -> None:
        """:meth:`serve` in an event loop of its own: the body of a program."""
        asyncio.run(self.serve())

    @property
    def instance_id(self) -> str:
        """This process's instance."""
        return self._instance_id

    @property
    def agent_id(self) -> str:
        """The id that the server read from the certificate; empty before the first session."""
        session = self._open.link.current if self._open else None
        return session.agent_id if session else ""

    @property
    def features(self) -> frozenset[str]:
        """What the server offers beyond the base protocol, while connected."""
        session = self._open.link.current if self._open else None
        return session.features if session else frozenset()

    @property
    def is_connected(self) -> bool:
        """Whether there is a session just now."""
        return self._open is not None and self._open.link.current is not None

    # Calls

    async def send(
        self,
        target: str,
        message_type: str,
        data: Payload | None = None,
        *,
        idempotency_key: str | None = None,
        ttl: float | None = None,
        not_before: float | None = None,
    ) -> Sent:
        """Sends a message: when this returns it is stored and on record.

        With an ``idempotency_key`` a lost answer is asked for again, without a second effect. ``ttl``: not
        delivered later than this many seconds after acceptance. ``not_before``: Unix time.
        """
        calls = self._opened().calls
        options = Options(idempotency_key, ttl, not_before)
        return await calls.send(calls.send_request(target, message_type, data, options), options)

    async def request(
        self,
        target: str,
        message_type: str,
        data: Payload | None = None,
        *,
        timeout: float = 60.0,
        idempotency_key: str | None = None,
    ) -> Message:
        """Sends a request and waits for its reply; ``NoReply`` after ``timeout`` seconds."""
        calls = self._opened().calls
        options = Options(idempotency_key)
        request = calls.request_request(target, message_type, data, timeout, options)
        reply: Message = await calls.request(request, options)
        return reply

    async def discover(self, *capabilities: str) -> list[Peer]:
        """Connected agents that this one may message and that offer any of these (none: all)."""
        response = await self._opened().calls.discover(list(capabilities))
        return [
            Peer(
                agent.agent_id,
                tuple(agent.capabilities),
                json.loads(agent.metadata_json) if agent.metadata_json else {},
                agent.status,
            )
            for agent in response.agents
        ]

    async def get_state(self) -> State:
        """The agent's state, shared by its instances."""
        response = await self._opened().calls.get_state()
        return State(dict(response.state), response.version)

    async def update_state(
        self,
        updates: Mapping[str, Any] | BaseModel,
        *,
        expected_version: int | None = None,
        ttl: float | None = None,
    ) -> int:
        """Sets fields: texts as they are, everything else as JSON. Returns the new version.

        ``expected_version``: ``VersionMismatch`` unless the state has it. ``ttl``: the whole state is gone
        this many seconds later.
        """
        request = pb.UpdateStateRequest(updates=to_fields(updates), ttl_ms=milliseconds(ttl))
        if expected_version is not None:
            request.expected_version = expected_version
        return (await self._opened().calls.update_state(request)).version

    async def reset_state(self) -> None:
        """Removes the state."""
        await self._opened().calls.reset_state()

    def commit(self) -> Commit:
        """State and messages as one step, without a message that was handled: see :class:`Commit`."""
        return Commit(self._opened().calls, None)

    def _opened(self) -> _Open:
        if self._open is None:
            raise SetupError("the agent is not started")
        return self._open


@dataclass(frozen=True)
class _Open:
    """What there is between start and stop."""

    channel: grpc.aio.Channel
    link: Link
    calls: Calls
    intake: Intake


def _channel(address: str, credentials: Credentials) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [
        ("grpc.keepalive_time_ms", KEEPALIVE_TIME_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", CONNECT_FIRST_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", CONNECT_LAST_MS),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ]
    return grpc.aio.secure_channel(address, credentials._load(), options=options)


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SetupError(f"{name} is not set; `mas run` sets it, or give the value to Agent")
    return value
