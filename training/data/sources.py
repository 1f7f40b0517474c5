"""Which images a source has and what they are labelled, before any of them is decoded.

A source is a folder of class folders, a CSV file of paths and labels, or the name of a torchvision data set.
Knows nothing of splitting or caching.
"""

import csv
import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from torchlight.model.defaults import MAX_PIXELS, cache_folder
from torchlight.model.errors import DataError, UnreadableImage
from torchlight.model.images import Resizing, prepare_image, to_tensor

SPLITS = ("train", "val", "test")
NAMED = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
}
UNUSABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of pairs, line and paragraph separators


@dataclass(frozen=True)
class Picture:
    """One decoded image.

    Attributes:
        digest: of the file's bytes, or of a named set's pixels: equal photos have equal digests.
        shorter_side: of the original, in pixels.
        pixels: (3, S, S) uint8 RGB.
    """

    digest: str
    shorter_side: int
    pixels: Tensor


class Item(NamedTuple):
    """One image before it is decoded.

    Attributes:
        name: for messages; one printable line.
        label: class name, in Unicode's composed form.
        split: the split it was found in; None if the source has no splits.
        key: its path within the source.
        stamp: changes whenever the file does; with ``key``, what a cache goes by.
        load: returns the picture resized, raising ImageError or OSError.
        file_bytes: size of the file; 0 for an image of a named set.
    """

    name: str
    label: str
    split: str | None
    key: str
    stamp: str
    load: Callable[[Resizing], Picture]
    file_bytes: int = 0


def find_items(source: str) -> list[Item]:
    """List a source.

    Raises:
        DataError: there is no such source, it has no images, a class folder is empty, a line of the CSV file is wrong,
            or a class name cannot be printed on one line.
    """
    path = Path(source)
    if os.path.isdir(path):
        return _find_in_folder(path)
    if os.path.isfile(path) and path.suffix.lower() == ".csv":
        return _find_in_csv(path)
    if source in NAMED:
        return _find_named(source)
    if os.path.isfile(path):
        raise DataError(f"{printable(source)} is a file; expected a folder of class folders, or a CSV of path,label")
    raise DataError(f"{printable(source)} is neither a folder, a CSV file nor one of {', '.join(NAMED)}")


def printable(text: str) -> str:
    """Return ``text`` on one line that any terminal takes: line breaks, control characters, odd bytes as escapes."""
    if text.isprintable():
        return text
    return "".join(ascii(x)[1:-1] if unicodedata.category(x) in UNUSABLE else x for x in text)


def _find_in_folder(folder: Path) -> list[Item]:
    """List the files below the class folders; hidden files do not count, all others are taken for images."""
    children = _folders_in(folder)
    found = [name for name in SPLITS if folder / name in children]
    others = [printable(path.name) for path in children if path.name not in SPLITS]
    if found and "train" not in found:
        raise DataError(f"{folder} has {', '.join(found)} but no train folder")
    if found and others:
        raise DataError(
            f"{folder} has other folders beside {', '.join(found)}: {shorten(others)}; "
            f"only train, val and test may lie there, and a class of such a name needs another one"
        )
    items: list[Item] = []
    for split, root in {name: folder / name for name in found}.items() if found else [(None, folder)]:
        for class_folder in _folders_in(root):
            label = _check_label(class_folder.name, f"folder {printable(str(class_folder))}")
            files = sorted(_files_below(class_folder))
            if not files:
                raise DataError(f"class folder {class_folder} has no images; fill it or remove it")
            items += [
                _item_of_file(path, path.removeprefix(str(folder)).lstrip(os.sep), label, split) for path in files
            ]
    if not items:
        loose = sum(not path.name.startswith(".") for path in folder.iterdir())
        beside = f" ({loose} files lie in it directly)" if loose and not found else ""
        raise DataError(
            f"{folder} has no class folders with images{beside}; expected {folder}/<class>/<photo>, "
            f"or a CSV file of path,label"
        )
    return items


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and os.path.isdir(path))
    except OSError as error:
        raise DataError(f"folder {printable(str(folder))} cannot be read ({error.strerror})") from error


def _files_below(class_folder: Path) -> Iterator[str]:
    """Yield the paths of all that is no folder; a link to a folder is not followed, so there is no loop."""

    def refuse(error: OSError) -> None:
        raise DataError(f"folder {printable(str(error.filename))} cannot be read ({error.strerror})") from error

    for here, folders, files in os.walk(class_folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(here, name))]
        yield from (os.path.join(here, name) for name in [*links, *files] if not name.startswith("."))


