"""Whether probabilities mean what they say, and one number that makes them.

A network that is right 80 times of the 100 in which it says 80% is calibrated. Dividing its logits by one temperature,
fitted on images that it was not trained on, brings most networks near that and changes no answer.

Source: Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchlight.model.network import classifier_head

BINS = 15  # as in the source, so that figures compare
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose highest probability lies in (lower, upper].

    Attributes:
        count: how many; with none the two means are 0.
        mean_confidence: mean of their highest probability.
        accuracy: share that is right.
    """

    lower: float
    upper: float
    count: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to a split.

    Attributes:
        temperature: logits are divided by it; above 1 the network was too sure, below 1 not sure enough.
        ece_before, ece_after: expected calibration error, in [0, 1].
        ece_by_chance: what so many images would show after it, on average, if each probability were true.
        nll_before, nll_after: negative log-likelihood (mean cross-entropy), natural logarithm.
        reliability: the bins after division.
        images: how many the figures are over.
    """

    temperature: float
    ece_before: float
    ece_after: float
    ece_by_chance: float
    nll_before: float
    nll_after: float
    reliability: tuple[ReliabilityBin, ...]
    images: int


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature T at which softmax(logits / T) fits the labels best.

    Minimises the negative log-likelihood, with one part in N + 1 of each label spread over all classes. Thousands of
    images do not notice; a few images, all of them right, are kept from proving that the network is never wrong.
    In 1/T the sum is convex, so Newton's method, held between the ends of a shrinking bracket, finds its only minimum.

    Args:
        logits: (N, K) finite, of images the network was not trained on.
        labels: (N,) int64.

    Returns:
        A number from ``LOWEST_TEMPERATURE`` to ``HIGHEST_TEMPERATURE``; 1 if no logit differs from another.

    Raises:
        ValueError: there are no images, or a logit is not finite.

    Source: Guo et al. 2017, section 4.2; spread labels: Platt: Probabilistic Outputs for Support Vector Machines,
    1999, section 2.2.
    """
    if not len(labels) or not torch.isfinite(logits).all():
        raise ValueError(f"a temperature needs images and finite logits; there are {len(labels)} images")
    centred = logits.double() - logits.double().mean(1, keepdim=True)  # so the part spread over all classes adds 0
    wanted = centred.gather(1, labels[:, None]).mean() * len(labels) / (len(labels) + 1)
    low, high, inverse = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE, 1.0
    for _ in range(100):
        probabilities = (inverse * centred).softmax(1)
        expected = (probabilities * centred).sum(1, keepdim=True)
        slope = (expected.mean() - wanted).item()
        curvature = (probabilities * (centred - expected) ** 2).sum(1).mean().item()
        if slope == 0:
            break
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return 1 / inverse


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """Return equally wide bins of the highest probability, (0, 1/bins] first, with how often it was right.

    Args:
        probabilities: (N, K).
        labels: (N,) int64.
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double()
    position = _bins_of(confidence, bins)
    counts = torch.bincount(position, minlength=bins)
    shares = counts.clamp(min=1)
    means = torch.bincount(position, confidence, bins) / shares
    accuracies = torch.bincount(position, right, bins) / shares
    return tuple(
        ReliabilityBin(k / bins, (k + 1) / bins, int(counts[k]), means[k].item(), accuracies[k].item())
        for k in range(bins)
    )


def _bins_of(confidence: Tensor, bins: int) -> Tensor:
    return ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Return the mean distance between confidence and accuracy over the bins, weighted by their images, in [0, 1].

    With few images chance alone makes it large: a calibrated network on 100 images shows several per cent.

    Args:
        probabilities: (N, K), N at least 1.
        labels: (N,) int64.

    Source: Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    filled = reliability(probabilities, labels, bins)
    return sum(one.count * abs(one.accuracy - one.mean_confidence) for one in filled) / len(labels)


def error_by_chance(probabilities: Tensor, bins: int = BINS) -> float:
    """Return about the calibration error that images show, on average, if each is as likely right as it says.

    In each bin the number of right answers then strays from its mean: by sqrt(2 / pi) of its standard deviation where
    several right and several wrong are to be expected, which makes it normal; by at most twice its variance, which is
    nearer where hardly any wrong one is. In bins of 1 to 500 images, equally sure, the lesser of both is 0.8 to 1.13
    times the exact mean.

    Args:
        probabilities: (N, K), N at least 1.
    """
    confidence = probabilities.double().max(1).values
    variances = torch.bincount(_bins_of(confidence, bins), confidence * (1 - confidence), bins)
    strays = torch.minimum(math.sqrt(2 / math.pi) * variances.sqrt(), 2 * variances)
    return strays.sum().item() / len(confidence)


def divide_crosswise(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of one half of the images, drawn at random, divided by the temperature of the other, and back.

    So no image is measured with a temperature that it helped to fit, and all are measured. One image alone has no
    others; its logits stay.

    Args:
        logits: (N, K) finite.
        labels: (N,) int64.

    Returns:
        (N, K) float64.
    """
    divided = logits.double().clone()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    halves = order[::2], order[1::2]
    for own, others in (halves, halves[::-1]):
        if len(others):
            divided[own] /= fit_temperature(logits[others], labels[others])
    return divided


def measure_calibration(logits: Tensor, divided: Tensor, labels: Tensor, temperature: float) -> Calibration:
    """Return what a temperature does.

    Args:
        logits: (N, K), before.
        divided: (N, K), after.
        labels: (N,) int64.
        temperature: the one that is kept; ``divided`` may come from others near it.
    """
    before, after = logits.double(), divided.double()
    return Calibration(
        temperature=temperature,
        ece_before=expected_calibration_error(before.softmax(1), labels),
        ece_after=expected_calibration_error(after.softmax(1), labels),
        ece_by_chance=error_by_chance(after.softmax(1)),
        nll_before=F.cross_entropy(before, labels).item(),
        nll_after=F.cross_entropy(after, labels).item(),
        reliability=reliability(after.softmax(1), labels),
        images=len(labels),
    )


def divide_logits(network: nn.Module, temperature: float) -> None:
    """Divide what the last layer with weights gives, in place, and with it the logits.

    So the temperature is in the weights: applied once, wherever the network runs, and true of every view into it.
    """
    with torch.no_grad():
        for parameter in classifier_head(network).parameters():
            parameter.div_(temperature)
