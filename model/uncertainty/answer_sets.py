"""Sets of labels that hold the true one as often as asked for, such as in 9 of 10 images: conformal prediction.

The score of a held-out image is 1 minus the probability of its true label. A set holds each label whose score is at
most a threshold: the score that enough held-out images do not exceed. If new images are of the same kind as the
held-out ones, the set holds the true label in at least the share asked for, whatever the network. The most probable
label is always in it, so that no set is empty.

If each held-out image was answered by a network that did not learn from it, in cross-validation, and the network that
is kept learnt from all, the share is not proven but measured: docs/decisions/answer_sets.md.

Source: Sadinle, Lei, Wasserman: Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, JASA 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from torchlight.model.defaults import COVERAGE

MAX_SCORES = 1000  # in a checkpoint's header, about 9 kB; more would make coverage finer than a thousandth
DECIMALS = 1_000_000  # scores are rounded up to so many parts, which can only enlarge a set
FOLDS = 10  # as 9 of 10 images fix the threshold, figures are of sets nearly as small as those of all


@dataclass(frozen=True)
class ClassCoverage:
    """How many images of a class there are, and the share of them whose set holds the label, in [0, 1]."""

    label: str
    images: int
    coverage: float


@dataclass(frozen=True)
class SetFigures:
    """What sets reach on images that had no part in their threshold.

    Attributes:
        target: the coverage asked for.
        images: how many the figures are over.
        coverage: share of the images whose set holds the true label, in [0, 1].
        mean_size: labels in a set, at least 1.
        single_share: share of sets that are one label, in [0, 1].
        worst_class: the one with the lowest coverage.
    """

    target: float
    images: int
    coverage: float
    mean_size: float
    single_share: float
    worst_class: ClassCoverage


@dataclass(frozen=True)
class AnswerSets:
    """What a checkpoint keeps of its held-out images, to make sets of any coverage.

    Attributes:
        scores: rising, each in [0, 1]: of all held-out images, or of more than ``MAX_SCORES`` so many, evenly spaced
            in rank, the highest among them.
        images: how many held-out images there were.
        measured: of sets of the default coverage, on these images, each with a threshold that others fixed.
    """

    scores: tuple[float, ...]
    images: int
    measured: SetFigures

    def threshold(self, coverage: float) -> float:
        """Return the highest score that a label in a set has; 1, for all labels, if ``coverage`` > n / (n + 1)."""
        position = _find_position(self.images, len(self.scores), coverage)
        return self.scores[position] if position < len(self.scores) else 1.0

    def can_show(self, coverage: float) -> bool:
        """Return whether there were enough images for it, at least coverage / (1 - coverage): 9 for 0.9."""
        return _find_position(self.images, len(self.scores), coverage) < len(self.scores)


def choose_members(probabilities: Sequence[float], threshold: float) -> list[int]:
    """Return the indices of the labels in a set, most probable first: never none.

    Args:
        probabilities: (K,) of one image.
        threshold: see :meth:`AnswerSets.threshold`.
    """
    threshold = max(threshold, 1 - max(probabilities))
    members = [index for index, probability in enumerate(probabilities) if 1 - probability <= threshold]
    return sorted(members, key=probabilities.__getitem__, reverse=True)  # stable: of equals the first class first


def measure_answer_sets(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> AnswerSets:
    """Return what a checkpoint keeps of held-out images, and what sets reach on them.

    Args:
        logits: (N, K) finite, N at least 1, divided by the temperature; of images that the network, or its like in
            cross-validation, did not learn from.
        labels: (N,) int64.
        class_names: K of them.
    """
    probabilities = logits.double().softmax(1)
    scores = _score(probabilities, labels)
    thresholds = torch.empty(len(labels), dtype=torch.float64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for fold in range(FOLDS):
        own = torch.zeros(len(labels), dtype=torch.bool)
        own[order[fold::FOLDS]] = True
        thresholds[own] = find_threshold(scores[~own], COVERAGE)
    figures = _measure(probabilities, labels, thresholds, class_names, COVERAGE)
    return AnswerSets(_keep(scores), len(labels), figures)


def measure_set_figures(
    sets: AnswerSets, logits: Tensor, labels: Tensor, class_names: Sequence[str], coverage: float = COVERAGE
) -> SetFigures:
    """Return what sets reach on other images than those that they were made from; arguments as above."""
    thresholds = torch.full((len(labels),), sets.threshold(coverage), dtype=torch.float64)
    return _measure(logits.double().softmax(1), labels, thresholds, class_names, coverage)


def find_threshold(scores: Tensor, coverage: float) -> float:
    """Return the threshold of sets by the scores (N,) of all held-out images; N may be 0."""
    position = _find_position(len(scores), len(scores), coverage)
    return scores.sort().values[position].item() if position < len(scores) else 1.0


def parse_answer_sets(found: Any, class_names: Sequence[str]) -> AnswerSets | None:
    """Return the header's document as an object; None if there is none.

    Raises:
        ValueError: it is not what :func:`measure_answer_sets` gives.
    """
    if found is None:
        return None
    try:
        return _parse(found, class_names)
    except (KeyError, TypeError) as error:
        raise ValueError(f"header field 'answer_sets' is not what this program writes: {error}") from error


def _parse(found: Any, class_names: Sequence[str]) -> AnswerSets:
    scores, images = found["scores"], found["images"]
    if not _is_count(images):
        raise ValueError(f"header field 'answer_sets': images is {images!r}, not a number of at least 1")
    kept = min(images, MAX_SCORES)
    if not isinstance(scores, list) or len(scores) != kept or not all(map(_is_share, scores)):
        raise ValueError(f"header field 'answer_sets': scores are not {kept} numbers from 0 to 1")
    if scores != sorted(scores):
        raise ValueError("header field 'answer_sets': scores do not rise")
    return AnswerSets(tuple(scores), images, _parse_figures(found["measured"], class_names))


def _parse_figures(found: dict[str, Any], class_names: Sequence[str]) -> SetFigures:
    figures = SetFigures(**found | {"worst_class": ClassCoverage(**found["worst_class"])})
    worst = figures.worst_class
    shares = (figures.target, figures.coverage, figures.single_share, worst.coverage)
    size = figures.mean_size
    is_size = isinstance(size, int | float) and 1 <= size <= len(class_names)
    are_counts = _is_count(figures.images) and _is_count(worst.images)
    if not all(map(_is_share, shares)) or not is_size or not are_counts or worst.label not in class_names:
        raise ValueError("header field 'answer_sets': the measured figures are out of range")
    return figures


def _is_share(found: Any) -> bool:
    return isinstance(found, int | float) and 0 <= found <= 1


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and found >= 1


@lru_cache(maxsize=64)  # a service is asked for few coverages
def _find_position(images: int, kept: int, coverage: float) -> int:
    """Return which of the kept scores, from 0, is the threshold; ``kept`` if none is high enough.

    It has rank ceil((n + 1) * coverage) among n images, or, where that one is not kept, the next higher rank that is.
    Exact: 0.9 is nine tenths.
    """
    rank = math.ceil((images + 1) * Fraction(str(coverage)))
    return (rank - 1) * kept // images if rank <= images else kept


def _keep(scores: Tensor) -> tuple[float, ...]:
    """Return the scores (N,), rounded up; of more than ``MAX_SCORES`` those of ranks ceil(j * N / MAX_SCORES)."""
    rising, number = scores.sort().values.tolist(), len(scores)
    kept = min(number, MAX_SCORES)
    ranks = [-(-j * number // kept) for j in range(1, kept + 1)]
    return tuple(math.ceil(rising[rank - 1] * DECIMALS) / DECIMALS for rank in ranks)


def _score(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return 1 minus the probability of the true label: (N,) float64 in [0, 1]."""
    return (1 - probabilities.gather(1, labels[:, None])[:, 0]).clamp(0, 1)


def _measure(
    probabilities: Tensor, labels: Tensor, thresholds: Tensor, class_names: Sequence[str], target: float
) -> SetFigures:
    """Return the figures of sets, each image's with a threshold of its own: (N,)."""
    thresholds = torch.maximum(thresholds, 1 - probabilities.max(1).values)
    members = 1 - probabilities <= thresholds[:, None]  # (N, K) bool
    holds = members.gather(1, labels[:, None])[:, 0]
    sizes = members.sum(1)
    counts = labels.bincount(minlength=len(class_names)).tolist()
    held = labels[holds].bincount(minlength=len(class_names)).tolist()
    classes = [
        ClassCoverage(name, images, covered / images)
        for name, images, covered in zip(class_names, counts, held, strict=True)
        if images
    ]
    return SetFigures(
        target=target,
        images=len(labels),
        coverage=holds.double().mean().item(),
        mean_size=sizes.double().mean().item(),
        single_share=(sizes == 1).double().mean().item(),
        worst_class=min(classes, key=lambda one: one.coverage),
    )
