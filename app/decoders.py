"""Decodes uploads in processes of its own, so that a file that breaks a decoder costs its own answer and no other.

A process that crashes, takes too long or takes too much memory is replaced. The event loop talks to them itself: a
thread to wait for each took as long as decoding a small picture. A free process gets several of the small files that
wait, and answers them together, for fewer turns of the event loop; if it does not survive them, each is decoded alone.
Knows nothing of HTTP.
"""

import asyncio
import json
import math
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app import decoding
from app.batcher import Overloaded, within
from app.logs import logger
from model.errors import ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage

ROOT = Path(__file__).parents[1]  # where a process finds app and model
MAX_ERROR_BYTES = 10_000
GROUP_FILES, GROUP_BYTES = 8, 400_000  # that a process gets at a time, if more wait; it hands back what takes long
RETRY_S = 1.0  # after a process could not be started
ERRORS = {kind.__name__: kind for kind in (ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage)}


class DecoderFailed(ImageError):
    """The decoder crashed on this file, or did not come to an end with it."""


@dataclass(frozen=True)
class Prepared:
    """Network input, (3, S, S) uint8 RGB, and the facts about the file."""

    tensor: Tensor
    format: str
    width: int
    height: int


@dataclass(frozen=True)
class _File:
    """What waits. It ``goes_alone`` if a process did not survive it and others, or handed it back."""

    content: bytes
    size: int
    goes_alone: bool = False


