"""The server in memory, and the connection of an agent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from .. import _wire
from .._proto import runtime_pb2 as pb
from .._proto import status_pb2
from .._receipt import Finding
from ..agent import Agent
from ._core import Core
from ._inboxes import DeadLetter, Recorded
from ._refusals import Fault, Refusal
from ._stream import FakeStream, Offers, ended

# All that servers offer.
FEATURES = ("submit", "acks", "deliveries", "commit", "later", "request_failed")
# Bytes of one event, as a real server takes them by default.
MAX_EVENT_BYTES = 1024 * 1024 + 64 * 1024
# Between two looks at whether everything is handled, and for how long at most; seconds.
LOOK_AGAIN_S = 0.005
IDLE_S = 10.0

A = TypeVar("A", bound=Agent)
Q = TypeVar("Q")
R = TypeVar("R")


class FakeServer:
    """A server in memory, for one event loop.

    ``permissions``: who may send to whom, as (sender, target); ``None``: everybody to everybody. ``capabilities``:
    what agents are found by. ``max_attempts`` and ``backoff`` (seconds): of messages whose handlers ask for another
    delivery. ``max_event_bytes``: the longest event that a session takes, and so the longest commit;
    0: the server does not say, as those before it.
    """

    def __init__(
        self,
        permissions: Iterable[tuple[str, str]] | None = None,
        *,
        capabilities: Mapping[str, Sequence[str]] | None = None,
        features: Collection[str] = FEATURES,
        max_attempts: int = 5,
        backoff: Sequence[float] = (0.01, 0.05),
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._core = Core(permissions, capabilities or {}, max_attempts, backoff)
        self._features = tuple(features)
        self._max_event_bytes = max_event_bytes
        self._streams: list[FakeStream] = []
        self._lost: list[str] = []
        self._shut_out: dict[str, str] = {}

    async def __aenter__(self) -> FakeServer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def agent(self, agent_id: str, **options: Any) -> Agent:
        """An agent of this server; ``options`` are those of :class:`mas_agent.Agent`."""
        return self.attach(agent_id, Agent("in memory", **options))

    def attach(self, agent_id: str, agent: A) -> A:
        """Makes an agent connect to this server, as this id, whatever its address and certificates are."""
        agent._dialer = FakeDialer(self, agent_id)
        return agent

    # What has happened

    @property
    def messages(self) -> list[Recorded]:
        """What was accepted, in order."""
        return self._core.recorded

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """What no handler could handle."""
        return self._core.inboxes.dead

    def state(self, agent_id: str) -> dict[str, str]:
        """An agent's state: fields of text."""
        return self._core.states.fields(agent_id)

    def connected(self) -> set[str]:
        """The agents that have a session."""
        return {one.agent_id for one in self._core.inboxes.sessions}

    async def idle(self, timeout: float = IDLE_S) -> None:
        """Returns when everything that was sent to connected agents is handled; ``TimeoutError`` otherwise."""

        async def look() -> None:
            while not self._core.inboxes.is_idle:
                await asyncio.sleep(LOOK_AGAIN_S)

        await asyncio.wait_for(look(), timeout)

    # What goes wrong

    def refuse(
        self,
        detail: str,
        *,
        operation: str = "",
        sender: str = "",
        target: str = "",
        retry_after: float | None = None,
        findings: Iterable[Finding] = (),
        times: int = 1,
    ) -> None:
        """Refuses the next calls with the server's word, such as ``rate_limited``; only those of an ``operation``
        (send, request, reply, commit, discover, get_state, update_state, reset_state), a ``sender``, a ``target``
        where given."""
        self._core.faults.append(Fault(detail, operation, sender, target, retry_after, tuple(findings), times))

    def lose_answers(self, *operations: str) -> None:
        """The next calls of these operations happen, and their answers are lost with the connection."""
        self._lost.extend(operations)

    def disconnect(self, agent_id: str = "") -> None:
        """Ends the sessions of an agent, or all; they connect again by themselves."""
        for stream in [one for one in self._streams if agent_id in ("", one.agent_id)]:
            stream.end(ended(grpc.StatusCode.UNAVAILABLE, "the connection was lost"))

    def shut_out(self, agent_id: str, detail: str = "agent_not_allowlisted") -> None:
        """Refuses an agent itself, and ends its sessions."""
        self._shut_out[agent_id] = detail
        for stream in [one for one in self._streams if one.agent_id == agent_id]:
            stream.end(error_of(Refusal(detail)))

    def let_in(self, agent_id: str) -> None:
        """Takes back :meth:`shut_out`."""
        self._shut_out.pop(agent_id, None)

    # What a connection needs

    def _open(self, agent_id: str) -> FakeStream:
        offers = Offers(self._features, self._max_event_bytes)
        stream = FakeStream(agent_id, self._core, offers, self._loses, self._streams.remove)
        self._streams.append(stream)
        if detail := self._shut_out.get(agent_id):
            stream.end(error_of(Refusal(detail)))
        return stream

    def _loses(self, operation: str) -> bool:
        if operation in self._lost:
            self._lost.remove(operation)
            return True
        return False


