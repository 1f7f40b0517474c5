"""Many image files -> a file of predictions, at the machine's full speed, resumable after any interruption.

The file is JSON Lines: one object for each image, after those of earlier runs, in the order in which paths were given
and sorted within a folder,

    {"file": "a/cat.jpg", "digest": "sha256:...", "predictions": [{"label": "cat", "index": 3, "probability": 0.97}],
     "unknown": {"p_value": 0.62, "is_unknown": false, "threshold": 0.05}, "set": ["cat"], "coverage": 0.9}

with null for what the checkpoint cannot tell; or, if the image cannot be read, ``"error"`` in place of the last four.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier, Prediction
from torchlight.model.defaults import COVERAGE
from torchlight.model.engines.engine import AnswerFunction
from torchlight.model.errors import ImageError, PredictionFileError
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.uncertainty.novelty import describe_p_value

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
BATCH_SIZE = 16  # more is no faster on a CPU, see docs/log.md
BATCHES_AHEAD = 4  # decoded while the network runs, so that it never waits


@dataclass(frozen=True)
class Outcome:
    """The predictions for a file, most probable first, with its answer set; or the reason why there are none.

    Attributes:
        p_value: share of known images that are at least as strange; None if the checkpoint cannot tell.
        answer_set: at ``coverage``; None if the checkpoint has none.
    """

    path: Path
    predictions: tuple[Prediction, ...]
    p_value: float | None = None
    error: str | None = None
    answer_set: list[str] | None = None
    coverage: float = COVERAGE


def find_image_files(paths: Iterable[Path]) -> list[Path]:
    """Return the files among ``paths`` and the images below the folders among them, each once, sorted in a folder."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
            found |= dict.fromkeys(sorted(file for file in below if file.suffix.lower() in SUFFIXES))
        else:
            found[path] = None
    return list(found)


def classify_files(
    classifier: Classifier,
    answer: AnswerFunction,
    paths: Sequence[Path],
    top_k: int | None = None,
    coverage: float = COVERAGE,
) -> Iterator[Outcome]:
    """Yield the outcome for each path, in order, while the next ones are decoded.

    Args:
        answer: as :attr:`model.engines.engine.Engine.answer`.
        top_k: labels for each; all without it.
        coverage: of the answer sets, from 0.5 to below 1.
    """
    resizing = classifier.spec.resizing

    def load(batch: Sequence[Path]) -> list[Tensor | str]:
        return [_load(path, resizing) for path in batch]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        batches = [paths[start : start + BATCH_SIZE] for start in range(0, len(paths), BATCH_SIZE)]
        for batch, loaded in zip(batches, _ahead(pool, load, batches), strict=True):
            tensors = [one for one in loaded if isinstance(one, Tensor)]
            rows = iter(_answer(answer, tensors))
            for path, one in zip(batch, loaded, strict=True):
                if isinstance(one, str):
                    yield Outcome(path, (), error=one)
                else:
                    probabilities, p_value = next(rows)
                    members = classifier.answer_set(probabilities, coverage)
                    yield Outcome(path, tuple(classifier.top_k(probabilities, top_k)), p_value, None, members, coverage)


def _answer(answer: AnswerFunction, tensors: list[Tensor]) -> Iterator[tuple[Tensor, float | None]]:
    """Yield the (K,) probabilities and the p-value of each image."""
    if not tensors:
        return
    answers = answer(torch.stack(tensors))
    found = answers.strangeness
    p_values = [None] * len(tensors) if found is None else found.p_values.tolist()
    yield from zip(answers.probabilities, p_values, strict=True)


class PredictionFile:
    """A file of predictions, open for appending. Images that are in it are not classified again."""

    def __init__(self, path: Path, digest: str) -> None:
        """Read the lines of an earlier run; an incomplete last one, of a process that was killed, is cut off.

        Args:
            path: created if it does not exist.
            digest: of the checkpoint; a file holds the predictions of one.

        Raises:
            PredictionFileError: the file holds something else, or predictions of another checkpoint.
            OSError: it cannot be read or written.
        """
        self._digest = digest
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(path, "a+b")  # noqa: SIM115  # closed by close
        try:
            self.done = self._read(path)
        except BaseException:
            self._file.close()
            raise

    def add(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Write each outcome and yield it; the file is flushed after each batch."""
        for number, outcome in enumerate(outcomes, 1):
            content = {"error": outcome.error} if outcome.error is not None else {
                "predictions": [asdict(one) for one in outcome.predictions],
                "unknown": describe_p_value(outcome.p_value),
                "set": outcome.answer_set,
                "coverage": outcome.coverage,
            }  # fmt: skip
            line = {"file": _printable(outcome.path), "digest": self._digest} | content
            self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            if number % BATCH_SIZE == 0:
                self._file.flush()
            yield outcome
        self._file.flush()

    def has(self, path: Path) -> bool:
        """Return whether the file was classified before."""
        return _printable(path) in self.done

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _read(self, path: Path) -> frozenset[str]:
        self._file.seek(0)
        done, end = set(), 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            done.add(self._check(path, number, line))
            end += len(line)
        self._file.truncate(end)
        return frozenset(done)

    def _check(self, path: Path, number: int, line: bytes) -> str:
        try:
            answer = json.loads(line)
            file, digest = str(answer["file"]), answer["digest"]
        except (ValueError, TypeError, KeyError) as error:
            raise PredictionFileError(
                f"answers {path}: line {number} is no answer to an image; choose another name, or remove the file"
            ) from error
        if digest != self._digest:
            raise PredictionFileError(
                f"answers {path}: line {number} is by the checkpoint {digest}, and this one is {self._digest}; "
                "choose another name, or remove the file"
            )
        return file


def _ahead(
    pool: ThreadPoolExecutor, load: Callable[[Sequence[Path]], list[Tensor | str]], batches: Sequence[Sequence[Path]]
) -> Iterator[list[Tensor | str]]:
    """Yield ``load(batch)`` for each, in order; ``BATCHES_AHEAD`` are computed ahead, and no more."""
    waiting = iter(batches)
    begun: list[Future[list[Tensor | str]]] = [
        pool.submit(load, one) for one in itertools.islice(waiting, BATCHES_AHEAD)
    ]
    while begun:
        loaded = begun.pop(0).result()
        begun += [pool.submit(load, one) for one in itertools.islice(waiting, 1)]
        yield loaded


def _load(path: Path, resizing: Resizing) -> Tensor | str:
    """Return the (3, S, S) network input of a file, or the reason why there is none."""
    try:
        return prepare_image(path.read_bytes(), resizing)[0]
    except (ImageError, OSError) as error:
        return str(error)


def _printable(path: Path) -> str:
    """Return the name as valid Unicode, which file names need not be; different names give different texts."""
    return str(path).encode("utf-8", "backslashreplace").decode()
