"""Features on disk: taken while photos and backbone are the same, made anew where the file is another or damaged."""

from pathlib import Path

import torch
from torch import Tensor

from torchlight.training.transfer.feature_cache import compute_once

IMAGES = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).to(torch.uint8)


class Computer:
    """Counts how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return torch.full((2, 5), float(self.calls))


def test_the_second_time_nothing_is_computed(tmp_path: Path) -> None:
    compute = Computer()
    first = compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    assert torch.equal(compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute), first)
    assert compute.calls == 1


def test_other_photos_and_another_backbone_are_computed(tmp_path: Path) -> None:
    compute = Computer()
    compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    compute_once(tmp_path, "photos", 255 - IMAGES, "ab" * 32, compute)
    compute_once(tmp_path, "photos", 255 - IMAGES, "cd" * 32, compute)
    assert compute.calls == 3
    assert len(list(tmp_path.iterdir())) == 2  # a source that changed replaced its own file


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    compute = Computer()
    compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(bytes(content))
    compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    file.write_bytes(content[:40])
    compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    compute_once(tmp_path, "photos", IMAGES, "ab" * 32, compute)
    assert compute.calls == 3


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    compute = Computer()
    for _ in range(2):
        assert len(compute_once(tmp_path / "file", "photos", IMAGES, "ab" * 32, compute)) == 2
    assert compute.calls == 2
