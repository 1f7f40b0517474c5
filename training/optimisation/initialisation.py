"""First weights computed from the training images instead of drawn at random."""

import torch
from torch import Tensor, nn

from torchlight.model.images import ImageSpec, normalise
from torchlight.model.network import first_convolution

SAMPLE = 5_000  # images; patterns of patches hardly differ beyond
FLOOR = 5e-2  # added to the variances: rarer patterns are noise, and would be amplified most


def whiten_first_layer(network: nn.Module, images: Tensor, spec: ImageSpec) -> None:
    """Set the first convolution's filters to the patterns that patches of the images are made of, and their negatives.

    The patterns are the eigenvectors of the patches' covariance: edges and colour contrasts of growing fineness. Each
    is divided by the standard deviation with which it occurs, so that all of them give maps of about the same size.

    Args:
        network: its first convolution reads the image and has an even number of filters, at most twice as many as a
            patch has numbers.
        images: (N, 3, S, S) uint8 RGB of the training split.

    Source: the whitening layer of Page: How to Train Your ResNet, 2018, in the form of airbench (Jordan, 2024).
    """
    convolution = first_convolution(network)
    assert convolution is not None
    kernel_size, half = convolution.kernel_size[0], convolution.out_channels // 2
    chosen = torch.linspace(0, len(images) - 1, min(SAMPLE, len(images))).long()
    # (n, 3, rows, columns, k, k): patches of k x k pixels, every third one in y and x
    unfolded = normalise(images[chosen], spec).unfold(2, kernel_size, 3).unfold(3, kernel_size, 3)
    patches = unfolded.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * kernel_size**2)  # (patches, numbers in a patch)
    covariance = (patches.T @ patches).double() / len(patches)
    variances, patterns = torch.linalg.eigh(covariance)  # smallest first
    scaled = (patterns / (variances + FLOOR).sqrt()).T.flip(0)[:half].float()
    filters = scaled.view(half, 3, kernel_size, kernel_size)
    with torch.no_grad():
        convolution.weight.copy_(torch.cat([filters, -filters]))
