"""What a folder or a CSV file lists, and the one line that says what is wrong with it, before anything is decoded."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torchlight.model.errors import DataError
from torchlight.model.images import Resizing
from torchlight.training.data import loading, sources
from torchlight.training.data.sources import Item

DrawFolder = Callable[..., Path]
DrawPicture = Callable[..., None]
RED = (220, 30, 40)


def write_csv(folder: Path, text: str | bytes) -> str:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def listed(items: list[Item]) -> list[tuple[str, str, str | None]]:
    return [(item.key, item.label, item.split) for item in items]


@pytest.fixture
def photos(draw_folder: DrawFolder, tmp_path: Path) -> Path:
    """Return a folder with ``photos/<class>/<number>.png``, twelve of each of three classes."""
    draw_folder(tmp_path / "photos", 12)
    return tmp_path


def test_csv_gives_what_the_folder_gives(photos: Path) -> None:
    files = sorted(path.relative_to(photos) for path in photos.rglob("*.png"))
    source = write_csv(photos, "path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in files))
    one, other = loading.load_dataset(source, Resizing(8)), loading.load_dataset(str(photos / "photos"), Resizing(8))
    assert one.class_names == other.class_names
    assert one.fingerprint == other.fingerprint
    assert all(torch.equal(one.splits[name].images, other.splits[name].images) for name in sources.SPLITS)
    assert all(torch.equal(one.splits[name].labels, other.splits[name].labels) for name in sources.SPLITS)


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nphotos/sky/0.png,up\nphotos/leaf/1.png,down\n",
        b"\xef\xbb\xbfpath,label\r\nphotos/sky/0.png,up\r\nphotos/leaf/1.png,down",
        ' Path , Label \n\n photos/sky/0.png , "up"\n\n"photos/leaf/1.png",down\n\n',
    ],
    ids=["plain", "Excel's: byte order mark, CRLF, no last line break", "spaces, quotes, capitals, empty lines"],
)
def test_csv_is_read_as_programs_write_it(text: str | bytes, photos: Path) -> None:
    expected = [("photos/sky/0.png", "up", None), ("photos/leaf/1.png", "down", None)]
    assert listed(sources.find_items(write_csv(photos, text))) == expected


def test_csv_may_give_the_splits(photos: Path) -> None:
    lines = [
        f"photos/{name}/{k}.png,{name},{side}" for k, side in enumerate(sources.SPLITS) for name in ("sky", "leaf")
    ]
    dataset = loading.load_dataset(write_csv(photos, "\n".join(["path,label,split", *lines])), Resizing(8))
    assert {name: len(part) for name, part in dataset.splits.items()} == {"train": 2, "val": 2, "test": 2}


def test_csv_may_name_files_elsewhere(photos: Path, draw_picture: DrawPicture) -> None:
    draw_picture(photos / "elsewhere" / "1.png", RED, 1)
    (photos / "lists").mkdir()
    text = f"path,label\n../photos/sky/0.png,a\n{photos}/elsewhere/1.png,b\n"
    assert (
        len(
            loading.load_dataset(
                write_csv(photos / "lists", text), Resizing(8), val_fraction=0, test_fraction=0
            ).splits["train"]
        )
        == 2
    )


@pytest.mark.parametrize(
    "label",
    ["either/or", "two words", "猫", "🐈‍⬛", "comma, quote ' and dot.", "../..", "=1+1", "x" * 300],
    ids=["slash", "space", "Chinese", "joined emoji", "punctuation", "dots", "formula", "long"],
)
def test_class_names_in_a_csv_may_be_any_printable_text(label: str, photos: Path) -> None:
    text = f'path,label\nphotos/sky/0.png,"{label}"\nphotos/leaf/1.png,other\n'
    dataset = loading.load_dataset(write_csv(photos, text), Resizing(8), val_fraction=0, test_fraction=0)
    assert sorted(dataset.class_names) == sorted([label, "other"])


def test_class_names_are_one_whatever_way_their_accents_are_written(photos: Path) -> None:
    """macOS decomposes the names of files, editors compose."""
    composed, decomposed = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    text = f"path,label\nphotos/sky/0.png,{composed}\nphotos/sky/1.png,{decomposed}\nphotos/leaf/1.png,leaf\n"
    assert {item.label for item in sources.find_items(write_csv(photos, text))} == {composed, "leaf"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\nphotos/sky/0.png,a\nphotos/x.jpg,b\n", "labels.csv line 3: photos/x.jpg does not exist"),
        ('path,label\nphotos/sky/0.png,"a"\n\n\nphotos/x.jpg,b\n', "labels.csv line 5: photos/x.jpg does not exist"),
        ("path,label\n,b\n", "line 2: the empty path does not exist"),
        (f"path,label\n{'x' * 5000},b\n", "line 2: x+ does not exist"),
        ("path,label\nphotos/sky,b\n", "line 2: photos/sky is a folder"),
        ("", r"line 1: the header is ''; expected path,label or path,label,split"),
        ("photos/sky/0.png,sky\n", r"line 1: the header is 'photos/sky/0.png,sky'; expected path,label"),
        ("label,path\nsky,photos/sky/0.png\n", "line 1: the header is 'label,path'; expected path,label"),
        ("path;label\nphotos/sky/0.png;sky\n", "line 1: the header is 'path;label'"),
        ("path,label\n", "no line below its header"),
        ("path,label\nphotos/sky/0.png\n", r"line 2: 1 columns instead of 2 \(path,label\)"),
        ("path,label\nphotos/sky/0.png,sky,blue\n", r"line 2: 3 columns instead of 2 \(path,label\); quote commas"),
        ("path,label\nphotos/sky/0.png, \n", "line 2: the class name is empty"),
        ('path,label\nphotos/sky/0.png,"two\nlines"\n', r"line 2: class name 'two\\nlines' has a line break"),
        ("path,label\nphotos/sky/0.png,a\x1b[31mb\n", r"line 2: class name 'a\\x1b\[31mb' has .* unprintable"),
        ("path,label,split\nphotos/sky/0.png,a,train\nphotos/sky/1.png,a,dev\n", "line 3: split is 'dev'; write train"),
        ("path,label,split\nphotos/sky/0.png,a,\n", "line 2: split is ''; write .* or drop the column"),
        ("path,label,split\nphotos/sky/0.png,a,val\n", "has val but no train line"),
        ('path,label\nphotos/sky/0.png,"a\n', "line 2: unexpected end of data"),
        ("path,label\nphotos/sky/0.png,Übung\n".encode("latin-1"), r"labels.csv is not in UTF-8 \(near line"),
        ("path,label\nphotos/sky/0.png,a\n".encode("utf-16"), "labels.csv is not in UTF-8"),
    ],
    ids=[
        "missing file", "missing file below empty lines", "empty path", "very long path", "folder", "empty file",
        "no header", "columns swapped", "semicolons", "only a header", "column missing", "column too many",
        "empty label", "label on two lines", "control character", "unknown split", "empty split", "no train",
        "open quote", "Latin-1", "UTF-16",
    ],
)  # fmt: skip
def test_csv_that_cannot_be_read_names_the_line(text: str | bytes, words: str, photos: Path) -> None:
    with pytest.raises(DataError, match=words) as caught:
        loading.load_dataset(write_csv(photos, text), Resizing(8))
    assert str(caught.value).isprintable()


def test_broken_image_in_a_csv_is_listed_as_unreadable(photos: Path) -> None:
    (photos / "photos" / "sky" / "0.png").write_bytes(b"no picture")
    source = write_csv(photos, "path,label\nphotos/sky/0.png,a\nphotos/sky/1.png,a\nphotos/leaf/1.png,b\n")
    dataset = loading.load_dataset(source, Resizing(8), val_fraction=0, test_fraction=0, skip_unreadable=True)
    assert len(dataset.skipped) == 1
    assert "0.png: file is of an unknown format" in dataset.skipped[0]


def test_other_file_is_not_taken_for_a_source(photos: Path) -> None:
    with pytest.raises(DataError, match=r"0\.png is a file; expected a folder of class folders, or a CSV"):
        loading.load_dataset(str(photos / "photos" / "sky" / "0.png"), Resizing(8))


def test_folder_of_images_without_class_folders_says_what_is_expected(photos: Path) -> None:
    with pytest.raises(
        DataError, match=r"no class folders with images \(12 files lie in it directly\); expected .*CSV"
    ):
        loading.load_dataset(str(photos / "photos" / "sky"), Resizing(8))


@pytest.mark.parametrize("name", ["valid", "bus"])
def test_folders_beside_the_splits_are_not_ignored(name: str, photos: Path) -> None:
    """Neither a validation folder of another name, nor the other classes where one is called 'train'."""
    shutil.copytree(photos / "photos", photos / "split" / "train")
    shutil.copytree(photos / "photos", photos / "split" / name)
    with pytest.raises(DataError, match=f"other folders beside train: {name}; only train, val and test may lie there"):
        loading.load_dataset(str(photos / "split"), Resizing(8))


@pytest.mark.parametrize(
    ("name", "words"),
    [("two\nlines", r"class name 'two\\nlines' has a line break"), (os.fsdecode(b"caf\xe9"), r"caf\\udce9")],
    ids=["line break", "not in UTF-8"],
)
def test_class_folder_with_an_unprintable_name_is_named(name: str, words: str, photos: Path) -> None:
    (photos / "photos" / "sky").rename(photos / "photos" / name)
    with pytest.raises(DataError, match=words) as caught:
        loading.load_dataset(str(photos / "photos"), Resizing(8))
    assert str(caught.value).isprintable()


def test_unprintable_file_name_is_named_on_one_line(photos: Path) -> None:
    (photos / "photos" / "sky" / os.fsdecode(b"\xe9\n.png")).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"\\udce9\\n\.png: file is of an unknown format") as caught:
        loading.load_dataset(str(photos / "photos"), Resizing(8))
    assert str(caught.value).isprintable()


def test_links_to_images_are_followed(photos: Path) -> None:
    before = loading.load_dataset(str(photos / "photos"), Resizing(8))
    original = photos / "photos" / "sky" / "0.png"
    original.rename(photos / "moved.png")
    original.symlink_to("../../moved.png")
    assert loading.load_dataset(str(photos / "photos"), Resizing(8)).fingerprint == before.fingerprint


def test_class_folder_may_be_a_link(photos: Path) -> None:
    (photos / "photos" / "sky").rename(photos / "moved")
    (photos / "photos" / "sky").symlink_to("../moved")
    assert loading.load_dataset(str(photos / "photos"), Resizing(8)).class_names == ("apple", "leaf", "sky")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (lambda path: path.symlink_to("nowhere.png"), "No such file"),
        (lambda path: path.symlink_to(".."), "link to a folder; links are not followed"),
        (lambda path: os.mkfifo(path), "not a regular file"),
    ],
    ids=["loop", "broken link", "link to the folder above", "pipe"],
)
def test_what_is_no_file_is_listed_as_unreadable(make: Callable[[Path], None], words: str, photos: Path) -> None:
    make(photos / "photos" / "sky" / "odd.png")
    with pytest.raises(DataError, match=rf"1 of 37 files are unreadable \(.*odd\.png.*{words}"):
        loading.load_dataset(str(photos / "photos"), Resizing(8))
    assert len(loading.load_dataset(str(photos / "photos"), Resizing(8), skip_unreadable=True).skipped) == 1


def test_file_without_permission_is_listed_as_unreadable(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answer is replaced: the tests may run as root, who may read everything."""
    read = Path.read_bytes

    def refuse(_path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", lambda path: (refuse if path.name == "3.png" else read)(path))
    with pytest.raises(DataError, match=r"3 of 36 files are unreadable \(.*3\.png: .*Permission denied"):
        loading.load_dataset(str(photos / "photos"), Resizing(8))


@pytest.mark.parametrize("name", ["sky", "photos"])
def test_folder_without_permission_is_named(name: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, the system's answer is replaced."""

    def refusing(ask: Callable[[object], object]) -> Callable[[object], object]:
        def refuse(path: object) -> object:
            raise PermissionError(13, "Permission denied", str(path))

        return lambda path: (refuse if Path(str(path)).name == name else ask)(path)

    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    monkeypatch.setattr(os, "listdir", refusing(os.listdir))
    with pytest.raises(DataError, match=rf"folder .*{name} cannot be read .Permission denied"):
        loading.load_dataset(str(photos / "photos"), Resizing(8))
