"""HTTP as uvicorn speaks it, bounded where uvicorn is not: heads, silence, clients that do not read, connections.

Knows nothing of routes. Between two answers a connection has a few seconds for the whole head of the next request, so
that none lives for ever, whatever comes over it; this also ends the rest of a body that nobody reads any more. How long
a body may take is :mod:`app.middleware.body_limits`' to say, and how long an answer, the deadline's.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from torchlight.app.api.problems import (
    HEAD_TOO_LARGE,
    HEAD_TOO_SLOW,
    MALFORMED_REQUEST,
    MEDIA_TYPE,
    RETRY_AFTER_S,
    TABLE,
    Problem,
)
from torchlight.app.errors import Overloaded
from torchlight.app.security.response_headers import SECURITY, request_id_of
from torchlight.app.server.load_shedding import Admission
from torchlight.app.telemetry.logs import logger

HEAD_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 20.0  # for a client to take the next 48 kB of its answer
MAX_HEAD_BYTES = 65_536  # browsers send 1 or 2 kB; with one proxy's tokens still under 16
MAX_HEADERS = 100
SECURITY_LINES = "".join(f"{name}: {value}\r\n" for name, value in SECURITY.items()).encode()


def bounded(max_connections: int, admission: Admission, on_refusal: Callable[[str], None]) -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn's ``http`` option.

    Args:
        admission: of requests with POST, which are those that upload; one that comes before the last answer was sent is
            not counted.
        on_refusal: called with the code of each problem that is sent here, in place of the application.
    """
    made: Any = partial(BoundedProtocol, max_connections=max_connections, admission=admission, on_refusal=on_refusal)
    protocol: type[asyncio.Protocol] = made  # uvicorn does no more than call it
    return protocol


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        max_connections: int,
        admission: Admission,
        on_refusal: Callable[[str], None],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_connections = max_connections
        self._admission = admission
        self._is_upload = False  # the last request: one of those that are counted
        self._is_admitted = self._is_turned_away = False  # the upload that is being answered; the one that is not read
        self._on_refusal = on_refusal
        self.headers: list[tuple[bytes, bytes]] = []  # uvicorn has them with the first message
        self._head_bytes = 0  # of the head that has begun to arrive
        self._is_in_message = self._is_in_head = self._is_all_head = False
        self._refusal = (400, MALFORMED_REQUEST, "this is not HTTP/1.1: its method is unknown, or it is malformed")
        self._between: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client a while for its first request, or none if there are too many clients."""
        super().connection_made(transport)
        self._await_head()
        limit = self._max_connections
        if len(self.connections) > limit:
            self._refuse(*TABLE[Overloaded], f"{limit} clients are connected, the limit; ask again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks, and make room."""
        self._leave()
        self._stop(self._between)
        self._stop(self._writing)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self.transport.is_closing():
            return
        self._is_all_head = self._is_in_head or not self._is_in_message  # else what comes first is of a body
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head and self._is_all_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(*self._too_large())

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._is_in_message = self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large, or it is an upload and there is no room for it."""
        self._is_in_head = False
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refusal = self._too_large()
            raise ValueError("the head is too large")  # the parser makes it an error of its own
        self._stop(self._between)
        is_first = self.cycle is None or self.cycle.response_complete  # else it came before the last answer was sent
        self._is_upload = is_first and self.parser.get_method() == b"POST"
        if self._is_upload and self._admission.is_full:
            self._turn_away()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep what is of a request that is answered."""
        if not self._is_turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that what comes next is no longer of this message."""
        self._is_in_message = self._is_all_head = False
        if self._is_turned_away:
            self._is_turned_away = False
            return
        if self._is_upload and not self.cycle.response_complete:
            self._is_admitted = True
            self._admission.enter()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Make room for another upload, and give the client a while for its next request."""
        self._leave()
        super().on_response_complete()
        if self.cycle.response_complete:
            self._await_head()

    def pause_writing(self) -> None:
        """Give the client a while to take what was sent."""
        super().pause_writing()
        self._stop(self._writing)
        self._writing = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on to send."""
        self._stop(self._writing)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read."""
        self._refuse(*self._refusal)

    def _too_large(self) -> tuple[int, str, str]:
        detail = f"the head of the request has over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers; send a smaller one"
        return 431, HEAD_TOO_LARGE, detail

    def _leave(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self._admission.leave()

    def _turn_away(self) -> None:
        """Refuse an upload on a connection that stays, whose body may still come and is not read."""
        self._is_turned_away = True
        status, code = TABLE[Overloaded]
        detail = f"{self._admission.limit} uploads are being answered, the limit; ask again later"
        is_clear = self.parser.should_keep_alive() and not self.expect_100_continue  # what comes next
        stays = is_clear and not self._admission.is_stopping()
        self._answer(status, code, detail, closes=not stays)
        self._admission.refuse()
        if stays:
            self._await_head()

    def _await_head(self) -> None:
        self._stop(self._between)
        self._between = self.loop.call_later(HEAD_TIMEOUT_S, self._on_late_head)

    def _on_late_head(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()  # the client does not take the last answer either
            return
        self._await_head()
        if self._is_in_head:
            self._refuse(408, HEAD_TOO_SLOW, f"the head of the request did not come within {HEAD_TIMEOUT_S:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer in place of the application, and close."""
        request_id = self._answer(status, code, detail, closes=True)
        logger.info("refused", extra={"facts": {"status": status, "code": code, "request_id": request_id}})

    def _answer(self, status: int, code: str, detail: str, *, closes: bool) -> str:
        """Send a problem in place of the application, and return the request's id."""
        status_line = STATUS_LINE[status]
        given = next((value.decode("latin-1") for name, value in self.headers if name == b"x-request-id"), "")
        request_id = request_id_of(given)
        problem = Problem(
            type="about:blank",
            title=status_line.split(b" ", 2)[2].decode().strip(),
            status=status,
            detail=detail,
            instance="",
            code=code,
            request_id=request_id,
        )
        body = problem.model_dump_json().encode()
        headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), "x-request-id": request_id}
        if closes:
            headers["connection"] = "close"
        if status == 503:
            headers["retry-after"] = str(RETRY_AFTER_S)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        self._on_refusal(code)  # before the answer: whoever reads it finds it counted
        self.transport.write(status_line + SECURITY_LINES + head.encode() + body)
        if closes:
            self.transport.close()
        return request_id

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
