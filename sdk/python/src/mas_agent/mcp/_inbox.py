"""Messages that came for this agent and were not looked at yet."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from dataclasses import dataclass

from ..errors import Refused
from ..message import Message

# Messages that are ready to be looked at. What comes beyond stays with the server until there is room.
INBOX = 50
# Messages that were looked at and can still be replied to, and the bytes of their payloads.
SHOWN = 500
SHOWN_BYTES = 8 * 1024 * 1024
# Payloads that one look shows, in bytes; one message is shown however long it is.
LOOK_BYTES = 256 * 1024
# A message that was shown is acknowledged at the client's next look or reply, or after so many seconds.
CONFIRM_S = 2.0
# After how long a message comes again that nobody had looked at when this process ended, in seconds.
RELEASED_S = 5.0


@dataclass(frozen=True)
class Entry:
    """A message and what ends the handling of it."""

    message: Message
    size: int
    seen: asyncio.Future[None]


class Inbox:
    """Holds messages until they are shown. A message that nobody has looked at is not acknowledged: when this process
    ends it is still at the server."""

    def __init__(self) -> None:
        self._unread: deque[Entry] = deque()
        # Shown, where the client has not come back since: it may not have got them.
        self._unconfirmed: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._shown: OrderedDict[str, Entry] = OrderedDict()
        self._shown_bytes = 0
        self._arrived = asyncio.Event()
        self._released = False

    @property
    def unread(self) -> int:
        """Messages that wait to be looked at."""
        return len(self._unread)

    async def take(self, message: Message) -> None:
        """The handler of all messages: returns, and so acknowledges, when the message was seen."""
        if self._released:
            raise _later()
        size = len(json.dumps(message.data))
        entry = Entry(message, size, asyncio.get_running_loop().create_future())
        self._unread.append(entry)
        self._arrived.set()
        try:
            await entry.seen
        finally:
            if entry in self._unread:
                # Given up: the agent stops.
                self._unread.remove(entry)

    async def wait(self, seconds: float) -> None:
        """Returns when there is something to look at, and after this time at the latest."""
        if self._unread or seconds <= 0:
            return
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), seconds)
        except asyncio.TimeoutError:
            pass  # Nothing came.

    def confirm(self) -> None:
        """The client has got what was shown: it is acknowledged."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for entry in self._unconfirmed:
            if not entry.seen.done():
                entry.seen.set_result(None)
        self._unconfirmed.clear()

    def release(self) -> None:
        """Gives everything back that is not confirmed: it comes to the next process, and this was no attempt of it."""
        self._released = True
        if self._timer is not None:
            self._timer.cancel()
        for entry in (*self._unconfirmed, *self._unread):
            if not entry.seen.done():
                entry.seen.set_exception(_later())
        self._unconfirmed.clear()
        self._unread.clear()

    def show(self, limit: int) -> list[Message]:
        """The oldest ones."""
        messages: list[Message] = []
        room = LOOK_BYTES
        while self._unread and len(messages) < limit:
            room -= self._unread[0].size
            if room < 0 and messages:
                break
            entry = self._unread.popleft()
            if entry.seen.done():
                continue
            messages.append(entry.message)
            self._unconfirmed.append(entry)
            self._remember(entry)
        if messages and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(CONFIRM_S, self.confirm)
        return messages

    def _remember(self, entry: Entry) -> None:
        before = self._shown.pop(entry.message.id, None)
        self._shown[entry.message.id] = entry
        self._shown_bytes += entry.size - (before.size if before is not None else 0)
        while len(self._shown) > 1 and (len(self._shown) > SHOWN or self._shown_bytes > SHOWN_BYTES):
            self._shown_bytes -= self._shown.popitem(last=False)[1].size

    def last_shown(self, count: int) -> list[Message]:
        """The last ones that were shown, oldest first."""
        messages: list[Message] = []
        room = LOOK_BYTES
        for entry in reversed(self._shown.values()):
            room -= entry.size
            if len(messages) == count or (room < 0 and messages):
                break
            messages.append(entry.message)
        return messages[::-1]

    def shown(self, message_id: str) -> Message | None:
        """A message that was looked at."""
        entry = self._shown.get(message_id)
        return entry.message if entry is not None else None


def _later() -> Refused:
    """Nobody's failure: the message comes again."""
    return Refused("UNAVAILABLE", "target_offline", retry_after=RELEASED_S)
