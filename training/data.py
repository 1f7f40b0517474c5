"""A folder of photos or a named data set -> three splits of uint8 images in memory.

Every image is decoded and resized once, by the same function that the service uses.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision
from torch import Tensor

from model.errors import DataError, ImageError
from model.images import MAX_PIXELS, prepare, to_tensor

SPLITS = ("train", "val", "test")
NAMED = {
    "cifar10": torchvision.datasets.CIFAR10,
    "cifar100": torchvision.datasets.CIFAR100,
    "mnist": torchvision.datasets.MNIST,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
}


@dataclass(frozen=True)
class LabelledImages:
    """A split in memory: images (N, 3, S, S) uint8 RGB, labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Example:
    """One image before it is decoded.

    Attributes:
        split: the split it was found in; None if the source has no splits.
        digest: of the file's bytes (or of a named set's pixels): equal photos have equal digests.
        load: returns (3, S, S) uint8 for a side S, raising ImageError.
    """

    name: str
    label: str
    split: str | None
    digest: str
    load: Callable[[int], Tensor]


@dataclass(frozen=True)
class DataSet:
    """Everything a run needs to know of its images.

    Attributes:
        splits: ``train``, ``val``, ``test``; a split may be empty.
        fingerprint: over labels, contents and splits; equal if and only if these are, whatever the files are called.
        skipped: ``name: reason`` of each unreadable file that was left out on request.
    """

    class_names: tuple[str, ...]
    splits: dict[str, LabelledImages]
    fingerprint: str
    skipped: tuple[str, ...]


