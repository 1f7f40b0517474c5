"""Connections go to the process that has the fewest."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from torchlight.app.server import accept_loop
from torchlight.app.server.accept_loop import AcceptLoop, ConnectionCounts

pytestmark = pytest.mark.anyio
PATIENCE_S = 60


class Connection(asyncio.Protocol):
    """Knows whose it is."""

    def __init__(self, connections: set[object]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(transport)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("number", [1, 7, 32])
async def test_two_that_listen_at_one_socket_share_what_comes_at_once(tmp_path: Path, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.setblocking(False)
        twin = listener.dup()  # a descriptor can have one reader
        both: list[set[object]] = [set(), set()]
        loops = [
            AcceptLoop(one, lambda own=own: Connection(own), own, ConnectionCounts(tmp_path, place))  # type: ignore[misc]
            for place, (one, own) in enumerate(zip((listener, twin), both, strict=True))
        ]
        clients = [socket.create_connection(listener.getsockname(), PATIENCE_S) for _ in range(number)]
        await until(lambda: sum(map(len, both)) == number)
        assert abs(len(both[0]) - len(both[1])) <= 2
        for accepting in loops:
            accepting.close()
        for transport in both[0] | both[1]:
            transport.close()  # type: ignore[attr-defined]
        for client in clients:
            client.close()
        twin.close()


async def test_who_has_most_accepts_in_the_end_if_nobody_else_does(tmp_path: Path) -> None:
    stuck = ConnectionCounts(tmp_path, 1)
    stuck.set(0)
    own: set[object] = {object(), object()}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        accepting = AcceptLoop(listener, lambda: Connection(own), own, ConnectionCounts(tmp_path, 0))
        client = socket.create_connection(listener.getsockname(), PATIENCE_S)
        await until(lambda: len(own) == 3)
        accepting.close()
        client.close()
        for transport in own:
            if isinstance(transport, asyncio.Transport):
                transport.close()


async def test_it_goes_on_after_the_system_had_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_loop, "RETRY_S", 0.01)
    own: set[object] = set()

    class Full:
        """A socket that cannot accept for a while."""

        def __init__(self, listener: socket.socket) -> None:
            self.failures = 3
            self.fileno = listener.fileno
            self._listener = listener

        def accept(self) -> object:
            self.failures -= 1
            if self.failures >= 0:
                raise OSError(24, "Too many open files")
            return self._listener.accept()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        full = Full(listener)
        accepting = AcceptLoop(full, lambda: Connection(own), own, ConnectionCounts(tmp_path, 0))  # type: ignore[arg-type]
        client = socket.create_connection(listener.getsockname(), PATIENCE_S)
        await until(lambda: len(own) == 1)
        assert full.failures < 0
        accepting.close()
        client.close()
        for transport in own:
            transport.close()  # type: ignore[attr-defined]


def test_places_are_each_processs_own(tmp_path: Path) -> None:
    one, other = ConnectionCounts(tmp_path, 0), ConnectionCounts(tmp_path, 1)
    one.set(3)
    assert (one.is_fewest(), other.is_fewest()) == (False, True)
    other.set(3)
    assert (one.is_fewest(), other.is_fewest()) == (True, True)
    other.set(4)
    assert (one.is_fewest(), other.is_fewest()) == (True, False)
    one.clear()
    assert other.is_fewest()
