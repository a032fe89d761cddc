"""Calls of an agent: on the stream where the server offers it, unary otherwise; tried again only where that
cannot have a second effect."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio

from . import _wire
from ._link import Link
from ._payload import Payload, to_json
from ._proto import runtime_pb2 as pb
from ._receipt import Receipt, Sent
from ._session import MAX_COMMIT_BYTES, Session
from ._tracing import Tracing
from .errors import MasError, NoReply, NotConnected, OutcomeUnknown, SetupError, Unsupported

# Waits before a call is tried again, in seconds: doubling, of each half to all.
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 2.0
# Replies that came before their request's own answer; the oldest is forgotten.
MAX_EARLY_REPLIES = 1024
# Longest time a request may be answered, in seconds.
MAX_REQUEST_S = 86_400.0

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What a message may carry beyond the base protocol."""

    idempotency_key: str | None = None
    ttl: float | None = None
    not_before: float | None = None

    def require(self, session: Session) -> None:
        """A server that would ignore them must not get them."""
        if self.idempotency_key is not None and not session.offers(*_wire.IDEMPOTENCY):
            raise Unsupported("this server has no idempotency keys")
        if (self.ttl is not None or self.not_before is not None) and not session.offers(*_wire.TIMES):
            raise Unsupported("this server has no times to live")

    def fields(self) -> dict[str, Any]:
        """As fields of SendRequest and RequestRequest."""
        return {
            "idempotency_key": self.idempotency_key or "",
            "ttl_ms": milliseconds(self.ttl),
            "not_before_ms": milliseconds(self.not_before),
        }


def milliseconds(seconds: float | None) -> int:
    """Seconds as milliseconds; ``None`` is 0, and what is more than 0 stays so."""
    if seconds is None:
        return 0
    if seconds <= 0:
        raise SetupError(f"{seconds} is no time: expected more than 0 seconds")
    return max(1, round(seconds * 1000))


