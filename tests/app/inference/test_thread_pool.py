"""The bounded threads, and the work that stops when its client leaves."""

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from torchlight.app.api.disconnect import while_connected
from torchlight.app.errors import DeadlineExceeded, Overloaded
from torchlight.app.inference.thread_pool import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    one = Workers("test", threads=1, queue_size=1)
    yield one
    one.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + 120


async def test_a_call_more_than_may_wait_is_refused_at_once(workers: Workers) -> None:
    gate = threading.Event()
    accepted = [asyncio.create_task(workers.run(soon(), lambda: gate.wait(120))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await workers.run(soon(), lambda: True)
    gate.set()
    assert await asyncio.gather(*accepted) == [True, True]
    assert await workers.run(soon(), lambda: "there is room again") == "there is room again"


class Payload:
    """Something large that a call holds, such as an upload."""

    def __init__(self) -> None:
        self.calls = 0

    def call(self) -> None:
        self.calls += 1


async def test_a_call_that_has_not_begun_at_its_deadline_is_dropped_with_what_it_holds(workers: Workers) -> None:
    gate, payload = threading.Event(), Payload()
    held = weakref.ref(payload)
    first = asyncio.create_task(workers.run(soon(), lambda: gate.wait(120)))
    await asyncio.sleep(0)
    now = asyncio.get_running_loop().time()
    for _ in range(5):  # each gives its place back
        outcomes = await asyncio.gather(workers.run(now, payload.call), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DeadlineExceeded]
    calls = payload.calls
    del payload, outcomes
    await asyncio.sleep(0)  # the event loop lets go of the last outcome
    gc.collect()
    is_dropped = held() is None
    gate.set()
    await first
    assert await workers.run(soon(), lambda: "in time") == "in time"
    assert (calls, is_dropped) == (0, True)


async def test_a_call_past_its_deadline_counts_until_its_thread_is_free(workers: Workers) -> None:
    gate, has_begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(has_begun.set)
        gate.wait(120)

    first = asyncio.create_task(workers.run(soon(), slow))
    await has_begun.wait()
    first.cancel()
    await asyncio.wait([first])
    second = asyncio.create_task(workers.run(soon(), lambda: "second"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 calls wait or run"):
        await workers.run(soon(), lambda: "third")
    gate.set()
    assert await second == "second"


async def test_an_error_in_the_thread_reaches_the_caller(workers: Workers) -> None:
    with pytest.raises(ZeroDivisionError):
        await workers.run(soon(), lambda: 1 // 0)


def request_of(messages: "asyncio.Queue[Message]") -> Request:
    return Request({"type": "http"}, messages.get)


async def test_work_is_cancelled_when_the_client_leaves() -> None:
    messages: asyncio.Queue[Message] = asyncio.Queue()
    was_cancelled = asyncio.Event()

    async def work() -> None:
        await messages.put({"type": "http.request", "body": b""})  # a server may repeat the end of the body
        await messages.put({"type": "http.disconnect"})
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    with pytest.raises(ClientDisconnect):
        await while_connected(request_of(messages), work())
    async with asyncio.timeout(120):
        await was_cancelled.wait()


async def test_work_for_a_client_who_stays_is_done_and_nothing_is_left_running() -> None:
    async def work() -> str:
        return "done"

    before = asyncio.all_tasks()
    assert await while_connected(request_of(asyncio.Queue()), work()) == "done"
    async with asyncio.timeout(120):
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
