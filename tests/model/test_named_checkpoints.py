"""Checkpoints by name: made when they are not there whole, found when they are, and what is wrong is said."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from torchlight.model import imagenet, named_checkpoints
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.errors import CheckpointError
from torchlight.model.named_checkpoints import DIGESTS, find_checkpoint

IMAGENET = Path("imagenet")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of a new user."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        yield home / ".cache" / "torchlight"


def test_path_stays_as_it_is() -> None:
    assert find_checkpoint(Path("runs/photos/checkpoint.safetensors")) == Path("runs/photos/checkpoint.safetensors")


def test_name_is_made_once_and_again_if_one_bit_of_it_changes(cache: Path) -> None:
    told: list[str] = []
    path = find_checkpoint(IMAGENET, told.append)
    assert path == cache / "imagenet.safetensors"
    assert told == [f"imagenet: made once from installed weights, into {path}"]
    assert load_checkpoint(path).digest == DIGESTS["imagenet"]

    assert find_checkpoint(IMAGENET, told.append) == path
    assert len(told) == 1

    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    find_checkpoint(IMAGENET, told.append)
    assert told[1:] == [f"imagenet: {path} is damaged; made again from installed weights"]
    assert load_checkpoint(path).digest == DIGESTS["imagenet"]


def make_with(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another program make another file."""
    (folder / "another_maker.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path(imagenet.__file__).parents[2]}")
    monkeypatch.setitem(named_checkpoints.MAKERS, "imagenet", "another_maker")
    monkeypatch.setitem(DIGESTS, "imagenet", "sha256:of another file")


def test_asking_for_it_loads_no_torch_and_what_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_with(r"import sys; sys.exit('a warning\nno room')", tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=r"^checkpoint imagenet cannot be made: no room$"):
        find_checkpoint(IMAGENET)
    program = "import sys, torchlight.model.named_checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_missing_package_of_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
from importlib import metadata
def distribution(name):
    raise metadata.PackageNotFoundError(name)
metadata.distribution = distribution
from torchlight.model import imagenet
imagenet.main()
"""
    make_with(program, tmp_path, monkeypatch)
    with pytest.raises(CheckpointError, match=r"imagenet cannot be made: weights of .*lite0 are not installed; `pip"):
        find_checkpoint(IMAGENET)