def _item_of_file(path: str, key: str, label: str, split: str | None) -> Item:
    """Describe a file; what keeps it from being read is reported when it is loaded."""
    try:
        found = os.stat(path)
    except OSError:
        return Item(printable(path), label, split, key, "unreachable", partial(_load_file, path))
    stamp = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    load = partial(_load_file, path) if stat.S_ISREG(found.st_mode) else partial(_refuse, stat.S_ISDIR(found.st_mode))
    return Item(printable(path), label, split, key, stamp, load, found.st_size)


def _load_file(path: str, resizing: Resizing) -> Picture:
    content = Path(path).read_bytes()
    pixels, image = prepare_image(content, resizing, max_pixels=MAX_PIXELS)
    return Picture(hashlib.sha256(content).hexdigest(), min(image.width, image.height), pixels)


def _refuse(is_folder: bool, resizing: Resizing) -> Picture:
    raise UnreadableImage("link to a folder; links are not followed" if is_folder else "not a regular file")


def _find_in_csv(path: Path) -> list[Item]:
    """List the rows of a file whose first line is ``path,label`` or ``path,label,split``.

    Paths are relative to the file's folder. UTF-8, with or without a byte order mark; fields with commas, quotes or
    line breaks are quoted as usual (RFC 4180).
    """
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    items = []
    with file:
        rows = numbered_rows(file, path.name)
        number, header = next(rows, (1, []))
        columns = [name.strip().lower() for name in header]
        if columns not in (["path", "label"], ["path", "label", "split"]):
            raise DataError(
                f"{path.name} line {number}: the header is {printable(','.join(header))!r}; "
                f"expected path,label or path,label,split"
            )
        for number, row in rows:
            items.append(_item_of_row(path, f"{path.name} line {number}", columns, row))
    if not items:
        raise DataError(f"{path} has no line below its header; expected lines of path,label")
    found = {item.split for item in items}
    if None not in found and "train" not in found:
        raise DataError(f"{path} has {', '.join(name for name in SPLITS if name in found)} but no train line")
    return items


def numbered_rows(file: Iterator[str], name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty with the number of the line it begins in."""
    reader = csv.reader(file, strict=True, skipinitialspace=True)
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise DataError(f"{name} is not in UTF-8 (near line {number}); save it as CSV UTF-8") from error
        except csv.Error as error:
            raise DataError(f"{name} line {number}: {error}") from error
        if row:
            yield number, row


def _item_of_row(path: Path, where: str, columns: Sequence[str], row: Sequence[str]) -> Item:
    if len(row) != len(columns):
        raise DataError(f"{where}: {len(row)} columns instead of {len(columns)} ({','.join(columns)}); quote commas")
    name, label, *rest = (field.strip() for field in row)
    if rest and rest[0] not in SPLITS:
        raise DataError(f"{where}: split is {printable(rest[0])!r}; write train, val or test, or drop the column")
    file = path.parent / name
    if not name or "\0" in name or not os.path.lexists(file):
        raise DataError(f"{where}: {printable(name) or 'the empty path'} does not exist in {path.parent}")
    if os.path.isdir(file):
        raise DataError(f"{where}: {printable(name)} is a folder; name an image file")
    return _item_of_file(str(file), name, _check_label(label, where), rest[0] if rest else None)


def _check_label(label: str, where: str) -> str:
    """Return a class name in composed form, in which file systems and editors agree on accents."""
    if not label:
        raise DataError(f"{where}: the class name is empty")
    if any(unicodedata.category(x) in UNUSABLE for x in label):
        raise DataError(f"{where}: class name {label!a} has a line break or an unprintable character; rename it")
    return unicodedata.normalize("NFC", label)


def _find_named(name: str) -> list[Item]:
    """Return torchvision's own train and test split of a named set, fetching it to ~/.cache/torchlight if need be."""
    import torchvision  # takes longer than learning from a few photos

    root = cache_folder()
    stamp = f"torchvision {torchvision.__version__}"  # which compares the files with its own checksums
    items = []
    for split in ("train", "test"):
        try:
            images = getattr(torchvision.datasets, NAMED[name])(root=root, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name} cannot be fetched ({error}); put its files into {root}, or name a folder"
            ) from error
        for index, (image, target) in enumerate(images):
            key = f"{name}/{split}/{index}"
            items.append(Item(key, images.classes[target], split, key, stamp, partial(_load_named, image)))
    return items


def _load_named(image: Any, resizing: Resizing) -> Picture:  # of Pillow, which training does not import
    pixels = to_tensor(image.convert("RGB"), resizing)
    return Picture(hashlib.sha256(image.tobytes()).hexdigest(), min(image.size), pixels)


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Return the first few of many names, for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