class FakeDialer:
    """Connects to a server in memory."""

    def __init__(self, server: FakeServer, agent_id: str) -> None:
        self._server = server
        self._agent_id = agent_id

    @property
    def address(self) -> str:
        return "the server in memory"

    @property
    def addresses(self) -> int:
        return 1

    def check(self) -> None:
        pass

    def open(self) -> FakeConnection:
        return FakeConnection(self._server, self._agent_id)

    def next(self) -> None:
        pass


class FakeConnection:
    """A connection to a server in memory: its calls."""

    def __init__(self, server: FakeServer, agent_id: str) -> None:
        self.methods: _wire.Methods = FakeMethods(server, agent_id)

    async def close(self, grace: float = 0.0) -> None:
        pass


class FakeMethods:
    """The calls of an agent. Each fails as gRPC's do."""

    def __init__(self, server: FakeServer, agent_id: str) -> None:
        core = server._core

        def unary(operation: str, once: Callable[[Any], R], own: bool = False) -> Callable[..., Awaitable[R]]:
            async def call(request: Any, *, timeout: float) -> R:
                await asyncio.sleep(0)
                try:
                    if not own:
                        core.fault(operation, agent_id, "")
                    answer = once(request)
                except Refusal as refusal:
                    raise error_of(refusal, core) from None
                if server._loses(operation):
                    server.disconnect(agent_id)
                    raise ended(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
                return answer

            return call

        def message(operation: str) -> Any:
            return unary(operation, lambda request: core.one(agent_id, request), own=True)

        def update(request: pb.UpdateStateRequest) -> pb.UpdateStateResponse:
            return pb.UpdateStateResponse(version=core.states.update(agent_id, request))

        def reset(_: pb.ResetStateRequest) -> pb.ResetStateResponse:
            core.states.reset(agent_id)
            return pb.ResetStateResponse()

        self.send: _wire.Method[pb.SendRequest, pb.SendResponse] = message("send")
        self.request: _wire.Method[pb.RequestRequest, pb.RequestResponse] = message("request")
        self.reply: _wire.Method[pb.ReplyRequest, pb.ReplyResponse] = message("reply")
        self.discover: _wire.Method[pb.DiscoverRequest, pb.DiscoverResponse] = unary(
            "discover", lambda request: core.discover(agent_id, request.capabilities)
        )
        self.get_state: _wire.Method[pb.GetStateRequest, pb.GetStateResponse] = unary(
            "get_state", lambda _: core.states.get(agent_id)
        )
        self.update_state: _wire.Method[pb.UpdateStateRequest, pb.UpdateStateResponse] = unary("update_state", update)
        self.reset_state: _wire.Method[pb.ResetStateRequest, pb.ResetStateResponse] = unary("reset_state", reset)
        self.transport: _wire.Transport = lambda: server._open(agent_id)


def error_of(refusal: Refusal, core: Core | None = None) -> grpc.aio.AioRpcError:
    """A refusal as gRPC raises it."""
    headers = [("retry-after-ms", str(refusal.retry_after_ms))] if refusal.retry_after_ms else []
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.detail)
    if core is not None:
        status.details.add().Pack(core.receipt(refusal.message_id))
    if refusal.findings:
        found = [pb.Finding(type=one.type, pointer=one.pointer, action=one.action) for one in refusal.findings]
        status.details.add().Pack(pb.Findings(findings=found))
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(refusal.code, grpc.aio.Metadata(*headers), trailers, refusal.detail)
