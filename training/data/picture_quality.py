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
SAMPLED = 4  # every so many pixels, along both sides, are enough to see that all are of one colour
BLOCK = 32  # photos at a time: what is computed of them stays near the processor


def name_flat(images: Tensor) -> list[str]:
    """Return for each photo ``black``, ``white`` or ``one colour`` if that is all it shows, else nothing.

    Args:
        images: (N, 3, S, S) uint8 RGB.
    """
    names = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK, :, ::SAMPLED, ::SAMPLED]
        pixels = block.float().flatten(2)  # (n, 3, pixels that are looked at)
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
    red, green, blue = LUMA
    parts = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        grey = block[:, 0].float().sub_(128).mul_(red)  # (n, S, S), about 0, where sums of squares are exact
        grey.add_(block[:, 1].float().sub_(128), alpha=green).add_(block[:, 2].float().sub_(128), alpha=blue)
        middle = grey[:, 1:-1, 1:-1]
        edges = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * middle
        sharpest = _variance(edges, edges.shape[-1] // TILES).amax((1, 2))  # (n,)
        contrast = _variance(grey, grey.shape[-1]).flatten()  # (n,)
        parts.append(sharpest * (contrast > FLAT_DEVIATION) / contrast.clamp(min=1))
    return torch.cat(parts)


def _variance(pictures: Tensor, side: int) -> Tensor:
    """Return (n, h, w) the variance within each whole tile, ``side`` pixels a side, of pictures (n, H, W)."""
    squares, means = (F.avg_pool2d(values[:, None], side)[:, 0] for values in (pictures.square(), pictures))
    return (squares - means.square()).clamp(min=0)


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
