"""How strange an image is to a network: a p-value from distances to what it learnt from, and from how unsure it is.

The distance to a class is the mean over the nearest of its images: in the plane of the main directions of all
embeddings, plus what lies outside of that plane. It is divided by the distance that is usual for an image of that
class, and the least over all classes counts. Distance and entropy of the answer each become a rank among known images,
which the network did not learn from; the weighted product of both ranks is ranked again. That rank is the p-value.

Source: Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest Neighbors, 2022, for the distance; Vovk,
Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, for the p-value. What else was measured is in
docs/decisions/uncertainty.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

THRESHOLD = 0.05  # of known images are called unknown
NEIGHBOURS = 20  # of a class at most, and no more than half of it: with fewer, one odd photo counts for much
FAR = 1e3  # squared distance to an image that does not count; embeddings have length 1, so others are at most 4

KNOWN = ("distances", "entropies", "scores")  # of known images
# Of the tensors in a file: dimensions and types, and the largest number and count that are believed.
DIMENSIONS = {"directions": 2, "references": 2} | dict.fromkeys(("mean", "classes", "residual", "scales", *KNOWN), 1)
FRACTIONS, WHOLE = (torch.float16, torch.float32, torch.float64), (torch.int32, torch.int64)
LARGEST, MOST = 1e9, 10_000

Array = npt.NDArray[np.float32]


class Strangeness(NamedTuple):
    """What is strange about N images.

    Attributes:
        coordinates: (N, R) of the embeddings in the plane of the main directions.
        distances: (N,) to the nearest class; 1 is usual for an image of that class.
        p_values: (N,) in (0, 1], the share of known images that are at least as strange.
    """

    coordinates: Array
    distances: Array
    p_values: Array


@dataclass(frozen=True)
class Plane:
    """The main directions of a network's embeddings, and images that it learnt from.

    Attributes:
        mean: (D,) of the embeddings.
        directions: (R, D), orthonormal.
        references: (M, R), coordinates of the images.
        classes: (M,) their class indices.
        residual: mean squared length of what of their embeddings lies outside of the plane.
        num_classes: K; a class without references is far from everything.
    """

    mean: Array
    directions: Array
    references: Array
    classes: npt.NDArray[np.int64]
    residual: float
    num_classes: int

    def project(self, embeddings: Array) -> tuple[Array, Array]:
        """Return coordinates (N, R), and squared distances to the plane (N,), of embeddings (N, D) of length 1."""
        centred: Array = embeddings - self.mean  # (N, D)
        coordinates = centred @ self.directions.T  # (N, R)
        outside: Array = np.square(centred).sum(1) - np.square(coordinates).sum(1)
        return coordinates, np.maximum(outside, 0)

    def class_distances(
        self, coordinates: Array, outside: Array, excluded: npt.NDArray[np.bool_] | None = None
    ) -> Array:
        """Return the mean squared distance to the nearest images of each class.

        Args:
            coordinates, outside: (N, R) and (N,) as :meth:`project` returns them.
            excluded: (N, M) references that do not count for an image.

        Returns:
            (N, K).
        """
        squared = np.empty((len(coordinates), len(self.references) + 1), np.float32)
        squared[:, -1] = FAR  # stands for none, where a class has fewer than another
        squared[:, :-1] = np.square(coordinates).sum(1)[:, None] + self._lengths - 2 * coordinates @ self.references.T
        weights = self._weights
        if excluded is not None:
            squared[:, :-1][excluded] = FAR
            left = (~excluded).astype(np.int64) @ (self.classes[:, None] == np.arange(self.num_classes))  # (N, K)
            weights = _weigh_neighbours(left)
        by_class = np.sort(squared[:, self._members], axis=2)[:, :, : weights.shape[-1]]  # (N, K, neighbours)
        distances: Array = (by_class * weights).sum(2) + outside[:, None] + np.float32(self.residual)
        return distances

    @cached_property
    def _lengths(self) -> Array:
        lengths: Array = np.square(self.references).sum(1)
        return lengths

    @cached_property
    def _members(self) -> npt.NDArray[np.int64]:
        """(K, most of a class): the references of each class, and M, which is none, where it has no more."""
        members = [np.flatnonzero(self.classes == k) for k in range(self.num_classes)]
        most = max(map(len, members))
        filler = len(self.references)
        return np.stack([np.pad(one, (0, most - len(one)), constant_values=filler) for one in members])

    @cached_property
    def _weights(self) -> Array:
        return _weigh_neighbours(np.bincount(self.classes, minlength=self.num_classes))


def _weigh_neighbours(counts: npt.NDArray[np.int64]) -> Array:
    """Return (..., K, neighbours): one over the number of neighbours that count in a class, 0 behind them.

    Args:
        counts: (..., K) references of each class.
    """
    numbers = np.clip((counts + 1) // 2, 1, NEIGHBOURS)[..., None]
    weights: Array = ((np.arange(numbers.max()) < numbers) / numbers).astype(np.float32)
    return weights


@dataclass(frozen=True)
class Novelty:
    """What a checkpoint holds to tell how strange an image is.

    Attributes:
        scales: (K,) the distance that is usual for an image of each class.
        distances, entropies, scores: (n,) float64 ascending, of known images that the network did not learn from:
            distance to the nearest class, entropy of the answer, and what :func:`join_ranks` makes of their ranks.
        entropy_weight: of the entropy's rank beside the distance's.
        images: number of those known images, of which the values are a part.
        measured_on: what they are, such as ``val``.
        canary_distance: of the canary image (model/canary.py) to the nearest class.
    """

    plane: Plane
    scales: Array
    distances: npt.NDArray[np.float64]
    entropies: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    entropy_weight: float
    images: int
    measured_on: str
    canary_distance: float = math.nan

    @property
    def can_tell(self) -> bool:
        """Whether there are enough known images for any image to be called unknown: at least 19."""
        return 1 / (1 + len(self.scores)) <= THRESHOLD

    @property
    def facts(self) -> dict[str, int | str | float]:
        """What a file says of it in its header."""
        return {
            "entropy_weight": self.entropy_weight,
            "images": self.images,
            "measured_on": self.measured_on,
            "canary_distance": self.canary_distance,
        }

    def measure(self, embeddings: Tensor, probabilities: Tensor) -> Strangeness:
        """Return how strange images are.

        Args:
            embeddings: (N, D) float32 as :func:`model.views.embedding.embed` returns them.
            probabilities: (N, K).
        """
        coordinates, outside = self.plane.project(embeddings.numpy())
        distances = (self.plane.class_distances(coordinates, outside) / self.scales).min(1)
        by_distance = rank_among(self.distances, distances)
        by_entropy = rank_among(self.entropies, entropy(probabilities.numpy()))
        scores = join_ranks(by_distance, by_entropy, self.entropy_weight)
        return Strangeness(coordinates, distances, rank_among(self.scores, scores).astype(np.float32))


def is_unknown(p_value: float) -> bool:
    """Return whether an image with that p-value counts as unlike what the network knows."""
    return p_value <= THRESHOLD


def describe_p_value(p_value: float | None) -> dict[str, float | bool] | None:
    """Return what answers say of a p-value; None if the checkpoint cannot tell."""
    if p_value is None:
        return None
    return {"p_value": round(p_value, 4), "is_unknown": is_unknown(p_value), "threshold": THRESHOLD}


def to_tensors(novelty: Novelty) -> dict[str, Tensor]:
    """Return the tensors that a file holds; directions and references in half precision, which they are rounded to."""
    plane = novelty.plane
    tensors = {
        "mean": torch.from_numpy(plane.mean),
        "directions": torch.from_numpy(plane.directions).half(),
        "references": torch.from_numpy(plane.references).half(),
        "classes": torch.from_numpy(plane.classes).int(),
        "residual": torch.tensor([plane.residual]),
        "scales": torch.from_numpy(novelty.scales),
        "distances": torch.from_numpy(novelty.distances),
        "entropies": torch.from_numpy(novelty.entropies),
        "scores": torch.from_numpy(novelty.scores),
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def from_tensors(tensors: Mapping[str, Tensor], num_classes: int, facts: Any) -> Novelty:
    """Return what :func:`to_tensors` was given.

    Args:
        facts: :attr:`Novelty.facts` as they were read from a file.

    Raises:
        ValueError: tensors are missing, do not fit together or hold impossible values; the message names one.
    """
    _check_tensors(tensors, num_classes)
    plane = Plane(
        mean=tensors["mean"].float().numpy(),
        directions=tensors["directions"].float().numpy(),
        references=tensors["references"].float().numpy(),
        classes=tensors["classes"].long().numpy(),
        residual=tensors["residual"].item(),
        num_classes=num_classes,
    )
    distances, entropies, scores = (tensors[name].double().numpy() for name in KNOWN)
    scales = tensors["scales"].float().numpy()
    return Novelty(plane, scales, distances, entropies, scores, **_check_facts(facts))


def _check_tensors(tensors: Mapping[str, Tensor], num_classes: int) -> None:
    for name in sorted(DIMENSIONS.keys() ^ tensors.keys()):
        raise ValueError(f"tensor {name!r} is {'unknown' if name in tensors else 'missing'}")
    for name, tensor in tensors.items():
        if tensor.dtype not in (WHOLE if name == "classes" else FRACTIONS) or tensor.ndim != DIMENSIONS[name]:
            raise ValueError(f"tensor {name!r} is of {tensor.dtype} and {tensor.ndim} dimensions, not as it is written")
        if not tensor.numel() or not tensor.abs().max() < LARGEST:
            raise ValueError(f"tensor {name!r} is empty or not finite")
    for name, most in {"classes": max(MOST, num_classes), **dict.fromkeys(KNOWN, MOST)}.items():
        if len(tensors[name]) > most:
            raise ValueError(f"tensor {name!r} has {len(tensors[name])} values; the limit is {most}")
    dimensions, number = tensors["mean"].numel(), tensors["directions"].shape[0]
    wanted = {"mean": (dimensions,), "directions": (number, dimensions), "scales": (num_classes,), "residual": (1,)}
    wanted |= {"references": (tensors["classes"].numel(), number), "classes": (tensors["classes"].numel(),)}
    wanted |= {name: (tensors[name].numel(),) for name in KNOWN}
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"tensor {name!r} is {tuple(tensors[name].shape)}, not {shape}")
    if not (tensors["classes"].min() >= 0 and tensors["classes"].max() < num_classes):
        raise ValueError(f"tensor 'classes' is not of indices below {num_classes}")
    if tensors["scales"].min() <= 0:
        raise ValueError("tensor 'scales' is not positive")
    if any((tensors[name].diff() < 0).any() for name in KNOWN):
        raise ValueError(f"one of the tensors {', '.join(KNOWN)} is not in ascending order")


def _check_facts(facts: Any) -> dict[str, Any]:
    match facts:
        case {
            "entropy_weight": int() | float() as weight,
            "images": int(images),
            "measured_on": str(),
            "canary_distance": int() | float() as distance,
        } if 0 < images < LARGEST and 0 <= weight < LARGEST and 0 <= distance < LARGEST:
            return {name: facts[name] for name in ("entropy_weight", "images", "measured_on", "canary_distance")}
    raise ValueError(f"header field 'novelty' is {facts!r}, not a weight, a number of images, their name, a distance")


def entropy(probabilities: Array) -> Array:
    """Return (N,) the entropy of answers (N, K), in nats."""
    entropies: Array = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    return entropies


def rank_among(known: npt.NDArray[np.float64], values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return for each value the share of known ones, itself counted among them, that are at least as large.

    Args:
        known: (n,) ascending.
        values: (N,).
    """
    larger = len(known) - np.searchsorted(known, values.astype(np.float64))
    ranks: npt.NDArray[np.float64] = (1 + larger) / (1 + len(known))
    return ranks


def join_ranks(
    by_distance: npt.NDArray[np.float64], by_entropy: npt.NDArray[np.float64], entropy_weight: float
) -> npt.NDArray[np.float64]:
    """Return (N,) scores, larger for stranger images: minus the weighted sum of the logarithms of both ranks."""
    scores: npt.NDArray[np.float64] = -np.log(by_distance) - entropy_weight * np.log(by_entropy)
    return scores