def load(
    source: str,
    size: int,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    skip_unreadable: bool = False,
    class_names: Sequence[str] | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> DataSet:
    """Read a source.

    Args:
        source: a folder of class folders, with or without ``train``, ``val`` and ``test`` above them; or the name of
            a torchvision data set (cifar10, cifar100, mnist, fashion_mnist), fetched on first use.
        size: side S that images are resized to.
        val_fraction, test_fraction: share of each class to hold out, for the splits that the source does not have.
        seed: decides, together with each file's content, what is held out.
        skip_unreadable: leave unreadable files out instead of refusing the source.
        class_names: of a trained network, to evaluate it; by default the names in the source, sorted.
        on_image: called after each decoded image with how many are done and how many there are.

    Raises:
        DataError: no such source, fewer than two classes, a class without images, an unknown class in a held-out
            split, or unreadable files; nothing has been written.
    """
    examples = _find(source)
    names = tuple(class_names or sorted({example.label for example in examples if example.split in (None, "train")}))
    if len(names) < 2:
        raise DataError(f"{source} has {len(names)} class ({', '.join(names)}); a classifier needs at least 2")
    unknown = sorted({example.label for example in examples} - set(names))
    if unknown:
        raise DataError(f"{source} has images of classes the network does not know: {', '.join(unknown)}")

    decoded = []
    for item in _decode(examples, size):
        decoded.append(item)
        on_image(len(decoded), len(examples))
    skipped = tuple(item for item in decoded if isinstance(item, str))
    if skipped and not skip_unreadable:
        listed = "; ".join(skipped[:5]) + ("; ..." if len(skipped) > 5 else "")
        raise DataError(
            f"{len(skipped)} of {len(examples)} files are unreadable ({listed}); mend them or pass --skip-unreadable"
        )
    readable = [(example, item) for example, item in zip(examples, decoded, strict=True) if isinstance(item, Tensor)]
    if not readable:
        raise DataError(f"{source} has no readable image")

    assigned = split([example for example, _ in readable], val_fraction, test_fraction, seed)
    members: dict[str, list[tuple[Example, Tensor]]] = {name: [] for name in SPLITS}
    for name, pair in zip(assigned, readable, strict=True):
        members[name].append(pair)
    return DataSet(
        class_names=names,
        splits={name: _stack(items, names, size) for name, items in members.items()},
        fingerprint=_fingerprint(members),
        skipped=skipped,
    )


def split(examples: Sequence[Example], val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Return the split of each example: the one it came with, else one chosen class by class by its content.

    Within a class, images are ordered by a hash of seed and content; the first are held out. A photo that is there
    twice, under whatever name or label, is never on both sides.
    """
    given = {example.split for example in examples}
    fractions = {
        "val": 0.0 if "val" in given else val_fraction,
        "test": 0.0 if "test" in given else test_fraction,
    }
    chosen = {example.digest: example.split for example in examples if example.split in ("val", "test")}
    for label in sorted({example.label for example in examples}):
        pool = [x.digest for x in examples if x.label == label and x.split in (None, "train")]
        order = sorted(set(pool), key=lambda digest: hashlib.sha256(f"{seed} {digest}".encode()).digest())
        start = 0
        for name, fraction in fractions.items():
            end = start + round(fraction * len(order))
            for digest in order[start:end]:
                chosen.setdefault(digest, name)
            start = end
    return [chosen.get(example.digest) or "train" for example in examples]


def statistics(images: Tensor) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of each colour channel, in [0, 1], over (N, 3, S, S) uint8 images.

    Counts each of the 256 values, so the result is exact and needs no float copy of the images.
    """
    means, deviations = [], []
    values = torch.arange(256, dtype=torch.float64) / 255
    for channel in range(3):
        share = torch.bincount(images[:, channel].flatten().int(), minlength=256).double()
        share /= share.sum()
        mean = (share * values).sum()
        means.append(mean.item())
        deviations.append(max(1e-3, (share * (values - mean) ** 2).sum().sqrt().item()))  # a flat data set has 0
    return (means[0], means[1], means[2]), (deviations[0], deviations[1], deviations[2])


def _find(source: str) -> list[Example]:
    folder = Path(source)
    if folder.is_dir():
        return _find_in_folder(folder)
    if source in NAMED:
        return _find_named(source)
    raise DataError(f"{source} is neither a folder nor one of {', '.join(NAMED)}")


def _find_in_folder(folder: Path) -> list[Example]:
    """List the files below the class folders; hidden files do not count, all others are taken for images."""
    found = [name for name in SPLITS if (folder / name).is_dir()]
    if found and "train" not in found:
        raise DataError(f"{folder} has {', '.join(found)} but no train folder")
    roots: dict[str | None, Path] = {name: folder / name for name in found} or {None: folder}
    examples = []
    for name, root in roots.items():
        for class_folder in _visible(root):
            if not class_folder.is_dir():
                continue
            files = [path for path in sorted(class_folder.rglob("*")) if path.is_file() and not _is_hidden(path, root)]
            if not files:
                raise DataError(f"class folder {class_folder} has no images; fill it or remove it")
            examples += [_example_from_file(path, class_folder.name, name) for path in files]
    if not examples:
        raise DataError(f"{folder} has no class folders with images; expected {folder}/<class>/<photo>")
    return examples


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _example_from_file(path: Path, label: str, split_name: str | None) -> Example:
    def load_file(size: int) -> Tensor:
        return prepare(path.read_bytes(), size, max_pixels=MAX_PIXELS)[0]

    return Example(str(path), label, split_name, hashlib.sha256(path.read_bytes()).hexdigest(), load_file)


def _find_named(name: str) -> list[Example]:
    """Return torchvision's own train and test split of a named set, fetching it to ~/.cache/torchlight if need be."""
    root = Path.home() / ".cache" / "torchlight"
    examples = []
    for split_name in ("train", "test"):
        try:
            images = NAMED[name](root=root, train=split_name == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{name} cannot be fetched ({error}); put its files into {root}, or name a folder"
            ) from error
        for index, (image, target) in enumerate(images):
            examples.append(
                Example(
                    name=f"{name}/{split_name}/{index}",
                    label=images.classes[target],
                    split=split_name,
                    digest=hashlib.sha256(image.tobytes()).hexdigest(),
                    load=partial(to_tensor, image.convert("RGB")),
                )
            )
    return examples


def _decode(examples: Sequence[Example], size: int) -> Iterator[Tensor | str]:
    """Yield, in order, each image, or ``name: reason`` for one that cannot be read."""

    def decode(example: Example) -> Tensor | str:
        try:
            return example.load(size)
        except ImageError as error:
            return f"{example.name}: {error}"

    with ThreadPoolExecutor() as pool:
        yield from pool.map(decode, examples)


def _stack(items: Sequence[tuple[Example, Tensor]], class_names: Sequence[str], size: int) -> LabelledImages:
    index = {name: k for k, name in enumerate(class_names)}
    images = torch.stack([image for _, image in items]) if items else torch.empty(0, 3, size, size, dtype=torch.uint8)
    labels = torch.tensor([index[example.label] for example, _ in items], dtype=torch.int64)
    return LabelledImages(images, labels)


def _fingerprint(members: Mapping[str, Sequence[tuple[Example, Tensor]]]) -> str:
    lines = sorted(f"{name} {x.label} {x.digest}" for name, items in members.items() for x, _ in items)
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()
