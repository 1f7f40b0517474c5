"""Accepts connections so that each process of a service has as many as the others. Knows nothing of HTTP.

All of them wait at one socket, and whoever wakes first would take all that come at once: of 32 clients one process may
get 30, and then makes them wait while another is idle. So who has more than another lets a moment pass. How many each
has is in a file that they share; it is a hint, so that a process that was killed costs its successors that moment.
"""

import asyncio
import contextlib
import mmap
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path

from torchlight.app.telemetry.logs import logger

MOMENT_S = 0.002  # for another process to accept; event loops that are busy take about as long
RETRY_S = 0.1  # after the system had no room for a connection
MAX_PROCESSES = 512
COUNT = struct.Struct("<Q")


class Counts:
    """How many connections each process has."""

    def __init__(self, folder: Path, number: int) -> None:
        """Begin with none in this process.

        Args:
            folder: shared by the processes of one service.
            number: of this process, which no other living one has.

        Raises:
            OSError: the folder cannot be written to.
        """
        size = MAX_PROCESSES * COUNT.size
        with open(folder / "connections", "a+b") as file:
            if file.tell() < size:
                file.write(bytes(size - file.tell()))  # an ordinary write: a full disk is told now, not by a signal
                file.flush()
            self._map = mmap.mmap(file.fileno(), size)
        self._place = number % MAX_PROCESSES * COUNT.size
        self.set(0)

    def set(self, connections: int) -> None:
        """Say how many this process has, plus one: 0 are places that no process has."""
        COUNT.pack_into(self._map, self._place, connections + 1)

    def is_fewest(self) -> bool:
        """Whether no other process has fewer."""
        own: int = COUNT.unpack_from(self._map, self._place)[0]
        return all(own <= count for (count,) in COUNT.iter_unpack(self._map) if count)

    def leave(self) -> None:
        """Say that this process accepts no more."""
        COUNT.pack_into(self._map, self._place, 0)


class Acceptor:
    """Accepts at one socket; what uvicorn calls a server."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        counts: Counts,
    ) -> None:
        """Begin.

        Args:
            listener: listening, and not blocking.
            make_protocol: called for each connection.
            connections: those that this process has.
            counts: where it is said how many they are.
        """
        self._listener = listener
        self._make_protocol = make_protocol
        self._connections = connections
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._is_closed = False
        self._await()

    def close(self) -> None:
        """Accept no more."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener)
            self._counts.leave()

    async def wait_closed(self) -> None:
        """Return when nothing is left to do."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _await(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._on_ready)

    def _on_ready(self) -> None:
        self._counts.set(len(self._connections) + len(self._connecting))
        if self._counts.is_fewest():
            self._accept()
            return
        self._loop.remove_reader(self._listener)
        self._loop.call_later(MOMENT_S, self._accept_after_a_moment)

    def _accept_after_a_moment(self) -> None:
        if not self._is_closed:
            self._await()
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another process has it, or it has gone
            return
        except OSError as error:  # no descriptor or no memory is left
            logger.warning("no connection can be accepted: %s", error)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(RETRY_S, self._await)
            return
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
