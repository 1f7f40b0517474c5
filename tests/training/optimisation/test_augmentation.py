"""Augmentation against slow loops that say the same thing plainly."""

import itertools

import pytest
import torch
from torch import Tensor

from torchlight.training.optimisation.augmentation import alternating_flip, cutout, shift


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    """Return what is seen when the window moves by whole pixels and the border mirrors without repeating itself."""
    _, height, width = image.shape
    result = torch.empty_like(image)
    for y, x in itertools.product(range(height), range(width)):
        row = (height - 1) - abs((height - 1) - abs(y + dy))
        column = (width - 1) - abs((width - 1) - abs(x + dx))
        result[:, y, x] = image[:, row, column]
    return result


@pytest.mark.parametrize(("limit", "height", "width"), [(1, 5, 5), (2, 6, 9), (3, 5, 7)])
def test_shift_moves_each_image_by_its_own_offset_with_a_mirrored_border(limit: int, height: int, width: int) -> None:
    steps = list(itertools.product(range(-limit, limit + 1), repeat=2))
    images = torch.randn(len(steps), 3, height, width, generator=seeded(0))
    moved = shift(images, torch.tensor(steps), limit)
    expected = [shifted(image, dy, dx) for image, (dy, dx) in zip(images, steps, strict=True)]
    assert torch.equal(moved, torch.stack(expected))


def test_shift_with_limit_zero_returns_the_images() -> None:
    images = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert torch.equal(shift(images, torch.zeros(2, 2, dtype=torch.int64), 0), images)


def test_shift_leaves_its_input_alone() -> None:
    images = torch.randn(4, 3, 8, 8, generator=seeded(0))
    before = images.clone()
    shift(images, torch.ones(4, 2, dtype=torch.int64), 2).zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("epoch", range(4))
def test_flip_mirrors_those_whose_turn_it_is(epoch: int) -> None:
    images = torch.randn(2, 3, 4, 5, generator=seeded(0))
    seen = alternating_flip(images, torch.tensor([False, True]), epoch)
    mirrored = images.flip(3)
    expected = [[images[0], mirrored[1]], [mirrored[0], images[1]]][epoch % 2]
    assert torch.equal(seen, torch.stack(expected))


def test_each_image_is_seen_mirrored_exactly_every_other_epoch() -> None:
    images = torch.randn(16, 3, 4, 5, generator=seeded(0))
    starts = torch.rand(16, generator=seeded(1)) < 0.5
    views = torch.stack([alternating_flip(images, starts, epoch) for epoch in range(4)])
    assert torch.equal(views[0], views[2])
    assert torch.equal(views[1], views[3])
    assert torch.equal(views[0].flip(4 - 1), views[1])
    assert 0 < starts.sum() < 16


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_hides_a_square_of_each_image_at_its_own_place(side: int) -> None:
    centres = list(itertools.product(range(5), range(7)))
    images = torch.rand(len(centres), 3, 5, 7, generator=seeded(0)) + 1
    expected = images.clone()
    for image, (y, x) in zip(expected, centres, strict=True):
        top, left = y - side // 2, x - side // 2
        image[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = 0
    assert torch.equal(cutout(images, torch.tensor(centres), side), expected)


def test_cutout_of_side_zero_returns_the_images() -> None:
    images = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert torch.equal(cutout(images, torch.zeros(2, 2, dtype=torch.int64), 0), images)
