"""How many planted errors ``torchlight check`` finds in folders of photos: wrong labels, copies, strangers.

    python -m benchmarks.label_errors NAME=FOLDER... [--seeds 3] [--markdown docs/label-errors.md]

For each seed 5% of the labels are changed to another class, and the share of them among the first 7.5% of the list is
counted; beside it that of a single round, which is the order by cross-validated self-confidence of confident learning.
Then copies of 40 photos are added, encoded anew and half of them smaller, and last five photos of the next set, each
under a random label. Nothing of the folders is changed.

How cleanlab does on the same features is in docs/log.md; as a row of this table it is still to be added.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from stress.load.report import Check, Report, Sheet, finish
from torchlight.training.data.source_photos import SourcePhotos, read_source
from torchlight.training.evaluation.label_doubts import rank_labels
from torchlight.training.evaluation.strangers import find_far, find_far_from_class, measure_distances
from torchlight.training.run_transfer import BACKBONE
from torchlight.training.transfer.features import Backbone, compile_features, extract_features, load_backbone
from torchlight.training.transfer.label_check import ROUNDS, answer_held_out

PLANTED, LISTED = 0.05, 0.075  # shares of the photos
COPIES, STRANGERS = 40, 5  # a seed
QUALITY, SCALE = 60, 0.7  # of the copies; every other one is smaller
LEAST_LABELS, LEAST_COPIES = 0.8, 0.99  # shares that must be found


@dataclass(frozen=True)
class PhotoFolder:
    """A set under its name."""

    name: str
    path: Path


@dataclass(frozen=True)
class Photos:
    """A set that was read: its photos and their features (N, D)."""

    folder: PhotoFolder
    source: SourcePhotos
    features: Tensor


@dataclass(frozen=True)
class Found:
    """What was found in one set with one seed.

    Attributes:
        labels, labels_in_one_round, copies, strangers: shares of those planted, in [0, 1]; None if there were none.
        others: photos that are called strangers though none was planted there.
    """

    name: str
    photos: int
    labels: float
    labels_in_one_round: float
    copies: float
    strangers: float | None
    others: int


def main() -> int:
    """Plant errors in every set with every seed, and report what was found."""
    arguments, console = _read_arguments(), Console()
    backbone = load_backbone(BACKBONE)
    sets = [_read(folder, backbone) for folder in track(arguments.sets, "looking at photos", console=console)]
    runs = [
        (photos, sets[(k + 1) % len(sets)], seed) for k, photos in enumerate(sets) for seed in range(arguments.seeds)
    ]
    found = [measure(*run, backbone) for run in track(runs, "planting errors", console=console)]
    command = "python -m benchmarks.label_errors " + " ".join(f"{photos.folder.name}=..." for photos in sets)
    return finish(make_report(found), console, command, arguments.markdown)


def measure(photos: Photos, others: Photos, seed: int, backbone: Backbone) -> Found:
    """Plant errors in a set and return what was found of them.

    Args:
        others: where strangers are taken from; none if that is the same set.
    """
    strangers, mistaken = (None, 0) if others is photos else find_strangers(photos, others, seed, backbone)
    labels, planted = plant_labels(photos.source.photos.labels, len(photos.source.class_names), seed)
    shares = [
        share_listed(rank_labels(_answer(photos, labels, backbone, rounds), labels), planted) for rounds in (ROUNDS, 1)
    ]
    return Found(
        name=photos.folder.name,
        photos=len(labels),
        labels=shares[0],
        labels_in_one_round=shares[1],
        copies=find_copies(photos.folder.path, photos.source.photos.names, seed, backbone),
        strangers=strangers,
        others=mistaken,
    )


def plant_labels(labels: Tensor, num_classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return labels (N,) of which 5% are changed to another class, and the positions of those."""
    generator = torch.Generator().manual_seed(seed)
    planted = torch.randperm(len(labels), generator=generator)[: round(PLANTED * len(labels))]
    changed = labels.clone()
    moved = torch.randint(1, num_classes, (len(planted),), generator=generator)
    changed[planted] = (labels[planted] + moved) % num_classes
    return changed, planted


def share_listed(order: Tensor, planted: Tensor) -> float:
    """Return the share of the planted positions among the first 7.5% of the list."""
    first = set(order[: round(LISTED * len(order))].tolist())
    return len(first & set(planted.tolist())) / len(planted)


