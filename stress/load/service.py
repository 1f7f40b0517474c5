"""A real ``torchlight serve``, and what Linux says of its processes: memory, descriptors, threads, connections."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from stress.load.client import Closed, Connection, build

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0  # until a service that starts is ready, and until one that stops is gone
POLL_S = 0.02
LOG_LINES = 20  # of the service, to be shown when what is done with it fails
PROBES = 8  # connections at once, so that every worker takes one
ESTABLISHED = "01"
PROC = Path("/proc")
NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Reading:
    """One process at one moment.

    Attributes:
        role: parent, worker, or decoder (a worker's child).
    """

    pid: int
    role: str
    rss_mb: float
    descriptors: int
    threads: int


@dataclass(frozen=True)
class Service:
    """A running service; all that it prints goes to ``log``."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path

    @property
    def pid(self) -> int:
        """The process that was started: the parent of all."""
        return self.process.pid

    def family(self) -> dict[int, str]:
        """Return the role of each process of the service that lives, parents before their children."""
        roles = {self.pid: "parent"}
        for child in _children(self.pid):
            roles[child] = "worker"
            roles |= dict.fromkeys(_children(child), "decoder")
        return {pid: role for pid, role in roles.items() if is_alive(pid)}

    def workers(self) -> set[int]:
        """Return the processes that answer, those that start or end included."""
        return {pid for pid, role in self.family().items() if role == "worker"}

    def decoders(self, worker: int) -> set[int]:
        """Return the processes of a worker's own."""
        return set(_children(worker))

    def readings(self) -> tuple[Reading, ...]:
        """Return the figures of each process; one that ends meanwhile is left out."""
        readings = []
        for pid, role in self.family().items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                readings.append(read(pid, role))
        return tuple(readings)

    def connections(self) -> dict[int, int]:
        """Return the inode of each established connection by the client's port; 0 while it is not accepted yet."""
        return {port: inode for port, inode, _ in self._table()}

    def unread(self) -> int:
        """Return how many bytes have come that no process has read."""
        return sum(size for _, _, size in self._table())

    def sockets(self, pid: int) -> set[int]:
        """Return the inodes of the sockets that a process holds; none if it has ended."""
        folder, found = PROC / str(pid) / "fd", set()
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for entry in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):
                    found.add(os.readlink(folder / entry))
        return {int(one[8:-1]) for one in found if one.startswith("socket:[")}

    def owners(self) -> dict[int, int]:
        """Return which worker holds a client's connection: process id by the client's port."""
        holders = {inode: pid for pid in self.workers() for inode in self.sockets(pid)}
        return {port: holders[inode] for port, inode in self.connections().items() if inode in holders}

    async def answering(self) -> set[int]:
        """Return the workers that say they are ready, to some probes on new connections."""
        found = await asyncio.gather(*(self._probe() for _ in range(PROBES)), return_exceptions=True)
        return {pid for pid in found if isinstance(pid, int)}

    async def until_all_answer(self, count: int, *, without: frozenset[int] | set[int] = frozenset()) -> float:
        """Return the seconds until so many workers say they are ready; none of ``without`` counts.

        Raises:
            TimeoutError: they do not within PATIENCE_S.
        """
        started, seen = time.monotonic(), set[int]()
        async with asyncio.timeout(PATIENCE_S):
            while len(seen) < count:
                seen |= await self.answering() - without
                seen &= self.workers()
                await asyncio.sleep(POLL_S)
        return time.monotonic() - started

    def errors(self) -> list[str]:
        """Return the lines of the log about unexpected failures."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if re.search(r'"level": "(error|critical)"|Traceback', line)]

    def logged(self, words: str) -> int:
        """Return how many lines of the log hold these words."""
        return sum(words in line for line in self.log.read_text(errors="replace").splitlines())

    def _table(self) -> Iterator[tuple[int, int, int]]:
        """Yield the client's port, the inode and the unread bytes of each connection on the service's side."""
        for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
            _, local, remote, state, queues, _, _, _, _, inode, *_ = line.split()
            if int(local.partition(":")[2], 16) == self.port and state == ESTABLISHED:
                yield int(remote.partition(":")[2], 16), int(inode), int(queues.partition(":")[2], 16)

    async def _probe(self) -> int | None:
        """Return which worker said that it is ready, on a connection of its own."""
        connection = await Connection.open(self.host, self.port)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await connection.send(build("GET", "/readyz"))
                answer = await connection.answer()
            return self.owners().get(connection.port) if answer.status == 200 else None
        except (Closed, ConnectionError):
            return None
        finally:
            connection.close()


@contextlib.contextmanager
def running(workers: int, variables: Mapping[str, str] = NOTHING, /, **settings: object) -> Iterator[Service]:
    """Run ``torchlight serve`` on a free port, and yield it once all workers are ready.

    Args:
        variables: added to the environment.
        settings: by their names; the store is a temporary folder if they do not say where.
    """
    with tempfile.TemporaryDirectory(prefix="torchlight-load-") as name:
        folder = Path(name)
        (folder / "store").mkdir()
        given = {"device": "cpu", "log_format": "json", "store_dir": folder / "store"} | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLIGHT_")}
        environment |= {f"TORCHLIGHT_{name.upper()}": str(value) for name, value in given.items()}
        environment |= variables
        command = [sys.executable, "-m", "torchlight", "serve", "--port", "0", "--workers", str(workers)]
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            service = Service(process, *_address(process, log), log)
            asyncio.run(service.until_all_answer(workers))
            yield service
        except BaseException:
            print("\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]), file=sys.stderr)
            raise
        finally:
            process.terminate()
            _wait(process)


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and more of it than what its parent has not taken note of."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read(pid: int, role: str) -> Reading:
    """Return the figures of one process.

    Raises:
        FileNotFoundError, ProcessLookupError: it has ended.
    """
    status = (PROC / str(pid) / "status").read_text()
    figures = {name: value.split()[0] for name, _, value in (line.partition(":") for line in status.splitlines())
               if name in ("VmRSS", "Threads")}  # fmt: skip
    descriptors = len(os.listdir(PROC / str(pid) / "fd"))
    return Reading(pid, role, int(figures.get("VmRSS", 0)) * 1024 / 1e6, descriptors, int(figures["Threads"]))


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(PROC / str(pid) / "task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children += map(int, (PROC / str(pid) / "task" / thread / "children").read_text().split())
    return children


def _address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, int]:
    """Return where the service listens, as its greeting says."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"http://([\d.]+):(\d+)/", log.read_text()):
            return found[1], int(found[2])
        time.sleep(POLL_S)
    raise RuntimeError(f"the service did not start:\n{log.read_text()}")


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
