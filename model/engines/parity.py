"""How far another way to compute the answers is from PyTorch's: what decides about OpenVINO and exported files."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier

BATCH_SIZES = (1, 2, 7)  # at which a program for any batch is compared
TOLERANCE = 1e-4  # of a probability: invisible in an answer, a hundred times the rounding of other kernels

InferenceFunction = Callable[[Tensor], Tensor]  # (N, 3, S, S) uint8 RGB -> (N, K) float32 probabilities


def largest_difference(classifier: Classifier, run: InferenceFunction, batch_sizes: tuple[int, ...]) -> float:
    """Return the largest difference of ``run`` from ``classifier.probabilities``, over batches of seeded noise."""
    generator = torch.Generator().manual_seed(0)
    size = classifier.spec.size
    differences = []
    for number in batch_sizes:
        images = torch.randint(0, 256, (number, 3, size, size), generator=generator, dtype=torch.uint8)
        differences.append((run(images) - classifier.probabilities(images)).abs().max())
    return torch.stack(differences).max().item()
