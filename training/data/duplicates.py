"""Which images are near-identical: re-encoded, resized, brightened, slightly shifted or cropped copies of each other.

Two steps. A short descriptor of each image, the low frequencies of its grey picture, finds the pairs that may be
copies: all pairs are compared, as one matrix product in blocks. Then each such pair is held against the pixels: one of
the two must be explained by the other up to exposure, a small shift and a small zoom. Knows nothing of files, labels or
splits. What the figures below give on real photos: docs/decisions/data.md.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

GREY_SIDE = 32  # pixels; all that the low frequencies below need
FREQUENCIES = 8  # a side; finer ones turn with every shift by a pixel
MIN_CORRELATION = 0.75  # of descriptors; a copy that lost 10% of its width and height still has it, unless off-centre
THUMBNAIL_SIDE = 16  # pixels; a shift by a few pixels of a photo is less than one of these
MIN_EXPLAINED = 0.94  # the lowest at which no pair of CIFAR-10 has two labels, see docs/log.md
MAX_PAIRS_PER_IMAGE = 50  # more that may be copies: pictures of one kind (digits, scans), where alike means little
LARGE_GROUP = 20  # a group this large with more than half of all images says the same
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
BLOCK = 2048  # images compared at a time; 16 MB of correlations


@dataclass(frozen=True)
class Groups:
    """Which images belong together.

    Attributes:
        first: (N,) int64; for each image the position of the first one of its group, itself if it is alone.
        too_alike: the pictures are so alike throughout that only equal pixels were taken for copies.
    """

    first: Tensor
    too_alike: bool


def group_alike(images: Tensor) -> Groups:
    """Put images into groups so that no two groups share near-identical ones.

    Args:
        images: (N, 3, S, S) uint8 RGB, at least one.

    Returns:
        The same groups for any order of the images. 50,000 images take seconds; the time grows with the square.
    """
    number = len(images)
    equal = _group_equal(images)
    distinct = torch.unique(equal)
    pairs = _find_pairs(torch.cat([_describe_frequencies(images[rows]) for rows in distinct.split(BLOCK)]))
    if pairs is None:
        return Groups(equal, True)
    if len(pairs):
        pairs = distinct[pairs]
        pairs = pairs[_explained(images, pairs) >= MIN_EXPLAINED]
    first = _join(number, torch.cat([torch.stack([torch.arange(number), equal], 1), pairs]))
    largest = int(torch.bincount(first[distinct]).max())
    if largest >= LARGE_GROUP and largest > len(distinct) / 2:
        return Groups(equal, True)
    return Groups(first, False)


def _group_equal(images: Tensor) -> Tensor:
    """Return for each image the position of the first one with the same pixels."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.sha256(image).digest() for image in images.contiguous().numpy())
    return torch.tensor([seen.setdefault(digest, index) for index, digest in enumerate(digests)], dtype=torch.int64)


def _describe_frequencies(images: Tensor) -> Tensor:
    """Return (N, 63) float32: the low frequencies of the grey pictures but their mean, each of length 1.

    Weighted by frequency: the amplitudes of natural pictures fall as its inverse (Field, J. Opt. Soc. Am. A 4, 1987),
    so all weigh about the same, and pictures that only share a bright sky are not alike. Flat pictures give zero.
    """
    grey = (images.float() * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    grey = _resize(grey, GREY_SIDE)[:, 0]  # (N, 32, 32)
    place = torch.arange(GREY_SIDE) + 0.5
    frequency = torch.arange(FREQUENCIES)
    basis = torch.cos(torch.pi / GREY_SIDE * frequency[:, None] * place)  # the discrete cosine transform, unscaled
    spectrum = basis @ grey @ basis.T * torch.hypot(frequency[:, None].float(), frequency.float())
    spectrum = spectrum.flatten(1)[:, 1:]  # (N, 63), without the mean
    length = spectrum.norm(dim=1, keepdim=True)
    return torch.where(length > GREY_SIDE**2 / 2, spectrum / length, 0.0)


def _find_pairs(descriptors: Tensor) -> Tensor | None:
    """Return (M, 2) pairs of positions, the smaller first, whose descriptors correlate; None if they are too many."""
    number, most = len(descriptors), MAX_PAIRS_PER_IMAGE * len(descriptors)
    found, total = [torch.empty(0, 2, dtype=torch.int64)], 0
    for top in range(0, number, BLOCK):
        for left in range(top, number, BLOCK):
            correlation = descriptors[top : top + BLOCK] @ descriptors[left : left + BLOCK].T
            alike = correlation >= MIN_CORRELATION
            pairs = (alike.triu(1) if left == top else alike).nonzero() + torch.tensor([top, left])
            found.append(pairs)
            total += len(pairs)
            if total > most:
                return None
    return torch.cat(found)


def _explained(images: Tensor, pairs: Tensor) -> Tensor:
    """Return (M,) the share of the variance of one image of each pair that the other explains, the better way round."""
    used, positions = torch.unique(pairs, return_inverse=True)
    thumbnails = torch.cat([_resize(images[rows].float(), THUMBNAIL_SIDE) for rows in used.split(BLOCK)])
    shares = []
    for chunk in positions.split(BLOCK):
        one, other = thumbnails[chunk[:, 0]].double(), thumbnails[chunk[:, 1]].double()
        shares.append(torch.maximum(_fit(one, other), _fit(other, one)))
    return torch.cat(shares)


def _fit(source: Tensor, target: Tensor) -> Tensor:
    """Return (N,) the share of the variance of ``target`` that ``gain * source(moved) + offset`` explains.

    Moved by a shift and a zoom, to first order: the least squares of ``target`` over the source, a constant, the two
    gradients and the gradient along the radius (Lucas and Kanade, IJCAI 1981, with exposure). Gain and offset are the
    same in all colours, so that the same thing in another colour is another picture.

    Args:
        source, target: (N, 3, T, T) float64.
    """
    place = torch.linspace(-1, 1, THUMBNAIL_SIDE, dtype=source.dtype)
    down, right = torch.gradient(source, dim=(2, 3))
    columns = [source, torch.ones_like(source), down, right, down * place[:, None] + right * place]
    terms = torch.stack([column.flatten(1) for column in columns], 2)  # (N, 3TT, 5)
    values = target.flatten(1)[..., None]
    ridge = 1e-3 * torch.eye(len(columns), dtype=source.dtype)  # flat sources have no gradients
    weights: Tensor = torch.linalg.solve(terms.mT @ terms + ridge, terms.mT @ values)
    rest = (values - terms @ weights).square().mean((1, 2))
    return 1 - rest / values.var((1, 2), correction=0).clamp(min=1e-6)


def _resize(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def _join(number: int, pairs: Tensor) -> Tensor:
    """Return for each of ``number`` positions the first one that pairs connect it with."""
    parent = list(range(number))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return torch.tensor([root(one) for one in range(number)], dtype=torch.int64)
