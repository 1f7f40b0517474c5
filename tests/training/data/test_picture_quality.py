"""Photos with little to see: what is black, blurred or tiny is found, and what is merely quiet is not."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from torchlight.training.data.picture_quality import find_blurred, find_tiny, measure_detail, name_flat


def draw_scenes(number: int, side: int = 64) -> Tensor:
    """Return (N, 3, S, S) uint8 pictures of smooth shapes with fine texture on them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 4, 4, generator=generator)
    shapes = F.interpolate(coarse, size=(side, side), mode="bilinear")
    texture = 0.2 * torch.randn(number, 3, side, side, generator=generator)
    return (255 * (shapes + texture).clamp(0, 1)).to(torch.uint8)


def blur(images: Tensor) -> Tensor:
    smooth = F.avg_pool2d(images.float(), 9, stride=1, padding=4, count_include_pad=False)
    return smooth.round().to(torch.uint8)


@pytest.mark.parametrize(("level", "name"), [(0, "black"), (255, "white"), (120, "one colour")])
def test_a_picture_of_one_colour_is_named_even_with_a_little_noise(level: int, name: str) -> None:
    images = torch.full((2, 3, 64, 64), level, dtype=torch.uint8)
    images[1] += torch.randint(0, 2, (3, 64, 64), dtype=torch.uint8) * (1 if level < 255 else 255)
    assert name_flat(images) == [name, name]


def test_a_dark_picture_that_shows_something_has_no_name() -> None:
    assert name_flat(draw_scenes(3) // 8) == ["", "", ""]


def test_blurred_pictures_are_found_and_the_most_blurred_comes_first() -> None:
    images = draw_scenes(30)
    images[4], images[9] = blur(images[4:5])[0], blur(blur(images[9:10]))[0]
    found = find_blurred(measure_detail(images))
    assert [index for index, _ in found] == [9, 4]
    assert found[0][1] > found[1][1] > 4


def test_detail_depends_neither_on_contrast_nor_on_a_blurred_background() -> None:
    images = draw_scenes(30)
    images[3] = 100 + images[3] // 4
    sharp_part = images[5, :, :16, :16].clone()
    images[5] = blur(images[5:6])[0]
    images[5, :, :16, :16] = sharp_part
    assert find_blurred(measure_detail(images)) == []


def test_flat_pictures_and_small_sets_are_not_called_blurred() -> None:
    images = draw_scenes(30)
    images[7] = 0
    assert find_blurred(measure_detail(images)) == []
    few = draw_scenes(4)
    few[0] = blur(few[:1])[0]
    assert find_blurred(measure_detail(few)) == []


def test_originals_smaller_than_what_is_seen_are_tiny_and_the_smallest_comes_first() -> None:
    assert find_tiny([300, 100, 260, 50], 260) == [3, 1]
