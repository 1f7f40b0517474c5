"""Bounds the bodies of requests while they arrive: each one's size and pace, and what all of them hold together.

Pure ASGI, before any parser: form parsers bound their fields, but not their files. A request that reads no body is not
touched. What a request has received counts until it is answered, since its upload waits in memory until then.
"""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchlight.app.errors import BodyTooLarge, Overloaded, UploadTooSlow
from torchlight.app.settings import Settings

PROGRESS_BYTES = 100_000  # what each timeout has to bring: a photo over the slowest line that people still use


class BodyLimits:
    """The middleware, and the account of the bytes that all requests hold."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.settings = settings
        self.held = 0
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, Headers(scope=scope).get("content-length", "0"), receive)
        try:
            await self._app(scope, body.receive, send)
        finally:
            self.held -= body.received


class _Body:
    """One request's body; its bounds are checked as it is read."""

    def __init__(self, account: BodyLimits, declared: str, receive: Receive) -> None:
        self.received = 0
        self._account = account
        self._declared = declared
        self._receive = receive
        self._is_complete = False
        self._due = 0.0  # when the next PROGRESS_BYTES have to be there, in the event loop's time
        self._expected = 0

    async def receive(self) -> Message:
        """Return the next message.

        Raises:
            BodyTooLarge, UploadTooSlow
            Overloaded: all requests together hold as much as they may.
        """
        if self._is_complete:
            return await self._receive()
        self._check_declared()
        message = await self._next()
        self._count(len(message.get("body", b"")))
        self._is_complete = not message.get("more_body", False)
        return message

    def _check_declared(self) -> None:
        limit, declared = self._account.settings.max_body_bytes, self._declared
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            raise BodyTooLarge(f"body has {declared[:20]} bytes; the limit is {limit}; send a smaller image")

    async def _next(self) -> Message:
        seconds, now = self._account.settings.upload_timeout_s, asyncio.get_running_loop().time()
        if self.received >= self._expected:
            self._due, self._expected = now + seconds, self.received + PROGRESS_BYTES
        try:
            async with asyncio.timeout_at(self._due):
                return await self._receive()
        except TimeoutError as error:
            raise UploadTooSlow(
                f"{self.received} bytes of the body came; each {seconds:g} s must bring {PROGRESS_BYTES}, or the end; "
                "send a smaller image, or over a faster line"
            ) from error

    def _count(self, arrived: int) -> None:
        settings = self._account.settings
        self.received += arrived
        self._account.held += arrived
        if self.received > settings.max_body_bytes:
            raise BodyTooLarge(f"body has over {settings.max_body_bytes} bytes, the limit; send a smaller image")
        if self._account.held > settings.max_bytes_in_flight:
            raise Overloaded(
                f"all uploads together hold {settings.max_bytes_in_flight} bytes, the limit; ask again later"
            )
