"""A source is decoded once; what lies in the cache is taken only if it is exactly what would be made."""

import errno
import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchlight.model.images import Resizing
from torchlight.training.data import dataset_cache, decode_files, loading
from torchlight.training.data.loading import DataSet

DrawFolder = Callable[..., Path]
Load = Callable[..., DataSet]


@pytest.fixture(autouse=True)
def _worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache what tests can draw quickly: 24 images of 128 pixels, but not of 32."""
    monkeypatch.setattr(dataset_cache, "MIN_BYTES", 1_000_000)


@pytest.fixture(scope="module")
def drawn(draw_folder: DrawFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("drawn"), 8)


@pytest.fixture
def photos(drawn: Path, tmp_path: Path) -> Path:
    return shutil.copytree(drawn, tmp_path / "photos")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of images whenever some are decoded."""
    counts: list[int] = []
    decode_items = decode_files.decode_items

    def count_and_decode(items: list[object], *arguments: object) -> object:
        counts.append(len(items))
        return decode_items(items, *arguments)

    monkeypatch.setattr(decode_files, "decode_items", count_and_decode)
    return counts


@pytest.fixture
def load(photos: Path, folder: Path) -> Load:
    return lambda **options: loading.load_dataset(str(photos), Resizing(128), cache_folder=folder, **options)


def assert_equal(one: DataSet, other: DataSet) -> None:
    assert one.fingerprint == other.fingerprint
    assert one.warnings == other.warnings
    assert one.skipped == other.skipped
    for name, part in one.splits.items():
        assert torch.equal(part.images, other.splits[name].images)
        assert torch.equal(part.labels, other.splits[name].labels)


def test_second_run_decodes_nothing_and_sees_the_same(load: Load, folder: Path, decoded: list[int]) -> None:
    first, second = load(), load()
    assert decoded == [24]
    assert_equal(first, second)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".npy"]


def test_progress_of_the_second_run_is_one_step(load: Load) -> None:
    load()
    told: list[tuple[int, int]] = []
    load(on_image=lambda done, total: told.append((done, total)))
    assert told == [(24, 24)]


def test_seed_and_shares_may_differ_between_runs(load: Load, decoded: list[int]) -> None:
    load()
    other = load(seed=1, val_fraction=0.3, test_fraction=0.0)
    assert decoded == [24]
    assert {name: len(part) for name, part in other.splits.items()} == {"train": 18, "val": 6, "test": 0}


def test_changing_an_image_in_memory_does_not_change_the_cache(load: Load, decoded: list[int]) -> None:
    load(val_fraction=0, test_fraction=0)
    first = load(val_fraction=0, test_fraction=0)
    before = first.splits["train"].images.clone()
    first.splits["train"].images.zero_()
    assert torch.equal(load(val_fraction=0, test_fraction=0).splits["train"].images, before)
    assert decoded == [24]


def replace_in_place(path: Path) -> None:
    """Change a file's pixels, keeping its size and the time of its last change."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-30] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "sky" / "0.png").unlink(),
        lambda photos: Image.new("RGB", (9, 9)).save(photos / "sky" / "new.png"),
        lambda photos: Image.new("RGB", (9, 9)).save(photos / "sky" / "0.png"),
        lambda photos: os.utime(photos / "sky" / "0.png"),
        lambda photos: (photos / "sky" / "0.png").rename(photos / "leaf" / "moved.png"),
        lambda photos: replace_in_place(photos / "sky" / "0.png"),
    ],
    ids=["removed", "added", "replaced", "touched", "moved", "changed in place"],
)
def test_source_that_changed_is_decoded_anew_and_replaces_the_old_files(
    change: Callable[[Path], object], photos: Path, folder: Path, load: Load, decoded: list[int]
) -> None:
    load()
    change(photos)
    again = load(skip_unreadable=True)
    assert len(decoded) == 2
    assert len(list(folder.iterdir())) == 2
    assert_equal(
        again,
        loading.load_dataset(str(photos), Resizing(128), cache_folder=folder.with_name("other"), skip_unreadable=True),
    )


def test_other_label_alone_decodes_nothing(photos: Path, folder: Path, decoded: list[int]) -> None:
    for labels in ("abc", "abd"):
        lines = [f"{path.relative_to(photos)},{labels[k % 3]}" for k, path in enumerate(sorted(photos.rglob("*.png")))]
        (photos / "labels.csv").write_text("\n".join(["path,label", *lines]))
        dataset = loading.load_dataset(str(photos / "labels.csv"), Resizing(128), cache_folder=folder)
        assert dataset.class_names == tuple(labels)
    assert decoded == [24]


def test_other_code_decodes_anew(load: Load, decoded: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    load()
    monkeypatch.setattr(dataset_cache, "version", lambda name: "99")
    load()
    assert decoded == [24, 24]


def test_each_size_rule_and_source_has_its_own_files(photos: Path, folder: Path) -> None:
    other = shutil.copytree(photos, photos.with_name("elsewhere") / "photos")
    small, cropped = Resizing(128), Resizing(128, "centre_crop_bicubic_antialias")
    for source, resizing in ((photos, small), (photos, Resizing(160)), (other, small), (photos, cropped)):
        dataset = loading.load_dataset(str(source), resizing, cache_folder=folder)
        assert_equal(dataset, loading.load_dataset(str(source), resizing, cache_folder=folder))
    assert len(list(folder.iterdir())) == 8


def test_small_source_is_not_cached(photos: Path, folder: Path) -> None:
    loading.load_dataset(str(photos), Resizing(32), cache_folder=folder)
    assert not folder.exists()


def find(folder: Path, suffix: str) -> Path:
    (path,) = folder.glob(f"*{suffix}")
    return path


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def rewrite_facts(folder: Path, **facts: object) -> None:
    path = find(folder, ".json")
    stored = json.loads(path.read_text())
    stored["facts"] |= facts
    path.write_text(json.dumps(stored))


class Bomb:
    """An object that, unpickled, would say so."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("unpickled",)


