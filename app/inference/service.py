"""What one running service holds, and its path from bytes to probabilities. Knows nothing of HTTP."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from torchlight.app.errors import NotReady
from torchlight.app.inference import cpu_quota, priority
from torchlight.app.inference.batcher import Answer, Batcher, within
from torchlight.app.inference.decoder_pool import DecoderPool
from torchlight.app.settings import Settings
from torchlight.app.telemetry.metrics import PUBLISH_S, Metrics, Snapshot
from torchlight.model.canary import check_canary, draw_canary_image
from torchlight.model.checks.self_test import SelfTest, load_self_test, self_test_path
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import Engine, choose_engine
from torchlight.model.engines.int8_ranges import load_quantisation
from torchlight.model.errors import TorchlightError
from torchlight.model.network import count_multiply_adds
from torchlight.model.uncertainty.drift import Drift
from torchlight.model.uncertainty.novelty import Array, is_unknown

Result = TypeVar("Result")
LONG_BYTES = 1_000_000  # from this size on, hashing takes longer than handing the bytes to a thread
# Errors that no image of the batch has caused. The first two are RuntimeErrors, which a bad image may raise too.
DEVICE_ERRORS = (torch.OutOfMemoryError, torch.AcceleratorError, MemoryError)
MAX_DECODERS = 4  # each may hold a whole picture, and the copies that turning and converting it take
logger = logging.getLogger("torchlight")


@dataclass(frozen=True)
class PreparedImage:
    """An upload as network input, (3, S, S) uint8 RGB, with the facts about its file.

    Attributes:
        id: hash of the file's bytes.
        decode_s: seconds from the wait for a decoder to the hash.
    """

    tensor: Tensor
    id: str
    width: int
    height: int
    format: str
    decode_s: float


@dataclass(frozen=True)
class ImageAnswer:
    """What the network says of one image.

    Attributes:
        probabilities: (K,).
        p_value: share of known images that are at least as strange; None if the checkpoint cannot tell.
        distance: to the nearest class, where 1 is usual; None likewise.
        coordinates: (R,) in the plane of the main directions; None likewise.
    """

    probabilities: Tensor
    p_value: float | None = None
    distance: float | None = None
    coordinates: Array | None = None

    @property
    def is_unknown(self) -> bool:
        """Whether the image is unlike what the network knows, as far as the checkpoint can tell."""
        return self.p_value is not None and is_unknown(self.p_value)


@dataclass(frozen=True)
class Classified:
    """An image and the answer to it."""

    image: PreparedImage
    answer: Answer[ImageAnswer]

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds of what happened to the image, in order."""
        return {"decode": self.image.decode_s, "queue": self.answer.queue_s, "inference": self.answer.run_s}


@dataclass(frozen=True)
class PreparedModel:
    """A classifier with what is computed from it before anything is answered; see :func:`prepare_model`.

    Attributes:
        engine: what computes the probabilities of uploads.
        multiply_adds: of one image.
        self_test: result of the self-test for this checkpoint; None if it was never run.
    """

    classifier: Classifier
    engine: Engine
    multiply_adds: int
    self_test: SelfTest | None


def prepare_model(classifier: Classifier, settings: Settings) -> PreparedModel:
    """Count the network's operations with one forward pass, trace its graph, and compile it.

    Takes seconds. Call it before the network is used elsewhere: counting hooks into it, and tracing changes for a while
    how all modules are called.

    Raises:
        EngineUnavailable: the engine of the settings cannot compute this network.
    """
    multiply_adds = count_multiply_adds(classifier.network, classifier.spec.size)
    _ = classifier.graph  # traced here, and kept there
    ranges = load_quantisation(classifier) if settings.precision == "int8" else None
    # Threads that the engine starts inherit the priority of this one.
    with ThreadPoolExecutor(1, "compile", priority.lower_priority, (priority.COMPUTING,)) as pool:
        chosen = pool.submit(choose_engine, classifier, settings.engine, ranges).result()
    if chosen.reason is not None and classifier.device.type == "cpu":
        logger.warning("answers are computed by %s: %s", chosen.name, chosen.reason)
    return PreparedModel(classifier, chosen, multiply_adds, _load_self_test(classifier))