class Decoders:
    """A few processes, with a bounded line before them. Bound to the event loop in which :meth:`start` is called.

    A call whose caller leaves before it began is dropped with all it holds. One that has begun keeps its process until
    it ends, whoever left; so do those of a group, which takes as long as one large file at most.
    """

    def __init__(
        self,
        *,
        number: int,
        queue_size: int,
        time_limit_s: float,
        max_pixels: int,
        max_bytes: int,
        module: str = decoding.__name__,
    ) -> None:
        self._command = [sys.executable, "-m", module, str(time_limit_s), str(max_pixels), str(max_bytes)]
        self._number = number
        self._limit = number + queue_size
        self._idle: deque[_Process] = deque()
        # In order of arrival. A future that is done for any reason removes itself, so all that is in here is awaited.
        self._line: dict[asyncio.Future[Prepared], _File] = {}
        self._begun = 0  # files that a process is busy with
        self._living: set[_Process] = set()
        self._failure: OSError | None = None  # why no process could be started
        self._chores: set[asyncio.Task[None]] = set()
        self._is_closing = False

    async def start(self) -> None:
        """Start the processes, and wait until they can decode.

        Raises:
            OSError: the system starts none.
        """
        await asyncio.gather(*(self._start() for _ in range(self._number)))

    async def prepare(self, content: bytes, size: int, deadline: float | None) -> Prepared:
        """Return what :func:`model.images.prepare` makes of a file.

        Args:
            size: side S of the network's input.
            deadline: in the event loop's time; None waits for ever.

        Raises:
            ImageError: as it does; DecoderFailed if the process did not survive the file.
            Overloaded: too many wait; or the system ended the process, as it does when memory is short.
            DeadlineExceeded: it has not ended when the event loop's time reaches ``deadline``.
        """
        self.check_room(1)
        turn: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._line[turn] = _File(content, size)
        turn.add_done_callback(lambda done: self._line.pop(done, None))
        self._share_out()
        async with within(deadline):
            return await turn

    def check_room(self, number: int) -> None:
        """Make sure that there is room for so many files.

        Raises:
            Overloaded: too many wait.
        """
        if self._failure and not self._living:
            raise Overloaded(f"no decoder can be started ({self._failure.strerror}); ask again later")
        accepted = self._begun + len(self._line)
        if accepted + number > self._limit:
            raise Overloaded(f"the queue is full: {accepted} images wait for a decoder; ask again later")

    @property
    def pids(self) -> list[int]:
        """What the system calls the processes."""
        return [process.pid for process in self._living]

    async def close(self) -> None:
        """End the processes."""
        self._is_closing = True
        for process in self._living:
            process.close()
        while self._chores:
            await asyncio.wait(self._chores)

    async def _start(self) -> None:
        process = _Process(self._command)
        await process.start()
        self._living.add(process)
        self._idle.append(process)
        self._share_out()
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

    def _spawn(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _share_out(self) -> None:
        """Give what waits to the processes that are idle."""
        while self._idle and self._line:
            process = self._idle.popleft()
            if process.is_running:  # else its replacement will be there in a moment
                group = self._take()
                if not group:
                    self._idle.append(process)
                    return
                reply = process.ask(list(group.values()))
                self._begun += len(group)
                reply.add_done_callback(partial(self._answer, process, group))

    def _take(self) -> "dict[asyncio.Future[Prepared], _File]":
        """Return what waits longest: a process's share of all that waits, but no more than it does in a moment.

        Not what nobody awaits any more, which leaves the line only in the event loop's next turn.
        """
        share = min(GROUP_FILES, math.ceil(len(self._line) / self._number))
        awaited = ((turn, file) for turn, file in self._line.items() if not turn.done())
        group: dict[asyncio.Future[Prepared], _File] = {}
        room = GROUP_BYTES
        for turn, file in list(islice(awaited, share)):
            room -= len(file.content)
            if group and (file.goes_alone or room < 0):
                break
            group[turn] = self._line.pop(turn)
            if file.goes_alone:
                break
        return group

    def _answer(
        self,
        process: "_Process",
        group: "dict[asyncio.Future[Prepared], _File]",
        reply: "asyncio.Future[list[Prepared | ImageError | None]]",
    ) -> None:
        """Tell the callers who still wait, and give the process its next files."""
        self._begun -= len(group)
        error = reply.exception()
        handed_back = None if len(group) > 1 and not self._is_closing else error
        outcomes = [handed_back] * len(group) if error is not None else reply.result()
        again = {}
        for (turn, file), outcome in zip(group.items(), outcomes, strict=True):
            if turn.done():
                continue
            if isinstance(outcome, Prepared):
                turn.set_result(outcome)
            elif outcome is not None:
                turn.set_exception(outcome)
            else:
                again[turn] = replace(file, goes_alone=True)
        self._line = again | self._line
        if process.is_connected:
            self._idle.append(process)
        self._share_out()


class _Process(asyncio.Protocol):
    """One process of :mod:`app.decoding`, and our end of the socket that is its standard input and output.

    Attributes:
        has_ended: and is no longer known to the system.
    """

    def __init__(self, command: list[str]) -> None:
        self.has_ended = asyncio.Event()
        self._command = command
        self._reply: asyncio.Future[list[Prepared | ImageError | None]] = asyncio.get_running_loop().create_future()
        self._received = bytearray()
        self._has_spoken = False
        self._sizes: list[int] = []  # of what was asked
        self._outcomes: list[Prepared | ImageError | None] = []
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, and wait for its first word.

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

    def ask(self, files: Sequence[_File]) -> "asyncio.Future[list[Prepared | ImageError | None]]":
        """Send files, and return what will be its reply: of each what it is, or why it cannot be read; None for one
        among others that is to be sent again alone.

        The future raises DecoderFailed or Overloaded if the process does not survive them.
        """
        self._reply = asyncio.get_running_loop().create_future()
        self._sizes, self._outcomes = [file.size for file in files], []
        pieces: list[bytes] = []
        for left, file in zip(reversed(range(len(files))), files, strict=True):
            pieces += (decoding.REQUEST.pack(len(file.content), file.size, left), file.content)
        self._transport.writelines(pieces)
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
        if not self._has_spoken:
            if len(self._received) >= decoding.REPLY.size:
                self._has_spoken = True
                self._received.clear()
                self._reply.set_result([])
            return
        try:
            while len(self._outcomes) < len(self._sizes) and (end := self._next_end()) <= len(self._received):
                self._outcomes.append(self._read(end))
                del self._received[:end]
            is_complete = len(self._outcomes) == len(self._sizes)
            if is_complete and self._received:
                raise ValueError("more came than was asked for")
        except (LookupError, TypeError, ValueError):
            self._transport.abort()  # it makes no sense
            return
        if is_complete:
            self._reply.set_result(self._outcomes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Find out how the process ended."""
        self._ending = asyncio.create_task(self._end())

    def _next_end(self) -> int:
        """Return how many bytes the next file's part of the reply has.

        Raises:
            ValueError: it makes no sense.
        """
        head, size = decoding.REPLY.size, self._sizes[len(self._outcomes)]
        if len(self._received) < head:
            return head
        error_bytes, width, _, _ = decoding.REPLY.unpack_from(self._received)
        if error_bytes > MAX_ERROR_BYTES:
            raise ValueError(f"an error of {error_bytes} bytes")
        return head + int(error_bytes or (3 * size**2 if width else 0))

    def _read(self, end: int) -> Prepared | ImageError | None:
        """Return what is said of the next file.

        Raises:
            LookupError, TypeError, ValueError: it makes no sense.
        """
        error_bytes, width, height, name = decoding.REPLY.unpack_from(self._received)
        rest = self._received[decoding.REPLY.size : end]
        if error_bytes:
            said = json.loads(rest)
            return ERRORS[said["error"]](said["detail"])
        if not width:
            if len(self._sizes) == 1:
                raise ValueError("it was sent alone")
            return None
        size = self._sizes[len(self._outcomes)]
        return Prepared(
            torch.frombuffer(rest, dtype=torch.uint8).view(3, size, size), name.rstrip(b"\0").decode(), width, height
        )

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
    """Return what a process's exit status means for the file that it had; it is negative if a signal ended it."""
    logger.warning("a decoder ended while it decoded", extra={"facts": {"exit_status": status}})
    if status == -signal.SIGKILL:
        return Overloaded("the system ended the decoder, maybe for want of memory; send the image again")
    if status in (-signal.SIGPROF, -signal.SIGALRM):
        return DecoderFailed("image takes far longer to decode than images of its size; save it again")
    return DecoderFailed("the decoder crashed on this image; save it again, or in another format")
