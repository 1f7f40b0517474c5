"""Decisions in a CSV file: what is written is read again, and what cannot be meant is refused with its line."""

from pathlib import Path

import pytest

from torchlight.model.errors import DataError
from torchlight.training.data.corrections import (
    Correction,
    check_corrections,
    read_corrections,
    write_corrections,
)


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
