"""One Transport stream: events go out in batches, submissions get their results."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable

import grpc.aio

from . import _wire
from ._proto import runtime_pb2 as pb
from .errors import NotConnected, OutcomeUnknown, SetupError

# Submissions without an answer, whatever more the server allows.
MAX_SUBMISSIONS = 256
# Submissions or acknowledgements in one event.
MAX_BATCH = 64
# Bytes of submissions in one event, where the server takes that much. What is longer goes the unary way.
MAX_BATCH_BYTES = 64 * 1024
# Bytes of one event where the server does not say; a longer one would end the stream. A commit has no other way.
MAX_EVENT_BYTES = 1024 * 1024
# Bytes that an event has around its submissions, at most: lengths, tags, references.
AROUND_BYTES = 2048

FEATURES = (_wire.SUBMIT, _wire.DELIVERIES, _wire.REQUEST_FAILED)


class Session:
    """A stream from its Welcome to its end. What it sends is bounded by the server's credit for deliveries and
    by ``MAX_SUBMISSIONS``."""

    def __init__(
        self,
        methods: _wire.Methods,
        call: _wire.Stream,
        welcome: pb.Welcome,
        deliver: Callable[[pb.Delivery], None],
        unanswered: Callable[[pb.RequestFailed], None],
    ) -> None:
        self.methods = methods
        self.agent_id: str = welcome.agent_id
        self.features = frozenset(welcome.features)
        self.waiting = 0
        """Submissions that wait for room."""
        self._call = call
        self._deliver = deliver
        self._unanswered = unanswered
        self._acks: deque[str] = deque()
        self._nacks: deque[pb.Nack] = deque()
        self._submissions: deque[pb.Submission] = deque()
        self._wake = asyncio.Event()
        # Whether everything has been handed to the stream.
        self._idle = asyncio.Event()
        self._idle.set()
        self._ended = False
        self._references = itertools.count(1)
        self._results: dict[int, asyncio.Future[pb.SubmissionResult]] = {}
        allowed = welcome.max_submissions or MAX_SUBMISSIONS
        self._slots = asyncio.Semaphore(min(allowed, MAX_SUBMISSIONS))
        self._max_event_bytes = welcome.max_event_bytes or MAX_EVENT_BYTES
        self._batch_bytes = min(MAX_BATCH_BYTES, self._max_event_bytes - AROUND_BYTES)

    def offers(self, any_of: frozenset[str]) -> bool:
        """Whether the server lists one of these."""
        return not self.features.isdisjoint(any_of)

    def ack(self, delivery_id: str) -> None:
        """Tells the server that a delivery was handled."""
        self._acks.append(delivery_id)
        self._wake_writer()

    def nack(self, delivery_id: str, reason: str, retryable: bool, retry_after_ms: int = 0) -> None:
        """Tells the server that a delivery was not handled."""
        self._nacks.append(
            pb.Nack(delivery_id=delivery_id, reason=reason, retryable=retryable, retry_after_ms=retry_after_ms)
        )
        self._wake_writer()

    def takes(self, request: pb.SendRequest | pb.RequestRequest | pb.ReplyRequest) -> bool:
        """Whether the call can be made on the stream."""
        return _wire.SUBMIT in self.features and request.ByteSize() <= self._batch_bytes

    async def submit(self, submission: pb.Submission, give_up: float) -> pb.SubmissionResult:
        """Makes a call on the stream, until ``give_up`` (of the monotonic clock). Raises what the failure means."""
        await self._room(give_up)
        if self._ended:
            self._slots.release()
            raise _wire.Passing(NotConnected("the session has ended"))
        reference = next(self._references)
        submission.reference = reference
        try:
            self._require_fits(submission)
        except SetupError:
            self._slots.release()
            raise
        result: asyncio.Future[pb.SubmissionResult] = asyncio.get_running_loop().create_future()
        # The server counts a submission until it has answered, also when nobody waits for that any more.
        result.add_done_callback(self._answered)
        self._results[reference] = result
        self._submissions.append(submission)
        self._wake_writer()
        try:
            await asyncio.wait((result,), timeout=max(0.0, give_up - time.monotonic()))
        finally:
            if not result.done() and self._withdrawn(submission):
                del self._results[reference]
                result.cancel()
        if result.cancelled():
            raise NotConnected("it was not sent in time")
        if not result.done():
            raise OutcomeUnknown("no answer in time")
        answer = result.result()
        if answer.WhichOneof("outcome") == "failure":
            raise _wire.failure_of_submission(answer.failure)
        return answer

    async def run(self) -> None:
        """Reads until the stream ends; raises the status of a stream that was ended with an error."""
        writer = asyncio.create_task(self._write())
        try:
            while True:
                event = await self._call.read()
                if event is grpc.aio.EOF:
                    return
                self._event(event)
        finally:
            self._ended = True
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            for submission in self._submissions:
                unsent = self._results.pop(submission.reference)
                unsent.set_exception(_wire.Passing(NotConnected("the session ended before it was sent")))
            self._submissions.clear()
            for result in self._results.values():
                result.set_exception(OutcomeUnknown("the session ended before the answer"))
            self._results.clear()

    async def flushed(self) -> None:
        """Returns when everything has been handed to the stream."""
        if not self._ended:
            await self._idle.wait()

    async def _room(self, give_up: float) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        self.waiting += 1
        try:
            await asyncio.wait_for(self._slots.acquire(), max(0.0, give_up - time.monotonic()))
        except asyncio.TimeoutError:
            raise NotConnected("the server has no room for another call") from None
        finally:
            self.waiting -= 1

    def _require_fits(self, submission: pb.Submission) -> None:
        """A commit is as long as its program makes it. All else goes the unary way before it is too long."""
        if submission.ByteSize() <= self._batch_bytes:
            return
        size = pb.ClientEvent(submit=pb.Submit(submissions=[submission])).ByteSize()
        if size > self._max_event_bytes:
            raise SetupError(f"{size} bytes, and the server takes at most {self._max_event_bytes}")

    def _withdrawn(self, submission: pb.Submission) -> bool:
        """Takes back what has not been sent yet."""
        for index, one in enumerate(self._submissions):
            if one is submission:
                del self._submissions[index]
                return True
        return False

    def _wake_writer(self) -> None:
        self._idle.clear()
        self._wake.set()

    def _answered(self, result: asyncio.Future[pb.SubmissionResult]) -> None:
        self._slots.release()
        if not result.cancelled():
            # Nobody may wait for it any more.
            result.exception()

    def _event(self, event: pb.ServerEvent) -> None:
        kind = event.WhichOneof("event")
        if kind == "delivery":
            self._deliver(event.delivery)
        elif kind == "deliveries":
            for delivery in event.deliveries.deliveries:
                self._deliver(delivery)
        elif kind == "results":
            for answer in event.results.results:
                result = self._results.pop(answer.reference, None)
                if result is not None and not result.done():
                    result.set_result(answer)
        elif kind == "request_failed":
            self._unanswered(event.request_failed)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (event := self._next()) is not None:
                    await self._call.write(event)
                self._idle.set()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The stream is over; its reader says so.
            pass
        finally:
            self._idle.set()

    def _next(self) -> pb.ClientEvent | None:
        if self._nacks:
            return pb.ClientEvent(nack=self._nacks.popleft())
        if self._acks:
            if _wire.ACKS not in self.features:
                return pb.ClientEvent(ack=pb.Ack(delivery_id=self._acks.popleft()))
            count = min(len(self._acks), MAX_BATCH)
            return pb.ClientEvent(acks=pb.Acks(delivery_ids=[self._acks.popleft() for _ in range(count)]))
        if self._submissions:
            return pb.ClientEvent(submit=pb.Submit(submissions=self._next_submissions()))
        return None

    def _next_submissions(self) -> list[pb.Submission]:
        taken = [self._submissions.popleft()]
        room = self._batch_bytes - taken[0].ByteSize()
        while self._submissions and len(taken) < MAX_BATCH:
            room -= self._submissions[0].ByteSize()
            if room < 0:
                break
            taken.append(self._submissions.popleft())
        return taken
