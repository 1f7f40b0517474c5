"""The file of mistakes: it comes back as it was, and the error names what is wrong with another file."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from torchlight.model.errors import MistakesFileError, MistakesNotFound
from torchlight.model.views import kept_mistakes
from torchlight.model.views.kept_mistakes import KeptMistakes, MistakesSource

DIGEST = "sha256:" + "ab" * 32


def make_mistakes(photos: int = 3) -> KeptMistakes:
    generator = torch.Generator().manual_seed(0)
    return KeptMistakes(
        checkpoint_digest=DIGEST,
        class_names=("cat", "dög"),
        source=MistakesSource("photos", "all photos", "cross_validated"),
        images=(10, 12),
        cells={(0, 1): 4, (1, 0): 2},
        names=tuple(f"{number}.jpg" for number in range(photos)),
        photos=torch.randint(256, (photos, 3, 8, 8), generator=generator, dtype=torch.uint8),
        classes=torch.tensor([[0, 1], [1, 0], [0, 1]], dtype=torch.int32)[:photos],
        probabilities=torch.rand(photos, 2, generator=generator),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cats.mistakes.safetensors"


def test_they_lie_beside_their_checkpoint() -> None:
    assert kept_mistakes.mistakes_path(Path("runs/cats.v2.safetensors")) == Path("runs/cats.v2.mistakes.safetensors")


@pytest.mark.parametrize("photos", [3, 0])
def test_everything_comes_back_as_it_was_saved(photos: int, path: Path) -> None:
    saved = make_mistakes(photos)
    kept_mistakes.save_mistakes(path, saved)
    loaded = kept_mistakes.load_mistakes(path, DIGEST)
    tensors = ("photos", "classes", "probabilities")
    assert all(torch.equal(getattr(loaded, name), getattr(saved, name)) for name in tensors)
    nothing = dict.fromkeys(tensors)
    assert dataclasses.replace(loaded, **nothing) == dataclasses.replace(saved, **nothing)
    assert loaded.version == saved.version


def test_other_photos_give_another_version() -> None:
    one = make_mistakes()
    assert one.version != dataclasses.replace(one, photos=one.photos + 1).version
    assert one.version != dataclasses.replace(one, cells={(0, 1): 4, (1, 0): 3}).version


def test_equal_mistakes_give_equal_bytes_and_header_is_exactly_this_text(path: Path) -> None:
    kept_mistakes.save_mistakes(path, make_mistakes())
    first = path.read_bytes()
    kept_mistakes.save_mistakes(path, make_mistakes())
    assert path.read_bytes() == first
    assert json.loads(first[8 : 8 + int.from_bytes(first[:8], "little")])["__metadata__"] == {
        "format": "torchlight-mistakes",
        "format_version": "1",
        "checkpoint": f'"{DIGEST}"',
        "class_names": '["cat", "dög"]',
        "source": '{"exposure": "cross_validated", "name": "photos", "split": "all photos"}',
        "images": "[10, 12]",
        "cells": "[[0, 1, 4], [1, 0, 2]]",
        "names": '["0.jpg", "1.jpg", "2.jpg"]',
        "sizes": '{"photos": 3, "side": 8}',
    }


def test_a_missing_file_is_told_apart_from_a_damaged_one(path: Path) -> None:
    with pytest.raises(MistakesNotFound, match="does not exist"):
        kept_mistakes.load_mistakes(path, DIGEST)


def test_mistakes_of_another_checkpoint_are_refused(path: Path) -> None:
    kept_mistakes.save_mistakes(path, make_mistakes())
    with pytest.raises(MistakesFileError, match=r"was made for checkpoint sha256:abab.*--keep-mistakes"):
        kept_mistakes.load_mistakes(path, "sha256:other")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def change_header(name: str, text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        path.write_bytes(safetensors.torch.save(safetensors.torch.load(content), header | {name: text}))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "copy it again"),
        (change_header("format", "torchlight-index"), "another kind"),
        (change_header("format_version", "2"), "update Torchlight"),
        (change_header("names", "{"), "not JSON"),
        (change_header("names", '["0.jpg"]'), "1 names for 3 photos"),
        (change_header("sizes", '{"photos": 3, "side": 9}'), "header announces"),
        (change_header("sizes", "[]"), "does not hold what it should"),
        (change_header("images", "[10]"), "1 numbers of images for 2 classes"),
        (change_header("cells", "[[0, 2, 4], [1, 0, 2]]"), "none of the 2 classes"),
        (change_header("cells", "[[0, 1, 4]]"), "a photo is of no cell"),
        (change_header("source", '{"name": "photos"}'), "does not hold what it should"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(damage: Callable[[Path], None], said: str, path: Path) -> None:
    kept_mistakes.save_mistakes(path, make_mistakes())
    damage(path)
    with pytest.raises(MistakesFileError, match=said) as told:
        kept_mistakes.load_mistakes(path, DIGEST)
    assert str(path) in str(told.value)
