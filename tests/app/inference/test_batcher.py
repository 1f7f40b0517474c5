"""The batcher with a fake function: no network, no HTTP."""

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from torchlight.app.errors import DeadlineExceeded, Overloaded
from torchlight.app.inference.batcher import Answer, Batcher

pytestmark = pytest.mark.anyio


class Squares:
    """Squares its items, keeps the batches it was given, and waits inside while its gate is shut."""

    def __init__(
        self, *, is_open: bool = True, bad_items: Collection[int] = (), error: Exception | None = None
    ) -> None:
        self.batches: list[list[int]] = []
        self.is_running = threading.Event()
        self.gate = threading.Event()
        self.bad_items, self.error = set(bad_items), error
        self.max_at_once = 0
        self._at_once = 0
        if is_open:
            self.gate.set()

    def __call__(self, items: list[int]) -> list[int]:
        self._at_once += 1
        self.max_at_once = max(self.max_at_once, self._at_once)
        self.batches.append(items)
        self.is_running.set()
        assert self.gate.wait(timeout=120)
        self._at_once -= 1
        if bad := self.bad_items.intersection(items):
            raise self.error or ValueError(f"{min(bad)} cannot be squared")
        return [item * item for item in items]

    async def until_running(self) -> None:
        await asyncio.to_thread(self.is_running.wait, 120)


@asynccontextmanager
async def running(squares: Squares, max_batch_size: int = 4, queue_size: int = 8) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(
        squares, max_batch_size=max_batch_size, queue_size=queue_size, device_errors=(MemoryError, ConnectionError)
    )
    batcher.start()
    yield batcher
    squares.gate.set()
    await batcher.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + 120


