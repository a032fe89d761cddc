"""Plain functions beside the event loop: each in a thread of its own, and the way back for their calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import NotConnected, SetupError

T = TypeVar("T")

# The task of the plain handler that runs in this thread, also in what it has the loop do: it cannot wait for its end.
handler_task: contextvars.ContextVar[asyncio.Task[Any] | None] = contextvars.ContextVar("mas_agent_handling", default=None)
# How often a blocking call looks whether the loop that it waits for has ended, in seconds.
LOOK_S = 1.0


async def in_thread(function: Callable[[], T]) -> T:
    """What the function returns. Whoever is cancelled here leaves the thread behind; it does not keep the process
    alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        failed: BaseException | None = None
        try:
            result = context.run(function)
        except (StopIteration, SystemExit, KeyboardInterrupt) as error:
            # A future takes no StopIteration, and the others would end the loop.
            failed = RuntimeError(f"the function raised {error!r}")
            failed.__cause__ = error
        except BaseException as error:
            failed = error
        try:
            loop.call_soon_threadsafe(settle, result, failed)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.

    threading.Thread(target=run, name="mas-agent handler", daemon=True).start()
    return await done


class Portal:
    """Runs coroutines in an event loop from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What the coroutine returns; it is cancelled when the wait for it is interrupted."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            coroutine.close()
            raise SetupError("a blocking call would stop the event loop that it waits for: use that of mas_agent.Agent")
        if self.loop.is_closed():
            coroutine.close()
            raise NotConnected("the agent is stopped")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            while True:
                try:
                    return future.result(LOOK_S)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        # It may be the coroutine's own.
                        return future.result()
                    if self.loop.is_closed():
                        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                            coroutine.close()
                        raise NotConnected("the agent is stopped") from None
        except BaseException:
            future.cancel()
            raise
