"""The parent process: starts those that answer, and replaces them when they die or are asked to be replaced.

It knows neither torch nor HTTP, so it is small and quick to start; what can be wrong with a checkpoint or a device, a
worker finds and tells. The workers share one socket, which stays open while any of them is replaced.

    SIGTERM, SIGINT   stop: the workers finish what they accepted; a second one ends them at once
    SIGHUP            reload: each worker is replaced by one that has read the checkpoint again and answers right;
                      if the first of them does not come so far, the old ones go on
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from torchlight.app.errors import StartError
from torchlight.app.settings import KEEP_ALIVE_S, Settings
from torchlight.app.telemetry.logs import configure_logging, logger

# What a worker runs. A new interpreter, since torch and its threads do not survive a fork; not `-m`, which would look
# for our packages in the folder that the service was started in.
ROOT = str(Path(__file__).parents[3])
MAIN = f"import sys; sys.path.append({ROOT!r}); from torchlight.app.server import worker; worker.main()"
FIRST_PAUSE_S = 1.0  # before a worker that could not start is tried again; doubled each time
LONGEST_PAUSE_S = 30.0
START_S = 300.0  # within which a worker has to answer; a checkpoint on a disk that hangs would block its place for ever
SPARE_S = 10  # beyond the time that a worker allows itself to end; then it is stuck


@dataclass(eq=False)
class _Worker:
    """A process that answers, as its parent sees it."""

    process: subprocess.Popen[bytes]
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_out_of_duty: asyncio.Event = field(default_factory=asyncio.Event)  # it has ended, or another took its place
    digest: str = ""
    subject: str = ""

    def __str__(self) -> str:
        return f"worker {self.process.pid}"

    @property
    def end(self) -> str:
        """How it ended, for people."""
        code = self.process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    async def stop(self, patience_s: float) -> None:
        """Tell it to finish what it accepted, and return when it is gone."""
        self.process.terminate()
        try:
            await asyncio.wait_for(self.has_ended.wait(), patience_s)
        except TimeoutError:
            logger.error(f"{self} does not end; killing it")
            self.process.kill()
            await self.has_ended.wait()


@dataclass(eq=False)
class _Place:
    """Where there is always one worker; whoever holds the lock may put another one there."""

    worker: _Worker
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl+C, then answer what was accepted and return.

    Raises:
        StartError: before anything listens.
        SystemExit: a second signal ended what was still being answered.
    """
    configure_logging(settings.log_format)
    with (
        _bind(settings.host, settings.port) as listener,
        tempfile.TemporaryDirectory(prefix="torchlight-metrics-", ignore_cleanup_errors=True) as folder,
    ):
        asyncio.run(_Supervisor(settings, listener, Path(folder)).run())


