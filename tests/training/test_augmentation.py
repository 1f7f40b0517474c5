"""Augmentation against slow loops that say the same thing plainly."""

import itertools

import pytest
import torch
from torch import Tensor

from training.augmentation import alternating_flip, random_shift


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


def offsets_of(before: Tensor, after: Tensor, shift: int) -> list[tuple[int, int]]:
    """Return all the ways in which one image is the other, moved."""
    steps = range(-shift, shift + 1)
    return [(dy, dx) for dy, dx in itertools.product(steps, steps) if torch.equal(shifted(before, dy, dx), after)]


@pytest.mark.parametrize(("shift", "height", "width"), [(1, 5, 5), (2, 6, 9), (3, 5, 7)])
def test_shift_moves_each_image_by_whole_pixels_with_a_mirrored_border(shift: int, height: int, width: int) -> None:
    images = torch.randn(12, 3, height, width, generator=seeded(0))
    moved = random_shift(images, shift, seeded(1))
    found = [offsets_of(before, after, shift) for before, after in zip(images, moved, strict=True)]
    assert [len(ways) for ways in found] == [1] * 12
    assert len({ways[0] for ways in found}) > 3  # each image its own way


def test_shift_uses_every_offset_about_equally_often() -> None:
    image = torch.randn(1, 1, 4, 4, generator=seeded(0))
    moved = random_shift(image.expand(900, -1, -1, -1), 1, seeded(1))
    counts = [
        int((moved == shifted(image[0], dy, dx)).all((1, 2, 3)).sum())
        for dy, dx in itertools.product((-1, 0, 1), repeat=2)
    ]
    assert sum(counts) == 900
    assert min(counts) > 60  # 100 expected, standard deviation 9
    assert max(counts) < 140


def test_shift_of_zero_returns_the_images() -> None:
    images = torch.randn(2, 3, 4, 4, generator=seeded(0))
    assert torch.equal(random_shift(images, 0, seeded(1)), images)


def test_shift_leaves_its_input_alone() -> None:
    images = torch.randn(4, 3, 8, 8, generator=seeded(0))
    before = images.clone()
    random_shift(images, 2, seeded(1)).zero_()
    assert torch.equal(images, before)


def test_same_generator_gives_the_same_shifts() -> None:
    images = torch.randn(8, 3, 8, 8, generator=seeded(0))
    assert torch.equal(random_shift(images, 2, seeded(1)), random_shift(images, 2, seeded(1)))
    assert not torch.equal(random_shift(images, 2, seeded(1)), random_shift(images, 2, seeded(2)))


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
