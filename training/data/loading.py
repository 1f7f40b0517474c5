"""A source of photos -> three splits of uint8 images in memory.

Every image is decoded and resized once, by the same function that the service uses.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from pathlib import Path

import torch
from torch import Tensor

from torchlight.model import defaults
from torchlight.model.errors import DataError
from torchlight.model.images import Resizing
from torchlight.training.data import dataset_cache, dataset_warnings
from torchlight.training.data.corrections import CorrectedItems, correct_items
from torchlight.training.data.decode_files import Decoded
from torchlight.training.data.sources import SPLITS, Item, find_items, printable, shorten
from torchlight.training.data.splitting import Example, divide, fractions_to_hold_out

NOTES = ("names", "groups", "digests", "shorter_sides")  # of LabelledImages: one for each image


@dataclass(frozen=True)
class LabelledImages:
    """A split in memory.

    Attributes:
        images: (N, 3, S, S) uint8 RGB.
        labels: (N,) int64.
        names: of the images, or none.
        groups: equal for near-identical images, or none.
        digests: of each image's file, equal for equal files, or none.
        shorter_sides: of the originals, in pixels, or none.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    shorter_sides: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, chosen: Tensor) -> "LabelledImages":
        """Return the images at which ``chosen`` (N,) bool is true."""
        if chosen.all():
            return self
        notes = {name: tuple(compress(getattr(self, name), chosen.tolist())) for name in NOTES}
        return LabelledImages(self.images[chosen], self.labels[chosen], **notes)


def join_parts(parts: Sequence[LabelledImages]) -> LabelledImages:
    """Return the images of all parts; those of a single one that has any without copying them."""
    filled = [part for part in parts if len(part)]
    if len(filled) == 1:
        return filled[0]
    images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    notes = {name: tuple(chain.from_iterable(getattr(part, name) for part in parts)) for name in NOTES}
    return LabelledImages(images, labels, **notes)


@dataclass(frozen=True)
class DataSet:
    """Everything a run needs to know of its images.

    Attributes:
        splits: ``train``, ``val``, ``test``; a split may be empty.
        fingerprint: over labels, contents and splits; equal if and only if these are, whatever the files are called.
        skipped: ``name: reason`` of each unreadable file that was left out on request.
        warnings: what is doubtful about the images, in sentences.
        corrections: see :class:`training.data.corrections.CorrectedItems`; empty if none were asked for.
        too_alike: see :class:`training.data.duplicates.Groups`.
    """

    class_names: tuple[str, ...]
    splits: dict[str, LabelledImages]
    fingerprint: str
    skipped: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    corrections: Mapping[str, int] = field(default_factory=dict)
    too_alike: bool = False


