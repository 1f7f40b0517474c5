"""Which images may carry a wrong label: those that a network that did not learn from them surely answers otherwise.

The order of all images is that of how improbable their labels are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_IMAGES = 5  # of a class; with fewer its images are mistaken because the class is hardly known


@dataclass(frozen=True)
class LabelDoubt:
    """An image whose label is improbable.

    Attributes:
        index: in the order of the logits.
        given, predicted: class indices of its label and of the most probable class.
        given_probability, predicted_probability: of the two, in [0, 1].
    """

    index: int
    given: int
    predicted: int
    given_probability: float
    predicted_probability: float


def find_label_doubts(logits: Tensor, labels: Tensor) -> list[LabelDoubt]:
    """Return the images whose label is doubtful, the least probable label first.

    A label is doubtful if the network answers with another class and is at least as sure of it as it is, on average,
    on the images that carry that class's label. Labels of classes with fewer than ``MIN_IMAGES`` images are not judged.

    Args:
        logits: (N, K), each image's from a network that did not learn from it.
        labels: (N,) int64.

    Source: Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021; the order is its self-confidence.
    """
    probabilities = logits.double().softmax(1)  # (N, K)
    given = _given_probability(probabilities, labels)
    likeliest, predicted = probabilities.max(1)
    counts = torch.bincount(labels, minlength=logits.shape[1])
    usual = torch.bincount(labels, given, logits.shape[1]) / counts.clamp(min=1)  # (K,) mean p(k) of images labelled k
    is_doubtful = (predicted != labels) & (likeliest >= usual[predicted]) & (counts[labels] >= MIN_IMAGES)
    doubtful = is_doubtful.nonzero()[:, 0]
    order = doubtful[given[doubtful].argsort(stable=True)].tolist()
    return [LabelDoubt(k, int(labels[k]), int(predicted[k]), given[k].item(), likeliest[k].item()) for k in order]


def rank_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) int64 positions of all images, the least probable label first.

    Images of classes with fewer than ``MIN_IMAGES`` images, which are not judged, come last.

    Args:
        logits: (N, K), each image's from a network that did not learn from it.
        labels: (N,) int64.
    """
    given = _given_probability(logits.double().softmax(1), labels)
    is_judged = torch.bincount(labels, minlength=logits.shape[1])[labels] >= MIN_IMAGES
    return torch.where(is_judged, given, 2.0).argsort(stable=True)


def _given_probability(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) the probability of each image's own label."""
    return probabilities.gather(1, labels[:, None])[:, 0]
