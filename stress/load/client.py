"""HTTP/1.1 by hand over asyncio streams: light, and able to do what a well-behaved client never would."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 30.0  # an answer that takes longer hangs
BOUNDARY = "torchlight-soak"
NO_BODY = (204, 304)


class Closed(Exception):
    """The service closed the connection before it had answered."""


@dataclass(frozen=True)
class Answer:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)


class Connection:
    """One connection, of whose requests the caller writes every byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]
        self._is_ours = True  # to use further

    @property
    def is_open(self) -> bool:
        """Whether another request may go out, as far as it is known here."""
        return self._is_ours and not self._reader.at_eof() and self._reader.exception() is None

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        """Connect.

        Raises:
            OSError: nothing listens there.
        """
        return cls(*await asyncio.open_connection(host, port))

    async def send(self, content: bytes) -> None:
        """Send some bytes.

        Raises:
            ConnectionError: the service has closed the connection.
        """
        self._writer.write(content)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """Read one whole answer.

        Raises:
            Closed: there is none, or a part of one.
        """
        try:
            status, headers = _parse(await self._reader.readuntil(b"\r\n\r\n"))
            body = b"" if status in NO_BODY else await self._body(headers)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed(str(error)) from error
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def close(self) -> None:
        """Say goodbye."""
        self._is_ours = False
        self._writer.close()

    def vanish(self) -> None:
        """Be gone at once, without a goodbye and without what is still to be sent."""
        self._is_ours = False
        self._writer.transport.abort()

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return await self._chunks()
        return await self._reader.readexactly(int(headers["content-length"]))

    async def _chunks(self) -> bytes:
        chunks = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            chunks.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")
        return b"".join(chunks)


class Client:
    """Keeps its connection from request to request, and opens another one when that has been closed."""

    def __init__(self, host: str, port: int, *, resends: bool = True) -> None:
        self._host, self._port, self._resends = host, port, resends
        self._connection: Connection | None = None
        self.resent = 0  # requests sent once more, since the kept connection turned out to be closed
        self.port = 0  # ours, of the connection that the last request was sent on

    async def ask(self, request: bytes) -> Answer:
        """Return the answer to one request.

        A kept connection may be closed by the other side at any time. When that happens before the first byte of an
        answer, the request goes out once more on a fresh connection, as RFC 9112, 9.3.1 allows clients to.

        Raises:
            Closed, ConnectionError: there is no answer.
            TimeoutError: there is none within PATIENCE_S.
        """
        async with asyncio.timeout(PATIENCE_S):
            if self._connection is not None and self._connection.is_open:
                try:
                    return await self._exchange(self._connection, request)
                except (Closed, ConnectionError):
                    if not self._resends:
                        raise
                    self.resent += 1
            self._connection = await Connection.open(self._host, self._port)
            return await self._exchange(self._connection, request)

    async def _exchange(self, connection: Connection, request: bytes) -> Answer:
        self.port = connection.port
        try:
            await connection.send(request)
            return await connection.answer()
        except BaseException:
            connection.vanish()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()


@asynccontextmanager
async def client(host: str, port: int) -> AsyncIterator[Client]:
    """Yield a client that is closed at the end."""
    one = Client(host, port)
    try:
        yield one
    finally:
        one.close()


def build(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    """Return a request; ``content_type="image/png"`` gives the header Content-Type."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [] if body is None else [f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def form(path: str, field: str, *files: bytes) -> bytes:
    """Return a POST of a form with these files."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{number}.img"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + file
        + b"\r\n"
        for number, file in enumerate(files)
    ]
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    return build("POST", path, body, content_type=f"multipart/form-data; boundary={BOUNDARY}")


def chunked(path: str, content: bytes, size: int = 65_536) -> bytes:
    """Return a POST that does not say how long it is."""
    head = build("POST", path, content_type="image/jpeg", transfer_encoding="chunked")
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""])


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}
