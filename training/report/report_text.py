"""Figures -> sentences that need no knowledge of the field. Pure functions; nothing here knows HTML."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlight.training.evaluation.classification_metrics import ClassMetrics, Metrics
from torchlight.training.report.markup import percent, shorten

NAME = 40  # characters of a class name within a sentence; the tables have all of it

Pair = tuple[int, int, int, int]


def summarise(metrics: Metrics) -> Iterator[str]:
    """Yield what matters most, the most important first."""
    low, high = metrics.accuracy_interval
    right = round(metrics.accuracy * metrics.images)
    most_frequent = max(one.images for one in metrics.per_class) / metrics.images
    yield (
        f"The network classified {right:,} of {metrics.images:,} images correctly{_about(metrics.accuracy)}. Shown "
        f"many more of the same kind, it would be right in {percent(low)} to {percent(high)} of them (95% confidence); "
        f"always answering with the most frequent class would be right in {percent(most_frequent)}."
    )
    seen = [one for one in metrics.per_class if one.images]
    best, worst = max(seen, key=lambda one: one.recall), min(seen, key=lambda one: one.recall)
    if best.recall > worst.recall:
        yield (
            f"It knows {name_class(best)} best ({percent(best.recall)} found) and {name_class(worst)} least "
            f"({percent(worst.recall)}). {name_confusion(metrics)}"
        )


def name_split(split: str) -> str:
    """Return a split as one says it: ``the validation split`` for ``val``; other names as they are."""
    return {"train": "the training split", "val": "the validation split", "test": "the test split"}.get(split, split)


def name_confusion(metrics: Metrics) -> str:
    """Return which two classes are taken for each other most, or that none are."""
    mistakes = _mistakes(metrics)
    if not mistakes.any():
        return "It confuses no two classes."
    together = (mistakes + mistakes.T) * (mistakes.max() + 1) + mistakes  # the more frequent direction first
    one, other = divmod(int(together.argmax()), len(mistakes))
    first, second = metrics.per_class[one], metrics.per_class[other]
    return (
        f"It confuses {name_class(first)} with {name_class(second)} most: {mistakes[one, other]:,} of {first.images:,} "
        f"images of {name_class(first)} were taken for {name_class(second)}, and {mistakes[other, one]:,} of "
        f"{second.images:,} the other way round."
    )


def confused_pairs(metrics: Metrics) -> list[Pair]:
    """Return (true class, predicted class, mistakes, images of the true class), the most frequent mistakes first."""
    mistakes = _mistakes(metrics)
    pairs = [
        (true, predicted, int(mistakes[true, predicted]), metrics.per_class[true].images)
        for true, predicted in np.argwhere(mistakes).tolist()
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[3]))


def describe_cost(training: Mapping[str, Any]) -> str:
    """Return epochs, time, arithmetic and device of a training, as far as they are known."""
    parts = [
        count_noun(training["epochs"], "epoch") if "epochs" in training else "",
        duration(training["seconds"]) if "seconds" in training else "",
        operations(training["flops"]) if "flops" in training else "",
        f"on {training['device']}" if "device" in training else "",
    ]
    return ", ".join(filter(None, parts))


def count_noun(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 image``, ``2 images``, ``3 classes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Return a time as one says it: ``2 h 5 min``, ``48 min``, ``4 min 12 s``, ``12 s``."""
    if seconds < 600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def operations(flops: float) -> str:
    """Return floating-point operations as ``3.19e14 FLOPs``."""
    mantissa, _, exponent = f"{flops:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)} FLOPs"


def _mistakes(metrics: Metrics) -> NDArray[np.int64]:
    """Return the confusion matrix without what is right."""
    counts = np.array(metrics.confusion, np.int64)
    np.fill_diagonal(counts, 0)
    return counts


def name_class(one: ClassMetrics) -> str:
    """Return a class's name, in quotes unless it reads like one word."""
    return one.label if one.label.isalnum() and len(one.label) <= NAME else f"“{shorten(one.label, NAME)}”"


def _about(share: float) -> str:
    """Return a share in small numbers if one is near: ``, about 9 of 10``."""
    for whole in (2, 3, 4, 5, 10):
        part = round(share * whole)
        if 0 < part < whole and abs(part / whole - share) < 0.02:
            return f", about {part} of {whole}"
    return ""
