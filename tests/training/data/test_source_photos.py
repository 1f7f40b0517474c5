"""A source as it lies there: nothing that is wrong with it keeps the rest from being read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from torchlight.model.errors import DataError
from torchlight.model.images import Resizing
from torchlight.training.data.loading import load_dataset
from torchlight.training.data.source_photos import FileNote, read_source

DrawFolder = Callable[..., Path]
SEEN = Resizing(16)


def test_broken_and_foreign_files_are_listed_and_the_rest_is_read(tmp_path: Path, draw_folder: DrawFolder) -> None:
    draw_folder(tmp_path, 2)
    (tmp_path / "apple" / "broken.jpg").write_bytes((tmp_path / "apple" / "0.png").read_bytes()[:100])
    (tmp_path / "leaf" / "notes.txt").write_text("water the tree")
    found = read_source(str(tmp_path), SEEN)
    assert len(found.photos) == 6
    assert [note.file for note in found.unreadable] == ["apple/broken.jpg", "leaf/notes.txt"]
    assert all(note.reason for note in found.unreadable)


def test_files_that_no_command_looks_at_are_listed(tmp_path: Path, draw_folder: DrawFolder) -> None:
    draw_folder(tmp_path, 1)
    (tmp_path / "loose.png").write_bytes(b"")
    (tmp_path / "sky" / ".DS_Store").write_bytes(b"")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"")
    assert set(read_source(str(tmp_path), SEEN).left_out) == {
        FileNote(".git", "hidden folder"),
        FileNote("loose.png", "lies in no class folder"),
        FileNote("sky/.DS_Store", "hidden file"),
    }


def test_photos_of_all_splits_are_read_and_only_what_lies_beside_classes_is_left_out(
    tmp_path: Path, draw_folder: DrawFolder
) -> None:
    for split, seed in (("train", 1), ("test", 2)):
        draw_folder(tmp_path / split, 1, seed=seed)
    (tmp_path / "test" / "list.txt").write_text("")
    found = read_source(str(tmp_path), SEEN)
    assert len(found.photos) == 6
    assert [note.file for note in found.left_out] == ["test/list.txt"]


def test_one_class_is_enough_and_a_class_without_readable_photos_is_named(
    tmp_path: Path, draw_folder: DrawFolder
) -> None:
    draw_folder(tmp_path, 2, {"apple": (220, 30, 40)})
    (tmp_path / "pear").mkdir()
    (tmp_path / "pear" / "1.jpg").write_text("no photo")
    found = read_source(str(tmp_path), SEEN)
    assert (found.class_names, found.empty_classes) == (("apple",), ("pear",))


def test_photos_come_as_training_sees_them(tmp_path: Path, draw_folder: DrawFolder) -> None:
    draw_folder(tmp_path, 2)
    found, trained = (
        read_source(str(tmp_path), SEEN),
        load_dataset(str(tmp_path), SEEN, val_fraction=0, test_fraction=0),
    )
    photos = trained.splits["train"]
    assert (found.photos.images == photos.images).all()
    assert (found.photos.names, found.photos.groups) == (photos.names, photos.groups)
    assert found.photos.labels.tolist() == photos.labels.tolist()


def test_a_source_without_a_readable_photo_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "apple").mkdir()
    (tmp_path / "apple" / "1.jpg").write_text("no photo")
    with pytest.raises(DataError, match=r"no readable photo among 1 files \(apple/1\.jpg: .*\); add photos"):
        read_source(str(tmp_path), SEEN)
