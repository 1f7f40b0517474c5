"""``infer`` runs a network over a split; ``evaluate`` turns logits and labels into figures."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.images import ImageSpec, normalise


@dataclass(frozen=True)
class ClassMetrics:
    """One class: how many images it has, and how well they and its name are told."""

    label: str
    images: int
    precision: float
    recall: float


@dataclass(frozen=True)
class Metrics:
    """What a network reaches on a split.

    Attributes:
        accuracy: share of images whose most probable label is right, in [0, 1].
        top_5_accuracy: share whose label is among the five most probable; None with five classes or fewer.
        loss: mean cross-entropy, natural logarithm.
        confusion: row = true class, column = predicted class, counts.
    """

    images: int
    accuracy: float
    top_5_accuracy: float | None
    loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]


def infer(network: nn.Module, images: Tensor, spec: ImageSpec, batch_size: int = 512) -> Tensor:
    """Return logits (N, K) float32 on the CPU, in the order of the images.

    Args:
        network: in evaluation mode; runs on the device it is on.
        images: (N, 3, S, S) uint8 RGB.
    """
    device = next(network.parameters()).device
    with torch.inference_mode():
        return torch.cat(
            [
                network(normalise(batch.to(device), spec).contiguous(memory_format=torch.channels_last)).float().cpu()
                for batch in torch.split(images, batch_size)
            ]
        )


def evaluate(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> Metrics:
    """Return the figures for logits (N, K) against labels (N,).

    A class without images has recall 0, one that is never predicted precision 0.
    """
    number = len(class_names)
    predicted = logits.argmax(1)
    confusion = torch.zeros(number, number, dtype=torch.int64)
    confusion.index_put_((labels, predicted), torch.tensor(1), accumulate=True)
    correct, actual, claimed = confusion.diag(), confusion.sum(1), confusion.sum(0)
    top_5 = (logits.topk(5).indices == labels[:, None]).any(1).float().mean().item() if number > 5 else None
    return Metrics(
        images=len(labels),
        accuracy=correct.sum().item() / len(labels),
        top_5_accuracy=top_5,
        loss=F.cross_entropy(logits, labels).item(),
        per_class=tuple(
            ClassMetrics(
                label=class_names[k],
                images=int(actual[k]),
                precision=correct[k].item() / max(1, int(claimed[k])),
                recall=correct[k].item() / max(1, int(actual[k])),
            )
            for k in range(number)
        ),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )
