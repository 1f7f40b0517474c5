"""What one running service holds, and its path from bytes to probabilities. Knows nothing of HTTP."""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from app.batcher import Answer, Batcher
from app.settings import Settings
from app.workers import Workers
from model import images, selftest
from model.classifier import Classifier
from model.errors import TorchlightError
from model.network import count_multiply_adds
from model.selftest import SelfTest

Result = TypeVar("Result")
MAX_DECODERS = 4  # each may hold a whole picture: max_pixels x 4 bytes
logger = logging.getLogger("torchlight")


class NotReady(TorchlightError):
    """The service cannot answer yet, or will not any more."""


@dataclass(frozen=True)
class PreparedImage:
    """An upload as network input, (3, S, S) uint8 RGB, with the facts about its file."""

    tensor: Tensor
    id: str
    width: int
    height: int
    format: str
    decode_s: float


@dataclass(frozen=True)
class Classified:
    """An image and the answer to it: (K,) probabilities."""

    image: PreparedImage
    answer: Answer[Tensor]


class Service:
    """The classifier with its queue and its threads. Nothing runs before :meth:`start`."""

    def __init__(self, settings: Settings, classifier: Classifier) -> None:
        self.settings = settings
        self.classifier = classifier
        self.multiply_adds = count_multiply_adds(classifier.network, classifier.spec.size)  # while nothing else runs it
        self.self_test = _load_self_test(classifier)
        self.state: Literal["warming up", "ready", "broken", "stopping"] = "warming up"
        threads, waiting = min(os.cpu_count() or 1, MAX_DECODERS), settings.queue_size
        self._decoders = Workers("decode", threads=threads, queue_size=waiting)
        self._viewers = Workers("view", threads=1, queue_size=waiting)  # one at a time, on as many cores as answers use
        self.batcher = Batcher(self._run_batch, max_batch_size=settings.max_batch_size, queue_size=waiting)
        self._warm_up_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to answer; ready when a first batch has gone through the network, and its layers are known."""
        self.batcher.start()
        self._warm_up_task = asyncio.create_task(self._warm_up())

    async def stop(self) -> None:
        """Answer what was accepted, then end the threads."""
        self.drain()
        await self.batcher.close()
        self._decoders.close()
        self._viewers.close()

    def drain(self) -> None:
        """Stop being ready, while requests are still answered."""
        self.state = "stopping"

    async def classify(self, content: bytes) -> Classified:
        """Return the answer for one file.

        Raises:
            ImageError, Overloaded, DeadlineExceeded
        """
        deadline = self._deadline()
        image = await self._decoders.run(deadline, partial(self.prepare, content, time.perf_counter()))
        return Classified(image, await self.batcher.submit(image.tensor, deadline))

    async def classify_all(self, contents: Sequence[bytes]) -> list[Classified | BaseException]:
        """Return for each file its answer, or the error that :meth:`classify` would raise.

        Raises:
            Overloaded: there is no room for all of them.
        """
        deadline, started = self._deadline(), time.perf_counter()
        loads = [partial(self.prepare, content, started) for content in contents]
        prepared = await self._decoders.run_all(deadline, loads)
        good = [one for one in prepared if isinstance(one, PreparedImage)]
        answers = await self.batcher.submit_all([one.tensor for one in good], deadline)
        outcomes = iter([_join(image, answer) for image, answer in zip(good, answers, strict=True)])
        return [next(outcomes) if isinstance(one, PreparedImage) else one for one in prepared]

    async def decode(self, load: Callable[[], PreparedImage]) -> PreparedImage:
        """Return what ``load`` returns, run in a thread for decoding."""
        return await self._decoders.run(self._deadline(), load)

    async def view(self, draw: Callable[[], Result]) -> Result:
        """Return what ``draw`` returns, run in a thread apart from those that answer."""
        return await self._viewers.run(self._deadline(), draw)

    async def view_of(self, load: Callable[[], PreparedImage], draw: Callable[[PreparedImage], Result]) -> Result:
        """Return what ``draw`` makes of the image that ``load`` returns; raises what :meth:`classify` does."""
        deadline = self._deadline()
        image = await self._decoders.run(deadline, load)
        return await self._viewers.run(deadline, partial(draw, image))

    async def _warm_up(self) -> None:
        size = self.classifier.spec.size
        try:
            await self.batcher.submit(torch.zeros(3, size, size, dtype=torch.uint8), deadline=None)
            await self._viewers.run(None, lambda: self.classifier.graph)  # else the first view would wait for it
        except Exception:
            logger.exception("the network cannot run")
            self.state = "broken"
        else:
            self.state = "ready" if self.state == "warming up" else self.state

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.deadline_s

    def prepare(self, content: bytes, started: float) -> PreparedImage:
        """Return one file as network input; for threads, since it may take a while.

        Raises:
            ImageError
        """
        tensor, decoded = images.prepare(content, self.classifier.spec.size, max_pixels=self.settings.max_pixels)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        seconds = time.perf_counter() - started
        return PreparedImage(tensor, digest, decoded.width, decoded.height, decoded.format, seconds)

    def _run_batch(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(self.classifier.probabilities(torch.stack(tensors)))


def _load_self_test(classifier: Classifier) -> SelfTest | None:
    """Return how the laws of the views fared on this very checkpoint, if that was ever checked."""
    try:
        return selftest.load(selftest.path_beside(classifier.checkpoint.path), classifier.digest)
    except (OSError, ValueError) as error:
        logger.warning("the result of the self-test is left out: %s", error)
        return None


def _join(image: PreparedImage, answer: Answer[Tensor] | BaseException) -> Classified | BaseException:
    return answer if isinstance(answer, BaseException) else Classified(image, answer)
