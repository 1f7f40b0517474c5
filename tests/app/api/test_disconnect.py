"""Work that stops when its client leaves."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from torchlight.app.api.disconnect import while_connected

pytestmark = pytest.mark.anyio


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
