"""A few threads for blocking functions, with a bounded line before them. Knows nothing of images or HTTP."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from torchlight.app.errors import Overloaded
from torchlight.app.inference import priority
from torchlight.app.inference.batcher import within

Result = TypeVar("Result")


class Workers:
    """Runs functions off the event loop, at most ``threads`` at a time. Bound to the event loop that runs it.

    A pool of our own, not the event loop's: what waits, waits here and not in the pool, so that a call whose caller
    left before it began is dropped with all it holds. One that has begun keeps its thread until it ends, whoever left,
    so there are never more threads than said.
    """

    def __init__(self, name: str, *, threads: int, queue_size: int) -> None:
        self._pool = ThreadPoolExecutor(threads, name, priority.lower_priority, (priority.COMPUTING,))
        self._idle = asyncio.Semaphore(threads)
        self._limit = threads + queue_size
        self._accepted = 0  # those that wait, and those whose thread is still busy

    async def run(self, deadline: float | None, function: Callable[[], Result]) -> Result:
        """Return what ``function`` returns.

        Args:
            deadline: in the event loop's time; None waits for ever.

        Raises:
            Overloaded: ``queue_size`` calls are waiting.
            DeadlineExceeded: it has not ended when the event loop's time reaches ``deadline``.
        """
        if self._accepted >= self._limit:
            raise Overloaded(f"the queue is full: {self._accepted} calls wait or run; ask again later")
        self._accepted += 1
        async with within(deadline):
            try:
                await self._idle.acquire()
            except BaseException:
                self._accepted -= 1
                raise
            loop, call = asyncio.get_running_loop(), self._pool.submit(function)
            call.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
            return await asyncio.wrap_future(call)

    def close(self) -> None:
        """Wait for the calls that have begun."""
        self._pool.shutdown(cancel_futures=True)

    def _release(self) -> None:
        self._accepted -= 1
        self._idle.release()
