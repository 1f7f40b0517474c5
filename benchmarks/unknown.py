"""How many unknown images a network knows for unknown, and how many known ones it takes for such.

    python -m benchmarks.unknown NAME=TRAIN_FOLDER,APART_FOLDER... [--strangers NAME=FOLDER...] [--leave-out NAME...]
        [--checkpoints FILE=KNOWN_FOLDER,NAME,NAME...] [--markdown docs/unknown.md]

For each set, ``torchlight train`` learns from TRAIN_FOLDER; the photos of APART_FOLDER are known, those of all
other sets, the strangers and 100 images of noise are not. With ``--leave-out`` the network also learns without each
class in turn, whose photos apart are unknown then. The known images of a checkpoint, such as one that ships, are given
with it, and the names of the sets and strangers that are unknown to it. Nothing is chosen by these figures: how strange
an image is was decided on training photos alone.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from rich.console import Console
from torch import Tensor

from stress.load.report import Check, Report, Sheet, finish
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import choose_engine
from torchlight.model.engines.folder_predictions import find_image_files
from torchlight.model.images import prepare_image
from torchlight.model.named_checkpoints import find_checkpoint
from torchlight.model.uncertainty.novelty import THRESHOLD

ROOT = Path(__file__).parents[1]
NOISE = 100  # images
BATCH = 16
KNOWN, LEFT_OUT = "known", "left out"


@dataclass(frozen=True)
class Answered:
    """What a network says of N images: (N,) p-values, and probabilities of the top label."""

    p_values: Tensor
    tops: Tensor


@dataclass(frozen=True)
class Row:
    """One kind of images, against the known ones of a network.

    Attributes:
        refused, refused_by_top: share that is called unknown, by the p-value and by the top probability at a threshold
            that refuses as many known images.
        area, area_by_top: areas under the curves of known against unknown; None for the known images themselves.
    """

    network: str
    images: str
    number: int
    refused: float
    refused_by_top: float
    area: float | None = None
    area_by_top: float | None = None


def main() -> int:
    """Train, measure and report."""
    arguments = _read_arguments()
    rows: list[Row] = []
    for name, (learnt, apart) in arguments.sets.items():
        others = {other: folders[1] for other, folders in arguments.sets.items() if other != name}
        strangers = {one: folder for one, folder in arguments.strangers.items() if apart not in folder.parents}
        with _trained(learnt) as checkpoint:
            rows += measure(name, checkpoint, [apart], others | strangers)
    for name in arguments.leave_out:
        learnt, apart = arguments.sets[name]
        for one in sorted(folder.name for folder in learnt.iterdir() if folder.is_dir()):
            known = [folder for folder in apart.iterdir() if folder.name != one]
            with _trained(learnt, without=one) as checkpoint:
                rows += measure(f"{name} without {one}", checkpoint, known, {LEFT_OUT: apart / one}, noise=0)
    folders = {name: folders[1] for name, folders in arguments.sets.items()} | arguments.strangers
    for given, (known, *names) in arguments.checkpoints.items():
        path = find_checkpoint(Path(given))
        rows += measure(path.stem, path, [Path(known)], {name: folders[name] for name in names})
    shown = [
        *arguments.sets,
        "--strangers",
        *arguments.strangers,
        "--checkpoints",
        *(Path(one).stem for one in arguments.checkpoints),
    ]
    command = "python -m benchmarks.unknown " + " ".join(one if one.startswith("-") else f"{one}=..." for one in shown)
    return finish(make_report(rows), Console(), command, arguments.markdown)


@contextmanager
def _trained(learnt: Path, without: str | None = None) -> Iterator[Path]:
    """Train in a process of its own, with empty caches and without one of the classes; yield the checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(learnt, folder / learnt.name, ignore=lambda _folder, names: {without} & set(names))
        environment = os.environ | {"XDG_CACHE_HOME": name, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "torchlight", "train", learnt.name, "--out", "run"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        yield folder / "run" / "checkpoint.safetensors"


def measure(
    network: str, checkpoint: Path, known: Sequence[Path], strangers: Mapping[str, Path], noise: int = NOISE
) -> Iterator[Row]:
    """Yield what a network says of known images, of strangers by their names, and of noise."""
    classifier = Classifier(load_checkpoint(checkpoint), torch.device("cpu"))
    usual = answer(classifier, _read(classifier, known))
    threshold = usual.tops.quantile((usual.p_values <= THRESHOLD).double().mean().item()).item()
    yield Row(network, KNOWN, *_count(usual, threshold))
    images = {name: _read(classifier, [folder]) for name, folder in strangers.items()}
    size, generator = classifier.spec.size, torch.Generator().manual_seed(0)
    if noise:
        images["noise"] = torch.randint(0, 256, (noise, 3, size, size), generator=generator, dtype=torch.uint8)
    for name, some in images.items():
        found = answer(classifier, some)
        area, by_top = area_under_roc(-usual.p_values, -found.p_values), area_under_roc(-usual.tops, -found.tops)
        yield Row(network, name, *_count(found, threshold), area, by_top)


def answer(classifier: Classifier, images: Tensor) -> Answered:
    """Return what a classifier says of (N, 3, S, S) uint8 images."""
    engine, p_values, tops = choose_engine(classifier, "auto"), [], []
    for some in torch.split(images, BATCH):
        answers = engine.answer(some)
        assert answers.strangeness is not None, "the checkpoint cannot tell; make it with `torchlight calibrate`"
        p_values.append(torch.from_numpy(answers.strangeness.p_values))
        tops.append(answers.probabilities.amax(1))
    return Answered(torch.cat(p_values), torch.cat(tops))


def area_under_roc(known: Tensor, strange: Tensor) -> float:
    """Return how often a strange image has the larger score than a known one, in [0, 1]; equal scores count half.

    Args:
        known, strange: (N,) and (M,).
    """
    larger = (strange[:, None] > known).double().mean() + 0.5 * (strange[:, None] == known).double().mean()
    return larger.item()


def _count(answered: Answered, threshold: float) -> tuple[int, float, float]:
    """Return the number of images, and the shares that are refused by p-value and by top probability."""
    by_p_value = (answered.p_values <= THRESHOLD).double().mean().item()
    return len(answered.tops), by_p_value, (answered.tops <= threshold).double().mean().item()


def _read(classifier: Classifier, folders: Sequence[Path]) -> Tensor:
    return torch.stack([prepare_image(f.read_bytes(), classifier.spec.resizing)[0] for f in find_image_files(folders)])


def make_report(rows: Sequence[Row]) -> Report:
    """Return a table of all rows; there are no limits to keep."""
    head = ("network", "images", "number", "refused", "AUROC", "refused by top probability", "its AUROC")
    cells = [
        (
            *(one.network, one.images, str(one.number), f"{one.refused:.1%}", _area(one.area)),
            *(f"{one.refused_by_top:.1%}", _area(one.area_by_top)),
        )
        for one in rows
    ]
    left_out = [one for one in rows if one.images == LEFT_OUT]
    if left_out:
        shares = (mean(one.refused for one in left_out), mean(one.refused_by_top for one in left_out))
        areas = [mean(filter(None, found)) for found in zip(*((r.area, r.area_by_top) for r in left_out), strict=True)]
        number = str(sum(one.number for one in left_out))
        cells.append(
            ("mean", LEFT_OUT, number, f"{shares[0]:.1%}", _area(areas[0]), f"{shares[1]:.1%}", _area(areas[1]))
        )
    summary = (
        f"An image is refused if its p-value is at most {THRESHOLD}. The top probability is given the threshold that "
        "refuses as many of the known images. AUROC: how often an unknown image is stranger than a known one."
    )
    return Report("Unknown images", summary, [Sheet("What is refused", head, cells)], list(_checks(rows)))


def _checks(rows: Sequence[Row]) -> Iterator[Check]:
    """Yield what a user relies on: few known images are refused."""
    for one in rows:
        if one.images == KNOWN:
            what = f"{one.network}: known images refused"
            yield Check(what, f"{one.refused:.1%}", "2% to 10%", 0.02 <= one.refused <= 0.10)


def _area(area: float | None) -> str:
    return "" if area is None else f"{area:.3f}"


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unknown", description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="NAME=TRAIN_FOLDER,APART_FOLDER")
    parser.add_argument("--strangers", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--leave-out", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--checkpoints", nargs="*", default=[], metavar="FILE=KNOWN_FOLDER,NAME,NAME")
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    for name in ("sets", "strangers", "checkpoints"):
        setattr(arguments, name, dict(one.split("=", 1) for one in getattr(arguments, name)))
    arguments.sets = {name: tuple(map(Path, folders.split(","))) for name, folders in arguments.sets.items()}
    arguments.strangers = {name: Path(folder) for name, folder in arguments.strangers.items()}
    arguments.checkpoints = {name: given.split(",") for name, given in arguments.checkpoints.items()}
    return arguments


if __name__ == "__main__":
    sys.exit(main())
