"""SIGINT and SIGTERM: the first asks for a stop, the second ends the process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable

log = logging.getLogger("mas_agent")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def until_signal(life: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]) -> None:
    """Runs ``life`` to its end or to a signal, and ``stop`` after it in any case."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask(number: int) -> None:
        if asked.is_set():
            # The way the process would have ended without this handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.set()

    handled = []
    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, ask, number)
            handled.append(number)
        except (NotImplementedError, RuntimeError, ValueError) as error:
            # Windows, or not the main thread: there the program itself has to stop the agent.
            log.debug("no handler of signal %s: %s", number, error)
    living = asyncio.ensure_future(life())
    stopping = asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((living, stopping), return_when=asyncio.FIRST_COMPLETED)
        was_over = living.done()
        if not was_over:
            living.cancel()
            await asyncio.wait((living,))
        await stop()
        if was_over:
            living.result()
    finally:
        stopping.cancel()
        if not living.done():
            living.cancel()
        await asyncio.gather(living, stopping, return_exceptions=True)
        for number in handled:
            loop.remove_signal_handler(number)
