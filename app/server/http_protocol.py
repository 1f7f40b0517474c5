"""HTTP as uvicorn speaks it, bounded where uvicorn is not: heads, silence, clients that do not read, connections.

Knows nothing of routes. The head of a request is its request line and its headers. After an answer the head of the
next request must be complete within ``HEAD_TIMEOUT_S``, else the connection is closed; the same timer ends a body that
the application does not read. How long a body may take is up to :mod:`app.middleware.body_limits`, and how long an
answer, to the deadline.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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
from torchlight.app.server.load_shedding import UploadLimit
from torchlight.app.telemetry.logs import logger

HEAD_TIMEOUT_S = 10.0
WRITE_TIMEOUT_S = 20.0  # for a client to take the next 48 kB of its answer
MAX_HEAD_BYTES = 65_536  # browsers send 1 or 2 kB; with one proxy's tokens still under 16
MAX_HEADERS = 100


@dataclass(frozen=True)
class Limits:
    """What the connections of one process share.

    Attributes:
        max_connections: how many there may be.
        uploads: the limit on POST requests that are answered at once. A pipelined request, sent while the answer
            before it is still due, is neither counted nor refused.
        on_problem: called with the code of each problem that is sent here, in place of the application.
    """

    max_connections: int
    uploads: UploadLimit
    on_problem: Callable[[str], None]


def limited_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol for uvicorn's ``http`` option."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits})


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    limits: ClassVar[Limits]
    _head_bytes = 0  # of the head that is arriving
    _is_in_request = _is_in_head = False  # where the parser is
    _begins_in_head = False  # the last piece began in a head, or between two requests
    _is_upload = False  # the last request is an upload that counts
    _is_admitted = False  # an upload is being answered
    _is_shed = False  # an upload was refused, and its body is not read
    _refusal = (400, MALFORMED_REQUEST, "this is not HTTP/1.1: its method is unknown, or it is malformed")
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request; refuse the connection if there are too many."""
        super().connection_made(transport)
        self._start_head_timer()
        limit = self.limits.max_connections
        if len(self.connections) > limit:
            self._refuse(*TABLE[Overloaded], f"{limit} clients are connected, the limit; ask again later")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers, and make room for another upload."""
        self._release_upload()
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head, also before it is complete."""
        if self.transport.is_closing():
            return
        # Of a piece that begins in a body nothing is counted: nobody knows where the head in it begins.
        self._begins_in_head = self._is_in_head or not self._is_in_request
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head and self._begins_in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(*_head_too_large())

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        self._is_in_request = self._is_in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large, or it is an upload and there is no room for it."""
        self._is_in_head = False
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if head_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refusal = _head_too_large()
            raise ValueError("the head is too large")  # the parser makes it an error of its own
        _cancel(self._head_timer)
        is_pipelined = self.cycle is not None and not self.cycle.response_complete
        self._is_upload = not is_pipelined and self.parser.get_method() == b"POST"
        if self._is_upload and self.limits.uploads.is_reached:
            self._shed_upload()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Drop the body of an upload that was refused."""
        if not self._is_shed:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Count a complete upload as one that is being answered."""
        self._is_in_request = self._begins_in_head = False
        if self._is_shed:
            self._is_shed = False
            return
        if self._is_upload and not self.cycle.response_complete:
            self._is_admitted = True
            self.limits.uploads.admit()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Make room for another upload, and start the timer for the next request."""
        self._release_upload()
        super().on_response_complete()
        if self.cycle.response_complete:
            self._start_head_timer()

    def pause_writing(self) -> None:
        """Start the timer for the client to take what was sent."""
        super().pause_writing()
        _cancel(self._write_timer)
        self._write_timer = asyncio.get_running_loop().call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that timer."""
        _cancel(self._write_timer)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser cannot read."""
        self._refuse(*self._refusal)

    def _release_upload(self) -> None:
        if self._is_admitted:
            self._is_admitted = False
            self.limits.uploads.release()

    def _shed_upload(self) -> None:
        """Refuse an upload without reading its body; the connection stays if what comes next on it is clear."""
        self._is_shed = True
        uploads = self.limits.uploads
        is_clear = self.parser.should_keep_alive() and not self.expect_100_continue
        stays = is_clear and not uploads.is_draining()
        detail = f"{uploads.limit} uploads are being answered, the limit; ask again later"
        self._send_problem(*TABLE[Overloaded], detail, closes=not stays)
        uploads.refuse()
        if stays:
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        _cancel(self._head_timer)
        self._head_timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        if self.transport.is_closing():
            self.transport.abort()  # the client does not take the last answer either
            return
        self._start_head_timer()
        if self._is_in_head:
            detail = f"the head of the request did not come within {HEAD_TIMEOUT_S:g} s"
            self._refuse(408, HEAD_TOO_SLOW, detail)
        else:
            self.transport.close()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer in place of the application, and close."""
        request_id = self._send_problem(status, code, detail, closes=True)
        logger.info("refused", extra={"facts": {"status": status, "code": code, "request_id": request_id}})

    def _send_problem(self, status: int, code: str, detail: str, *, closes: bool) -> str:
        """Send a problem in place of the application, and return the request's id."""
        sent = self.headers or ()  # uvicorn has None before the first message
        given = next((value.decode("latin-1") for name, value in sent if name == b"x-request-id"), "")
        request_id, title = request_id_of(given), HTTPStatus(status).phrase
        problem = Problem(
            type="about:blank",
            title=title,
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
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers["retry-after"] = str(RETRY_AFTER_S)
        lines = [
            f"HTTP/1.1 {status} {title}",
            *(f"{name}: {value}" for name, value in (SECURITY | headers).items()),
            "\r\n",
        ]
        self.limits.on_problem(code)  # before the answer: a client that has it finds it counted
        self.transport.write("\r\n".join(lines).encode() + body)
        if closes:
            self.transport.close()
        return request_id


def _head_too_large() -> tuple[int, str, str]:
    detail = f"the head of the request has over {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers; send a smaller one"
    return 431, HEAD_TOO_LARGE, detail


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
