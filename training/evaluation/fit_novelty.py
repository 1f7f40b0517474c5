"""Embeddings and answers of known images -> what tells known from unknown. Sees no unknown image, and no file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from torchlight.model.uncertainty.novelty import FAR, Novelty, Plane, entropy, join_ranks, rank_among

DIRECTIONS = 32  # of embeddings that are told apart: 64 separate no better, see docs/decisions/uncertainty.md
MAX_LEARNT = 5_000  # images that directions are found from: more change little
MAX_REFERENCES = 1_000  # images whose coordinates are kept, 64 kB
MAX_KNOWN = 1_000  # values of known images that are kept, so that the least p-value is 0.001
# Weights of the entropy's rank beside the distance's. Layers with published weights tell far more things apart than a
# few classes, so that distances mean more than with layers that learnt these classes alone.
PUBLISHED_WEIGHT, OWN_WEIGHT = 0.7, 1.0
MIN_IMAGES = 5  # of a class for a usual distance of its own; else it is that of all images


@dataclass(frozen=True)
class KnownImages:
    """M images of what a network knows, from which it, or its like, did not learn.

    Attributes:
        distances: (M, K) to each class.
        labels, logits: (M,) and (M, K).
        name: what they are, such as ``val``.
        are_references: whether they are the images that distances are measured to, each but for itself.
    """

    distances: Tensor
    labels: Tensor
    logits: Tensor
    name: str
    are_references: bool


def fit_novelty(embeddings: Tensor, labels: Tensor, known: KnownImages, entropy_weight: float) -> Novelty:
    """Return what tells known from unknown.

    Args:
        embeddings, labels: (N, D) float32 of length 1 and (N,) int64, of images that the network learnt from.
        known: images that it did not learn from.
        entropy_weight: as :func:`choose_entropy_weight` returns it.
    """
    plane = _place(*_span(embeddings), embeddings, labels, known.logits.shape[1])
    own = known.distances.gather(1, known.labels[:, None])[:, 0]  # (M,)
    is_measured = own < FAR / 2  # else its class has no other images than copies of it
    usual = own[is_measured].median() if is_measured.any() else own.median()
    scales = usual.repeat(plane.num_classes)
    for k in range(plane.num_classes):
        of_class = own[is_measured & (known.labels == k)]
        if len(of_class) >= MIN_IMAGES:
            scales[k] = of_class.median()
    scales = scales.clamp(min=1e-6)
    measured = (known.distances / scales).amin(1).numpy(), entropy(known.logits.softmax(1).numpy())
    kept_distances, kept_entropies = map(_keep, measured)
    # A known image is among the kept values already, unlike a new one. But where it is a reference, it has one fewer
    # than a new image, which makes it stranger by about as much.
    itself = 0.0 if known.are_references else 1 / (1 + len(kept_distances))
    ranks = rank_among(kept_distances, measured[0]) - itself, rank_among(kept_entropies, measured[1]) - itself
    return Novelty(
        plane,
        scales.numpy(),
        kept_distances,
        kept_entropies,
        _keep(join_ranks(*ranks, entropy_weight)),
        entropy_weight,
        images=len(known.labels),
        measured_on=known.name,
    )


def choose_entropy_weight(training: Mapping[str, Any]) -> float:
    """Return the weight for a network, by what its checkpoint says of its training."""
    return PUBLISHED_WEIGHT if "backbone" in training else OWN_WEIGHT


def distances_apart(learnt: Tensor, labels: Tensor, known: Tensor, num_classes: int) -> Tensor:
    """Return (M, K): the distance of images to each class, which a network did not learn from.

    Args:
        learnt, labels: (N, D) embeddings of length 1 and (N,) labels of images that it learnt from.
        known: (M, D) embeddings of those that it did not learn from.
    """
    plane = _place(*_span(learnt), learnt, labels, num_classes)
    return torch.from_numpy(plane.class_distances(*plane.project(known.numpy())))


def distances_crosswise(
    embeddings: Tensor, labels: Tensor, folds: Tensor, groups: Sequence[str], num_classes: int
) -> Tensor:
    """Return (N, K): the distance of each image to each class, by embeddings that learnt from none of the images.

    Each is measured in a plane that was found without its fold, to images that are not near-identical to it.

    Args:
        embeddings: (N, D) float32 of length 1.
        labels, folds: (N,) int64.
        groups: N names, equal for near-identical images, which are in one fold.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    group_numbers = np.array([numbers[name] for name in groups])  # (N,)
    is_like = group_numbers[:, None] == group_numbers[_choose_references(labels, num_classes)]  # (N, references)
    distances = torch.empty(len(labels), num_classes)
    for fold in sorted(set(folds.tolist())):
        own = folds == fold
        plane = _place(*_span(embeddings[~own]), embeddings, labels, num_classes)
        found = plane.class_distances(*plane.project(embeddings[own].numpy()), is_like[own.numpy()])
        distances[own] = torch.from_numpy(found)
    return distances


def spread_evenly(chosen: Tensor, most: int) -> Tensor:
    """Return (N,) bool: of the chosen images, (N,) bool, all or ``most`` of them at even steps."""
    some = torch.zeros_like(chosen)
    some[_spread(chosen.nonzero()[:, 0], most)] = True
    return some


def _span(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) of embeddings, and their main directions (R, D)."""
    mean = embeddings.mean(0)
    centred = embeddings - mean  # (N, D)
    number = min(DIRECTIONS, *centred.shape)
    if len(centred) < centred.shape[1]:  # of the two products the smaller one; both have the same main directions
        vectors = torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -number:]  # (N, R)
        directions = torch.linalg.qr(centred.T @ vectors).Q.T  # (R, D)
    else:
        directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -number:].T
    return mean, directions.half().float()  # as they are stored


def _place(mean: Tensor, directions: Tensor, embeddings: Tensor, labels: Tensor, num_classes: int) -> Plane:
    """Return the plane with as many images of each class as have room."""
    chosen = _choose_references(labels, num_classes)
    centred = embeddings[chosen] - mean
    references = (centred @ directions.T).half().float()  # as they are stored
    residual = (centred.square().sum(1) - references.square().sum(1)).mean().clamp(min=0).item()
    return Plane(mean.numpy(), directions.numpy(), references.numpy(), labels[chosen].numpy(), residual, num_classes)


def _choose_references(labels: Tensor, num_classes: int) -> Tensor:
    """Return the positions of as many images of each class as have room, spread evenly."""
    most = max(1, MAX_REFERENCES // num_classes)
    return torch.cat([_spread((labels == k).nonzero()[:, 0], most) for k in range(num_classes)])


def _keep(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return at most MAX_KNOWN of the values, ascending, spread evenly."""
    return _spread(torch.from_numpy(values.astype(np.float64)).sort().values, MAX_KNOWN).numpy()


def _spread(values: Tensor, most: int) -> Tensor:
    """Return all values, or ``most`` of them at even steps from the first to the last."""
    if len(values) <= most:
        return values
    return values[torch.linspace(0, len(values) - 1, most).round().long()]
