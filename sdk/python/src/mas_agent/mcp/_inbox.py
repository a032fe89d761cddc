"""Messages that came for this agent and were not looked at yet."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from ..message import Message

# Messages that are ready to be looked at. What comes beyond stays with the server until there is room.
INBOX = 50
# Messages that were looked at and can still be replied to.
SHOWN = 500


class Inbox:
    """Holds messages until they are shown. A message that nobody has looked at is not acknowledged: when this process
    ends it is still at the server."""

    def __init__(self) -> None:
        self._unread: deque[tuple[Message, asyncio.Future[None]]] = deque()
        self._shown: OrderedDict[str, Message] = OrderedDict()
        self._arrived = asyncio.Event()

    @property
    def unread(self) -> int:
        """Messages that wait to be looked at."""
        return len(self._unread)

    async def take(self, message: Message) -> None:
        """The handler of all messages: returns, and so acknowledges, when the message was shown."""
        shown: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (message, shown)
        self._unread.append(entry)
        self._arrived.set()
        try:
            await shown
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

    def show(self, limit: int) -> list[Message]:
        """The oldest ones, which are acknowledged now."""
        messages: list[Message] = []
        while self._unread and len(messages) < limit:
            message, shown = self._unread.popleft()
            if shown.done():
                continue
            shown.set_result(None)
            messages.append(message)
            self._shown[message.id] = message
            if len(self._shown) > SHOWN:
                self._shown.popitem(last=False)
        return messages

    def last_shown(self, count: int) -> list[Message]:
        """The last ones that were shown, oldest first."""
        return list(self._shown.values())[-count:] if count else []

    def shown(self, message_id: str) -> Message | None:
        """A message that was looked at."""
        return self._shown.get(message_id)
