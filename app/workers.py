"""A few threads for blocking functions, with a bounded line before them. Knows nothing of images or HTTP."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from app.batcher import Overloaded, within

Result = TypeVar("Result")


class Workers:
    """Runs functions off the event loop, at most ``threads`` at a time.

    A pool of our own, not the event loop's: a call whose caller left before it began is dropped, and one that has begun
    keeps its thread busy until it ends, so there are never more threads than said.
    """

    def __init__(self, name: str, *, threads: int, queue_size: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._limit = threads + queue_size
        self._accepted = 0

    async def run(self, deadline: float, function: Callable[[], Result]) -> Result:
        """Return what ``function`` returns.

        Raises:
            Overloaded: ``queue_size`` calls are waiting.
            DeadlineExceeded: it has not ended when the event loop's time reaches ``deadline``.
        """
        if self._accepted >= self._limit:
            raise Overloaded(f"the queue is full: {self._accepted} calls wait or run; ask again later")
        self._accepted += 1
        try:
            async with within(deadline):
                return await asyncio.get_running_loop().run_in_executor(self._pool, function)
        finally:
            self._accepted -= 1

    def close(self) -> None:
        """Wait for the calls that have begun."""
        self._pool.shutdown(cancel_futures=True)
