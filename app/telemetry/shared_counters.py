"""Numbers that several processes of one service add up, and that outlive each. Knows nothing of Prometheus or HTTP.

Each process writes a file of its own in a folder they share; the one that is asked reads all of them.

- A process takes the first file that no living one holds, and continues from its counts. So a killed process loses
  nothing, and there are never more files than there were processes at a time.
- Gauges are in a second file, which starts empty; those of the dead do not count.

The multiprocess mode of prometheus_client does this too, but it maps a file into memory before it has room on the disk:
a full disk ends the process by SIGBUS, and it keeps a file for each process that ever was. Here a number gets its room
by an ordinary write, and is then changed through a mapping: an answer changes some twenty, and each write would also
let another thread take the interpreter.
"""

import itertools
import json
import logging
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

Key = tuple[str, ...]
RECORD = struct.Struct("<dQ")  # value, length of the key after it in bytes: a multiple of 8, so that values are aligned
NO_DESCRIPTOR = -1  # in place of a file's descriptor
logger = logging.getLogger("torchlight")


class SharedCounters:
    """This process's numbers, and with a folder those of the others. Any thread may write.

    Attributes:
        number: of this process; no other living one has it.
    """

    def __init__(self, folder: Path | None) -> None:
        """Continue from the counts of an ended process, if there are any.

        Args:
            folder: shared by the processes of one service and by nobody else; None keeps all in memory.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self.number, self._number_lock = _take_number(folder) if folder else (0, NO_DESCRIPTOR)
        self._counts = _Numbers(folder and folder / f"counts-{self.number}")
        if folder:
            (folder / f"gauges-{self.number}").unlink(missing_ok=True)
        self._gauges = _Numbers(folder and folder / f"gauges-{self.number}")

    def add(self, key: Key, amount: float = 1) -> None:
        """Raise a count; 0 makes it known."""
        with self._lock:
            self._counts.set(key, self._counts.values.get(key, 0.0) + amount)

    def set(self, key: Key, value: float) -> None:
        """Set a gauge of this process."""
        with self._lock:
            self._gauges.set(key, value)

    def counts(self) -> dict[Key, float]:
        """Return the sums over all processes, the dead ones too."""
        with self._lock:
            total = dict(self._counts.values)
        for number in self._others():
            for key, value in _read_numbers(self._folder, f"counts-{number}").items():
                total[key] = total.get(key, 0.0) + value
        return total

    def gauges(self) -> list[dict[Key, float]]:
        """Return those of each living process."""
        with self._lock:
            own = dict(self._gauges.values)
        return [own] + [
            _read_numbers(self._folder, f"gauges-{number}") for number in self._others() if self._is_alive(number)
        ]

    def close(self) -> None:
        """Leave the counts to the process that takes this number next."""
        with self._lock:
            for opened in (self._counts, self._gauges):
                opened.close()
            if self._number_lock != NO_DESCRIPTOR:
                os.close(self._number_lock)
                self._number_lock = NO_DESCRIPTOR

    def _others(self) -> Iterator[int]:
        names = (path.name for path in self._folder.glob("counts-*")) if self._folder else ()
        numbers = (int(name.partition("-")[2]) for name in names)
        return (number for number in numbers if number != self.number)

    def _is_alive(self, number: int) -> bool:
        assert self._folder
        descriptor = _lock_file(self._folder / f"hold-{number}", is_shared=True)
        if descriptor is None:
            return True
        os.close(descriptor)
        return False


class _Numbers:
    """A dictionary of numbers, each written to a file as it changes."""

    def __init__(self, path: Path | None) -> None:
        self.values: dict[Key, float] = {}
        self._places: dict[Key, int] = {}
        self._end = 0
        self._map: mmap.mmap | None = None
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if path else None
        for key, value, place, self._end in _iterate_records(path.read_bytes() if path else b""):
            self.values[key], self._places[key] = value, place
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, self._end)  # drops a record that was being written when its process died
            self._map = self._mapped(self._descriptor)

    def set(self, key: Key, value: float) -> None:
        self.values[key] = value
        if self._descriptor is None:
            return
        try:
            self._write(self._descriptor, key, value)
        except OSError as error:
            logger.warning("metrics are no longer shared with the other processes: %s", error)
            self.close()

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, descriptor: int, key: Key, value: float) -> None:
        if key in self._places:
            assert self._map is not None
            struct.pack_into("<d", self._map, self._places[key], value)
            return
        name = json.dumps(key).encode()
        name += b" " * (-len(name) % 8)
        record = RECORD.pack(value, len(name)) + name
        if os.pwrite(descriptor, record, self._end) < len(record):
            raise OSError("the disk is full")
        self._places[key] = self._end
        self._end += len(record)
        self._map = self._mapped(descriptor)

    def _mapped(self, descriptor: int) -> mmap.mmap | None:
        """Return all that is written by now; a mapping of more would end the process when the disk is full."""
        return mmap.mmap(descriptor, self._end) if self._end else None


def _iterate_records(content: bytes) -> Iterator[tuple[Key, float, int, int]]:
    """Yield each key with its value, and where its record begins and ends. The last may not be written to its end."""
    place = 0
    while place + RECORD.size <= len(content):
        value, length = RECORD.unpack_from(content, place)
        end = place + RECORD.size + length
        if end > len(content):
            return
        yield tuple(json.loads(content[place + RECORD.size : end])), value, place, end
        place = end


def _read_numbers(folder: Path | None, name: str) -> dict[Key, float]:
    assert folder
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:  # its process has just started, or ended
        return {}
    return {key: value for key, value, _, _ in _iterate_records(content)}


def _take_number(folder: Path) -> tuple[int, int]:
    """Return the first number that no living process holds, and what holds it until it is closed."""
    held = ((number, _lock_file(folder / f"hold-{number}")) for number in itertools.count())
    return next((number, descriptor) for number, descriptor in held if descriptor is not None)


def _lock_file(path: Path, *, is_shared: bool = False) -> int | None:
    """Return the file's descriptor, locked until it is closed or the process ends; None if another holds it."""
    import fcntl  # not on Windows, where a service is one process

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
