"""What uvicorn leaves unbounded: headers, silence, connections, clients that do not read. On a real server."""

import asyncio
import contextlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from torchlight.app.server import http_protocol
from torchlight.app.server.load_shedding import UploadLimit

PATIENCE_S = 60.0
ANSWER = b"x" * 20_000_000  # more than the buffers between two sockets hold
Connect = Callable[[], socket.socket]


held = threading.Event()  # what is asked for /held is answered when it is set
is_draining = threading.Event()


@pytest.fixture
def holding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hold what is asked for /held, until the test sets the event or ends; clients have time."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", PATIENCE_S)
    held.clear()
    yield
    held.set()
    is_draining.clear()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a lot on /large, with the body's length if asked to read it, else with nothing."""
    request = Request(scope, receive)
    if scope["path"] == "/held":
        await asyncio.to_thread(held.wait, PATIENCE_S)
    contents = {"/large": ANSWER, "/read": str(len(await request.body())).encode() if scope["path"] == "/read" else b""}
    await Response(contents.get(scope["path"], b""))(scope, receive, send)


@pytest.fixture
def refusals() -> list[str]:
    """The codes of the problems that the server has sent."""
    return []


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, refusals: list[str]) -> Iterator[Connect]:
    """Run a server whose patience is short, and return what connects to it."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(http_protocol, "WRITE_TIMEOUT_S", 0.3)
    uploads = UploadLimit(1, on_shed=lambda: None, is_draining=lambda: is_draining.is_set())
    http = http_protocol.limited_protocol(http_protocol.Limits(3, uploads, refusals.append))
    config = uvicorn.Config(application, http=http, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, server, "should_exit", True)
        clients = stack.enter_context(ExitStack())
        address = listener.getsockname()
        yield lambda: clients.enter_context(socket.create_connection(address, timeout=PATIENCE_S))


def rest(connection: socket.socket) -> bytes:
    """Return all that comes until the server closes the connection."""
    received = bytearray()  # bytes would be copied for each piece, slower than the server waits here
    while piece := connection.recv(65_536):
        received += piece
    return bytes(received)


def problem(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    found = json.loads(body)
    assert int(head.split()[1]) == found["status"]
    return found["status"], found["code"]


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_a_client_that_sends_nothing_is_not_kept(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    assert rest(connection) == b""


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nA: b"])
def test_a_head_that_does_not_end_is_refused_in_time(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    assert problem(rest(connection)) == (408, "head_too_slow")


def test_a_second_head_has_no_more_time_than_the_first(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n")
    answers = rest(connection)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert problem(answers[answers.index(b"HTTP/1.1 408") :]) == (408, "head_too_slow")


def test_a_body_may_take_longer_than_a_head(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\na")
    other = connect()
    assert rest(other) == b""  # as long as a head may take has passed
    connection.sendall(b"b")
    assert rest(connection).endswith(b"\r\n\r\n2")


def test_the_rest_of_a_body_that_nobody_reads_is_not_awaited_for_ever(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na")
    answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_disconnected(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    other = connect()
    assert rest(other) == b""
    third = connect()
    assert rest(third) == b""  # twice as long as the server waits
    received = 0
    with contextlib.suppress(ConnectionResetError):  # what is in the buffers may come before it
        while piece := connection.recv(65_536):
            received += len(piece)
    assert received < len(ANSWER)


def test_a_client_that_reads_gets_all(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert rest(connection).endswith(ANSWER)


@pytest.mark.parametrize(
    "head",
    [
        b"A: " + b"a" * 70_000,
        b"a" * 70_000 + b": a",
        b"\r\n".join(b"A: a" for _ in range(101)),
        b"\r\n".join(b"A: " + b"a" * 1_000 for _ in range(70)),
    ],
    ids=["value", "name", "number", "sum"],
)
def test_a_head_that_is_too_large_is_refused(connect: Connect, head: bytes) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
    assert problem(rest(connection)) == (431, "head_too_large")


def test_a_head_without_an_end_is_refused_once_it_is_too_large(connect: Connect, refusals: list[str]) -> None:
    connection = connect()
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000)
    answer = rest(connection)
    assert problem(answer) == (431, "head_too_large")
    assert b"Content-Security-Policy: default-src 'none'" in answer
    assert refusals == ["head_too_large"]


def test_a_large_body_before_it_is_not_counted_as_a_head(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    connection.sendall(b"a" * 100_000 + b"GET / HTTP/1.1\r\nHo")
    connection.sendall(b"st: x\r\nConnection: close\r\n\r\n")
    assert rest(connection).count(b"HTTP/1.1 200 OK") == 2


def test_an_address_that_is_too_long_is_refused(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")
    assert problem(rest(connection)) == (431, "head_too_large")


@pytest.mark.parametrize("sent", [b"FOO / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nA b\r\n\r\n"])
def test_malformed_requests_are_refused(connect: Connect, sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    assert problem(rest(connection)) == (400, "malformed_request")


def test_more_clients_than_may_be_connected_are_refused_at_once(connect: Connect) -> None:
    waiting = [connect() for _ in range(3)]
    waiting[0].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert waiting[0].recv(13) == b"HTTP/1.1 200 "  # all three are accepted, in order
    refused = rest(connect())
    assert problem(refused) == (503, "overloaded")
    assert b"retry-after: 1\r\n" in refused


def upload(path: str, body: bytes, **headers: str) -> bytes:
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body


def answer_of(connection: socket.socket) -> bytes:
    """Return an answer: its head up to the empty line, and its body by the length that it says."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(1)
        assert piece, received
        received += piece
    length = int(re.search(rb"content-length: (\d+)", received, re.IGNORECASE)[1])  # type: ignore[index]
    while length:
        piece = connection.recv(length)
        assert piece, received
        received, length = received + piece, length - len(piece)
    return received