async def begin(coroutine: Coroutine[Any, Any, Answer[int]]) -> asyncio.Task[Answer[int]]:
    """Return a task that has run up to its first wait."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def test_every_caller_gets_the_answer_to_its_own_item() -> None:
    async with running(Squares(), max_batch_size=32, queue_size=1000) as batcher:
        answers = await asyncio.gather(*(batcher.submit(item, soon()) for item in range(1000)))
    assert [answer.result for answer in answers] == [item * item for item in range(1000)]


async def test_batches_give_the_same_results_as_single_items() -> None:
    async with running(Squares(), max_batch_size=1) as singles, running(Squares(), max_batch_size=8) as batches:
        one_by_one = [(await singles.submit(item, soon())).result for item in range(8)]
        together = await asyncio.gather(*(batches.submit(item, soon()) for item in range(8)))
    assert one_by_one == [answer.result for answer in together]


async def test_an_item_that_comes_to_an_idle_batcher_starts_alone_and_at_once() -> None:
    squares = Squares()
    async with running(squares) as batcher:
        await batcher.submit(1, soon())
        await batcher.submit(2, soon())
    assert squares.batches == [[1], [2]]


async def test_what_waits_while_the_function_runs_becomes_the_next_batches_in_order_of_arrival() -> None:
    squares = Squares(is_open=False)
    async with running(squares, max_batch_size=4) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        rest = [await begin(batcher.submit(item, soon())) for item in range(1, 7)]
        squares.gate.set()
        await asyncio.gather(first, *rest)
    assert squares.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_the_function_never_runs_twice_at_a_time() -> None:
    squares = Squares()
    async with running(squares, max_batch_size=1, queue_size=100) as batcher:
        await asyncio.gather(*(batcher.submit(item, soon()) for item in range(100)))
    assert squares.max_at_once == 1


async def test_one_item_more_than_may_wait_is_refused_at_once_and_the_others_are_answered() -> None:
    squares = Squares(is_open=False)
    async with running(squares, queue_size=2) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        waiting = [await begin(batcher.submit(item, soon())) for item in (1, 2)]
        with pytest.raises(Overloaded, match="the queue is full: 2 wait, 2 may"):
            await batcher.submit(3, soon())
        squares.gate.set()
        answers = await asyncio.gather(first, *waiting)
    assert [answer.result for answer in answers] == [0, 1, 4]


async def test_an_item_whose_deadline_has_passed_is_not_computed() -> None:
    squares = Squares(is_open=False)
    async with running(squares) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(1, deadline=asyncio.get_running_loop().time())
        squares.gate.set()
        await first
    assert squares.batches == [[0]]


async def test_the_item_of_a_caller_who_left_is_not_computed_and_frees_its_place() -> None:
    squares = Squares(is_open=False)
    async with running(squares, queue_size=1) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        leaving = await begin(batcher.submit(1, soon()))
        leaving.cancel()
        await asyncio.wait([leaving])
        second = await begin(batcher.submit(2, soon()))
        squares.gate.set()
        await asyncio.gather(first, second)
    assert squares.batches == [[0], [2]]


async def test_a_caller_who_leaves_while_its_batch_runs_does_not_disturb_the_others() -> None:
    squares = Squares(is_open=False)
    async with running(squares) as batcher:
        leaving = await begin(batcher.submit(3, soon()))
        await squares.until_running()
        leaving.cancel()
        staying = await begin(batcher.submit(4, soon()))
        squares.gate.set()
        assert (await staying).result == 16


async def test_only_the_bad_item_of_a_failing_batch_fails() -> None:
    squares = Squares(is_open=False, bad_items=[2])
    async with running(squares) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        rest = [await begin(batcher.submit(item, soon())) for item in (1, 2, 3)]
        squares.gate.set()
        one, two, three = await asyncio.gather(*rest, return_exceptions=True)
        await first
    assert isinstance(one, Answer)
    assert isinstance(two, ValueError)
    assert isinstance(three, Answer)
    assert (one.result, str(two), three.result) == (1, "2 cannot be squared", 9)


async def answers_of_one_batch(squares: Squares, size: int) -> list[Answer[int] | BaseException]:
    """Return what the callers of the items 1 to ``size`` get, which wait for item 0 and then are one batch."""
    async with running(squares, max_batch_size=size, queue_size=size) as batcher:
        first = await begin(batcher.submit(0, soon()))
        await squares.until_running()
        rest = [await begin(batcher.submit(item, soon())) for item in range(1, size + 1)]
        squares.gate.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)


@pytest.mark.parametrize(("size", "bad_item"), [(3, 3), (5, 5), (7, 4), (16, 5), (32, 1), (32, 32), (32, 20)])
async def test_one_bad_item_of_many_costs_two_runs_for_each_halving(size: int, bad_item: int) -> None:
    squares = Squares(is_open=False, bad_items=[bad_item])
    answers = await answers_of_one_batch(squares, size)
    assert [type(answer) for answer in answers].count(Answer) == size - 1
    assert isinstance(answers[bad_item - 1], ValueError)
    extra = len(squares.batches) - 2  # item 0, and the batch that failed
    assert extra <= 2 * math.ceil(math.log2(size))


async def test_each_of_four_bad_items_fails_alone() -> None:
    squares = Squares(is_open=False, bad_items=[3, 11, 19, 27])
    answers = await answers_of_one_batch(squares, 32)
    bad = [item for item, answer in enumerate(answers, 1) if isinstance(answer, ValueError)]
    assert bad == [3, 11, 19, 27]


async def test_no_good_item_fails_however_many_are_bad() -> None:
    squares = Squares(is_open=False, bad_items=range(4, 33, 4))
    answers = await answers_of_one_batch(squares, 32)
    assert [isinstance(answer, ValueError) for answer in answers] == [item % 4 == 0 for item in range(1, 33)]


async def test_a_batch_of_bad_items_costs_fewer_than_two_runs_an_item() -> None:
    squares = Squares(is_open=False, bad_items=range(1, 33))
    answers = await answers_of_one_batch(squares, 32)
    assert all(isinstance(answer, ValueError) for answer in answers)
    assert len(squares.batches) - 1 < 2 * 32


@pytest.mark.parametrize("error", [MemoryError("no room"), ConnectionResetError("the device is gone")])
async def test_an_error_of_the_device_fails_the_whole_batch_at_once(error: Exception) -> None:
    squares = Squares(is_open=False, bad_items=[7], error=error)
    assert await answers_of_one_batch(squares, 32) == [error] * 32
    assert len(squares.batches) == 2


async def test_a_function_that_returns_too_few_results_is_an_error_and_not_a_hang() -> None:
    batcher: Batcher[int, int] = Batcher(lambda _items: [], max_batch_size=4, queue_size=8)
    batcher.start()
    with pytest.raises(ValueError, match="shorter"):
        await batcher.submit(1, soon())
    await batcher.close()


async def test_many_items_are_accepted_together_or_not_at_all() -> None:
    squares = Squares(bad_items=[2])
    async with running(squares, queue_size=3) as batcher:
        with pytest.raises(Overloaded):
            await batcher.submit_all([1, 2, 3, 4], soon())
        one, two, three = await batcher.submit_all([1, 2, 3], soon())
    assert isinstance(one, Answer)
    assert isinstance(two, ValueError)
    assert isinstance(three, Answer)
    assert 4 not in [item for batch in squares.batches for item in batch]


class Payload:
    """Something large that an item holds, such as an upload."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> None:
        self.calls += 1


