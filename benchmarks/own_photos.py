"""How right ``torchlight train FOLDER`` is on people's own photos, and how long it takes, by photos a class.

    python -m benchmarks.own_photos NAME=TRAIN_FOLDER,APART_FOLDER... [--each 5 10 20 50 all] [--seeds 3]
        [--only default] [--rows runs/own-photos.jsonl] [--markdown docs/own-photos-results.md]
        [--picture docs/pictures/own-photos.svg]

Each run is a real process, in an empty folder and with empty caches: the command without options, with those of each
candidate alone, and the plain baseline, scikit-learn's logistic regression on frozen features of two backbones. The
run's seed draws the photos of each class that it learns from, and from the second one on is its ``--seed`` too. Its
seconds are those from the command to its end, report included.

Accuracy and calibration error are measured on the photos apart, which no run sees. Beside the error stands what chance
makes: the mean error of as many photos whose answers are right exactly as often as the probabilities say.

A row is written after each run, and runs that have one are not repeated: the same command resumes.
"""

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from benchmarks.logistic_regression import Floats, compute_features, list_photos
from benchmarks.own_photos_report import ALL, BASELINE, DEFAULT, Row, draw_picture, make_report
from stress.load.report import finish
from torchlight.model.checkpoint import load_checkpoint
from torchlight.training.data.loading import load_dataset
from torchlight.training.evaluation.calibration import expected_calibration_error
from torchlight.training.evaluation.classification_metrics import infer

ROOT = Path(__file__).parents[1]
TRAIN = ("torchlight", "train", "photos")
REGRESSION = ("benchmarks.logistic_regression", "photos", "head.npz")
# What is compared -> the command that learns from the folder ``photos``.
COMMANDS = {
    DEFAULT: TRAIN,
    "heads alone, lite0": (*TRAIN, "--architecture", "efficientnet_lite0", "--pretrained", "--budget", "0s"),
    "heads alone, lite2": (*TRAIN, "--architecture", "efficientnet_lite2", "--pretrained", "--budget", "0s"),
    "fine-tuned, lite0": (*TRAIN, "--architecture", "efficientnet_lite0", "--pretrained", "--epochs", "10"),
    "from nothing": (*TRAIN, "--from-scratch"),
    f"{BASELINE}, lite0": (*REGRESSION, "efficientnet_lite0"),
    f"{BASELINE}, lite2": (*REGRESSION, "efficientnet_lite2"),
}
TRAINED = [way for way, command in COMMANDS.items() if command[: len(TRAIN)] == TRAIN]
EACH = (5, 10, 20, 50, ALL)
REFUSED = 1  # exit code of the command, for photos that it cannot learn from
KIBIBYTE = 1024  # the unit of ru_maxrss on Linux
DRAWS = 1000  # sets of answers that show what chance makes


@dataclass(frozen=True)
class PhotoSet:
    """Photos to learn from and photos apart, both as class folders."""

    name: str
    train: Path
    apart: Path


@dataclass(frozen=True)
class Run:
    """What a process took, and the sentence that sums it up."""

    exit_code: int
    seconds: float
    usage: resource.struct_rusage
    says: str


def main() -> int:
    """Measure what has no row yet, and report all rows of the sets."""
    arguments = _read_arguments()
    sets, console = arguments.sets, Console()
    rows = read_rows(arguments.rows)
    wanted = [
        (photos, way, each, seed)
        for photos in sets
        for each in arguments.each
        for seed in range(arguments.seeds)
        for way in arguments.only
        if (photos.name, way, each, seed) not in rows
    ]
    arguments.rows.parent.mkdir(parents=True, exist_ok=True)
    # Linux counts the memory of this process to that of its children, so what needs much is done by another one.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as answering:
        for photos, way, each, seed in track(wanted, "measuring", console=console):
            row = measure_run(photos, way, each, seed, answering)
            rows[row.key] = row
            with arguments.rows.open("a") as lines:
                lines.write(json.dumps(asdict(row)) + "\n")
    names = [photos.name for photos in sets]
    chosen = [row for row in rows.values() if row.set in names]
    if arguments.picture is not None:
        draw_picture(chosen, arguments.picture)
    command = "python -m benchmarks.own_photos " + " ".join(f"{name}=..." for name in names)
    return finish(make_report(chosen), console, command, arguments.markdown, arguments.picture)


def read_rows(path: Path) -> dict[tuple[str, str, int, int], Row]:
    """Return the rows that an earlier run left."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [Row(**json.loads(line)) for line in lines]
    return {row.key: row for row in rows}


def measure_run(photos: PhotoSet, way: str, each: int, seed: int, answering: Executor) -> Row:
    """Learn from some photos of each class in a process of its own, and measure that on all photos apart."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        number = draw_photos(photos.train, folder / "photos", each, seed)
        run = run_command([*COMMANDS[way], *(["--seed", str(seed)] if seed and way in TRAINED else [])], folder)
        figures: Mapping[str, float | None] = dict.fromkeys(("accuracy", "calibration_error", "by_chance"))
        if run.exit_code == 0:
            figures = answering.submit(_measure_answers_of, way, folder, photos.apart).result()
        return Row(
            set=photos.name,
            way=way,
            each=each,
            seed=seed,
            photos=number,
            seconds=run.seconds,
            cpu_seconds=run.usage.ru_utime + run.usage.ru_stime,
            memory_bytes=run.usage.ru_maxrss * KIBIBYTE,
            says=run.says,
            **figures,
        )


