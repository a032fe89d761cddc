"""Calls of an agent: on the stream where the server offers it, unary otherwise; made again only where that
cannot have a second effect."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from . import _wire
from ._link import Link
from ._options import Options, checked_timeout, milliseconds
from ._payload import Payload, to_json
from ._proto import runtime_pb2 as pb
from ._receipt import Receipt, Sent, findings
from ._replies import Replies, Unanswered
from ._session import Session
from ._tracing import Tracing
from .errors import (
    NOT_HELD,
    Called,
    MasError,
    NoReply,
    NotConnected,
    OutcomeUnknown,
    Refused,
    Unsupported,
)

if TYPE_CHECKING:
    from .message import Message

log = logging.getLogger("mas_agent")

# Waits before a call is made again, in seconds: doubling, of each half to all.
RETRY_FIRST_S = 0.05
RETRY_LAST_S = 2.0
# So much longer than its call may take the server remembers a key of the library's own, in seconds.
KEY_KEPT_S = 60.0
# Tries of a commit whose delivery the session does not hold. Few: what the server is to deliver again may wait for a
# place that this handler takes.
NOT_HELD_TRIES = 4
# How long a request may be answered when nobody says, in seconds.
REQUEST_S = 60.0
# The refusal of a reply that nobody waits for any more.
NOBODY_WAITS = "unknown_correlation_id"

T = TypeVar("T")


class Calls:
    """The calls of one agent and the replies it waits for."""

    def __init__(
        self, link: Link, instance_id: str, timeout: float, tracing: Tracing, *, repeat_sends: bool
    ) -> None:
        self._link = link
        self.instance_id = instance_id
        self.timeout = timeout
        self.tracing = tracing
        self._repeat_sends = repeat_sends
        self.replies = Replies()
        # Idempotency keys of the library's own: a random beginning and a count.
        self._keys = (f"{secrets.token_hex(8)}-{number:x}" for number in itertools.count())
        self._again = 0

    @property
    def backlog(self) -> int:
        """Calls that wait for a session, for room at the server, or to be made again."""
        session = self._link.current
        return self._link.waiting + self._again + (session.waiting if session is not None else 0)

    def give_up(self, timeout: float | None) -> float:
        """When the time of a call that begins now is over, of the monotonic clock."""
        return time.monotonic() + (self.timeout if timeout is None else checked_timeout(timeout))

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
        self, target: str, message_type: str, data: Payload | None, timeout: float | None, options: Options
    ) -> pb.RequestRequest:
        """The request as the protocol has it."""
        seconds = REQUEST_S if timeout is None else checked_timeout(timeout)
        return pb.RequestRequest(
            target_id=target,
            message_type=message_type,
            data_json=to_json(data),
            timeout_ms=milliseconds(seconds),
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

    async def send(self, request: pb.SendRequest, options: Options, timeout: float | None) -> Sent:
        """Sends a message."""
        keyed = self._keyed(request, options)

        async def once(session: Session, give_up: float) -> pb.SendResponse:
            keyed(session, give_up)
            if session.takes(request):
                return (await session.submit(pb.Submission(send=request), give_up)).send
            return await session.methods.send(request, timeout=_left(give_up))

        with self.tracing.sending("send", request.target_id, request) as operation:
            called = Called("send", request.target_id, request.message_type)
            done = sent(await self.call(once, called, timeout, again=self._again_of(options)))
            operation.accepted(done)
            return done

    async def reply(self, request: pb.ReplyRequest, target: str, timeout: float | None) -> Sent:
        """Replies to a request of ``target``'s. A reply that nobody waits for any more is logged."""

        async def once(session: Session, give_up: float) -> pb.ReplyResponse:
            if session.takes(request):
                return (await session.submit(pb.Submission(reply=request), give_up)).reply
            return await session.methods.reply(request, timeout=_left(give_up))

        correlation_id = request.correlation_id
        called = Called("reply", target, request.message_type)
        with self.tracing.sending("reply", target, request, correlation_id=correlation_id) as operation:
            try:
                done = sent(await self.call(once, called, timeout))
            except Refused as error:
                if error.detail != NOBODY_WAITS:
                    raise
                return too_late(called, error)
            operation.accepted(done)
            return done

    async def request(self, request: pb.RequestRequest, options: Options, timeout: float | None) -> Message:
        """Sends a request and waits for its reply."""
        keyed = self._keyed(request, options)

        async def once(session: Session, give_up: float) -> pb.RequestResponse:
            keyed(session, give_up)
            if session.takes(request):
                return (await session.submit(pb.Submission(request=request), give_up)).request
            return await session.methods.request(request, timeout=_left(give_up))

        called = Called("request", request.target_id, request.message_type)
        give_up = time.monotonic() + request.timeout_ms / 1000
        until_accepted = timeout if timeout is not None else min(self.timeout, REQUEST_S)
        with self.tracing.sending("request", request.target_id, request) as operation:
            self.replies.asking(1)
            try:
                accepted = await self.call(once, called, until_accepted, again=self._again_of(options))
                reply = self.replies.expect(accepted.correlation_id, give_up - time.monotonic())
            finally:
                self.replies.asking(-1)
            acceptance = sent(accepted)
            operation.accepted(acceptance, accepted.correlation_id)
            try:
                message = await self.await_reply(called, acceptance, accepted.correlation_id, reply)
            finally:
                # Nobody else can wait for it.
                reply.cancel()
            operation.answered(message)
            return message

    async def await_reply(
        self, called: Called, accepted: Sent, correlation_id: str, reply: asyncio.Future[Message | Unanswered]
    ) -> Message:
        """The reply, until the time of its request is over, or the server says that none will come."""
        await asyncio.wait((reply,))
        outcome = None if reply.cancelled() else reply.result()
        if outcome is None or isinstance(outcome, Unanswered):
            text, reason = "no reply in time", None
            if outcome is not None:
                reason = outcome.reason
                text = f"no reply will come from {called.target} to {called.message_type!r}: {reason}"
            error = NoReply(
                text,
                message_id=accepted.message_id,
                correlation_id=correlation_id,
                receipt=accepted.receipt,
                reason=reason,
            )
            error.called = called
            raise error
        outcome.asked = accepted
        return outcome

    async def discover(self, capabilities: list[str], timeout: float | None) -> pb.DiscoverResponse:
        """Agents that may be messaged."""
        request = pb.DiscoverRequest(capabilities=capabilities)

        async def once(session: Session, give_up: float) -> pb.DiscoverResponse:
            return await session.methods.discover(request, timeout=_left(give_up))

        return await self.call(once, Called("discover"), timeout, again=_always)

    async def get_state(self, timeout: float | None) -> pb.GetStateResponse:
        """The agent's state."""

        async def once(session: Session, give_up: float) -> pb.GetStateResponse:
            return await session.methods.get_state(pb.GetStateRequest(), timeout=_left(give_up))

        return await self.call(once, Called("get_state"), timeout, again=_always)

    async def update_state(self, request: pb.UpdateStateRequest, timeout: float | None) -> pb.UpdateStateResponse:
        """Sets fields of the state."""

        async def once(session: Session, give_up: float) -> pb.UpdateStateResponse:
            if request.HasField("expected_version"):
                require_versions(session)
            if request.ttl_ms and not session.offers(_wire.TIMES):
                raise Unsupported("this server has no times to live")
            return await session.methods.update_state(request, timeout=_left(give_up))

        return await self.call(once, Called("update_state"), timeout)

    async def reset_state(self, timeout: float | None) -> None:
        """Removes the state."""

        async def once(session: Session, give_up: float) -> pb.ResetStateResponse:
            return await session.methods.reset_state(pb.ResetStateRequest(), timeout=_left(give_up))

        await self.call(once, Called("reset_state"), timeout)

    async def commit(
        self, build: Callable[[], pb.Commit], called: Called, timeout: float | None
    ) -> pb.CommitResponse:
        """All of it or nothing. ``Unsupported`` where the server does not offer it. ``build``: the commit as it is at
        each try, for its message may be delivered anew in between."""
        tries = 0

        async def once(session: Session, give_up: float) -> pb.CommitResponse:
            nonlocal tries
            if not (session.features >= {_wire.SUBMIT, _wire.COMMIT}):
                raise Unsupported("this server has no atomic commit")
            commit = build()
            try:
                return (await session.submit(pb.Submission(commit=commit), give_up)).commit
            except Refused as error:
                tries += 1
                if error.detail == NOT_HELD and commit.delivery_id and tries < NOT_HELD_TRIES:
                    raise _wire.Passing(error) from error
                raise

        return await self.call(once, called, timeout)

    async def call(
        self,
        once: Callable[[Session, float], Awaitable[T]],
        called: Called,
        timeout: float | None,
        *,
        again: Callable[[Session], bool] | None = None,
    ) -> T:
        """Makes a call within its time. ``again``: whether it may be made again after a lost answer."""
        give_up = self.give_up(timeout)
        pause = RETRY_FIRST_S
        unknown: OutcomeUnknown | None = None
        while True:
            failed: MasError
            try:
                session = self._link.current or await self._link.session(give_up)
                if unknown is not None and not (again is not None and again(session)):
                    raise unknown
                return await once(session, give_up)
            except grpc.aio.AioRpcError as error:
                failed = _wire.failure_of_call(error)
            except MasError as error:
                failed = error
            passes = nothing_happened = isinstance(failed, _wire.Passing)
            if isinstance(failed, _wire.Passing):
                failed = failed.error
            wait = pause * random.uniform(0.5, 1.0)
            if isinstance(failed, OutcomeUnknown):
                passes = failed is not unknown and again is not None and again(session)
                unknown = failed
            elif isinstance(failed, Refused) and failed.retry_after is not None:
                wait = max(wait, failed.retry_after)
            if not passes or time.monotonic() + wait >= give_up:
                # What a first try may have done, no later one has undone.
                said_nothing = nothing_happened or isinstance(failed, NotConnected)
                final = unknown if unknown is not None and said_nothing else failed
                final.called = called
                raise final
            self._again += 1
            try:
                await asyncio.sleep(wait)
            finally:
                self._again -= 1
            pause = min(pause * 2, RETRY_LAST_S)

    def _keyed(
        self, request: pb.SendRequest | pb.RequestRequest, options: Options
    ) -> Callable[[Session, float], None]:
        """Before each try: what the server must not get, and a key of the library's own where it knows keys."""
        makes_one = options.idempotency_key is None and self._repeat_sends
        key, window_ms = "", 0

        def prepare(session: Session, give_up: float) -> None:
            nonlocal key, window_ms
            options.require(session)
            if not makes_one:
                return
            if not key:
                key, window_ms = next(self._keys), milliseconds(_left(give_up) + KEY_KEPT_S)
            knows = session.offers(_wire.IDEMPOTENCY)
            request.idempotency_key, request.idempotency_window_ms = (key, window_ms) if knows else ("", 0)

        return prepare

    def _again_of(self, options: Options) -> Callable[[Session], bool] | None:
        """Whether a send or request may be made again after a lost answer: under a key."""
        return _knows_keys if self._repeat_sends or options.idempotency_key is not None else None


