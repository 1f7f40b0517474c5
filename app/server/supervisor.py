"""The parent process: starts the worker processes, restarts those that die, and reloads all of them on request.

It imports neither torch nor FastAPI, so it is small and starts quickly; whether a checkpoint or a device can be used, a
worker finds out and reports. The workers share one socket, which stays open while any of them is replaced.

    SIGTERM, SIGINT   stop: the workers finish what they accepted; a second one ends them at once
    SIGHUP            reload: as many new workers as there are read the checkpoint again; when all of them answer right,
                      the old ones drain

A reload is all or nothing: if any new worker cannot start, or two of them have read different checkpoints, the new ones
drain and the old ones stay, so that no two checkpoints continue to answer. A worker that replaces a dead one may find
another checkpoint than the others have; that starts a reload too, which is repeated until it succeeds. The price is the
memory of twice the workers for the time that the new ones take to start.
"""

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from torchlight.app.errors import StartError
from torchlight.app.settings import KEEP_ALIVE_S, Settings
from torchlight.app.telemetry.logs import configure_logging, logger

ROOT = str(Path(__file__).parents[3])
# A new interpreter, since torch and its threads do not survive a fork; not `-m`, which would look for our packages in
# the folder that the service was started in.
MAIN = f"import sys; sys.path.append({ROOT!r}); from torchlight.app.server import worker; worker.main()"
WORKER_COMMAND = (sys.executable, "-P", "-c", MAIN)
FIRST_PAUSE_S = 1.0  # before a worker that could not start is started again; doubled each time
LONGEST_PAUSE_S = 30.0  # also between attempts to reload while two checkpoints answer
START_S = 300.0  # for a worker to be ready; without it a checkpoint on a hanging disk would block its slot for ever
SPARE_S = 10  # beyond the time that a worker allows itself to drain; then it is stuck


@dataclass(eq=False)
class _Worker:
    """A worker process, as its parent sees it."""

    process: subprocess.Popen[bytes]
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    has_left_slot: asyncio.Event = field(default_factory=asyncio.Event)  # it has ended, or another one replaced it
    digest: str = ""
    subject: str = ""

    def __str__(self) -> str:
        return f"worker {self.process.pid}"

    @property
    def end(self) -> str:
        """How it ended, for the log."""
        code = self.process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def stop(self, patience_s: float) -> None:
        """Make it drain, and return when it has ended; kill it if that takes longer than ``patience_s``."""
        self.process.terminate()
        try:
            await asyncio.wait_for(self.has_ended.wait(), patience_s)
        except TimeoutError:
            logger.error(f"{self} does not end; killing it")
            self.process.kill()
            await self.has_ended.wait()


@dataclass(eq=False)
class _Slot:
    """The place of one worker. Who replaces the worker holds the lock."""

    worker: _Worker
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def run(settings: Settings, worker_command: Sequence[str] = WORKER_COMMAND) -> None:
    """Serve until SIGTERM or Ctrl+C, then answer what was accepted and return.

    Args:
        worker_command: starts a worker; two file descriptors are added to it, see :func:`app.server.worker.main`.

    Raises:
        StartError: before anything listens.
        SystemExit: a second signal ended what was still being answered.
    """
    configure_logging(settings.log_format)
    with (
        _bind(settings.host, settings.port) as listener,
        tempfile.TemporaryDirectory(prefix="torchlight-metrics-", ignore_cleanup_errors=True) as folder,
    ):
        asyncio.run(_Supervisor(settings, worker_command, listener, Path(folder)).run())


