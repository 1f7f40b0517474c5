"""Requests that break servers: every kind, as the bytes that go over the line, with the answers that are right.

Shared by ``python -m stress.hostile``, which sends them all, and by the tests, which send a part.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

CLOSED, HANG = 0, -1  # what may come in place of a status
PATIENCE_S = 60.0
FORM = "multipart/form-data; boundary=xx"
SLOW_CLIENTS = 50

Address = tuple[str, int]


@dataclass(frozen=True)
class Exchange:
    """What is sent, and the statuses of which one has to come first.

    ``pieces`` are sent one by one, ``pause_s`` apart; ``then_reads`` is false for a client that leaves at once.
    """

    name: str
    pieces: Sequence[bytes]
    answers: frozenset[int]
    pause_s: float = 0.0
    then_reads: bool = True


def exchange(name: str, sent: bytes | Iterable[bytes], *answers: int, **more: Any) -> Exchange:
    pieces = [sent] if isinstance(sent, bytes) else list(sent)
    return Exchange(name, pieces, frozenset(answers), **more)


def perform(address: Address, given: Exchange) -> int:
    """Send, and return the first status that comes, CLOSED if none does, or HANG after a long time."""
    try:
        with socket.create_connection(address, timeout=PATIENCE_S) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the answer is there
                for piece in given.pieces:
                    connection.sendall(piece)
                    time.sleep(given.pause_s)
            return _first_status(connection) if given.then_reads else CLOSED
    except ConnectionError:
        return CLOSED
    except TimeoutError:
        return HANG


def perform_together(address: Address, given: Sequence[Exchange]) -> list[int]:
    """Open all connections, send to each of them in turn, then read from all."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(address, timeout=PATIENCE_S)) for _ in given]
        for number in range(max(len(one.pieces) for one in given)):
            for connection, one in zip(connections, given, strict=True):
                with suppress(ConnectionError):
                    connection.sendall(one.pieces[number] if number < len(one.pieces) else b"")
            time.sleep(max(one.pause_s for one in given))
        return [_status_or_closed(connection) for connection in connections]


def _status_or_closed(connection: socket.socket) -> int:
    try:
        return _first_status(connection)
    except ConnectionError:
        return CLOSED
    except TimeoutError:
        return HANG


def _first_status(connection: socket.socket) -> int:
    received = b""
    while received.count(b" ") < 2:
        piece = connection.recv(4_096)
        if not piece:
            return CLOSED
        received += piece
        received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    return int(received.split(b" ", 2)[1])


def request(method: str = "GET", path: str = "/livez", body: bytes | None = None, **headers: str) -> bytes:
    """Return a request that closes its connection."""
    given = {"Host": "x", "Connection": "close"} | ({} if body is None else {"Content-Length": str(len(body))})
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + (body or b"")


def predict(body: bytes, content_type: str = "application/octet-stream", **headers: str) -> bytes:
    return request("POST", "/v1/predict", body, Content_Type=content_type, **headers)


def part(head: str | bytes, content: bytes = b"hello") -> bytes:
    name = head if isinstance(head, bytes) else head.encode()
    return b"--xx\r\nContent-Disposition: form-data; " + name + b"\r\n\r\n" + content + b"\r\n"


def chunked(content: bytes, piece: int = 65_536) -> Iterator[bytes]:
    """Yield a body of undeclared length, without its end."""
    for start in range(0, len(content), piece):
        one = content[start : start + piece]
        yield f"{len(one):x}\r\n".encode() + one + b"\r\n"


