"""The straight path of a training run: data -> network -> fit -> checkpoint -> evaluation -> report.

Writes files, prints nothing: the command line shows what the callbacks tell it.
"""

import dataclasses
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model import checkpoint
from model.checkpoint import Checkpoint, Header
from model.errors import DataError
from model.images import ImageSpec
from model.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkConfig,
    build,
    count_multiply_adds,
    default_image_size,
    load_pretrained,
)
from training import data, loop, report
from training.config import TrainingConfig, default_batch_size, default_epochs, default_optimizer
from training.data import DataSet
from training.evaluation import Metrics, evaluate, infer
from training.loop import EpochResult, StepResult


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for; None takes the default for the network or the number of images."""

    source: str
    out: Path
    architecture: str = "torchlight"
    pretrained: bool = False
    image_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float = TrainingConfig.learning_rate
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    seed: int = 0
    skip_unreadable: bool = False


@dataclass(frozen=True)
class Observer:
    """What a run tells while it goes on."""

    on_image: Callable[[int, int], None] = lambda done, total: None
    on_data: Callable[[DataSet, TrainingConfig], None] = lambda dataset, config: None
    on_step: Callable[[StepResult], None] = lambda result: None
    on_epoch: Callable[[EpochResult], None] = lambda result: None


@dataclass(frozen=True)
class RunResult:
    """Where the best epoch's checkpoint is, and what it reaches on which held-out split."""

    checkpoint: Path
    best_epoch: int
    split: str
    metrics: Metrics


def train(options: RunOptions, device: torch.device, command: str, observer: Observer) -> RunResult:
    """Train, keep the best epoch by validation accuracy, evaluate it once, and write everything to ``options.out``.

    Writes ``checkpoint.safetensors``, ``metrics.jsonl``, ``curves.png``, ``confusion.png``. Nothing is written
    before the data is read and found good; an existing checkpoint is never overwritten.

    Args:
        command: the command line, kept in the checkpoint.

    Raises:
        DataError, NetworkError, TrainingDiverged: see there.
    """
    path = options.out / "checkpoint.safetensors"
    if path.exists():
        raise DataError(f"{path} exists already; choose another --out, so that nothing you trained is lost")
    size = options.image_size or default_image_size(options.architecture)
    dataset = data.load(
        options.source,
        size,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
        skip_unreadable=options.skip_unreadable,
        on_image=observer.on_image,
    )
    config = _configure(options, dataset)
    observer.on_data(dataset, config)

    torch.manual_seed(options.seed)
    network_config = NetworkConfig(options.architecture, len(dataset.class_names))
    network = build(network_config)
    if options.pretrained:
        load_pretrained(network, options.architecture)
        spec = ImageSpec(size, IMAGENET_MEAN, IMAGENET_STD)
    else:
        spec = ImageSpec(size, *data.statistics(dataset.splits["train"].images))
    network.to(device)
    header = Header(
        network=network_config,
        class_names=dataset.class_names,
        image_spec=spec,
        metrics={},
        training=dataclasses.asdict(config) | {"command": command, "device": device.type},
        data=_describe(options, dataset),
        versions=_versions(),
    )
    history = _fit(network, dataset, header, config, path, observer)
    return _finish(path, dataset, history, count_multiply_adds(network, size), device)