class Service:
    """A prepared model with its queues, threads and decoders; they run from :meth:`start` to :meth:`stop`."""

    def __init__(self, settings: Settings, model: PreparedModel, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.classifier = model.classifier
        self.engine = model.engine
        self.multiply_adds = model.multiply_adds
        self.self_test = model.self_test
        self.state: Literal["warming up", "ready", "broken", "stopping"] = "warming up"
        self._decoders = DecoderPool(
            number=min(cpu_quota.cpus_per_process(settings.workers), MAX_DECODERS),
            queue_size=settings.queue_size,
            time_limit_s=settings.deadline_s,
            max_pixels=settings.max_pixels,
            max_bytes=settings.max_body_bytes,
        )
        self.batcher = Batcher(
            self._run_batch,
            max_batch_size=settings.max_batch_size,
            queue_size=settings.queue_size,
            device_errors=DEVICE_ERRORS,
        )
        # Views are computed one at a time, each on as many cores as an answer.
        self._views: Batcher[Callable[[], Any], Any] = Batcher(
            _run_one, max_batch_size=1, queue_size=settings.queue_size, thread_name="view"
        )
        self._warm_up_task: asyncio.Task[None] | None = None
        self._defect: TorchlightError | None = None
        novelty = self.classifier.checkpoint.novelty
        self._drift = None if novelty is None else Drift(novelty, settings.workers)

    async def start(self) -> None:
        """Start threads, and begin to start decoders; the service is ready once its canary image is answered right."""
        self.batcher.start()
        self._views.start()
        self._warm_up_task = asyncio.create_task(self._warm_up())

    async def warmed_up(self) -> None:
        """Wait until the service is ready.

        Raises:
            CanaryMismatch: the network does not answer as it did when it was saved.
            NotReady: it cannot run; the log says why.
        """
        assert self._warm_up_task is not None, "not started"
        await self._warm_up_task
        if self._defect is not None:
            raise self._defect

    async def stop(self) -> None:
        """Answer what was accepted, then end threads and decoders."""
        self.drain()
        if self._warm_up_task is not None:
            await self._warm_up_task  # it may be starting processes
        await self.batcher.close()
        await self._views.close()
        await self._decoders.close()

    def drain(self) -> None:
        """Stop being ready, while requests are still answered."""
        self.state = "stopping"

    async def classify(self, content: bytes) -> Classified:
        """Return the answer for one file.

        Raises:
            ImageError, Overloaded, DeadlineExceeded
        """
        deadline = self._deadline()
        image = await self._prepare(content, deadline)
        return self._record_metrics(Classified(image, await self.batcher.submit(image.tensor, deadline)))

    async def classify_all(self, contents: Sequence[bytes]) -> list[Classified | BaseException]:
        """Return for each file its answer, or the error that :meth:`classify` would raise.

        Raises:
            Overloaded: there is no room for all of them.
        """
        deadline = self._deadline()
        self._decoders.check_room(len(contents))
        prepared = await asyncio.gather(*(self._prepare(one, deadline) for one in contents), return_exceptions=True)
        good = [one for one in prepared if isinstance(one, PreparedImage)]
        answers = await self.batcher.submit_all([one.tensor for one in good], deadline)
        outcomes = iter([self._finish(image, answer) for image, answer in zip(good, answers, strict=True)])
        return [next(outcomes) if isinstance(one, PreparedImage) else one for one in prepared]

    async def prepare(self, content: bytes) -> PreparedImage:
        """Return one file as network input.

        Raises:
            ImageError, Overloaded, DeadlineExceeded
        """
        return await self._prepare(content, self._deadline())

    def answer_set(self, probabilities: Tensor, coverage: float | None) -> list[str] | None:
        """Return what :meth:`Classifier.answer_set` does; without ``coverage``, with that of the settings."""
        return self.classifier.answer_set(probabilities, self.settings.coverage if coverage is None else coverage)

    async def view(self, draw: Callable[[], Result]) -> Result:
        """Return what ``draw`` returns, run in a thread apart from those that answer."""
        result: Result = (await self._views.submit(draw, self._deadline())).result
        return result

    async def view_of(
        self, load: Callable[[], Awaitable[PreparedImage]], draw: Callable[[PreparedImage], Result]
    ) -> Result:
        """Return what ``draw``, in that thread, makes of the image that ``load`` returns.

        Raises:
            Overloaded, DeadlineExceeded: see :meth:`classify`; and what ``load`` and ``draw`` raise.
        """
        deadline = self._deadline()
        async with within(deadline):
            image = await load()
        result: Result = (await self._views.submit(partial(draw, image), deadline)).result
        return result

    async def _warm_up(self) -> None:
        size = self.classifier.spec.size
        try:
            await self._decoders.start()
            answer = (await self.batcher.submit(draw_canary_image(size), deadline=None)).result
            if self.engine.quantisation is not None:  # which gives another one, by what is known
                answer = ImageAnswer(self.classifier.probabilities(draw_canary_image(size)[None])[0])
            check_canary(self.classifier.checkpoint, answer.probabilities, answer.distance)
        except TorchlightError as error:
            self.state, self._defect = "broken", error
        except Exception as error:
            logger.exception("the network cannot run")
            self.state, self._defect = "broken", NotReady(f"the network cannot run ({error})")
        else:
            self.state = "ready" if self.state == "warming up" else self.state

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.deadline_s

    async def _prepare(self, content: bytes, deadline: float) -> PreparedImage:
        started = time.perf_counter()
        image = await self._decoders.prepare(content, self.classifier.spec.resizing, deadline)
        is_short = len(content) < LONG_BYTES
        digest = _sha256(content) if is_short else await asyncio.to_thread(_sha256, content)
        seconds = time.perf_counter() - started
        return PreparedImage(image.tensor, digest, image.width, image.height, image.format, seconds)

    async def keep_publishing(self) -> None:
        """Keep this process's gauges up to date for scrapes that other processes answer."""
        while True:
            self.publish()
            await asyncio.sleep(PUBLISH_S)

    def publish(self) -> None:
        """Write this process's gauges to the metrics."""
        checkpoint = self.classifier.checkpoint
        self.metrics.publish(
            Snapshot(
                queue_length=self.batcher.waiting,
                is_ready=self.state == "ready",
                model_name=checkpoint.path.stem,
                digest=checkpoint.digest,
                architecture=checkpoint.header.network.architecture,
                class_names=self.classifier.class_names,
                drift=None if self._drift is None else self._drift.figures(),
            )
        )

    def _run_batch(self, tensors: list[Tensor]) -> list[ImageAnswer]:
        answers = self.engine.answer(torch.stack(tensors))
        self.metrics.count_batch(len(tensors))
        if answers.strangeness is None:
            return [ImageAnswer(one) for one in answers.probabilities]
        coordinates, distances, p_values = answers.strangeness
        found = (p_values.tolist(), distances.tolist(), coordinates)
        return [ImageAnswer(*one) for one in zip(answers.probabilities, *found, strict=True)]

    def _finish(self, image: PreparedImage, answer: Answer[ImageAnswer] | BaseException) -> Classified | BaseException:
        return answer if isinstance(answer, BaseException) else self._record_metrics(Classified(image, answer))

    def _record_metrics(self, classified: Classified) -> Classified:
        found = classified.answer.result
        (best,) = self.classifier.top_k(found.probabilities, 1)
        self.metrics.count_image(best.label, best.probability, classified.stages_s, is_unknown=found.is_unknown)
        if self._drift is not None:
            assert found.coordinates is not None  # with novelty, every answer has them
            assert found.p_value is not None
            self._drift.add(classified.image.id, best.index, found.coordinates, found.p_value)
        return classified


def _run_one(calls: list[Callable[[], Result]]) -> list[Result]:
    return [call() for call in calls]


def _load_self_test(classifier: Classifier) -> SelfTest | None:
    """Return the result of the self-test on this very checkpoint, if there is one beside it."""
    try:
        return load_self_test(self_test_path(classifier.checkpoint.path), classifier.digest)
    except (OSError, ValueError) as error:
        logger.warning("the result of the self-test is left out: %s", error)
        return None


def _sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