def chunked_head(content_type: str = "image/png") -> bytes:
    return predict(b"", content_type, Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")


def lengths(photo: bytes) -> Iterator[Exchange]:
    """Bodies over the limit, declared and not, and lengths that are not true."""
    yield exchange("declared 90 MB", predict(b"", Content_Length="90000000"), 413)
    yield exchange("declared 10^30", predict(b"", Content_Length="1" + "0" * 30), 400, 413)
    yield exchange("declared -1", predict(photo, Content_Length="-1"), 400)
    yield exchange("declared in words", predict(photo, Content_Length="many"), 400)
    yield exchange("declared twice", predict(photo, Content_length="3"), 400)
    yield exchange("declared and chunked", predict(photo, Transfer_Encoding="chunked"), 400)
    yield exchange("25 MB chunked", [chunked_head(), *chunked(bytes(25_000_000))], 413)
    head = part('name="file"; filename="a"', b"")[:-2]
    yield exchange("25 MB form chunked", [chunked_head(FORM), *chunked(head + bytes(25_000_000))], 413)
    yield exchange("25 MB declared, sent", predict(bytes(25_000_000)), 413)
    yield exchange("chunk of a negative length", chunked_head() + b"-5\r\nhello\r\n0\r\n\r\n", 400)
    yield exchange("chunk of 10^30", chunked_head() + b"1" + b"0" * 30 + b"\r\nhello", 400)
    yield exchange("length too short", predict(photo, Content_Length="100"), 422)
    yield exchange("length of zero, with a body", predict(photo, Content_Length="0"), 422)
    yield exchange("length too long", predict(photo, Content_Length=str(len(photo) + 10)), 408)
    yield exchange("chunks without an end", [chunked_head(), *chunked(photo)], 408)
    yield exchange("a body where none is read", request("GET", "/livez", bytes(1_000_000)), 200)


def forms(photo: bytes) -> Iterator[Exchange]:
    """Forms with wrong or no boundaries, with too many parts, and with parts that are too large."""
    end, good = b"--xx--\r\n", part('name="file"; filename="a.png"', photo)
    yield exchange("good", predict(good + end, FORM), 200)
    yield exchange("no boundary", predict(good + end, "multipart/form-data"), 400)
    yield exchange("empty boundary", predict(good + end, "multipart/form-data; boundary="), 400)
    yield exchange("another boundary", predict(good + end, "multipart/form-data; boundary=yy"), 400)
    long = "y" * 10_000
    yield exchange("boundary of 10 kB", predict(good + end, f"multipart/form-data; boundary={long}"), 400)
    yield exchange("boundary that is not ASCII", predict(good + end, "multipart/form-data; boundary=\xff\xfe"), 400)
    yield exchange("no last boundary", predict(good, FORM), 422)
    yield exchange("nothing but the end", predict(end, FORM), 422)
    yield exchange("19 MB before the first boundary", predict(bytes(19_000_000) + good + end, FORM), 400)
    yield exchange("19 MB of line breaks", predict(b"\r\n" * 9_500_000 + good + end, FORM), 200, 400)
    yield exchange("19 MB after the end", predict(good + end + b"--xx\r\n" * 3_000_000, FORM), 200, 400)
    yield exchange("10,000 fields", predict(part('name="a"') * 10_000 + end, FORM), 400)
    yield exchange("10,000 files", predict(part('name="file"; filename="a"') * 10_000 + end, FORM), 400)
    batch = request("POST", "/v1/predict/batch", part('name="files"; filename="a"') * 10_000 + end, Content_Type=FORM)
    yield exchange("10,000 files in a batch", batch, 400)
    yield exchange("field of 10 MB", predict(part('name="file"', bytes(10_000_000)) + end, FORM), 400)
    yield exchange(
        "part header of 1 MB", predict(part('name="file"; filename="' + "a" * 1_000_000 + '"') + end, FORM), 400
    )
    many = b"--xx\r\n" + b"X-Header: a\r\n" * 10_000 + b"\r\nhello\r\n"
    yield exchange("10,000 part headers", predict(many + end, FORM), 400)
    yield exchange("part header without an end", predict(b"--xx\r\nX-Header: " + bytes(19_000_000), FORM), 400)
    inner = part('name="file"', b"").replace(b"\r\n\r\n", b"\r\nContent-Type: multipart/mixed; boundary=xx\r\n\r\n")
    yield exchange("a form in a form", predict(inner * 10 + end, FORM), 422)
    yield exchange("charset that is none", predict(good + end, FORM + "; charset=none"), 200, 400)
    yield exchange(
        "url-encoded, 1 million fields", predict(b"a=1&" * 1_000_000, "application/x-www-form-urlencoded"), 415
    )


def filenames(photo: bytes) -> Iterator[Exchange]:
    """Names that files on a disk must not have: they name nothing here, so the image is answered."""
    names = {
        "traversal": b"../../../../etc/passwd",
        "absolute": b"/etc/shadow",
        "of Windows": b"C:\\Windows\\win.ini",
        "null byte": b"a.png\0.exe",
        "control bytes": bytes(range(1, 10)) + bytes(range(14, 32)),
        "not Unicode": b"\xff\xfe\xed\xa0\x80",
        "right to left": "\u202egnp.exe".encode(),
        "emoji": ("\U0001f431" * 500).encode(),
        "combining": ("a" + "\u0301" * 2_000).encode(),
        "empty": b"",
        "dots": b"..",
        "3,000 letters": b"a" * 3_000,
        "a header": b"a.png; name=files",
        "percent": b"%2e%2e%2f%00",
        "template": b"{{7*7}}${7*7}<script>",
    }
    for name, filename in names.items():
        body = part(b'name="file"; filename="' + filename + b'"', photo) + b"--xx--\r\n"
        refused = {"null byte": (200, 400), "control bytes": (200, 400)}
        yield exchange(name, predict(body, FORM), *refused.get(name, (200, 400, 422)))


def methods() -> Iterator[Exchange]:
    """Methods that no route has, and bytes that are no HTTP."""
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "MKCOL", "PURGE", "OPTIONS"):
        yield exchange(method, request(method, "/v1/predict"), 405)
    for method in ("FOO", "get", "A" * 10_000, "G\0T", "\xff"):
        yield exchange(f"{method[:9]!r}", request(method), 400)
    yield exchange("CONNECT", request("CONNECT", "example.org:443"), 400, 404, 405)
    yield exchange("HTTP/2 unasked", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 405)
    yield exchange("HTTP/0.9", b"GET /\r\n\r\n", 200, 400)
    yield exchange("HTTP/9.9", b"GET / HTTP/9.9\r\n\r\n", 400)
    yield exchange("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300), 400)
    yield exchange("zeros", bytes(10_000), 400)
    yield exchange("upgrade to a web socket", request(Connection="Upgrade", Upgrade="websocket"), 200, 400)
    yield exchange("upgrade to HTTP/2", request(Connection="Upgrade, HTTP2-Settings", Upgrade="h2c"), 200, 400)
    yield exchange("absolute address", request("GET", "http://example.org/livez"), 200, 404)
    yield exchange("path that is none", request("GET", "*"), 400, 404)


def heads() -> Iterator[Exchange]:
    """Heads with too much in them, and with bytes that do not belong there."""
    yield exchange("90 headers", request(**{f"X{n}": "a" for n in range(90)}), 200)
    yield exchange("1,000 headers", request(**{f"X{n}": "a" for n in range(1_000)}), 431)
    yield exchange("100,000 headers", request(**{f"X{n}": "a" for n in range(100_000)}), 431)
    yield exchange("header of 70 kB", request(X="a" * 70_000), 431)
    yield exchange("header of 10 MB", request(X="a" * 10_000_000), 431)
    yield exchange("name of 10 MB", request(**{"a" * 10_000_000: "a"}), 431)
    yield exchange("address of 70 kB", request("GET", "/livez?" + "a" * 70_000), 431)
    yield exchange("address of 10 MB", request("GET", "/" + "a" * 10_000_000), 431)
    yield exchange("null in a header", request(X="a\0b"), 400)
    yield exchange("folded header", request(X="a\r\n b"), 200, 400)
    yield exchange("space before the colon", b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n", 400)
    yield exchange("no host", b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 200, 400)
    yield exchange("id that would forge a line", request(X_Request_ID="a\tlevel=error " + "b" * 9_000), 200)
    yield exchange("id that is not Unicode", request(X_Request_ID="\xff\xfe", Accept="\xff", If_None_Match="\xff"), 200)
    yield exchange("10,000 media ranges", request("GET", "/v1/layers", Accept="a/b;q=0.1," * 6_000), 200, 406)
    yield exchange("1,000 requests at once", request().replace(b"Connection: close\r\n", b"") * 1_000, 200)


def slow(clients: int, seconds: float) -> dict[str, list[Exchange]]:
    """Return clients that send a few bytes a second, or none, or do not read: each kind's all at once."""
    tick = 0.25
    ticks = int(seconds / tick)
    head = predict(b"", Content_Length="1000000")
    bodies = exchange("body", [head, *[b"a"] * ticks], 408, pause_s=tick)
    heads = exchange("head", [b"GET /livez HTTP/1.1\r\n", *[b"X: a\r\n"] * ticks], 408, pause_s=tick)
    silent = exchange("nothing", [b""] * ticks, CLOSED, pause_s=tick)
    breaks = exchange("line breaks", [b"\r\n"] * ticks, CLOSED, 408, pause_s=tick)
    kinds = {"slow uploads": bodies, "slow heads": heads, "silent": silent, "nothing but line breaks": breaks}
    return {name: [one] * clients for name, one in kinds.items()}


def departures(photo: bytes, number: int) -> Iterator[Exchange]:
    """Clients that leave in the middle of their upload, and before their answer."""
    whole = predict(photo)
    for n in range(number):
        yield exchange("in the upload", whole[: len(whole) * (n + 1) // (number + 1)], CLOSED, then_reads=False)
        yield exchange("before the answer", whole, CLOSED, then_reads=False)


NUMBERS = ("-1", "0", "1e9", "1.5", "NaN", "inf", "-0", "0x10", "9" * 30, "9" * 5_000, "", " ", "%00", "\u0661")
TEXTS = (
    "\0",
    "\ud800",
    "\U0001f431",
    "\u202e",
    "../..",
    "a" * 5_000,
    "'",
    '"',
    "<b>",
    "%",
    "{}",
    "\r\nX: y",
    "\ufb00",
    "None",
)


def parameters(openapi: dict[str, Any], known: dict[str, str]) -> Iterator[Exchange]:
    """Bad numbers and any Unicode in each parameter of each route, the others being good.

    Args:
        openapi: the service's own description.
        known: good values of path parameters.
    """
    values = (*NUMBERS, *TEXTS)
    for template, operations in openapi["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] not in ("path", "query"):
                    continue
                for value in values:
                    text = value if value.startswith("%") else quote(value.encode("utf-8", "surrogatepass"), safe="")
                    path = template
                    for name, good in known.items():
                        given = text if (parameter["in"], parameter["name"]) == ("path", name) else good
                        path = path.replace(f"{{{name}}}", given)
                    query = f"?{parameter['name']}={text}" if parameter["in"] == "query" else ""
                    body = b"" if method == "post" else None
                    sent = request(method.upper(), path + query, body, Content_Type="image/png")
                    name = f"{method} {template} {parameter['name']}={value[:12]!r}"
                    yield Exchange(name, [sent], frozenset(range(200, 500)))


def deaf(number: int) -> list[Exchange]:
    """Return clients that ask for a lot and take none of it."""
    ask = request("GET", "/openapi.json").replace(b"Connection: close\r\n", b"")
    return [exchange("deaf", [ask * 200, *[b""] * 25], 200, CLOSED, pause_s=1.0)] * number


def flood(number: int) -> list[Exchange]:
    """Return more clients than may be connected."""
    return [exchange("flood", b"", CLOSED, 503)] * number
