"""The bounds of bodies: size, pace, and what all of them hold together."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from torchlight.app.errors import BodyTooLarge, Overloaded, UploadTooSlow
from torchlight.app.middleware import body_limits
from torchlight.app.middleware.body_limits import BodyLimits
from torchlight.app.settings import Settings

pytestmark = pytest.mark.anyio
SETTINGS = Settings(max_body_bytes=1_000, max_bytes_in_flight=1_500, upload_timeout_s=0.05)


class Client:
    """Sends what it is told to, then waits."""

    def __init__(self, *pieces: bytes, ends: bool = True, declares: str | None = None) -> None:
        self._messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        self._messages += [{"type": "http.request", "body": b"", "more_body": False}] * ends
        headers = [] if declares is None else [(b"content-length", declares.encode())]
        self.scope: Scope = {"type": "http", "headers": headers}

    async def receive(self) -> Message:
        if not self._messages:
            await asyncio.Event().wait()
        return self._messages.pop(0)


async def send(_: Message) -> None:
    raise AssertionError("the middleware answers nothing itself")


async def read(receive: Receive) -> int:
    """Return how many bytes come."""
    received, more = 0, True
    while more:
        message = await receive()
        received, more = received + len(message["body"]), message["more_body"]
    return received


def guarded(act: Callable[[Receive], Awaitable[Any]]) -> BodyLimits:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await act(receive)

    return BodyLimits(application, SETTINGS)


async def run(middleware: BodyLimits, client: Client) -> None:
    await middleware(client.scope, client.receive, send)


async def test_a_body_as_large_as_the_limit_comes_whole() -> None:
    lengths = []

    async def keep(receive: Receive) -> None:
        lengths.append(await read(receive))

    await run(guarded(keep), Client(bytes(600), bytes(400)))
    assert lengths == [1_000]


@pytest.mark.parametrize(
    "client",
    [
        Client(bytes(600), bytes(401)),
        Client(bytes(5_000), declares="1"),
        Client(declares="1001"),
        Client(declares="9" * 5_000),
    ],
    ids=["undeclared", "declared too small", "declared", "declared beyond any number"],
)
async def test_a_body_over_the_limit_is_refused(client: Client) -> None:
    middleware = guarded(read)
    with pytest.raises(BodyTooLarge, match="1000"):
        await run(middleware, client)
    assert middleware.held == 0


async def test_a_body_that_nobody_reads_is_nobodys_concern() -> None:
    async def ignore(receive: Receive) -> None:
        pass

    await run(guarded(ignore), Client(declares="999999"))


@pytest.mark.parametrize("pieces", [[], [b"abc"]])
async def test_a_body_that_does_not_go_on_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(UploadTooSlow, match=f"{sum(map(len, pieces))} bytes of the body came; each 0.05 s"):
        await run(guarded(read), Client(*pieces, ends=False))


async def test_a_body_that_drips_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(*[b"a"] * 900)
    receive = client.receive

    async def drip() -> Message:
        await asyncio.sleep(0.001)
        return await receive()

    monkeypatch.setattr(client, "receive", drip)
    with pytest.raises(UploadTooSlow):
        await run(guarded(read), client)


async def test_progress_gives_the_rest_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "PROGRESS_BYTES", 10)
    client = Client(*[bytes(10)] * 8)
    receive = client.receive

    async def drip() -> Message:
        await asyncio.sleep(0.02)  # together three times the timeout
        return await receive()

    monkeypatch.setattr(client, "receive", drip)
    await run(guarded(read), client)


async def test_once_the_body_is_there_waiting_for_the_end_has_no_limit() -> None:
    async def wait_for_the_client(receive: Receive) -> None:
        await read(receive)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3 * SETTINGS.upload_timeout_s):
                await receive()

    await run(guarded(wait_for_the_client), Client(b"abc"))


async def test_all_together_hold_no_more_than_the_limit_until_they_are_answered() -> None:
    answered, read_first = asyncio.Event(), asyncio.Event()

    async def answer_later(receive: Receive) -> None:
        await read(receive)
        read_first.set()
        await answered.wait()

    middleware = guarded(answer_later)
    first = asyncio.create_task(run(middleware, Client(bytes(900))))
    await read_first.wait()
    assert middleware.held == 900
    with pytest.raises(Overloaded, match="1500 bytes, the limit"):
        await run(middleware, Client(bytes(700)))
    assert middleware.held == 900
    answered.set()
    await first
    assert middleware.held == 0
    await run(middleware, Client(bytes(700)))
