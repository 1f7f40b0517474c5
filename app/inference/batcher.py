"""Single items in, batches computed: one bounded queue before one plain function. Knows neither torch nor HTTP.

The contract:

- ``run_batch`` runs in one thread of its own, never twice at a time. When it is free it gets all that waits, at most
  ``max_batch_size`` items. There is no timer: an item that comes to an idle batcher starts at once.
- At most ``queue_size`` items wait. One more is refused at once with :class:`Overloaded`.
- Items whose caller has left, or whose deadline has passed, are not computed.
- When a batch fails, its halves are computed, and theirs, so that only a bad item's caller sees the error. That takes
  at most 2 * ceil(log2(size)) more runs for one bad item, and fewer than 2 * size however many there are.
- An error of the device is not isolated: all items of the batch that have no answer yet fail with it at once.
- :meth:`Batcher.close` refuses new items and returns when all accepted ones are answered.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from torchlight.app.errors import DeadlineExceeded, Overloaded
from torchlight.app.inference import priority

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """One item's result, and how it came to it.

    Attributes:
        queue_s: seconds that this item waited.
        run_s, started, batch_size: of the batch it was computed in: seconds, begin by ``perf_counter``, items.
    """

    result: Result
    queue_s: float
    run_s: float
    started: float
    batch_size: int


@dataclass(frozen=True)
class _Waiting(Generic[Item]):
    item: Item
    since: float


_Batch = dict[asyncio.Future[Answer[Result]], _Waiting[Item]]


class Batcher(Generic[Item, Result]):
    """See the module's docstring. Bound to the event loop in which :meth:`start` is called.

    Args:
        device_errors: exceptions of ``run_batch`` that have nothing to do with its items, such as memory running out.
    """

    def __init__(
        self,
        run_batch: Callable[[list[Item]], Sequence[Result]],
        *,
        max_batch_size: int,
        queue_size: int,
        device_errors: tuple[type[Exception], ...] = (MemoryError,),
        thread_name: str = "inference",
    ) -> None:
        self._run_batch = run_batch
        self._device_errors = device_errors
        self._max_batch_size = max_batch_size
        self._queue_size = queue_size
        # In order of arrival. A future that is done removes itself in the event loop's next turn.
        self._queue: _Batch[Result, Item] = {}
        self._wake = asyncio.Event()
        self._is_closing = False
        self._thread = ThreadPoolExecutor(1, thread_name, priority.lower_priority, (priority.COMPUTING,))
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return len(self._queue)

    def start(self) -> None:
        """Begin to compute; items submitted earlier have waited."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Refuse new items, answer those accepted, stop the thread."""
        self._is_closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def submit(self, item: Item, deadline: float | None) -> Answer[Result]:
        """Return the item's answer.

        Args:
            item: what ``run_batch`` gets among others.
            deadline: in the event loop's time; None waits for ever.

        Raises:
            Overloaded, DeadlineExceeded: see the contract. Else, what ``run_batch`` raises for this item or the device.
        """
        (future,) = self._enqueue([item])
        return await _answer_before(deadline, future)

    async def submit_all(self, items: Sequence[Item], deadline: float) -> list[Answer[Result] | BaseException]:
        """Return for each item its answer, or the error that :meth:`submit` would raise.

        Raises:
            Overloaded: there is no room for all of them; then none is computed.
        """
        futures = self._enqueue(items)
        try:
            answers = (_answer_before(deadline, future) for future in futures)
            return await asyncio.gather(*answers, return_exceptions=True)
        finally:
            for future in futures:
                future.cancel()

    def _enqueue(self, items: Sequence[Item]) -> list[asyncio.Future[Answer[Result]]]:
        if self._is_closing:
            raise Overloaded("the service is stopping; ask again in a moment")
        if self.waiting + len(items) > self._queue_size:
            raise Overloaded(f"the queue is full: {self.waiting} wait, {self._queue_size} may; ask again later")
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        futures: list[asyncio.Future[Answer[Result]]] = [loop.create_future() for _ in items]
        for future, item in zip(futures, items, strict=True):
            self._queue[future] = _Waiting(item, now)
            future.add_done_callback(lambda done: self._queue.pop(done, None))
        self._wake.set()
        return futures

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._take_batch():
                await self._answer_batch(batch)
            if self._is_closing:
                return

    def _take_batch(self) -> _Batch[Result, Item]:
        awaited = (future for future in self._queue if not future.done())
        return {future: self._queue.pop(future) for future in list(islice(awaited, self._max_batch_size))}

    async def _answer_batch(self, batch: _Batch[Result, Item]) -> None:
        """Compute a batch; if it fails, by halves, until each error is that of one item."""
        parts = [batch]
        while parts:
            part = {future: waiting for future, waiting in parts.pop().items() if not future.done()}
            if not part:
                continue
            try:
                await self._compute(part)
            except self._device_errors as error:
                _fail([part, *parts], error)
                return
            except Exception as error:
                if len(part) == 1:
                    _fail([part], error)
                else:
                    entries, middle = list(part.items()), len(part) // 2
                    parts += [dict(entries[middle:]), dict(entries[:middle])]

    async def _compute(self, batch: _Batch[Result, Item]) -> None:
        started = time.perf_counter()
        items = [waiting.item for waiting in batch.values()]
        results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run_batch, items)
        run_s = time.perf_counter() - started
        for (future, waiting), result in list(zip(batch.items(), results, strict=True)):
            if not future.done():
                future.set_result(Answer(result, started - waiting.since, run_s, started, len(batch)))


def _fail(parts: Sequence[_Batch[Result, Item]], error: Exception) -> None:
    for part in parts:
        for future in part:
            if not future.done():
                future.set_exception(error)


async def _answer_before(deadline: float | None, future: asyncio.Future[Answer[Result]]) -> Answer[Result]:
    async with within(deadline):
        return await future


@asynccontextmanager
async def within(deadline: float | None) -> AsyncIterator[None]:
    """Cancel the block when the event loop's time reaches ``deadline``; None waits for ever.

    Raises:
        DeadlineExceeded: it was cancelled for that.
    """
    timeout = asyncio.timeout_at(deadline)
    try:
        async with timeout:
            yield
    except TimeoutError as error:
        if timeout.expired():
            raise DeadlineExceeded("the answer was not ready in time; ask again later") from error
        raise
