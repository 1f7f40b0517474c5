"""``infer`` runs a network over a split; ``compute_metrics`` turns logits and labels into figures."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchlight.model.images import ImageSpec, normalise
from torchlight.model.views.embedding import answer_with_embeddings
from torchlight.training.evaluation.calibration import expected_calibration_error

Z_95 = 1.959963984540054  # 95% of a normal distribution lies within so many standard deviations
MAX_MISTAKES = 24
MAX_OF_CELL, MAX_OF_CELLS = 24, 2000  # mistakes of a cell of the confusion matrix, and of all cells, that are listed
BATCH_PIXELS = 512 * 32 * 32  # of the images computed at a time, so that memory is bounded at any size

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassMetrics:
    """One class: how many images it has, and how well it is recognised.

    Attributes:
        precision: of the images called so, the share that is.
        recall: of its images, the share called so.
        f1: the harmonic mean of the two.
        precision_interval, recall_interval: where the true share lies, with 95% confidence.
    """

    label: str
    images: int
    precision: float
    recall: float
    f1: float
    precision_interval: Interval
    recall_interval: Interval


@dataclass(frozen=True)
class Mistake:
    """A misclassified image: its index in the split, its class and the class it was given.

    Attributes:
        probability, true_probability: of the class it was given, and of its own, in [0, 1].
    """

    index: int
    true: int
    predicted: int
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Metrics:
    """What a network reaches on a split.

    Attributes:
        accuracy: share of images whose most probable label is right, in [0, 1].
        accuracy_interval: where it lies for more images of the kind, with 95% confidence.
        top_5_accuracy: share whose label is among the five most probable; None with five classes or fewer.
        loss: negative log-likelihood (mean cross-entropy), natural logarithm.
        calibration_error: expected calibration error over 15 bins, in [0, 1].
        confusion: row = true class, column = predicted class, counts.
        mistakes: the most confident first, at most ``MAX_MISTAKES``.
        cell_mistakes: the most confident of each cell of the confusion matrix, then the second of each, and so on: at
            most ``MAX_OF_CELL`` of a cell and ``MAX_OF_CELLS`` in all.
    """

    images: int
    accuracy: float
    accuracy_interval: Interval
    top_5_accuracy: float | None
    loss: float
    calibration_error: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    mistakes: tuple[Mistake, ...]
    cell_mistakes: tuple[Mistake, ...]


def infer(network: nn.Module, images: Tensor, spec: ImageSpec, batch_size: int | None = None) -> Tensor:
    """Return logits (N, K) float32 on the CPU, in the order of the images.

    Args:
        network: in evaluation mode; runs on the device it is on.
        images: (N, 3, S, S) uint8 RGB, resized as ``spec`` says.
        batch_size: by default as many as have the pixels of 512 images of 32x32.

    Raises:
        ValueError: the images have another size.
    """
    with torch.inference_mode():
        return torch.cat(
            [
                network(normalise(batch, spec).contiguous(memory_format=torch.channels_last)).float().cpu()
                for batch in _batches(network, images, spec, batch_size)
            ]
        )


def infer_with_embeddings(network: nn.Module, images: Tensor, spec: ImageSpec, size: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`infer` does, and the embeddings (N, D) that the logits are made of.

    Args:
        size: D, see :func:`model.network.embedding_size`.

    Raises:
        ValueError: the images have another size.
    """
    parts = [answer_with_embeddings(network, spec, batch, size) for batch in _batches(network, images, spec)]
    logits, embeddings = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(embeddings)


def _batches(network: nn.Module, images: Tensor, spec: ImageSpec, size: int | None = None) -> Iterator[Tensor]:
    """Yield images of the network's size, on its device, as many at a time as :func:`infer` says."""
    if images.shape[-1] != spec.size:
        raise ValueError(f"the images have {images.shape[-1]} pixels a side, the network's input {spec.size}")
    device = next(network.parameters()).device
    for batch in torch.split(images, size or max(1, BATCH_PIXELS // spec.size**2)):
        yield batch.to(device)


def compute_metrics(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> Metrics:
    """Return the figures for logits (N, K), already divided by the temperature if there is one, against labels (N,).

    A class without images has recall 0, one that is never predicted precision 0, with intervals from 0 to 1.
    """
    number = len(class_names)
    predicted = logits.argmax(1)
    confusion = torch.zeros(number, number, dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.tensor(1), accumulate=True)
    mistakes = _find_mistakes(logits, labels)
    counts = (confusion.diag().tolist(), confusion.sum(1).tolist(), confusion.sum(0).tolist())
    right = sum(counts[0])
    top_5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean().item() if number > 5 else None
    return Metrics(
        images=len(labels),
        accuracy=right / len(labels),
        accuracy_interval=wilson_interval(right, len(labels)),
        top_5_accuracy=top_5,
        loss=F.cross_entropy(logits, labels).item(),
        calibration_error=expected_calibration_error(logits.double().softmax(1), labels),
        per_class=tuple(map(_class_metrics, class_names, *counts)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        mistakes=mistakes[:MAX_MISTAKES],
        cell_mistakes=_take_turns(mistakes),
    )


def wilson_interval(right: int, number: int) -> Interval:
    """Return where a share lies with 95% confidence after ``right`` of ``number``; (0, 1) if nothing was counted.

    Unlike the usual plus and minus it stays within 0 and 1 and holds for few images and for shares near the ends.

    Source: Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    if number == 0:
        return 0.0, 1.0
    share, spread = right / number, Z_95**2 / number
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low = 0.0 if right == 0 else centre - half
    return low, 1.0 if right == number else centre + half


def _class_metrics(label: str, right: int, actual: int, claimed: int) -> ClassMetrics:
    return ClassMetrics(
        label=label,
        images=actual,
        precision=right / max(1, claimed),
        recall=right / max(1, actual),
        f1=2 * right / max(1, actual + claimed),
        precision_interval=wilson_interval(right, claimed),
        recall_interval=wilson_interval(right, actual),
    )


def _find_mistakes(logits: Tensor, labels: Tensor) -> tuple[Mistake, ...]:
    """Return them by falling probability; equally sure ones in the order of the images."""
    probabilities = logits.double().softmax(1)  # (N, K)
    probability, predicted = probabilities.max(1)
    own = probabilities.gather(1, labels[:, None])[:, 0]
    wrong = (predicted != labels).nonzero()[:, 0]
    order = wrong[probability[wrong].argsort(descending=True, stable=True)]
    columns = (order, labels[order], predicted[order], probability[order], own[order])
    return tuple(map(Mistake, *(column.tolist() for column in columns)))


def _take_turns(mistakes: Sequence[Mistake]) -> tuple[Mistake, ...]:
    """Return the first of each cell of the confusion matrix, then the second of each, and so on, within the limits."""
    seen: Counter[tuple[int, int]] = Counter()
    rounds: dict[int, list[Mistake]] = {}
    for one in mistakes:
        cell = one.true, one.predicted
        rounds.setdefault(seen[cell], []).append(one)
        seen[cell] += 1
    return tuple(chain.from_iterable(rounds[k] for k in range(min(MAX_OF_CELL, len(rounds)))))[:MAX_OF_CELLS]
