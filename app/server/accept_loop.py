"""Accepts connections so that the worker processes of a service have equally many. Knows nothing of HTTP.

All workers wait at one socket. Uvicorn's own loop accepts everything that has arrived: of 32 clients one worker may get
30, and makes them wait while the other is idle. Here a worker that has more connections than another waits a moment
before it accepts the next one. The numbers are in a file that the workers share; they are a hint, so that a worker that
was killed costs the others that moment and nothing else.
"""

import asyncio
import contextlib
import mmap
import socket
import struct
from collections.abc import Callable, Collection
from pathlib import Path

from torchlight.app.telemetry.logs import logger

MOMENT_S = 0.002  # for another worker to accept; a busy event loop takes about as long for one turn
RETRY_S = 0.1  # after the system had no room for a connection
MAX_WORKERS = 512
COUNT = struct.Struct("<Q")


class ConnectionCounts:
    """How many connections each worker has."""

    def __init__(self, folder: Path, worker: int) -> None:
        """Start with none in this worker.

        Args:
            folder: shared by the workers of one service.
            worker: number of this worker; no other living one has it.

        Raises:
            OSError: the folder cannot be written.
        """
        size = MAX_WORKERS * COUNT.size
        with open(folder / "connections", "a+b") as file:
            if file.tell() < size:
                file.write(bytes(size - file.tell()))  # an ordinary write: a full disk is an error now, not a signal
                file.flush()
            self._map = mmap.mmap(file.fileno(), size)
        self._offset = worker % MAX_WORKERS * COUNT.size
        self.set(0)

    def set(self, connections: int) -> None:
        """Store how many connections this worker has, plus one: 0 marks a place without a worker."""
        COUNT.pack_into(self._map, self._offset, connections + 1)

    def is_fewest(self) -> bool:
        """Whether no other worker has fewer."""
        own: int = COUNT.unpack_from(self._map, self._offset)[0]
        return all(own <= count for (count,) in COUNT.iter_unpack(self._map) if count)

    def clear(self) -> None:
        """Give up this worker's place: it accepts no more."""
        COUNT.pack_into(self._map, self._offset, 0)


class AcceptLoop:
    """Accepts at one socket, one connection at a time, until it is closed."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        counts: ConnectionCounts,
    ) -> None:
        """Start to accept.

        Args:
            listener: listening, and not blocking.
            make_protocol: called for each connection.
            connections: those that this worker has.
        """
        self._listener = listener
        self._make_protocol = make_protocol
        self._connections = connections
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._watch()

    def close(self) -> None:
        """Accept no more."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener)
            self._counts.clear()

    def _watch(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._on_ready)

    def _on_ready(self) -> None:
        self._counts.set(len(self._connections) + len(self._connecting))
        if self._counts.is_fewest():
            self._accept()
            return
        self._loop.remove_reader(self._listener)
        self._loop.call_later(MOMENT_S, self._accept_after_moment)

    def _accept_after_moment(self) -> None:
        self._watch()
        if not self._is_closed:
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):  # another worker has it, or it has gone
            return
        except OSError as error:  # no descriptor or no memory is left
            logger.warning("no connection can be accepted: %s", error)
            self._loop.remove_reader(self._listener)
            self._loop.call_later(RETRY_S, self._watch)
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
