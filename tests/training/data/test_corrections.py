"""Decisions in a CSV file: what is written is read again, and what cannot be meant is refused with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from torchlight.model.errors import DataError
from torchlight.model.images import Resizing
from torchlight.training.data import decode_files
from torchlight.training.data.corrections import (
    Correction,
    check_corrections,
    describe_corrections,
    read_corrections,
    write_corrections,
)
from torchlight.training.data.loading import DataSet, load_dataset

DrawFolder = Callable[..., Path]


def write(folder: Path, text: str) -> Path:
    path = folder / "corrections.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rows = [
        Correction("cat/1, old.jpg", "", "dog", 'labelled cat, looks like "dog"'),
        Correction("chat/é.jpg", "change class", "dog"),
        Correction("dog/2.jpg", "leave out"),
        Correction("dog/3.jpg", "right"),
    ]
    path = tmp_path / "corrections.csv"
    write_corrections(path, rows)
    found = list(read_corrections(path).values())
    assert [(one.file, one.action, one.label, one.why) for one in found] == [
        (one.file, one.action, one.label, one.why) for one in rows
    ]
    assert [one.line for one in found] == [2, 3, 4, 5]


def test_columns_come_in_any_order_and_others_are_for_the_reader(tmp_path: Path) -> None:
    path = write(tmp_path, "by,class,file,Action\nEva,dog,cat/1.jpg,Change Class\n")
    assert read_corrections(path) == {"cat/1.jpg": Correction("cat/1.jpg", "change class", "dog", line=2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file;action;class\n", "line 1: the header is 'file;action;class'; it needs the columns file, action, class"),
        ("file,action,class\n,right,\n", "line 2: the column file is empty"),
        (
            "file,action,class\na,right,\nb,delete,\n",
            "line 3: the action is 'delete'; write one of right, change class, leave out, or nothing",
        ),
        ("file,action,class\na,change class,\n", "line 2: change class needs the name of a class"),
        ("file,action,class\na,right,\na,leave out,\n", "lines 2 and 3 are both about a; keep one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_corrections(write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_corrections(tmp_path / "none.csv")


def test_files_and_classes_that_do_not_exist_are_refused_and_open_rows_are_not(tmp_path: Path) -> None:
    path = write(tmp_path, "file,action,class\ncat/9.jpg,,\ncat/1.jpg,change class,cow\n")
    with pytest.raises(DataError, match=r"x\.csv line 3: there is no class 'cow'; the classes are cat, dog"):
        check_corrections(read_corrections(path), "x.csv", {"cat/1.jpg"}, {"dog", "cat"})
    path = write(tmp_path, "file,action,class\ncat/9.jpg,leave out,\n")
    with pytest.raises(DataError, match=r"x\.csv line 2: cat/9\.jpg is not in the source; .* such as cat/1\.jpg"):
        check_corrections(read_corrections(path), "x.csv", {"cat/1.jpg"}, {"dog", "cat"})


def load(photos: Path, corrections: Path | None = None, size: int = 16) -> DataSet:
    cache = photos.parent / "cache"
    return load_dataset(
        str(photos), Resizing(size), val_fraction=0, test_fraction=0, corrections=corrections, cache_folder=cache
    )


def labels_by_name(dataset: DataSet) -> dict[str, str]:
    photos = dataset.splits["train"]
    return {name: dataset.class_names[label] for name, label in zip(photos.names, photos.labels, strict=True)}


def test_corrected_labels_are_learnt_and_what_is_left_out_is_not(tmp_path: Path, draw_folder: DrawFolder) -> None:
    photos = draw_folder(tmp_path / "photos", 3)
    (photos / "leaf" / "broken.jpg").write_bytes(b"broken")
    path = write(
        tmp_path,
        "file,action,class\napple/1.png,change class,leaf\nleaf/broken.jpg,leave out,\nleaf/0.png,leave out,\n"
        "sky/2.png,right,\nsky/1.png,,apple\n",
    )
    before = {file: file.read_bytes() for file in photos.rglob("*.*")}
    found = load(photos, path)
    expected = {f"{name}/{k}.png": name for name in ("apple", "leaf", "sky") for k in range(3)}
    del expected["leaf/0.png"]
    assert labels_by_name(found) == expected | {"apple/1.png": "leaf"}
    assert found.skipped == ()
    assert found.corrections == {"changed": 1, "left_out": 2, "right": 1}
    assert describe_corrections(found.corrections) == "1 label changed, 2 photos left out, 1 found right"
    assert {file: file.read_bytes() for file in photos.rglob("*.*")} == before


def test_corrected_data_have_a_fingerprint_of_their_own_and_share_the_cache(
    tmp_path: Path, draw_folder: DrawFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, size = draw_folder(tmp_path / "photos", 3), 400  # so large that it is worth a cache
    path = write(tmp_path, "file,action,class\napple/1.png,leave out,\nsky/0.png,change class,leaf\n")
    plain = load(photos, size=size)
    monkeypatch.setattr(decode_files, "decode_items", None)  # nothing is decoded again
    corrected, again = load(photos, path, size), load(photos, size=size)
    assert plain.fingerprint == again.fingerprint != corrected.fingerprint
    assert (plain.splits["train"].images == again.splits["train"].images).all()
    kept = [k for k, name in enumerate(plain.splits["train"].names) if name != "apple/1.png"]
    assert (corrected.splits["train"].images == plain.splits["train"].images[kept]).all()


def test_a_class_whose_photos_all_move_is_gone(tmp_path: Path, draw_folder: DrawFolder) -> None:
    photos = draw_folder(tmp_path / "photos", 1)
    path = write(tmp_path, "file,action,class\nsky/0.png,change class,leaf\n")
    assert load(photos, path).class_names == ("apple", "leaf")


def test_a_row_about_a_file_that_is_not_there_ends_a_training_before_anything_is_decoded(
    tmp_path: Path, draw_folder: DrawFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = draw_folder(tmp_path / "photos", 1)
    monkeypatch.setattr(decode_files, "decode_items", None)
    path = write(tmp_path, "file,action,class\nsky/7.png,right,\n")
    with pytest.raises(DataError, match=r"corrections\.csv line 2: sky/7\.png is not in the source"):
        load(photos, path)