def save_objects(path: Path) -> None:
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)


def save_zip(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros(3))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: find(folder, ".npy").unlink(),
        lambda folder: find(folder, ".json").unlink(),
        lambda folder: flip(find(folder, ".npy"), 5000),
        lambda folder: flip(find(folder, ".npy"), 30),
        lambda folder: os.truncate(find(folder, ".npy"), 200_000),
        lambda folder: os.truncate(find(folder, ".npy"), 0),
        lambda folder: os.truncate(find(folder, ".json"), 900),
        lambda folder: find(folder, ".json").write_text("[]"),
        lambda folder: find(folder, ".json").write_text("[" * 100_000),
        lambda folder: find(folder, ".json").write_bytes(b"\xff\xfe"),
        lambda folder: find(folder, ".json").write_text('{"key": 1, "facts": []}'),
        lambda folder: rewrite_facts(folder, digests=["0" * 64] * 24),
        lambda folder: rewrite_facts(folder, groups=[0] * 24),
        lambda folder: np.save(find(folder, ".npy"), np.zeros((24, 3, 128, 128), np.uint8)),
        lambda folder: np.save(find(folder, ".npy"), np.zeros((24, 3, 128, 128), np.float32)),
        lambda folder: find(folder, ".npy").write_bytes(pickle.dumps(Bomb())),
        lambda folder: save_objects(find(folder, ".npy")),
        lambda folder: save_zip(find(folder, ".npy")),
    ],
    ids=[
        "no pixels", "no facts", "a pixel changed", "shape changed", "pixels cut short", "pixels empty",
        "facts cut short", "facts of another kind", "facts too deep", "facts not text", "facts of another program",
        "other digests", "other groups", "other pixels", "other type", "a pickle", "an array of objects", "a zip file",
    ],
)  # fmt: skip
def test_damaged_or_foreign_cache_is_made_anew(
    damage: Callable[[Path], None], load: Load, folder: Path, decoded: list[int]
) -> None:
    first = load()
    damage(folder)
    second, third = load(), load()
    assert decoded == [24, 24]
    assert_equal(first, second)
    assert_equal(first, third)


def test_crash_between_the_two_files_leaves_nothing_that_is_trusted(
    photos: Path, load: Load, folder: Path, decoded: list[int]
) -> None:
    """The new pixels are there, the old facts too."""
    load()
    facts = find(folder, ".json").read_bytes()
    Image.new("RGB", (9, 9)).save(photos / "sky" / "0.png")
    changed = load()
    find(folder, ".json").write_bytes(facts)
    assert_equal(load(), changed)
    assert decoded == [24] * 3


def refuse(*_arguments: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("number", [1, 2], ids=["pixels", "facts"])
def test_full_disk_is_told_and_leaves_nothing_behind(
    number: int, load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at the first or the second of the two files."""
    outcomes = iter([os.rename] * (number - 1) + [refuse])
    undisturbed = load()
    shutil.rmtree(folder)
    monkeypatch.setattr(os, "replace", lambda source, target: next(outcomes)(source, target))
    dataset = load()
    assert "could not be kept" in dataset.warnings[0]
    assert dataset.warnings[1:] == undisturbed.warnings
    assert dataset.fingerprint == undisturbed.fingerprint
    assert not list(folder.glob(".*.part"))


def test_disk_that_is_full_while_writing_is_told(load: Load, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "save", refuse)
    dataset = load()
    assert dataset.warnings[0] == (
        f"the decoded images could not be kept in {folder} (No space left on device); the next run decodes them again"
    )
    assert list(folder.iterdir()) == []


def test_cache_folder_that_cannot_be_made_is_told(photos: Path, folder: Path) -> None:
    folder.write_text("a file")
    dataset = loading.load_dataset(str(photos), Resizing(128), cache_folder=folder)
    assert "could not be kept" in dataset.warnings[0]


def test_what_a_killed_process_left_is_removed_and_a_running_ones_file_is_not(load: Load, folder: Path) -> None:
    load()
    name = find(folder, ".npy").stem
    for kind, age_s in (("killed", 2 * dataset_cache.STALE_S), ("running", 10)):
        path = folder / f".{name}.{kind}.part"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    find(folder, ".json").unlink()
    load()
    assert [path.name for path in folder.glob(".*.part")] == [f".{name}.running.part"]


def test_unreadable_files_are_remembered_and_mended_ones_are_read(photos: Path, load: Load, decoded: list[int]) -> None:
    good = (photos / "sky" / "0.png").read_bytes()
    (photos / "sky" / "0.png").write_bytes(b"no picture")
    first, second = load(skip_unreadable=True), load(skip_unreadable=True)
    assert decoded == [24]
    assert len(first.skipped) == 1
    assert_equal(first, second)
    (photos / "sky" / "0.png").write_bytes(good)
    assert load().skipped == ()
    assert decoded == [24, 24]


def test_default_folder_is_in_the_users_home(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    loading.load_dataset(str(photos), Resizing(128))
    assert len(list((tmp_path / ".cache" / "torchlight").iterdir())) == 2
