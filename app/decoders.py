"""Decodes uploads in processes of its own, so that a file that breaks a decoder costs its own answer and no other.

A process that crashes, takes too long or takes too much memory is replaced. Calls block: they are for threads. Knows
nothing of HTTP.
"""

import contextlib
import fcntl
import json
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from app import decoding
from app.batcher import Overloaded
from app.logs import logger
from model.errors import ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage

ROOT = Path(__file__).parents[1]  # where a process finds app and model
PIPE_BYTES = 1_000_000  # an upload that fits is handed over at once, without waiting for the other side
MAX_REPLY_BYTES = 10_000
ERRORS = {kind.__name__: kind for kind in (ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage)}


class DecoderFailed(ImageError):
    """The decoder crashed on this file, or did not come to an end with it."""


class _Ended(Exception):
    """The process has ended before it answered."""

    def __str__(self) -> str:
        return "a decoder ended before it answered"


@dataclass(frozen=True)
class Prepared:
    """Network input, (3, S, S) uint8 RGB, and the facts about the file."""

    tensor: Tensor
    format: str
    width: int
    height: int


class Decoders:
    """As many processes as calls at a time. Safe to call from several threads."""

    def __init__(
        self, *, time_limit_s: float, max_pixels: int, max_bytes: int, module: str = decoding.__name__
    ) -> None:
        self._command = [sys.executable, "-m", module, str(time_limit_s), str(max_pixels), str(max_bytes)]
        self._idle: deque[_Process] = deque()

    def start(self, number: int) -> None:
        """Start so many processes, and wait until they can decode."""
        processes = [_Process(self._command) for _ in range(number)]
        for process in processes:
            process.wait_until_ready()
        self._idle.extend(processes)

    def prepare(self, content: bytes, size: int) -> Prepared:
        """Return what :func:`model.images.prepare` makes of a file.

        Raises:
            ImageError: as it does; DecoderFailed if the process did not survive the file.
            Overloaded: the system ended the process, as it does when memory is short.
        """
        process = self._take()
        try:
            prepared = process.prepare(content, size)
        except ImageError:
            self._idle.append(process)
            raise
        except (_Ended, LookupError, ValueError):  # the others: it answers what makes no sense
            raise self._explain(process.end()) from None
        self._idle.append(process)
        return prepared

    @property
    def pids(self) -> list[int]:
        """The processes that decode nothing at the moment."""
        return [process.pid for process in self._idle]

    def close(self) -> None:
        """End the processes."""
        while self._idle:
            self._idle.pop().end()

    def _take(self) -> "_Process":
        """Return a process that runs, a new one if none is idle.

        Raises:
            Overloaded: the system starts no more.
        """
        with contextlib.suppress(IndexError):
            while not (process := self._idle.popleft()).is_running:
                process.end()
            return process
        try:
            return _Process(self._command)
        except OSError as error:
            raise Overloaded(f"no decoder can be started ({error.strerror}); ask again later") from error

    def _explain(self, status: int) -> Exception:
        logger.warning("a decoder ended while it decoded", extra={"facts": {"exit_status": status}})
        if status == -signal.SIGKILL:
            return Overloaded("the system ended the decoder, maybe for want of memory; send the image again")
        if status in (-signal.SIGPROF, -signal.SIGALRM):
            return DecoderFailed("image takes far longer to decode than images of its size; save it again")
        return DecoderFailed("the decoder crashed on this image; save it again, or in another format")


class _Process:
    """One process of :mod:`app.decoding`, and its pipes."""

    def __init__(self, command: list[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: BinaryIO = self._process.stdin  # type: ignore[assignment]  # unbuffered, so not what is declared
        self._replies: BinaryIO = self._process.stdout  # type: ignore[assignment]
        self._is_ready = False
        with contextlib.suppress(OSError):  # an unprivileged user may have used up what he may have
            fcntl.fcntl(self._requests.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def pid(self) -> int:
        """What the system calls it."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait for its first word.

        Raises:
            _Ended: it has none; standard error says why.
        """
        if not self._is_ready:
            self._read_facts()
            self._is_ready = True

    def prepare(self, content: bytes, size: int) -> Prepared:
        """See :meth:`Decoders.prepare`.

        Raises:
            ImageError, _Ended
        """
        self.wait_until_ready()
        try:
            decoding.write_all(self._requests, decoding.REQUEST.pack(len(content), size))
            decoding.write_all(self._requests, content)
        except BrokenPipeError as error:
            raise _Ended from error
        facts = self._read_facts()
        if "error" in facts:
            raise ERRORS[facts["error"]](facts["detail"])
        pixels = np.frombuffer(self._read(3 * size * size), np.uint8).reshape(3, size, size)
        return Prepared(torch.from_numpy(pixels), facts["format"], int(facts["width"]), int(facts["height"]))

    def end(self) -> int:
        """End the process, if it has not, and return its exit status; it is negative if a signal ended it."""
        self._requests.close()
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._replies.close()
        return status

    def _read_facts(self) -> dict[str, str]:
        (length,) = decoding.LENGTH.unpack(self._read(decoding.LENGTH.size))
        if length > MAX_REPLY_BYTES:
            raise _Ended
        facts: dict[str, str] = json.loads(self._read(length))
        return facts

    def _read(self, length: int) -> bytearray:
        content = decoding.read_exactly(self._replies, length)
        if len(content) < length:
            raise _Ended
        return content
