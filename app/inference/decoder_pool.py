"""Decodes uploads in child processes, so that a file that breaks a decoder costs its own answer and no other.

A process that crashes or takes too long is replaced. A file that needs too much memory is refused; if the decoder
cannot say so itself, its process ends and is replaced. No threads: handing a file to a thread
that waits for its process cost as much as decoding a small picture. Knows nothing of HTTP.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchlight.app.errors import DecoderFailed, Overloaded
from torchlight.app.inference import decoder_process
from torchlight.app.inference.batcher import within
from torchlight.app.telemetry.logs import logger
from torchlight.model.errors import ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage
from torchlight.model.images import Resizing

ROOT = Path(__file__).parents[3]  # where a process finds this package
MAX_ERROR_BYTES = 10_000
RETRY_S = 1.0  # after a process could not be started
ERRORS = {kind.__name__: kind for kind in (ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage)}


@dataclass(frozen=True)
class Prepared:
    """Network input, (3, S, S) uint8 RGB, and the facts about the file."""

    tensor: Tensor
    format: str
    width: int
    height: int


class DecoderPool:
    """Child processes behind a bounded queue. Bound to the event loop in which :meth:`start` is called.

    A call whose caller leaves before it began is dropped with all it holds. One that has begun keeps its process until
    it ends, even if its caller leaves.
    """

    def __init__(
        self,
        *,
        number: int,
        queue_size: int,
        time_limit_s: float,
        max_pixels: int,
        max_bytes: int,
        module: str = decoder_process.__name__,
    ) -> None:
        self._command = [sys.executable, "-m", module, str(time_limit_s), str(max_pixels), str(max_bytes)]
        self._number = number
        self._limit = number + queue_size
        self._accepted = 0  # calls that wait, and those that a process is busy with
        self._idle: deque[_Process] = deque()
        self._has_idle = asyncio.Semaphore(0)  # as many permits as there are idle processes
        self._living: set[_Process] = set()
        self._failure: OSError | None = None  # why no process could be started
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closing = False

    async def start(self) -> None:
        """Start the processes, and wait until they can decode.

        Raises:
            OSError: the system starts none.
        """
        await asyncio.gather(*(self._start() for _ in range(self._number)))

    async def prepare(self, content: bytes, resizing: Resizing, deadline: float | None) -> Prepared:
        """Return what :func:`model.images.prepare_array` makes of a file.

        Args:
            resizing: side S and rule of the network's input.
            deadline: in the event loop's time; None waits for ever.

        Raises:
            ImageError: as it does; DecoderFailed if the process did not survive the file.
            Overloaded: too many wait; or the system ended the process, as it does when memory is short.
            DeadlineExceeded: it has not ended when the event loop's time reaches ``deadline``.
        """
        self.check_room(1)
        self._accepted += 1
        async with within(deadline):
            try:
                process = await self._take_idle()
            except BaseException:
                self._accepted -= 1
                raise
            reply = process.ask(content, resizing)
            reply.add_done_callback(lambda done: self._release(process, done))
            return await asyncio.shield(reply)

    def check_room(self, number: int) -> None:
        """Make sure that there is room for so many files.

        Raises:
            Overloaded: too many wait.
        """
        if self._failure and not self._living:
            raise Overloaded(f"no decoder can be started ({self._failure.strerror}); ask again later")
        if self._accepted + number > self._limit:
            taken = f"{self._accepted} images are being decoded or wait for it"
            raise Overloaded(f"the queue is full: {taken}; ask again later")

    @property
    def pids(self) -> list[int]:
        """What the system calls the processes."""
        return [process.pid for process in self._living]

    async def close(self) -> None:
        """End the processes."""
        self._is_closing = True
        for process in self._living:
            process.close()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _start(self) -> None:
        process = _Process(self._command)
        await process.start()
        self._living.add(process)
        self._put_idle(process)
        self._spawn(self._replace_when_ended(process))
        if self._is_closing:
            process.close()

    async def _replace_when_ended(self, process: "_Process") -> None:
        await process.has_ended.wait()
        self._living.discard(process)
        while not self._is_closing:
            try:
                await self._start()
            except OSError as error:
                self._failure = error
                await asyncio.sleep(RETRY_S)
            else:
                self._failure = None
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take_idle(self) -> "_Process":
        """Return an idle process, in the order in which callers came."""
        while True:
            await self._has_idle.acquire()  # in order of arrival, see asyncio.Semaphore
            process = self._idle.popleft()
            if process.is_running:
                return process  # else its replacement will be there in a moment

    def _put_idle(self, process: "_Process") -> None:
        self._idle.append(process)
        self._has_idle.release()

    def _release(self, process: "_Process", reply: "asyncio.Future[Prepared]") -> None:
        self._accepted -= 1
        reply.exception()  # its caller may have left
        if process.is_connected:
            self._put_idle(process)


class _Process(asyncio.Protocol):
    """One decoder process, and our end of the socket that is its standard input and output.

    Attributes:
        has_ended: and is no longer known to the system.
    """

    def __init__(self, command: list[str]) -> None:
        self.has_ended = asyncio.Event()
        self._command = command
        self._reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._received = bytearray()
        self._side = 0
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, and wait for its first reply.

        Raises:
            OSError: the system starts none, or it ended at once.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.to_thread(
                    lambda: subprocess.Popen(self._command, cwd=ROOT, stdin=theirs.fileno(), stdout=theirs.fileno())
                )
            except OSError:
                ours.close()
                raise
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_unix_connection(lambda: self, sock=ours)
        try:
            await self._reply
        except (ImageError, Overloaded) as error:
            raise OSError(0, "it ended at once; standard error says why") from error

    @property
    def pid(self) -> int:
        """What the system calls it."""
        return self._process.pid

    @property
    def is_connected(self) -> bool:
        """Whether it has not been seen to end."""
        return self._ending is None

    @property
    def is_running(self) -> bool:
        """Whether it can be asked: it may have ended a moment ago, unseen."""
        return self.is_connected and self._process.poll() is None

    def ask(self, content: bytes, resizing: Resizing) -> "asyncio.Future[Prepared]":
        """Send a file, and return what will be its reply, or the error that :meth:`DecoderPool.prepare` raises."""
        self._reply, self._side = asyncio.get_running_loop().create_future(), resizing.size
        rule = decoder_process.RULES.index(resizing.rule)
        self._transport.writelines((decoder_process.REQUEST.pack(len(content), resizing.size, rule), content))
        return self._reply

    def close(self) -> None:
        """Let the process end, which it does when its input does."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take a piece of the reply."""
        if self._reply.done():  # nothing was asked
            self._transport.abort()
            return
        self._received += data
        head = decoder_process.REPLY.size
        if len(self._received) < head:
            return
        error_bytes, width, height, name = decoder_process.REPLY.unpack_from(self._received)
        end = head + (error_bytes or (3 * self._side**2 if width else 0))
        if error_bytes > MAX_ERROR_BYTES or len(self._received) > end:
            self._transport.abort()  # it is malformed
        elif len(self._received) == end:
            rest, self._received = self._received[head:end], bytearray()
            try:
                self._reply.set_result(self._read(rest, width, height, name.rstrip(b"\0").decode()))
            except ImageError as error:
                self._reply.set_exception(error)
            except (LookupError, TypeError, ValueError):
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out how the process ended."""
        self._ending = asyncio.create_task(self._end())

    def _read(self, rest: bytearray, width: int, height: int, name: str) -> Prepared | None:
        """Return what a reply says, None if it is the first reply.

        Raises:
            ImageError: as the process says; and LookupError, TypeError or ValueError if it is malformed.
        """
        if width:
            pixels = torch.frombuffer(rest, dtype=torch.uint8).view(3, self._side, self._side)
            return Prepared(pixels, name, width, height)
        if rest:
            report = json.loads(rest)
            raise ERRORS[report["error"]](report["detail"])
        if self._side:
            raise ValueError("it does not answer the request")
        return None

    async def _end(self) -> None:
        status = await asyncio.to_thread(self._wait)
        if not self._reply.done():
            self._reply.set_exception(_explain(status))
        self.has_ended.set()

    def _wait(self) -> int:
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _explain(status: int) -> Exception:
    """Return what a decoder's exit status means for the file it had; a negative status is minus the signal."""
    logger.warning("a decoder ended", extra={"facts": {"exit_status": status}})
    if status == -signal.SIGKILL:
        return Overloaded("the system ended the decoder, maybe because memory was short; send the image again")
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        return DecoderFailed("image takes far longer to decode than images of its size; save it again")
    return DecoderFailed("the decoder crashed on this image; save it again, or in another format")