class _Supervisor:
    """All worker processes of one service."""

    def __init__(
        self, settings: Settings, worker_command: Sequence[str], listener: socket.socket, metrics_dir: Path
    ) -> None:
        self._settings = settings
        self._worker_command = worker_command
        self._listener = listener
        self._metrics_dir = metrics_dir
        self._living: set[_Worker] = set()  # the starting and the ending ones too
        self._slots: list[_Slot] = []
        self._reload_requested = asyncio.Event()
        self._signals: list[int] = []  # those that asked to stop
        self._had_terminal = _has_terminal()

    async def run(self) -> None:
        """Start all workers and watch them until a signal asks to stop; see :func:`run`."""
        loop, work = asyncio.get_running_loop(), asyncio.create_task(self._supervise())

        def stop(number: int) -> None:
            self._listener.close()
            self._signals.append(number)
            work.cancel()
            if len(self._signals) > 1:
                for worker in self._living:
                    worker.process.kill()

        def hang_up() -> None:
            if self._had_terminal and not _has_terminal():  # it was closed, which comes as the same signal
                stop(signal.SIGHUP)
            else:
                self._reload_requested.set()

        loop.add_signal_handler(signal.SIGCHLD, self._note_ended)
        loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, stop, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        try:
            await work
        except asyncio.CancelledError:
            pass  # a signal asked to stop
        finally:
            await self._drain(self._living)
        if len(self._signals) > 1:
            sys.exit(128 + self._signals[-1])

    async def _supervise(self) -> None:
        workers = await asyncio.gather(*(self._start_worker() for _ in range(self._settings.workers)))
        self._slots = [_Slot(worker) for worker in workers]
        self._reload_if_mixed()
        print(self._greeting(), file=sys.stderr, flush=True)
        await asyncio.gather(self._reload_on_request(), *map(self._keep_alive, self._slots))

    async def _start_worker(self) -> _Worker:
        """Return a new worker as soon as it accepts connections.

        Raises:
            StartError: it cannot, or died before.
        """
        try:
            worker, report_pipe = self._spawn()
        except OSError as error:
            raise StartError(f"no process can be started ({error.strerror})") from error
        self._living.add(worker)
        try:
            content = await asyncio.wait_for(_read_until_closed(report_pipe), START_S)
        except TimeoutError:
            worker.process.kill()
            content = b""
        if not content:
            await worker.has_ended.wait()
            raise StartError(f"{worker} {worker.end} before it could answer")
        report = json.loads(content)
        if "reason" in report:
            await worker.has_ended.wait()
            raise StartError(report["reason"])
        worker.subject, worker.digest = report["subject"], report["digest"]
        logger.info(f"{worker} serves {worker.subject}, {worker.digest}")
        return worker

    def _spawn(self) -> tuple[_Worker, BinaryIO]:
        """Return a new process, and the pipe on which it will report how its start went."""
        ours, theirs = os.pipe()
        try:
            process = subprocess.Popen(
                [*self._worker_command, str(self._listener.fileno()), str(theirs)],
                stdin=subprocess.PIPE,  # it ends with this process, and the worker notices
                pass_fds=(self._listener.fileno(), theirs),
                process_group=0,  # a terminal's Ctrl+C goes to this process alone
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already
            process.stdin.write(pickle.dumps((self._settings, self._metrics_dir)))
            process.stdin.flush()
        return _Worker(process), open(ours, "rb", buffering=0)

    async def _keep_alive(self, slot: _Slot) -> None:
        """Start another worker in the slot whenever one dies."""
        pause_s = FIRST_PAUSE_S
        while True:
            worker = slot.worker
            await worker.has_left_slot.wait()
            async with slot.lock:
                if slot.worker is not worker:  # it was replaced on purpose
                    continue
                logger.error(f"{worker} {worker.end}; starting another")
                try:
                    slot.worker = await self._start_worker()
                except StartError as error:
                    logger.error(f"a worker cannot start: {error}; trying again in {pause_s:g} s")
                else:
                    self._reload_if_mixed()
                    pause_s = FIRST_PAUSE_S
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _reload_on_request(self) -> None:
        while True:
            await self._reload_requested.wait()
            self._reload_requested.clear()
            logger.info("reloading")
            try:
                workers = await self._start_replacements()
            except StartError as error:
                logger.error(f"reload failed, the workers that answer go on: {error}")
                asyncio.get_running_loop().call_later(LONGEST_PAUSE_S, self._reload_if_mixed)
                continue
            replaced = []
            for slot, worker in zip(self._slots, workers, strict=True):
                async with slot.lock:
                    replaced.append(slot.worker)
                    slot.worker = worker
                replaced[-1].has_left_slot.set()
            await self._drain(replaced)
            logger.info("reloaded")

    def _reload_if_mixed(self) -> None:
        """Request a reload if the checkpoint's file changed between two starts, so that workers answer differently."""
        if len({slot.worker.digest for slot in self._slots}) > 1:
            self._reload_requested.set()

    async def _start_replacements(self) -> list[_Worker]:
        """Return as many new workers as there are slots, all with one checkpoint.

        One after the other: a bad checkpoint costs one start, and the old workers keep most of the processor.

        Raises:
            StartError: one cannot start, or the checkpoint changed meanwhile; no new one is left.
        """
        workers: list[_Worker] = []
        try:
            for _ in self._slots:
                workers.append(await self._start_worker())
                if workers[-1].digest != workers[0].digest:
                    raise StartError("the checkpoint changed while it was read; reload again")
        except StartError:
            await self._drain(workers)
            raise
        return workers

    async def _drain(self, workers: Iterable[_Worker]) -> None:
        await asyncio.gather(*(worker.stop(self._patience_s) for worker in workers))

    def _note_ended(self) -> None:
        for worker in list(self._living):
            if worker.process.poll() is not None:
                assert worker.process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it died before it had read its settings
                    worker.process.stdin.close()
                self._living.remove(worker)
                worker.has_ended.set()
                worker.has_left_slot.set()

    @property
    def _patience_s(self) -> float:
        return KEEP_ALIVE_S + self._settings.drain_s + SPARE_S

    def _greeting(self) -> str:
        host, port = self._settings.host, self._listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        number = self._settings.workers
        processes = f" in {number} processes" if number > 1 else ""
        return f"torchlight: serving {self._slots[0].worker.subject}{processes}; look at {address}"


def _bind(host: str, port: int) -> socket.socket:
    """Return a socket at that address; it listens when the first worker is ready."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = str(error.strerror).partition(" (")[0]
        raise StartError(f"cannot listen on {host}:{port} ({reason}); choose with --host and --port") from error
    return listener


async def _read_until_closed(pipe: BinaryIO) -> bytes:
    """Return what comes from a pipe until its other end is closed, and close it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    with contextlib.closing(transport):
        return await reader.read()


def _has_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
