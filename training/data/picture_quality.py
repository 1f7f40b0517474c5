"""Decoded photos -> which of them show little: one colour all over, blurred, smaller than what the network sees.

Sharpness has no scale of its own, so a photo is called blurred only beside the others of its set. Knows nothing of
files and labels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FLAT_DEVIATION = 4.0  # of 255: the largest standard deviation of a picture of one colour, JPEG noise included
DARK, BRIGHT = 40.0, 215.0  # of 255: means below and above which one colour is called black and white
TILES = 4  # a side: a photo is as sharp as its sharpest tile, since a blurred background is no fault
LEAST_FACTOR = 4.0  # times less detail than usual, at least
DEVIATIONS = 3.0  # below the usual detail, at least; in robust standard deviations of its logarithm
MIN_PHOTOS = 10  # fewer do not say what is usual
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))
BLOCK = 256  # photos at a time


def name_flat(images: Tensor) -> list[str]:
    """Return for each photo ``black``, ``white`` or ``one colour`` if that is all it shows, else nothing.

    Args:
        images: (N, 3, S, S) uint8 RGB.
    """
    names = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        pixels = block.float().flatten(2)  # (n, 3, S * S)
        deviations, means = pixels.std(2, correction=0).amax(1), pixels.mean((1, 2))  # (n,), (n,)
        for deviation, mean in zip(deviations.tolist(), means.tolist(), strict=True):
            colour = "black" if mean < DARK else "white" if mean > BRIGHT else "one colour"
            names.append(colour if deviation <= FLAT_DEVIATION else "")
    return names


def measure_detail(images: Tensor) -> Tensor:
    """Return (N,) float32 at least 0: how sharp the sharpest part of each photo is, whatever its contrast.

    The variance of the Laplacian in the sharpest of 4x4 tiles over the variance of the whole grey picture. A flat
    picture has 0.

    Args:
        images: (N, 3, S, S) uint8 RGB, S at least 16.

    Source: Pech-Pacheco and others: Diatom Autofocusing in Brightfield Microscopy, ICPR 2000.
    """
    kernel, luma = torch.tensor(LAPLACIAN)[None, None], torch.tensor(LUMA).view(1, 3, 1, 1)
    parts = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        grey = (block.float() * luma).sum(1, keepdim=True)  # (n, 1, S, S)
        edges = F.conv2d(grey, kernel)  # (n, 1, S - 2, S - 2)
        side = edges.shape[-1] // TILES
        variance = F.avg_pool2d(edges.square(), side) - F.avg_pool2d(edges, side).square()  # (n, 1, 4, 4)
        contrast = grey.var((1, 2, 3), correction=0)  # (n,)
        parts.append(variance.amax((1, 2, 3)).clamp(min=0) * (contrast > FLAT_DEVIATION) / contrast.clamp(min=1))
    return torch.cat(parts)


def find_blurred(detail: Tensor) -> list[tuple[int, float]]:
    """Return positions of blurred photos, the most blurred first, and how many times less detail than usual they have.

    Flat pictures do not count. Of fewer than ``MIN_PHOTOS`` none is called blurred.

    Args:
        detail: (N,) of :func:`measure_detail`.
    """
    known = detail > 0
    if int(known.sum()) < MIN_PHOTOS:
        return []
    logarithm = detail.clamp(min=1e-12).log()
    usual = logarithm[known].median()
    spread = 1.4826 * (logarithm[known] - usual).abs().median()  # the standard deviation, if they are normal
    limit = usual - max(DEVIATIONS * spread.item(), math.log(LEAST_FACTOR))
    found = (known & (logarithm < limit)).nonzero()[:, 0]
    order = found[logarithm[found].argsort(stable=True)]
    return [(k, math.exp(usual - logarithm[k])) for k in order.tolist()]


def find_tiny(shorter_sides: Sequence[int], size: int) -> list[int]:
    """Return positions of photos whose original is smaller than the ``size`` pixels seen, the smallest first."""
    tiny = [k for k, side in enumerate(shorter_sides) if side < size]
    return sorted(tiny, key=lambda k: shorter_sides[k])