def _knows_keys(session: Session) -> bool:
    return session.offers(_wire.IDEMPOTENCY)


def _always(_: Session) -> bool:
    return True


def _left(give_up: float) -> float:
    """Seconds of a unary call; gRPC takes none that is not more than 0."""
    return max(0.001, give_up - time.monotonic())


def sent(response: pb.SendResponse | pb.RequestResponse | pb.ReplyResponse) -> Sent:
    """An acceptance, with its receipt where there is one."""
    receipt = Receipt.read(response.receipt) if response.HasField("receipt") else None
    found = findings(response.findings) if response.findings else ()
    return Sent(response.message_id, receipt, found)


def too_late(called: Called, error: Refused) -> Sent:
    """A reply that nobody waits for any more: worth a line, and nobody's failure."""
    log.warning("%s: nobody waits for it any more, or it was answered before", called)
    return Sent("", error.receipt, late=True)


def require_versions(session: Session) -> None:
    """A server without versions would apply the update in any case."""
    if not session.offers(_wire.VERSIONS):
        raise Unsupported("this server has no versions of the state")


def parse_envelope(text: str) -> dict[str, Any]:
    """The envelope as a mapping; anything else is a fault of the server's."""
    envelope = json.loads(text)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("meta"), dict):
        raise ValueError("an envelope is an object with `meta`")
    return envelope