@asynccontextmanager
async def running_calls() -> AsyncIterator[Batcher[Callable[[], Any], Any]]:
    """Run functions one at a time, as the service does with views; one may wait."""
    calls: Batcher[Callable[[], Any], Any] = Batcher(
        lambda items: [item() for item in items], max_batch_size=1, queue_size=1
    )
    calls.start()
    yield calls
    await calls.close()


async def test_an_item_past_its_deadline_is_dropped_with_what_it_holds() -> None:
    gate, payload = threading.Event(), Payload()
    held = weakref.ref(payload)
    async with running_calls() as calls:
        first = await begin(calls.submit(lambda: gate.wait(120), soon()))
        await asyncio.sleep(0)
        now = asyncio.get_running_loop().time()
        for _ in range(5):  # each gives its place back
            outcomes = await asyncio.gather(calls.submit(payload.call, now), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [DeadlineExceeded]
        count = payload.calls
        del payload, outcomes
        await asyncio.sleep(0)  # the event loop drops the last outcome
        gc.collect()
        is_dropped = held() is None
        gate.set()
        await first
        assert (await calls.submit(lambda: "in time", soon())).result == "in time"
    assert (count, is_dropped) == (0, True)


async def test_an_item_whose_caller_left_keeps_the_thread_until_it_ends() -> None:
    gate, has_begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(has_begun.set)
        gate.wait(120)

    async with running_calls() as calls:
        first = await begin(calls.submit(slow, soon()))
        await has_begun.wait()
        first.cancel()
        await asyncio.wait([first])
        second = await begin(calls.submit(lambda: "second", soon()))
        with pytest.raises(Overloaded, match="1 wait, 1 may"):
            await calls.submit(lambda: "third", soon())
        gate.set()
        assert (await second).result == "second"


async def test_an_error_of_one_item_reaches_its_caller() -> None:
    async with running_calls() as calls:
        with pytest.raises(ZeroDivisionError):
            await calls.submit(lambda: 1 // 0, soon())


async def test_closing_answers_what_was_accepted_and_refuses_what_comes_later() -> None:
    squares = Squares(is_open=False)
    async with running(squares, max_batch_size=1) as batcher:
        accepted = [await begin(batcher.submit(item, soon())) for item in range(5)]
        await squares.until_running()
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="stopping"):
            await batcher.submit(5, soon())
        squares.gate.set()
        answers = await asyncio.gather(*accepted)
        await closing
    assert [answer.result for answer in answers] == [0, 1, 4, 9, 16]


async def test_items_accepted_before_the_start_are_answered_also_when_it_closes_at_once() -> None:
    batcher = Batcher(Squares(), max_batch_size=4, queue_size=8)
    early = await begin(batcher.submit(3, soon()))
    batcher.start()
    await batcher.close()
    assert (await early).result == 9