def load_dataset(
    source: str,
    resizing: Resizing,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    class_names: Sequence[str] | None = None,
    corrections: Path | None = None,
    cache_folder: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> DataSet:
    """Read a source.

    Args:
        source: a folder of class folders, with or without ``train``, ``val`` and ``test`` above them; a CSV file of
            ``path,label`` or ``path,label,split``; or the name of a torchvision data set (cifar10, cifar100, mnist,
            fashion_mnist), fetched on first use.
        resizing: side S that images are resized to, and by which rule.
        val_fraction, test_fraction: share of each class to hold out, for the splits that the source does not have.
        seed: decides, together with each file's content, what is held out.
        skip_unreadable: leave unreadable files out instead of refusing the source.
        class_names: of a trained network, to evaluate it; by default the names in the source, sorted.
        corrections: a CSV file of decisions about single files, see :mod:`training.data.corrections`. What is left out
            need not be readable; the cache is of the files as they lie there, so it serves with and without.
        cache_folder: where decoded images are kept for the next run; default ``~/.cache/torchlight``.
        on_image: called after each decoded image with how many are done and how many there are; once if all of them
            come from the cache.

    Raises:
        DataError: no such source, fewer than two classes, a class without readable images or with a single one that
            would have to be divided, an unknown class in a held-out split, unreadable files, or what
            :func:`training.data.sources.find_items` and :func:`training.data.corrections.correct_items` refuse;
            nothing has been written but the cache.
    """
    found = find_items(source)
    corrected = CorrectedItems(found, frozenset(), {})
    if corrections is not None:
        corrected = correct_items(found, corrections, class_names)
    items, left_out = corrected.items, corrected.left_out
    names = _name_classes(source, [item for row, item in enumerate(items) if row not in left_out], class_names)
    folder = cache_folder or defaults.cache_folder()
    decoded, notes = dataset_cache.decode_once(source, resizing, items, folder, on_image)
    skipped = tuple(
        f"{item.name}: {error}"
        for row, (item, error) in enumerate(zip(items, decoded.errors, strict=True))
        if error and row not in left_out
    )
    if skipped and not skip_unreadable:
        raise DataError(
            f"{len(skipped)} of {len(items)} files are unreadable ({'; '.join(skipped[:5])}"
            f"{'; ...' if len(skipped) > 5 else ''}); mend them or pass --skip-unreadable"
        )
    rows = [row for row, error in enumerate(decoded.errors) if not error and row not in left_out]
    if not rows:
        raise DataError(f"{printable(source)} has no readable image")

    examples = describe_examples(items, decoded, rows)
    fractions = fractions_to_hold_out({item.split for item in items}, val_fraction, test_fraction)
    # the fewest images of a class of which each split gets one: round(f * needed) >= 1
    needed = 1 + max((math.floor(0.5 / f) for f in fractions.values() if f > 0), default=0)
    if class_names is None:
        _check_classes(examples, names, needed)
    sides = divide(examples, val_fraction, test_fraction, seed)
    if class_names is None:
        _check_training_images(examples, sides, names)
    return DataSet(
        class_names=names,
        splits={name: _select(decoded, rows, examples, sides, name, names) for name in SPLITS},
        fingerprint=_fingerprint(examples, sides),
        skipped=skipped,
        warnings=(*notes, *_find_warnings(examples, sides, names, needed, decoded, rows)),
        corrections=corrected.counts,
        too_alike=decoded.too_alike,
    )


def decode_again(
    source: str, dataset: DataSet, resizing: Resizing, on_image: Callable[[int, int], None] = lambda done, total: None
) -> DataSet:
    """Return the same images in the same splits and order, resized otherwise.

    Nothing is divided anew: which images are near-identical follows from pixels, so it may differ between sizes.

    Args:
        source: that :func:`load_dataset` read ``dataset`` from.

    Raises:
        DataError: an image has gone or cannot be read any more.
    """
    items = find_items(source)
    decoded, _ = dataset_cache.decode_once(source, resizing, items, defaults.cache_folder(), on_image)
    images = torch.from_numpy(decoded.images)  # (N, 3, S, S) uint8, in the order of the items
    row_of = {printable(item.key): row for row, item in enumerate(items) if not decoded.errors[row]}
    splits = {}
    for split, part in dataset.splits.items():
        gone = [name for name in part.names if name not in row_of]
        if gone:
            raise DataError(f"{printable(source)} has changed while it was learnt from: {shorten(gone)}; train again")
        rows = torch.tensor([row_of[name] for name in part.names], dtype=torch.int64)
        splits[split] = replace(part, images=images[rows])
    return replace(dataset, splits=splits)


def statistics(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of each colour channel, in [0, 1], over (N, 3, S, S) uint8 images.

    Counts each of the 256 values, so the result is exact and needs no float copy of the images.
    """
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        share = torch.bincount(images[:, channel].flatten().int(), minlength=256).double()  # (256,)
        share /= share.sum()
        mean = (share * values).sum()
        means.append(mean.item())
        deviations.append(max(1e-3, (share * (values - mean) ** 2).sum().sqrt().item()))  # a flat data set has 0
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return (K,) float32 weights for the loss, so that each class counts as much as any other.

    The inverse of each class's number of images, scaled so that the mean over the images is 1 and the loss keeps its
    size. A class without images gets 0.

    Args:
        labels: (N,) int64 class indices of the training images.
    """
    counts = torch.bincount(labels, minlength=num_classes).double()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (max(present, 1) * counts), 0.0).float()


def _name_classes(source: str, items: Sequence[Item], class_names: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(class_names or sorted({item.label for item in items if item.split in (None, "train")}))
    if len(names) < 2:
        raise DataError(
            f"{printable(source)} has {len(names)} class ({', '.join(names)}); a classifier needs at least 2"
        )
    unknown = sorted({item.label for item in items} - set(names))
    if unknown:
        raise DataError(f"{printable(source)} has images of classes the network does not know: {shorten(unknown)}")
    return names


def describe_examples(items: Sequence[Item], decoded: Decoded, rows: Sequence[int]) -> list[Example]:
    """Return the readable images with their groups named by content, not by position."""
    smallest: dict[int, str] = {}
    for row in rows:
        group, digest = decoded.groups[row], decoded.digests[row]
        smallest[group] = min(smallest.get(group, digest), digest)
    return [
        Example(
            printable(items[row].key),
            items[row].label,
            items[row].split,
            decoded.digests[row],
            smallest[decoded.groups[row]],
        )
        for row in rows
    ]


def _check_classes(examples: Sequence[Example], names: Sequence[str], needed: int) -> None:
    """Refuse classes of which nothing is readable, and single images of which some would have to be held out."""
    counts = Counter(example.label for example in examples if example.split in (None, "train"))
    empty = [repr(name) for name in names if not counts[name]]
    if empty:
        raise DataError(f"nothing is readable of class {shorten(empty)}; mend its files or remove it")
    single = [repr(name) for name in names if counts[name] == 1]
    if single and needed > 1:
        raise DataError(
            f"{len(single)} of {len(names)} classes have one image ({shorten(single)}), which cannot be both learnt "
            f"and held out; a class needs 2 images, and {needed} for one of them to be held out"
        )


def _check_training_images(examples: Sequence[Example], sides: Sequence[str | None], names: Sequence[str]) -> None:
    """Refuse a class whose images are all held out, or like ones held out, while others have some to train on."""
    trained = {example.label for example, side in zip(examples, sides, strict=True) if side == "train"}
    missing = [repr(name) for name in names if name not in trained]
    if trained and missing:
        raise DataError(
            f"no training image is left of class {shorten(missing)}: all of them are held out, or near-identical to "
            f"images that are; add different ones"
        )


def _select(
    decoded: Decoded,
    rows: Sequence[int],
    examples: Sequence[Example],
    sides: Sequence[str | None],
    name: str,
    class_names: Sequence[str],
) -> LabelledImages:
    """Return one split; all images of a source without copying them."""
    index = {label: k for k, label in enumerate(class_names)}
    members = [position for position, side in enumerate(sides) if side == name]
    labels = torch.tensor([index[examples[position].label] for position in members], dtype=torch.int64)
    images = torch.from_numpy(decoded.images)  # (N, 3, S, S) uint8, in the order of the items
    if len(members) < len(images):
        images = images[torch.tensor([rows[position] for position in members], dtype=torch.int64)]
    chosen = [examples[position] for position in members]
    return LabelledImages(
        images,
        labels,
        names=tuple(example.name for example in chosen),
        groups=tuple(example.group for example in chosen),
        digests=tuple(example.digest for example in chosen),
        shorter_sides=tuple(decoded.shorter_sides[rows[position]] for position in members),
    )


def _fingerprint(examples: Sequence[Example], sides: Sequence[str | None]) -> str:
    lines = sorted(f"{side} {x.label} {x.digest}" for x, side in zip(examples, sides, strict=True) if side)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _find_warnings(
    examples: Sequence[Example],
    sides: Sequence[str | None],
    class_names: Sequence[str],
    needed: int,
    decoded: Decoded,
    rows: Sequence[int],
) -> Iterator[str]:
    yield from dataset_warnings.in_classes(Counter(example.label for example in examples), needed)
    yield from dataset_warnings.in_splits(examples, sides, class_names)
    yield from dataset_warnings.in_copies(examples)
    names = [example.name for example in examples]
    sizes = [decoded.shorter_sides[row] for row in rows]
    yield from dataset_warnings.in_pixels(names, sizes, [decoded.flat[row] for row in rows], decoded.images.shape[-1])
    if decoded.too_alike:
        yield (
            "the images are so alike throughout that near-identical ones cannot be recognised; "
            "only exact copies are kept on one side"
        )
