"""How soon drift is found when the photos change, and how often it is reported when they do not.

python -m benchmarks.drift CHECKPOINT KNOWN OTHER...

KNOWN is a folder of photos of the kinds that the checkpoint knows, which it did not learn from; each OTHER one of other
photos. All are answered once by the engine that serves; then their answers are streamed in random orders to the
statistics of one process and of two, each photo to either by chance. A photo that is drawn again counts as another.
The tables are Markdown; docs/drift.md has them.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import Engine, choose_engine
from torchlight.model.engines.folder_predictions import find_image_files
from torchlight.model.images import prepare_image
from torchlight.model.uncertainty.drift import Drift, DriftFigures
from torchlight.model.uncertainty.novelty import Array, Novelty

PROCESSES = (1, 2)
ORDERS = 100  # in which the photos change
BEFORE = 400  # known photos before they change
WITHIN = 200  # photos after it, in which drift has to be found
STREAMS, LONG = 20, 10_000  # of known photos alone
BATCH_SIZE = 8


@dataclass(frozen=True)
class Answered:
    """The answers to the photos of a folder: (N,) most probable classes, (N, R) coordinates, (N,) p-values."""

    name: str
    labels: npt.NDArray[np.int64]
    coordinates: Array
    p_values: Array


class Processes:
    """The statistics of some processes, between which photos are divided by chance."""

    def __init__(self, novelty: Novelty, number: int, generator: np.random.Generator) -> None:
        self._each = [Drift(novelty, number) for _ in range(number)]
        self._generator = generator
        self._ids = itertools.count()

    def add(self, answered: Answered, rows: Iterable[int]) -> Iterator[float]:
        """Count photos, and yield the drift after each."""
        for row in rows:
            one = self._each[self._generator.integers(len(self._each))]
            coordinates, p_value = answered.coordinates[row], float(answered.p_values[row])
            one.add(str(next(self._ids)), int(answered.labels[row]), coordinates, p_value)
            yield max(each.drift for each in self._each)

    def figures(self) -> list[float]:
        """Return the figures as the metrics combine them, in the order of :class:`DriftFigures`."""
        found = [figures for one in self._each if (figures := one.figures()) is not None]
        drift, *others = zip(*found, strict=True)
        return [max(drift), *(math.nan if None in values else statistics.fmean(values) for values in others)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("known", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    given = parser.parse_args()
    classifier = Classifier(load_checkpoint(given.checkpoint), torch.device("cpu"))
    novelty = classifier.checkpoint.novelty
    if novelty is None:
        parser.error(f"{given.checkpoint} cannot tell what is unknown")
    engine = choose_engine(classifier, "auto")
    known, *others = (answer_folder(classifier, engine, folder) for folder in (given.known, *given.others))
    print_table("known to", "processes", "found", "median", "worst", *DriftFigures._fields[1:])
    for other, processes in itertools.product((known, *others), PROCESSES):
        print_row(other.name, processes, *describe_changes(novelty, known, other, processes))
    print()
    print_table("known", "processes", "photos", "streams with alarm", *DriftFigures._fields)
    for processes in PROCESSES:
        print_row(known.name, processes, f"{STREAMS * LONG:,}", *describe_alarms(novelty, known, processes))
    print(f"\n{measure_cost(novelty, known) * 1e6:.1f} microseconds for an image")


def print_table(*headings: str) -> None:
    """Begin a table."""
    print_row(*headings)
    print_row(*("---" for _ in headings))


def print_row(*cells: object) -> None:
    """Print a line of a table."""
    print("|", " | ".join(map(str, cells)), "|")


def answer_folder(classifier: Classifier, engine: Engine, folder: Path) -> Answered:
    """Answer all photos of a folder."""
    labels, coordinates, p_values = [], [], []
    files = find_image_files([folder])
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        images = [prepare_image(path.read_bytes(), classifier.spec.resizing)[0] for path in batch]
        answers = engine.answer(torch.stack(images))
        assert answers.strangeness is not None  # the checkpoint can tell
        labels.append(answers.probabilities.argmax(1).numpy())
        coordinates.append(answers.strangeness.coordinates)
        p_values.append(answers.strangeness.p_values)
    name = "/".join(folder.parts[-2:])
    return Answered(name, np.concatenate(labels), np.concatenate(coordinates), np.concatenate(p_values))


def describe_changes(novelty: Novelty, known: Answered, other: Answered, processes: int) -> list[str]:
    """Stream known photos and then others, in each of the orders.

    Returns:
        In how many drift was found, after how many photos in the median and at worst, and the means of the figures
        after the last photo.
    """
    found, last = [], []
    for seed in range(ORDERS):
        generator = np.random.default_rng(seed)
        service = Processes(novelty, processes, generator)
        for drift in service.add(known, generator.integers(len(known.labels), size=BEFORE)):
            assert drift < 1, "an alarm before the photos changed"
        after = service.add(other, draw_without_repeats(len(other.labels), WITHIN, generator))
        found += [number for number, drift in enumerate(after, 1) if drift >= 1][:1]
        last.append(service.figures()[1:])
    photos = [str(round(statistics.median(found))), str(max(found))] if found else ["-", "-"]
    return [f"{len(found)}/{ORDERS}", *photos, *(f"{mean:.2f}" for mean in np.mean(last, axis=0))]


def draw_without_repeats(photos: int, number: int, generator: np.random.Generator) -> list[int]:
    """Return positions of photos in random order; when all were drawn, all again in another."""
    rounds = [generator.permutation(photos) for _ in range(-(-number // photos))]
    rows: list[int] = np.concatenate(rounds)[:number].tolist()
    return rows


def describe_alarms(novelty: Novelty, known: Answered, processes: int) -> list[str]:
    """Return in how many streams of known photos drift was reported, and the highest figures in all of them."""
    alarms, highest = 0, np.zeros(len(DriftFigures._fields))
    for seed in range(STREAMS):
        generator = np.random.default_rng(seed)
        service, most = Processes(novelty, processes, generator), 0.0
        for number, drift in enumerate(service.add(known, generator.integers(len(known.labels), size=LONG)), 1):
            most = max(most, drift)
            if number % WITHIN == 0:
                highest = np.maximum(highest, service.figures())
        alarms += most >= 1
        highest[0] = max(highest[0], most)
    return [str(alarms), *(f"{value:.2f}" for value in highest)]


def measure_cost(novelty: Novelty, known: Answered) -> float:
    """Return the seconds that counting an image takes, in the path of its answer."""
    drift, numbers = Drift(novelty), range(len(known.labels))
    labels, p_values = known.labels.tolist(), known.p_values.tolist()
    ids = [f"sha256:{number:064x}" for number in numbers]  # as long as those of files
    began = time.perf_counter()
    for number in numbers:
        drift.add(ids[number], labels[number], known.coordinates[number], p_values[number])
    return (time.perf_counter() - began) / len(numbers)


if __name__ == "__main__":
    main()
