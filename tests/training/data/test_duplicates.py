"""Copies of a photo are found, whatever was done to it; photos of different things are not."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance
from torch import Tensor

from torchlight.model.images import Resizing, to_tensor
from torchlight.training.data import duplicates

Change = Callable[[Image.Image], Image.Image]


def draw_scene(seed: int, side: int = 160) -> Image.Image:
    """Return a drawn photo: a sky, hills and a few things of random shape, place and colour."""
    random = np.random.default_rng(seed)
    top, bottom = random.integers(60, 256, (2, 3))
    rows = np.linspace(0, 1, side)[:, None, None]
    canvas = np.broadcast_to(top * (1 - rows) + bottom * rows, (side, side, 3)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(canvas))
    brush = ImageDraw.Draw(image)
    for _ in range(9):
        x, y = random.integers(-20, side - 20, 2)
        width, height = random.integers(15, 90, 2)
        shape = brush.ellipse if random.random() < 0.5 else brush.rectangle
        shape((x, y, x + width, y + height), fill=tuple(int(value) for value in random.integers(0, 256, 3)))
    return image


def through_jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def crop(left: int, top: int, right: int, bottom: int) -> Change:
    return lambda image: image.crop((left, top, image.width - right, image.height - bottom))


COPIES: dict[str, Change] = {
    "JPEG of low quality": through_jpeg(25),
    "small": lambda image: image.resize((48, 48)),
    "large": lambda image: image.resize((500, 500)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "cropped by 5%": crop(4, 4, 4, 4),
    "cropped at a corner": crop(0, 0, 5, 5),
    "shifted": crop(4, 0, 0, 4),
    "all at once": lambda image: through_jpeg(50)(ImageEnhance.Brightness(crop(3, 3, 3, 3)(image)).enhance(0.9)),
}
NUMBER = 60
SIZES = (32, 64, 224)


def tensors(pictures: list[Image.Image], size: int = 32) -> Tensor:
    return torch.stack([to_tensor(picture, Resizing(size)) for picture in pictures])


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [draw_scene(seed) for seed in range(NUMBER)]


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("size", SIZES)
def test_copies_are_found_and_nothing_else(name: str, size: int, scenes: list[Image.Image]) -> None:
    """Fewer at the sizes that cost time; of each kind of change, at most one copy in twenty may escape."""
    originals = scenes if size == 32 else scenes[:20]
    images = tensors([*originals, *(COPIES[name](scene) for scene in originals)], size)
    first = duplicates.group_alike(images).first
    number = len(originals)
    assert first[:number].tolist() == list(range(number))
    found = int((first[number:] == torch.arange(number)).sum())
    assert found >= 0.95 * number
    assert set(first[number:].tolist()) <= set(range(2 * number))


def test_groups_are_the_same_for_any_order(scenes: list[Image.Image]) -> None:
    images = tensors([*scenes, *(COPIES["all at once"](scene) for scene in scenes)])
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    first, shuffled = duplicates.group_alike(images).first, duplicates.group_alike(images[order]).first
    assert torch.equal(first[order][:, None] == first[order], shuffled[:, None] == shuffled)


def test_blocks_change_nothing(scenes: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    images = tensors([*scenes, *(COPIES["darker"](scene) for scene in scenes)])
    whole = duplicates.group_alike(images).first
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert torch.equal(duplicates.group_alike(images).first, whole)


def test_same_thing_in_another_colour_is_another_picture() -> None:
    """The grey pictures are nearly alike; a class may be told by its colour."""
    shapes = [(20, 30, 90, 80), (60, 90, 140, 150), (100, 10, 150, 50)]
    pictures = []
    for colour in ((200, 40, 40), (40, 110, 40), (40, 40, 255)):
        image = Image.new("RGB", (160, 160), (230, 230, 230))
        for shape in shapes:
            ImageDraw.Draw(image).rectangle(shape, fill=colour)
        pictures.append(image)
    assert duplicates.group_alike(tensors(pictures)).first.tolist() == [0, 1, 2]


def test_equal_pixels_are_one_group_even_if_there_is_nothing_to_see() -> None:
    flat = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "red", "green")]
    assert duplicates.group_alike(tensors(flat)).first.tolist() == [0, 1, 0, 3]


def test_photos_of_noise_are_not_alike() -> None:
    images = torch.randint(256, (400, 3, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert duplicates.group_alike(images).first.tolist() == list(range(400))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_images_of_a_few_pixels_are_grouped_without_an_error(size: int) -> None:
    images = torch.arange(4 * 3 * size * size).reshape(4, 3, size, size).to(torch.uint8)
    first = duplicates.group_alike(torch.cat([images, images])).first
    assert first[4:].tolist() == first[:4].tolist()


def draw_strokes(number: int) -> Tensor:
    """Return pictures of one kind: a bright upright stroke, a little thicker, longer or further left each time."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(number):
        image = Image.new("RGB", (112, 112))
        x, width, top, bottom = random.integers((48, 8, 12, 80), (60, 20, 30, 100))
        ImageDraw.Draw(image).rectangle((int(x), int(top), int(x + width), int(bottom)), fill="white")
        pictures.append(image)
    return tensors(pictures, 28)


def test_pictures_of_one_kind_are_not_glued_into_one_group() -> None:
    """As scans and digits are: all would be like some other, and no image could be held out."""
    images = draw_strokes(200)
    found = duplicates.group_alike(torch.cat([images, images[:5]]))
    assert found.too_alike
    assert found.first[200:].tolist() == found.first[:5].tolist()
    assert len(found.first.unique()) == len(torch.unique(images.flatten(1), dim=0))


def test_bursts_are_groups(scenes: list[Image.Image]) -> None:
    """Four scenes, each taken twelve times with a camera that moves a little: four different pictures, not 48."""
    shots = [crop(k % 3, k % 4, k % 2, 0)(scene) for scene in scenes[:4] for k in range(12)]
    found = duplicates.group_alike(tensors(shots))
    assert not found.too_alike
    assert found.first.tolist() == [12 * (k // 12) for k in range(48)]