def held_out(
    trained: Checkpoint,
    source: str,
    *,
    skip_unreadable: bool = False,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[str, data.LabelledImages]:
    """Return what to evaluate a checkpoint on, and its name.

    If ``source`` is what it was trained on, only the images held out then; else the source's own test split, or all
    of its images.

    Raises:
        DataError: see :func:`training.data.load`.
    """
    known = trained.header.data
    load = partial(
        data.load,
        source,
        trained.header.image_spec.size,
        class_names=trained.header.class_names,
        skip_unreadable=skip_unreadable,
        on_image=on_image,
    )
    as_trained = load(
        val_fraction=known.get("val_fraction", 0.0),
        test_fraction=known.get("test_fraction", 0.0),
        seed=trained.header.training.get("seed", 0),
    )
    if as_trained.fingerprint == known.get("fingerprint"):
        name = _held_out_split(as_trained)
        return f"{name} (held out of its training data)", as_trained.splits[name]
    splits = load(val_fraction=0.0, test_fraction=0.0).splits
    if len(splits["test"]):
        return "test", splits["test"]
    images = torch.cat([part.images for part in splits.values()])
    labels = torch.cat([part.labels for part in splits.values()])
    return "all images", data.LabelledImages(images, labels)


def _configure(options: RunOptions, dataset: DataSet) -> TrainingConfig:
    number = len(dataset.splits["train"])
    if not len(dataset.splits["val"]):
        raise DataError(f"{options.source} leaves no image for validation; add images or raise --val-fraction")
    config = TrainingConfig(
        epochs=options.epochs or default_epochs(number),
        batch_size=options.batch_size or default_batch_size(number),
        optimizer=default_optimizer(options.architecture, options.pretrained),
        learning_rate=options.learning_rate,
        seed=options.seed,
    )
    if config.batch_size > number:
        raise DataError(f"{options.source} has {number} training images, fewer than one batch of {config.batch_size}")
    return config


def _fit(
    network: nn.Module, dataset: DataSet, header: Header, config: TrainingConfig, path: Path, observer: Observer
) -> list[EpochResult]:
    """Run all epochs, appending each to ``metrics.jsonl`` and saving each that is better than all before."""
    history: list[EpochResult] = []
    generator = torch.Generator().manual_seed(config.seed)
    train, val = dataset.splits["train"], dataset.splits["val"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / "metrics.jsonl").open("w") as log:
        for result in loop.fit(network, train, val, header.image_spec, config, generator, observer.on_step):
            print(json.dumps(dataclasses.asdict(result)), file=log, flush=True)
            if all(result.val_accuracy > earlier.val_accuracy for earlier in history):
                metrics = {
                    "best_epoch": result.epoch,
                    "val": {"accuracy": result.val_accuracy, "loss": result.val_loss},
                }
                checkpoint.save(path, network, dataclasses.replace(header, metrics=metrics))
            history.append(result)
            observer.on_epoch(result)
    return history


def _finish(
    path: Path, dataset: DataSet, history: list[EpochResult], multiply_adds: int, device: torch.device
) -> RunResult:
    """Evaluate the best epoch on images it never saw and write the figures."""
    best = checkpoint.load(path)
    split = _held_out_split(dataset)
    examples = dataset.splits[split]
    logits = infer(best.network.to(device), examples.images, best.header.image_spec)
    metrics = evaluate(logits, examples.labels, dataset.class_names)
    report.write(path.parent, history, metrics, split)
    seen = (
        len(history)
        * (len(dataset.splits["train"]) // best.header.training["batch_size"])
        * best.header.training["batch_size"]
    )
    header = dataclasses.replace(
        best.header,
        metrics={**best.header.metrics, split: _summary(metrics)},
        training={
            **best.header.training,
            "seconds": round(sum(result.seconds for result in history)),
            "multiply_adds_per_image": multiply_adds,
            "flops": 2 * 3 * multiply_adds * seen,  # forward, and about twice that backward
        },
    )
    checkpoint.save(path, best.network.cpu(), header)
    return RunResult(path, best.header.metrics["best_epoch"], split, metrics)


def _held_out_split(dataset: DataSet) -> str:
    return "test" if len(dataset.splits["test"]) else "val"


def _summary(metrics: Metrics) -> dict[str, Any]:
    return {
        "images": metrics.images,
        "accuracy": metrics.accuracy,
        "loss": metrics.loss,
        "recall": {one.label: one.recall for one in metrics.per_class},
    }


def _describe(options: RunOptions, dataset: DataSet) -> Mapping[str, Any]:
    return {
        "source": Path(options.source).name,
        "fingerprint": dataset.fingerprint,
        "images": {name: len(examples) for name, examples in dataset.splits.items()},
        "skipped": len(dataset.skipped),
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
        "trained_at": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("torchlight", "torch", "torchvision", "pillow", "safetensors")
    }
