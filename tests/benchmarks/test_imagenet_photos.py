"""The benchmark of `imagenet` on photos counts what is right, and measures the temperature on photos apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.imagenet_photos import Answers
from torchlight.model.imagenet import read_class_names
from torchlight.model.images import ImageSpec

ANT, BEE = (read_class_names().index(name) for name in ("ant", "bee"))


class Brightness(nn.Module):
    """Takes bright images for bees and dark ones for ants."""

    def __init__(self) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(images), 1000)
        logits[:, ANT] = torch.where(images.mean((1, 2, 3)) < self.threshold, 3.0, 0.0)
        logits[:, BEE] = 2
        return logits


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    random = np.random.default_rng(0)
    for split, label, levels in (("train", "ant", (9, 9, 200)), ("train", "bee", (250,)), ("test", "ant", (9, 200))):
        for number, level in enumerate(levels):
            file = tmp_path / split / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = random.integers(-9, 6, (20, 20, 3))
            Image.fromarray((level + noise).astype(np.uint8)).save(file)
    return Answers(Brightness(), ImageSpec(8, (0.5,) * 3, (0.5,) * 3), str(tmp_path))


def test_each_part_has_its_share_of_right_answers(answers: Answers) -> None:
    found = {name: (len(rows), answers.share(rows, 1), answers.share(rows, 2)) for name, rows in answers.parts()}
    assert found == {
        "train: ant": (3, pytest.approx(2 / 3), pytest.approx(2 / 3)),
        "train: bee": (1, 1, 1),
        "train": (4, 0.75, 0.75),
        "test: ant": (2, 0.5, 0.5),
        "test": (2, 0.5, 0.5),
    }


def test_temperature_is_fitted_on_train_and_measured_on_test(answers: Answers) -> None:
    assert answers.calibrate().images == 2
