"""A source of photos as it lies there: everything readable, and what cannot be read or is not looked at, with reasons.

Unlike :mod:`training.data.loading` it refuses nothing but a source without photos: it serves to find out what is wrong
with one. Writes nothing but the cache of decoded images.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from torchlight.model import defaults
from torchlight.model.errors import DataError
from torchlight.model.images import Resizing
from torchlight.training.data import dataset_cache
from torchlight.training.data.loading import LabelledImages, describe_examples
from torchlight.training.data.sources import SPLITS, find_items, printable, shorten


@dataclass(frozen=True)
class FileNote:
    """A file that no photo came from: its path within the source, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class SourcePhotos:
    """All photos of a source that can be read.

    Attributes:
        class_names: of the classes that have a readable photo, sorted.
        photos: in the order of the source, whatever split they lie in; names are paths within the source.
        unreadable: files that are no photo, or a broken one.
        left_out: files that no command looks at, such as hidden ones.
        empty_classes: classes of which nothing is readable.
        too_alike: see :class:`training.data.duplicates.Groups`.
        warnings: what could not be done about the cache.
    """

    class_names: tuple[str, ...]
    photos: LabelledImages
    unreadable: tuple[FileNote, ...] = ()
    left_out: tuple[FileNote, ...] = ()
    empty_classes: tuple[str, ...] = ()
    too_alike: bool = False
    warnings: tuple[str, ...] = ()


def read_source(
    source: str,
    resizing: Resizing,
    *,
    cache_folder: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> SourcePhotos:
    """Read every photo of a source; arguments as in :func:`training.data.loading.load_dataset`.

    Raises:
        DataError: nothing is readable, or what :func:`training.data.sources.find_items` refuses.
    """
    items = find_items(source)
    decoded, warnings = dataset_cache.decode_once(
        source, resizing, items, cache_folder or defaults.cache_folder(), on_image
    )
    unreadable = tuple(
        FileNote(printable(item.key), error) for item, error in zip(items, decoded.errors, strict=True) if error
    )
    rows = [row for row, error in enumerate(decoded.errors) if not error]
    if not rows:
        listed = shorten([f"{one.file}: {one.reason}" for one in unreadable], 3)
        raise DataError(f"{printable(source)} has no readable photo among {len(items)} files ({listed}); add photos")
    examples = describe_examples(items, decoded, rows)
    names = tuple(sorted({example.label for example in examples}))
    index = {name: k for k, name in enumerate(names)}
    images = torch.from_numpy(decoded.images)  # (N, 3, S, S) uint8
    photos = LabelledImages(
        images if len(rows) == len(images) else images[torch.tensor(rows, dtype=torch.int64)],
        torch.tensor([index[example.label] for example in examples], dtype=torch.int64),
        tuple(example.name for example in examples),
        tuple(example.group for example in examples),
        tuple(example.digest for example in examples),
        tuple(decoded.shorter_sides[row] for row in rows),
    )
    return SourcePhotos(
        class_names=names,
        photos=photos,
        unreadable=unreadable,
        left_out=tuple(_find_left_out(Path(source))),
        empty_classes=tuple(sorted({item.label for item in items} - set(names))),
        too_alike=decoded.too_alike,
        warnings=tuple(warnings),
    )


def _find_left_out(folder: Path) -> Iterator[FileNote]:
    """Yield the files below a folder that are hidden, or that lie in no class folder."""
    if not folder.is_dir():
        return
    class_depth = 2 if (folder / SPLITS[0]).is_dir() else 1
    for here, folders, files in os.walk(folder):
        inside = Path(here).relative_to(folder)
        for name in sorted(folders):
            if name.startswith("."):
                yield FileNote(printable(str(inside / name)), "hidden folder")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.startswith("."):
                yield FileNote(printable(str(inside / name)), "hidden file")
            elif len(inside.parts) < class_depth:
                yield FileNote(printable(str(inside / name)), "lies in no class folder")