def draw_photos(source: Path, folder: Path, each: int, seed: int) -> int:
    """Copy ``each`` photos of every class, drawn by the seed, and return how many that are."""
    number = 0
    for class_folder in sorted(path for path in source.iterdir() if path.is_dir()):
        found = sorted(class_folder.iterdir())
        chosen = random.Random(seed).sample(found, min(each, len(found)) if each != ALL else len(found))
        (folder / class_folder.name).mkdir(parents=True)
        for photo in chosen:
            shutil.copy(photo, folder / class_folder.name)
        number += len(chosen)
    return number


def measure_answers(probabilities: Tensor, labels: Tensor) -> dict[str, float | None]:
    """Return accuracy, calibration error, and the error that chance makes of probabilities (N, K) that are true."""
    confidence = probabilities.double().max(1).values
    generator = torch.Generator().manual_seed(0)
    by_chance = []
    for _ in range(DRAWS):  # class 0 is right, class 1 is not
        is_wrong = torch.rand(len(labels), generator=generator, dtype=torch.float64) >= confidence
        by_chance.append(expected_calibration_error(torch.stack([confidence, 0 * confidence], 1), is_wrong.long()))
    return {
        "accuracy": (probabilities.argmax(1) == labels).double().mean().item(),
        "calibration_error": expected_calibration_error(probabilities, labels),
        "by_chance": float(np.mean(by_chance)),
    }


def run_command(program: Sequence[str], folder: Path) -> Run:
    """Run a Python module with its arguments in a folder, which is its home too.

    Raises:
        RuntimeError: it ended otherwise than with success or a refusal.
    """
    command = [sys.executable, "-m", *program]
    environment = os.environ | {
        "HOME": str(folder),  # where nothing is cached
        "MPLCONFIGDIR": matplotlib.get_configdir(),  # but the list of fonts, made once on a machine
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    started = time.perf_counter()
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # what this one process used
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    told = [line for line in text.splitlines() if line.startswith(("The network ", "torchlight:"))]
    is_refusal = process.returncode == REFUSED and any(line.startswith("torchlight:") for line in told)
    if process.returncode and not is_refusal:  # a traceback ends with 1 too
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {text}")
    return Run(process.returncode, seconds, usage, told[-1] if told else "")


def _measure_answers_of(way: str, folder: Path, apart: Path) -> dict[str, float | None]:
    return measure_answers(*_answer(way, folder, apart))


def _answer(way: str, folder: Path, apart: Path) -> tuple[Tensor, Tensor]:
    """Return the probabilities (N, K) that a run gives to the photos apart, and their labels (N,)."""
    if way not in TRAINED:
        features, labels = _read_apart(apart, COMMANDS[way][-1])
        head = np.load(folder / "head.npz")
        return torch.from_numpy(features @ head["weight"].T + head["bias"]).softmax(1), torch.from_numpy(labels)
    checkpoint = load_checkpoint(folder / "runs" / "photos" / "checkpoint.safetensors")
    header = checkpoint.header
    examples = load_dataset(
        str(apart), header.image_spec.resizing, val_fraction=0, test_fraction=0, class_names=header.class_names
    ).splits["train"]
    return infer(checkpoint.network, examples.images, header.image_spec).softmax(1), examples.labels


@cache
def _read_apart(apart: Path, architecture: str) -> tuple[Floats, NDArray[np.int64]]:
    """Return the features of the photos apart and their labels, computed once."""
    photos, labels = list_photos(apart)
    return compute_features(photos, architecture), labels


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=_photo_set, metavar="NAME=TRAIN_FOLDER,APART_FOLDER")
    parser.add_argument("--each", nargs="+", type=lambda text: ALL if text == "all" else int(text), default=EACH)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), metavar="WAY")
    parser.add_argument("--rows", type=Path, default=ROOT / "runs" / "own-photos.jsonl")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


def _photo_set(named: str) -> PhotoSet:
    """Return what ``NAME=TRAIN_FOLDER,APART_FOLDER`` names.

    Raises:
        argparse.ArgumentTypeError: it is something else, or a folder is missing.
    """
    name, _, folders = named.partition("=")
    train, _, apart = folders.partition(",")
    if not (name and train and apart and Path(train).is_dir() and Path(apart).is_dir()):
        raise argparse.ArgumentTypeError(f"{named!r} is not NAME=TRAIN_FOLDER,APART_FOLDER with two folders of photos")
    return PhotoSet(name, Path(train), Path(apart))


if __name__ == "__main__":
    sys.exit(main())
