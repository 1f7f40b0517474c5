"""Folders of pictures drawn in code: three classes that differ in colour and are noisy enough to differ in content."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"apple": (220, 30, 40), "leaf": (40, 200, 60), "sky": (60, 90, 230)}
DrawFolder = Callable[..., Path]


def draw(path: Path, colour: tuple[int, int, int], seed: int, side: int = 12) -> None:
    """Write a noisy picture of one colour as a PNG, whatever the path's suffix."""
    noise = np.random.default_rng(seed).normal(0, 25, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path, "PNG")


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., None]:
    return draw


@pytest.fixture(scope="session")
def draw_folder() -> DrawFolder:
    """Return a function that fills a folder with ``number`` pictures of each class, no two alike."""

    def fill(root: Path, number: int, classes: Mapping[str, tuple[int, int, int]] = COLOURS, seed: int = 0) -> Path:
        for index, (name, colour) in enumerate(classes.items()):
            for count in range(number):
                draw(root / name / f"{count}.png", colour, seed=1000 * seed + 100 * index + count)
        return root

    return fill