class Calls:
    """The calls of one agent and the replies it waits for."""

    def __init__(
        self, methods: _wire.Methods, link: Link, instance_id: str, timeout: float, tracing: Tracing
    ) -> None:
        self._methods = methods
        self._link = link
        self.instance_id = instance_id
        self.timeout = timeout
        self.tracing = tracing
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        # Requests whose correlation id is not known yet.
        self._asking = 0
        self._early: OrderedDict[str, Any] = OrderedDict()

    def send_request(self, target: str, message_type: str, data: Payload | None, options: Options) -> pb.SendRequest:
        """The message as the protocol has it."""
        return pb.SendRequest(
            target_id=target,
            message_type=message_type,
            data_json=to_json(data),
            instance_id=self.instance_id,
            **options.fields(),
        )

    def request_request(
        self, target: str, message_type: str, data: Payload | None, timeout: float, options: Options
    ) -> pb.RequestRequest:
        """The request as the protocol has it."""
        if not 0 < timeout <= MAX_REQUEST_S:
            raise SetupError(f"timeout {timeout}: expected more than 0 and at most {MAX_REQUEST_S:.0f} seconds")
        return pb.RequestRequest(
            target_id=target,
            message_type=message_type,
            data_json=to_json(data),
            timeout_ms=milliseconds(timeout),
            instance_id=self.instance_id,
            **options.fields(),
        )

    def reply_request(self, correlation_id: str, message_type: str, data: Payload | None) -> pb.ReplyRequest:
        """The reply as the protocol has it."""
        return pb.ReplyRequest(
            correlation_id=correlation_id,
            message_type=message_type,
            data_json=to_json(data),
            instance_id=self.instance_id,
        )

    async def send(self, request: pb.SendRequest, options: Options) -> Sent:
        """Sends a message."""

        async def once(session: Session, timeout: float) -> pb.SendResponse:
            options.require(session)
            if session.takes(request):
                return (await session.submit(pb.Submission(send=request))).send
            return await self._methods.send(request, timeout=timeout)

        with self.tracing.sending("send", request.target_id, request) as operation:
            done = sent(await self.call(once, again=options.idempotency_key is not None))
            operation.accepted(done)
            return done

    async def reply(self, request: pb.ReplyRequest, target: str) -> Sent:
        """Replies to a request of ``target``'s."""

        async def once(session: Session, timeout: float) -> pb.ReplyResponse:
            if session.takes(request):
                return (await session.submit(pb.Submission(reply=request))).reply
            return await self._methods.reply(request, timeout=timeout)

        correlation_id = request.correlation_id
        with self.tracing.sending("reply", target, request, correlation_id=correlation_id) as operation:
            done = sent(await self.call(once, again=False))
            operation.accepted(done)
            return done

    async def request(self, request: pb.RequestRequest, options: Options) -> Any:
        """Sends a request and waits for its reply."""

        async def once(session: Session, timeout: float) -> pb.RequestResponse:
            options.require(session)
            if session.takes(request):
                return (await session.submit(pb.Submission(request=request))).request
            return await self._methods.request(request, timeout=timeout)

        give_up = time.monotonic() + request.timeout_ms / 1000
        with self.tracing.sending("request", request.target_id, request) as operation:
            self.asking(1)
            try:
                accepted = await self.call(once, again=options.idempotency_key is not None)
                reply = self.expect_reply(accepted.correlation_id)
            finally:
                self.asking(-1)
            operation.accepted(sent(accepted), accepted.correlation_id)
            message = await self.await_reply(accepted.correlation_id, reply, give_up)
            operation.answered(message)
            return message

    def expect_reply(self, correlation_id: str) -> asyncio.Future[Any]:
        """From now on the reply of this id has somebody who waits for it."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        early = self._early.pop(correlation_id, None)
        if early is not None:
            reply.set_result(early)
        else:
            self._waiting[correlation_id] = reply
        return reply

    async def await_reply(self, correlation_id: str, reply: asyncio.Future[Any], give_up: float) -> Any:
        """The reply, until ``give_up`` (of the monotonic clock)."""
        try:
            return await asyncio.wait_for(reply, max(0.0, give_up - time.monotonic()))
        except asyncio.TimeoutError:
            raise NoReply(f"no reply to {correlation_id} in time") from None
        finally:
            self._waiting.pop(correlation_id, None)

    def asking(self, count: int) -> None:
        """Counts requests whose correlation id is not known yet."""
        self._asking += count
        if self._asking == 0:
            self._early.clear()

    def replied(self, correlation_id: str, message: Any) -> None:
        """Hands a reply to whoever waits for it; nobody does when it is late."""
        reply = self._waiting.pop(correlation_id, None)
        if reply is not None and not reply.done():
            reply.set_result(message)
        elif reply is None and self._asking > 0:
            self._early[correlation_id] = message
            if len(self._early) > MAX_EARLY_REPLIES:
                self._early.popitem(last=False)

    async def discover(self, capabilities: list[str]) -> pb.DiscoverResponse:
        """Agents that may be messaged."""
        request = pb.DiscoverRequest(capabilities=capabilities)
        return await self.call(lambda _, timeout: self._methods.discover(request, timeout=timeout), again=True)

    async def get_state(self) -> pb.GetStateResponse:
        """The agent's state."""
        request = pb.GetStateRequest()
        return await self.call(lambda _, timeout: self._methods.get_state(request, timeout=timeout), again=True)

    async def update_state(self, request: pb.UpdateStateRequest) -> pb.UpdateStateResponse:
        """Sets fields of the state."""

        async def once(session: Session, timeout: float) -> pb.UpdateStateResponse:
            if request.HasField("expected_version"):
                require_versions(session)
            if request.ttl_ms and not session.offers(*_wire.TIMES):
                raise Unsupported("this server has no times to live")
            return await self._methods.update_state(request, timeout=timeout)

        return await self.call(once, again=False)

    async def reset_state(self) -> None:
        """Removes the state."""
        request = pb.ResetStateRequest()
        await self.call(lambda _, timeout: self._methods.reset_state(request, timeout=timeout), again=False)

    async def commit(self, commit: pb.Commit) -> pb.CommitResponse:
        """All of it or nothing. ``Unsupported`` where the server does not offer it."""

        async def once(session: Session, _timeout: float) -> pb.CommitResponse:
            if not (session.offers(_wire.SUBMIT) and session.offers(_wire.COMMIT)):
                raise Unsupported("this server has no atomic commit")
            if (size := commit.ByteSize()) > MAX_COMMIT_BYTES:
                raise SetupError(f"a commit of {size} bytes: expected at most {MAX_COMMIT_BYTES}")
            return (await session.submit(pb.Submission(commit=commit))).commit

        return await self.call(once, again=False)

    async def call(self, once: Callable[[Session, float], Awaitable[T]], *, again: bool) -> T:
        """Makes a call within the timeout; ``again``: also after an unknown outcome."""
        give_up = time.monotonic() + self.timeout
        pause = RETRY_FIRST_S
        while True:
            session = await self._link.session(max(0.0, give_up - time.monotonic()))
            left = give_up - time.monotonic()
            failed: MasError
            try:
                return await asyncio.wait_for(once(session, left), left)
            except grpc.aio.AioRpcError as error:
                failed = _wire.failure_of_call(error)
            except (_wire.Passing, OutcomeUnknown) as error:
                failed = error
            except asyncio.TimeoutError:
                failed = OutcomeUnknown(f"no answer within {self.timeout} s")
            may_retry = isinstance(failed, _wire.Passing) or (again and isinstance(failed, OutcomeUnknown))
            wait = pause * random.uniform(0.5, 1.0)
            if not may_retry or time.monotonic() + wait >= give_up:
                raise failed.error if isinstance(failed, _wire.Passing) else failed
            await asyncio.sleep(wait)
            pause = min(pause * 2, RETRY_LAST_S)


def sent(response: pb.SendResponse | pb.RequestResponse | pb.ReplyResponse) -> Sent:
    """An acceptance, with its receipt where there is one."""
    receipt = Receipt.read(response.receipt) if response.HasField("receipt") else None
    return Sent(response.message_id, receipt)


def require_versions(session: Session) -> None:
    """A server without versions would apply the update in any case."""
    if not session.offers(*_wire.VERSIONS):
        raise Unsupported("this server has no versions of the state")


def parse_envelope(text: str) -> dict[str, Any]:
    """The envelope as a mapping; anything else is a fault of the server's."""
    envelope = json.loads(text)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("meta"), dict):
        raise ValueError("an envelope is an object with `meta`")
    return envelope


