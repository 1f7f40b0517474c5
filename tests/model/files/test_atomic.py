"""The one atomic write: old or new, never a part."""

import os
import stat
from pathlib import Path

import pytest

from torchlight.model.files.atomic import replacing, write_bytes


def write_half_and_raise(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(b"half of the ne")
        raise error


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_bytes(path, b"old")
    write_bytes(path, b"new and longer")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("metrics.jsonl", b"new and longer")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_older_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_bytes(path, b"old")
    with pytest.raises(error):
        write_half_and_raise(path, error)
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("checkpoint.safetensors", b"old")]


def test_the_older_file_is_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_file_has_the_permissions_that_were_asked_for(tmp_path: Path, mode: int) -> None:
    with replacing(tmp_path / "file", mode=mode) as temporary:
        temporary.write_bytes(b"content")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("is_durable", [True, False])
def test_only_a_durable_file_is_forced_to_the_disk_and_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_durable: bool
) -> None:
    path, forced = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: forced.append((os.fstat(descriptor).st_size, path.exists())))
    with replacing(path, is_durable=is_durable) as temporary:
        temporary.write_bytes(b"content")
    assert forced == ([(7, False)] if is_durable else [])


def test_a_folder_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_bytes(tmp_path / "none" / "file", b"content")
    assert str(tmp_path / "none") in str(caught.value.filename)
