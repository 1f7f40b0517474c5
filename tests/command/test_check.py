"""``torchlight check`` on folders with everything wrong that people's folders have, by the real command."""

import csv
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from torchlight import command
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.data.loading import load_dataset

COLOURS = {"apple": (220, 30, 40), "leaf": (40, 200, 60)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder of its own, where nothing is cached."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Call = Callable[..., tuple[int, str, str]]
Check = Call


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``torchlight`` in this process; return its exit code and what it wrote."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["torchlight", *arguments])
        with pytest.raises(SystemExit) as caught:
            command.main()
        written = capsys.readouterr()
        return int(caught.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def check(call: Call) -> Check:
    """Run ``torchlight check photos``."""
    return partial(call, "check", "photos")


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Write a picture of patches in many shades of a colour, with fine texture on it, and return it."""
    random = np.random.default_rng(seed)
    patches = random.normal(0, 40, (10, 10, 3)).repeat(30, 0).repeat(30, 1) + random.normal(0, 8, (300, 300, 3))
    image = Image.fromarray(np.clip(np.array(colour) + patches, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def draw_photos(number: int) -> None:
    for index, (name, colour) in enumerate(COLOURS.items()):
        for count in range(number):
            draw(Path("photos", name, f"{count}.png"), colour, 100 * index + count)


def read_rows(path: str = "runs/photos-check/corrections.csv") -> dict[str, dict[str, str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_everything_that_is_wrong_is_found_at_once(check: Check) -> None:
    draw_photos(12)
    photos = Path("photos")
    draw(photos / "apple" / "not an apple.png", COLOURS["leaf"], 500)
    copied = draw(photos / "leaf" / "first.png", COLOURS["leaf"], 501)
    copied.resize((200, 200)).save(photos / "leaf" / "second.jpg", quality=60)
    draw(photos / "leaf" / "blurred.png", COLOURS["leaf"], 502).filter(ImageFilter.GaussianBlur(12)).save(
        photos / "leaf" / "blurred.png"
    )
    Image.new("RGB", (300, 300)).save(photos / "apple" / "black.png")
    draw(photos / "apple" / "tiny.png", COLOURS["apple"], 503).resize((40, 50)).save(photos / "apple" / "tiny.png")
    (photos / "apple" / "broken.jpg").write_bytes((photos / "apple" / "0.png").read_bytes()[:1000])
    (photos / "apple" / "Thumbs.db").write_bytes(b"litter")
    (photos / "leaf" / ".DS_Store").write_bytes(b"litter")
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}

    code, out, err = check()
    assert (code, err) == (0, "")
    assert "30 photos in 2 classes" in out
    rows = read_rows()
    assert {row["action"] for row in rows.values()} == {""}
    assert rows["apple/not an apple.png"]["class"] == "leaf"
    assert "looks like leaf" in rows["apple/not an apple.png"]["why"]
    assert "near-identical to leaf/first.png" in rows["leaf/second.jpg"]["why"]
    assert "blurred: a photo of this set" in rows["leaf/blurred.png"]["why"]
    assert "black all over" in rows["apple/black.png"]["why"]
    assert "its shorter side has 40 pixels, where the network sees 260" in rows["apple/tiny.png"]["why"]
    assert rows["apple/broken.jpg"]["why"].startswith("cannot be read: ")
    assert rows["apple/Thumbs.db"]["why"].startswith("cannot be read: ")
    assert next(line for line in out.splitlines() if "Files that no command looks at" in line).split()[-1] == "1"
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_decisions_of_an_earlier_check_are_kept(check: Check) -> None:
    draw_photos(1)
    shutil.copy("photos/leaf/0.png", "photos/apple/same.png")
    assert check("--out", "done")[0] == 0
    assert set(read_rows("done/corrections.csv")) == {"apple/same.png", "leaf/0.png"}
    path = Path("done/corrections.csv")
    path.write_text("file,action,class\napple/same.png,leave out,\n")
    assert check("--out", "done")[0] == 0
    rows = read_rows("done/corrections.csv")
    assert {file: row["action"] for file, row in rows.items()} == {"apple/same.png": "leave out", "leaf/0.png": ""}
    path.write_text("file,action,class\napple/same.png,throw away,\n")
    code, _, err = check("--out", "done")
    assert code == 1
    assert "corrections.csv line 2: the action is 'throw away'" in err


def test_one_class_is_checked_for_all_but_labels(check: Check) -> None:
    draw_photos(2)
    shutil.rmtree("photos/leaf")
    code, out, _ = check()
    assert code == 0
    assert "note: there is one class, apple, so no label can be checked; add a folder for a second class" in out


def save_network(class_names: tuple[str, ...], data: dict[str, object]) -> str:
    """Save a network with random weights, and return its path."""
    config = NetworkConfig("lenet5", len(class_names))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(config)
    spec = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    save_checkpoint(Path("judge.safetensors"), network, Header(config, class_names, spec, {}, {}, data, {}))
    return "judge.safetensors"


def test_a_checkpoint_judges_in_place_of_layers_that_are_fitted(check: Check) -> None:
    draw_photos(6)
    dataset = load_dataset("photos", Resizing(32), val_fraction=0.0, test_fraction=0.0)
    names = dataset.class_names
    code, out, _ = check("--with", save_network(names, {"fingerprint": dataset.fingerprint}))
    assert code == 0
    assert "note: the network learnt from these photos, so it doubts too few of their labels" in " ".join(out.split())
    code, out, _ = check("--with", save_network((*names, "stone"), {"source": "photos"}))
    assert code == 0
    assert "trained on a source of this name" in out
    code, _, err = check("--with", save_network((names[0], "stone"), {}))
    assert code == 1
    assert f"the checkpoint does not know {len(names) - 1} of {len(names)} classes" in err


def test_an_empty_folder_is_refused_with_what_it_should_hold(check: Check) -> None:
    Path("photos").mkdir()
    code, _, err = check()
    assert code == 1
    assert "photos has no class folders with images; expected photos/<class>/<photo>" in err
    assert not Path("runs").exists()


def test_training_and_evaluation_take_corrections_and_the_checkpoint_says_so(call: Call) -> None:
    draw_photos(6)
    shutil.move("photos/leaf/0.png", "photos/apple/wrong.png")
    Path("decided.csv").write_text("file,action,class\napple/wrong.png,change class,leaf\napple/0.png,leave out,\n")
    corrected = ("--corrections", "decided.csv")
    code, out, err = call("train", "photos", "--budget", "0s", *corrected)
    assert (code, err) == (0, "")
    assert "2 classes, images: 11 train" in out
    assert "corrections: 1 label changed, 1 photo left out" in out
    checkpoint = "runs/photos/checkpoint.safetensors"
    assert load_checkpoint(Path(checkpoint)).header.data["corrections"] == {"changed": 1, "left_out": 1, "right": 0}
    assert "1 label changed, 1 photo left out" in Path("runs/photos/report.html").read_text()

    _, out, _ = call("evaluate", checkpoint, "photos", *corrected)
    assert "The network learnt from every photo of photos" in out
    _, out, _ = call("evaluate", checkpoint, "photos")
    assert "note: the network was trained with corrections (1 label changed, 1 photo left out)" in out

    Path("decided.csv").write_text("file,action,class\napple/0.png,change class,pear\n")
    code, _, err = call("train", "photos", "--out", "again", *corrected)
    assert code == 1
    assert err == "torchlight: decided.csv line 2: there is no class 'pear'; the classes are apple, leaf\n"