class _Supervisor:
    """All workers of one service."""

    def __init__(self, settings: Settings, listener: socket.socket, metrics_dir: Path) -> None:
        self._settings = settings
        self._listener = listener
        self._metrics_dir = metrics_dir
        self._living: set[_Worker] = set()  # the starting and the ending ones too
        self._places: list[_Place] = []
        self._reload_wanted = asyncio.Event()
        self._signals: list[int] = []  # those that said to stop
        self._had_terminal = _has_terminal()

    async def run(self) -> None:
        """Start all workers and watch them until told to stop; see :func:`run`."""
        loop, work = asyncio.get_running_loop(), asyncio.create_task(self._work())

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
                self._reload_wanted.set()

        loop.add_signal_handler(signal.SIGCHLD, self._note_ended)
        loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGINT, stop, signal.SIGINT)
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        try:
            await work
        except asyncio.CancelledError:
            pass  # told to stop
        finally:
            await asyncio.gather(*(worker.stop(self._patience_s) for worker in self._living))
        if len(self._signals) > 1:
            sys.exit(128 + self._signals[-1])

    async def _work(self) -> None:
        workers = await asyncio.gather(*(self._start() for _ in range(self._settings.workers)))
        self._places = [_Place(worker) for worker in workers]
        print(self._greeting(), file=sys.stderr, flush=True)
        await asyncio.gather(self._reload_when_wanted(), *map(self._keep, self._places))

    async def _start(self) -> _Worker:
        """Return a new worker as soon as it accepts connections.

        Raises:
            StartError: it cannot, or died before.
        """
        try:
            worker, told = self._spawn()
        except OSError as error:
            raise StartError(f"no process can be started ({error.strerror})") from error
        self._living.add(worker)
        with told:
            try:
                message = await asyncio.wait_for(_read(told), START_S)
            except TimeoutError:
                worker.process.kill()
                message = b""
        if not message:
            await worker.has_ended.wait()
            raise StartError(f"{worker} {worker.end} before it could answer")
        said = json.loads(message)
        if "reason" in said:
            await worker.has_ended.wait()
            raise StartError(said["reason"])
        worker.subject, worker.digest = said["subject"], said["digest"]
        logger.info(f"{worker} serves {worker.subject}, {worker.digest}")
        return worker

    def _spawn(self) -> tuple[_Worker, BinaryIO]:
        """Return a new process, and the pipe on which it will tell how its start went."""
        told, tell = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", MAIN, str(self._listener.fileno()), str(tell)],
                stdin=subprocess.PIPE,  # its end tells the worker that its parent is gone
                pass_fds=(self._listener.fileno(), tell),
                process_group=0,  # what a terminal sends to all of a group, only the parent is to get
            )
        except OSError:
            os.close(told)
            raise
        finally:
            os.close(tell)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already
            process.stdin.write(pickle.dumps((self._settings, self._metrics_dir)))
            process.stdin.flush()
        return _Worker(process), open(told, "rb", buffering=0)

    async def _keep(self, place: _Place) -> None:
        """Put another worker in the place of one that dies, for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            worker = place.worker
            await worker.is_out_of_duty.wait()
            async with place.lock:
                if place.worker is not worker:  # it was replaced on purpose
                    continue
                logger.error(f"{worker} {worker.end}; starting another")
                try:
                    place.worker = await self._start()
                except StartError as error:
                    logger.error(f"a worker cannot start: {error}; trying again in {pause_s:g} s")
                else:
                    if any(one.worker.digest != place.worker.digest for one in self._places):
                        self._reload_wanted.set()  # the file has changed: all must answer with the same weights
                    pause_s = FIRST_PAUSE_S
                    continue
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            logger.info("reloading")
            try:
                for place in self._places:
                    await self._replace(place)
            except StartError as error:
                logger.error(f"reload failed, the workers that answer go on: {error}")
            else:
                logger.info("reloaded")

    async def _replace(self, place: _Place) -> None:
        """Put a new worker in the place, and only then let the old one finish what it accepted.

        Raises:
            StartError: the new one cannot start; the old one goes on.
        """
        async with place.lock:
            new = await self._start()
            old, place.worker = place.worker, new
            old.is_out_of_duty.set()
        await old.stop(self._patience_s)

    def _note_ended(self) -> None:
        for worker in list(self._living):
            if worker.process.poll() is not None:
                assert worker.process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it died before it had read its settings
                    worker.process.stdin.close()
                self._living.remove(worker)
                worker.has_ended.set()
                worker.is_out_of_duty.set()

    @property
    def _patience_s(self) -> float:
        return KEEP_ALIVE_S + self._settings.drain_s + SPARE_S

    def _greeting(self) -> str:
        host, port = self._settings.host, self._listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        number = self._settings.workers
        processes = f" in {number} processes" if number > 1 else ""
        return f"torchlight: serving {self._places[0].worker.subject}{processes}; look at {address}"


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


async def _read(pipe: BinaryIO) -> bytes:
    """Return all that comes from an unbuffered pipe until it is closed at the other end."""
    loop, is_readable, content = asyncio.get_running_loop(), asyncio.Event(), b""
    loop.add_reader(pipe, is_readable.set)
    try:
        while True:
            await is_readable.wait()
            is_readable.clear()
            piece = pipe.read(4096)
            if not piece:
                return content
            content += piece
    finally:
        loop.remove_reader(pipe)


def _has_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
