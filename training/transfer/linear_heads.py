"""Multinomial logistic regression on features, for many folds and strengths of regularisation in one go.

A head is the minimum of the mean cross-entropy plus ``strength / 2`` times the squared length of its weights. Knows
nothing of networks and images.

Source: Boehning: Multinomial Logistic Regression Algorithm, Annals of the Institute of Statistical Mathematics 1992,
for the bound on the curvature; O'Donoghue, Candes: Adaptive Restart for Accelerated Gradient Schemes, 2015.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_DIRECTIONS = 3000  # of the features: for so many photos or fewer nothing is lost
LEAST_VARIANCE = 1e-9  # of a direction, as a share of the largest; what is below is rounding
SMALLEST = 1e-30  # so that features without any variance are not divided by 0
POWER_STEPS = 30  # of the power method; its value is then within a tenth
MIN_STEPS, MAX_STEPS = 60, 1000
MAX_WORK = 5e11  # multiply-adds of a product, times steps: thousands of photos in hundreds of classes stop early
TOLERANCE = 1e-5  # of the gradient along each direction; probabilities then are within 0.01 of the minimum's


@dataclass(frozen=True)
class Basis:
    """Features (N, D) written in their own principal directions, in which fitting is fast and loses nothing.

    Attributes:
        directions: (D, R) float32 orthonormal.
        mean: (D,) float32.
        coordinates: (N, R) float32, of the centred features.
        squares: (R,) float32, a bound on the curvature along each direction: no sum of squares of the photos along any
            line is larger than what these give. Where all photos made the directions, the sums of squared coordinates.
    """

    directions: Tensor
    mean: Tensor
    coordinates: Tensor
    squares: Tensor


@dataclass(frozen=True)
class Heads:
    """B linear layers from R coordinates to K logits: weights (B, R, K) and biases (B, K), float32."""

    weights: Tensor
    biases: Tensor


def find_basis(features: Tensor) -> Basis:
    """Return the principal directions of features (N, D) float32.

    Of more than ``MAX_DIRECTIONS`` photos and features, the directions are those of evenly chosen photos.
    """
    number = len(features)
    mean = features.mean(0)
    chosen = torch.linspace(0, number - 1, min(number, MAX_DIRECTIONS)).long()
    sample = features[chosen] - mean  # (M, D)
    if len(sample) <= features.shape[1]:
        squares, vectors = torch.linalg.eigh((sample @ sample.T).double())  # (M,), (M, M)
        kept = squares >= squares[-1] * LEAST_VARIANCE
        lengths = squares[kept].clamp(min=SMALLEST).sqrt()
        directions = sample.T @ (vectors[:, kept] / lengths).float()  # (D, R)
    else:
        squares, vectors = torch.linalg.eigh((sample.T @ sample).double())  # (D,), (D, D)
        directions = vectors[:, squares >= squares[-1] * LEAST_VARIANCE].float()
    coordinates = (features - mean) @ directions  # (N, R)
    squares = coordinates.square().sum(0)
    if number > MAX_DIRECTIONS:
        squares = squares * _largest_eigenvalue(coordinates / squares.clamp(min=SMALLEST).sqrt())
    return Basis(directions, mean, coordinates, squares)


def _largest_eigenvalue(columns: Tensor) -> float:
    """Return that of the products of all pairs of columns (N, R) of length 1, rather too large than too small."""
    vector = torch.ones(columns.shape[1])
    for _ in range(POWER_STEPS):
        vector = columns.T @ (columns @ F.normalize(vector, dim=0))
    return 1.1 * float(vector.norm())


def fit_heads(basis: Basis, labels: Tensor, num_classes: int, strength: float, learnt: Tensor) -> Heads:
    """Fit one head for each choice of photos.

    Accelerated gradient steps under a bound that holds for any part of the photos: the curvature is at most half of
    the squares over the number of photos. Along the principal directions the bound is diagonal.

    Args:
        labels: (N,) int64.
        strength: of the regularisation, above 0.
        learnt: (B, N) bool, which photos each head learns from; at least one in each row.
    """
    photos = basis.coordinates  # (N, R)
    weight = learnt.float() / learnt.sum(1, keepdim=True)  # (B, N), each row sums to 1
    wanted = F.one_hot(labels, num_classes).float()  # (N, K)
    count = learnt.sum(1).float()  # (B,)
    step = 1 / (basis.squares / (2 * count[:, None]) + strength)  # (B, R)
    bias_step = 2 * count[:, None] / len(labels)  # (B, 1)

    weights = photos.new_zeros(len(learnt), photos.shape[1], num_classes)  # (B, R, K)
    biases = (weight @ wanted + 1 / len(labels)).log()  # (B, K): how frequent each class is
    ahead, ahead_biases, momentum = weights, biases, 1.0
    work = weights.numel() * len(labels)  # multiply-adds of one product
    for _ in range(max(MIN_STEPS, min(MAX_STEPS, int(MAX_WORK / max(work, 1))))):
        residuals = (photos @ ahead + ahead_biases[:, None]).softmax(2)  # (B, N, K)
        residuals.sub_(wanted).mul_(weight[:, :, None])
        slope = photos.T @ residuals + strength * ahead  # (B, R, K)
        bias_slope = residuals.sum(1)  # (B, K)
        moved, moved_biases = ahead - step[:, :, None] * slope, ahead_biases - bias_step * bias_slope
        if ((ahead - moved) * (moved - weights)).sum() > 0:  # the momentum has overshot
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        share = (momentum - 1) / following
        ahead, ahead_biases = moved + share * (moved - weights), moved_biases + share * (moved_biases - biases)
        weights, biases, momentum = moved, moved_biases, following
        if max(float((slope * step[:, :, None].sqrt()).abs().max()), float(bias_slope.abs().max())) < TOLERANCE:
            break
    return Heads(weights, biases)


def head_logits(basis: Basis, heads: Heads) -> Tensor:
    """Return (B, N, K) float32."""
    return basis.coordinates @ heads.weights + heads.biases[:, None]


def to_linear(basis: Basis, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
    """Return one head as a linear layer on the features themselves: weight (K, D) and bias (K,).

    Args:
        weights: (R, K).
        biases: (K,).
    """
    weight = (basis.directions @ weights).T
    return weight, biases - weight @ basis.mean


def mean_linear(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the linear layer whose logits are the mean of those of several."""
    weights, biases = zip(*layers, strict=True)
    return torch.stack(weights).mean(0), torch.stack(biases).mean(0)
