"""From a data set to the file for 8 bits, through the command."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from torchlight.command import make_cli


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, draw_folder: Callable[..., Path]) -> tuple[Path, Path]:
    """A checkpoint and the folder that it was trained on."""
    root = tmp_path_factory.mktemp("quantising")
    photos = draw_folder(root / "photos", 20)
    arguments = ["train", str(photos), "--out", str(root / "run"), "--architecture", "guide", "--epochs", "3"]
    done = CliRunner().invoke(make_cli(), arguments)
    assert done.exit_code == 0, done.output
    return root / "run" / "checkpoint.safetensors", photos


def test_the_command_measures_both_precisions_on_held_out_images(trained: tuple[Path, Path]) -> None:
    path, photos = trained
    done = CliRunner().invoke(make_cli(), ["quantise", str(path), str(photos)])
    assert done.exit_code == 0, done.output
    said = json.loads(path.with_name("checkpoint.int8.json").read_text())
    accuracy = said["accuracy"]
    assert accuracy["split"].startswith("test (held out")
    assert accuracy["images"] == 6
    assert accuracy["float32"] >= 0.5  # three plain colours
    assert abs(accuracy["float32"] - accuracy["int8"]) <= 1 / 6 + 1e-9
    assert f"in int8 {accuracy['int8']:.2%}" in done.output


def test_images_of_unknown_use_are_refused(
    trained: tuple[Path, Path], draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    path, _ = trained
    other = draw_folder(tmp_path / "other", 3, seed=7)
    done = CliRunner().invoke(make_cli(), ["quantise", str(path), str(other)])
    assert done.exit_code == 1
    assert "has no train and test folders" in " ".join(str(done.exception).split())