def ask_until_refused(connection: socket.socket, sent: bytes) -> bytes:
    """Return the first refusal: the upload that is to be in the way may come a moment later."""
    for _ in range(1000):
        connection.sendall(sent)
        answer = answer_of(connection)
        if answer.startswith(b"HTTP/1.1 503"):
            return answer
    raise AssertionError(answer)


@pytest.fixture
def full(connect: Connect, holding: None) -> socket.socket:
    """The connection of the one upload that may be inside."""
    first = connect()
    first.sendall(upload("/held", b"picture"))
    ask_until_refused(connect(), upload("/read", b"x"))
    return first


def test_an_upload_too_many_is_refused_at_its_head_and_its_connection_goes_on(
    full: socket.socket, connect: Connect, refusals: list[str]
) -> None:
    refusals.clear()
    other = connect()
    other.sendall(upload("/read", b"a body that comes and is not read", **{"X-Request-ID": "mine"}))
    refused = answer_of(other)
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"\r\nretry-after: 1\r\n" in refused
    assert b"\r\nx-request-id: mine\r\n" in refused
    assert b"connection: close" not in refused
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["code"] == "overloaded"
    other.sendall(b"GET /read HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer_of(other).startswith(b"HTTP/1.1 200")  # only uploads are counted
    assert refusals == ["overloaded"]
    held.set()
    assert answer_of(full).startswith(b"HTTP/1.1 200")
    other.sendall(upload("/read", b"there is room again"))
    assert answer_of(other).endswith(b"19")


def test_a_refused_client_that_expects_100_continue_gets_connection_close(
    full: socket.socket, connect: Connect
) -> None:
    other = connect()
    other.sendall(upload("/read", b"", Expect="100-continue"))
    refused = rest(other)
    assert b"\r\nconnection: close\r\n" in refused
    assert b"1 uploads are being answered" in refused


def test_an_upload_refused_while_the_service_drains_gets_connection_close(
    full: socket.socket, connect: Connect
) -> None:
    is_draining.set()
    other = connect()
    other.sendall(upload("/read", b"x"))
    assert b"\r\nconnection: close\r\n" in rest(other)


def test_a_client_that_leaves_makes_room(full: socket.socket, connect: Connect) -> None:
    full.close()
    other = connect()
    for _ in range(1000):
        other.sendall(upload("/read", b"x"))
        if answer_of(other).startswith(b"HTTP/1.1 200"):
            return
    raise AssertionError("there is no room")


def test_an_upload_that_is_still_arriving_does_not_count(connect: Connect, holding: None) -> None:
    slow, other = connect(), connect()
    slow.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na")
    for _ in range(3):
        other.sendall(upload("/read", b"xyz"))
        assert answer_of(other).endswith(b"3")
    slow.sendall(b"b")
    assert answer_of(slow).endswith(b"2")