def find_copies(folder: Path, names: Sequence[str], seed: int, backbone: Backbone) -> float:
    """Return the share of copies, encoded anew, that are recognised as such beside all photos of a folder."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [names[k] for k in torch.randperm(len(names), generator=generator)[:COPIES].tolist()]
    with tempfile.TemporaryDirectory() as temporary:
        changed = Path(temporary) / "photos"
        shutil.copytree(folder, changed)
        for number, name in enumerate(chosen):
            copy_smaller(folder / name, changed / _name_copy(name, number), SCALE if number % 2 else 1.0)
        source = read_source(str(changed), backbone.spec.resizing, cache_folder=Path(temporary) / "cache")
    groups = dict(zip(source.photos.names, source.photos.groups, strict=True))
    found = [groups[name] == groups[_name_copy(name, number)] for number, name in enumerate(chosen)]
    return sum(found) / len(found)


def copy_smaller(source: Path, target: Path, scale: float) -> None:
    """Write a photo again as a JPEG of lower quality, its sides multiplied by ``scale``."""
    with Image.open(source) as image:
        width, height = image.size
        image.convert("RGB").resize((round(scale * width), round(scale * height))).save(target, quality=QUALITY)


def _name_copy(name: str, number: int) -> str:
    return str(Path(name).with_name(f"copied-{number}.jpg"))


def find_strangers(photos: Photos, others: Photos, seed: int, backbone: Backbone) -> tuple[float, int]:
    """Return the share of photos of another set that are called strangers, and how many other photos are."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(others.features), generator=generator)[:STRANGERS]
    number, last = len(photos.features), backbone.blocks["last"]
    features = torch.cat([photos.features, others.features[chosen]])[:, last]
    given = torch.randint(0, len(photos.source.class_names), (STRANGERS,), generator=generator)
    labels = torch.cat([photos.source.photos.labels, given])
    groups = [*photos.source.photos.groups, *(f"stranger {k}" for k in range(STRANGERS))]
    to_all, to_class = measure_distances(features, labels, groups)
    called = {*find_far(to_all), *find_far_from_class(to_class, labels)}
    found = sum(index >= number for index in called)
    return found / STRANGERS, len(called) - found


def make_report(found: Sequence[Found]) -> Report:
    """Return the table of the sets, means over the seeds, and the limits."""
    rows, checks = [], []
    for name in dict.fromkeys(one.name for one in found):
        runs = [one for one in found if one.name == name]
        labels, once, copies = (
            sum(getattr(one, part) for one in runs) / len(runs) for part in ("labels", "labels_in_one_round", "copies")
        )
        strangers = [one.strangers for one in runs if one.strangers is not None]
        rows.append(
            (
                name,
                str(runs[0].photos),
                f"{labels:.1%}",
                f"{once:.1%}",
                f"{copies:.1%}",
                f"{sum(strangers) / len(strangers):.0%}" if strangers else "–",
                f"{sum(one.others for one in runs) / len(runs):.1f}" if strangers else "–",
            )
        )
        checks += [
            _check(f"{name}: wrong labels among the first {LISTED:.1%} of the list", labels, LEAST_LABELS),
            _check(f"{name}: copies found", copies, LEAST_COPIES),
        ]
    head = ("set", "photos", "wrong labels", "in one round", "copies", "strangers", "others called so")
    summary = f"{PLANTED:.0%} wrong labels, {COPIES} copies and {STRANGERS} strangers planted, means over the seeds."
    return Report("Planted errors", summary, [Sheet("What was found", head, rows)], checks)


def _check(what: str, share: float, least: float) -> Check:
    return Check(what, f"{share:.1%}", f"at least {least:.0%}", share >= least)


def _answer(photos: Photos, labels: Tensor, backbone: Backbone, rounds: int) -> Tensor:
    return answer_held_out(photos.features, labels, photos.source.photos.groups, backbone.blocks, rounds=rounds)


def _read(folder: PhotoFolder, backbone: Backbone) -> Photos:
    source = read_source(str(folder.path), backbone.spec.resizing)
    compute = compile_features(backbone, torch.device("cpu"))
    return Photos(folder, source, extract_features(compute, source.photos.images, lambda done, total: None))


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=_photo_folder, metavar="NAME=FOLDER")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _photo_folder(named: str) -> PhotoFolder:
    name, _, path = named.partition("=")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"{named!r} names no folder; write NAME=FOLDER")
    return PhotoFolder(name, Path(path))


if __name__ == "__main__":
    sys.exit(main())
