"""An event loop in a thread of its own, for an agent that blocks."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from .._threads import Portal

log = logging.getLogger("mas_agent")

# How long what was cancelled may take to end when the loop ends, and the thread after that; seconds.
CANCEL_S = 1.0
JOIN_S = 3.0


class LoopThread:
    """The loop, from here to :meth:`end`. It does not keep the process alive."""

    def __init__(self) -> None:
        self.portal = Portal(asyncio.new_event_loop())
        self._thread = threading.Thread(target=_run, args=(self.portal.loop,), name="mas-agent", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends the loop with all that is left in it."""
        try:
            self.portal.loop.call_soon_threadsafe(self.portal.loop.stop)
        except RuntimeError:
            pass  # It has ended already.
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            log.warning("the agent's thread did not end within %s s: something blocks its event loop", JOIN_S)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt) as error:
        log.error("a coroutine raised %r, which ends the agent's event loop", error, exc_info=error)
    finally:
        try:
            loop.run_until_complete(_cancelled(asyncio.all_tasks(loop)))
        finally:
            loop.close()


async def _cancelled(left: set[asyncio.Task[Any]]) -> None:
    """Cancels what is left, so that nobody waits for it for ever."""
    for task in left:
        task.cancel()
    if left:
        _, stubborn = await asyncio.wait(left, timeout=CANCEL_S)
        if stubborn:
            log.warning("%d tasks go on although they were cancelled", len(stubborn))
    await asyncio.get_running_loop().shutdown_asyncgens()
