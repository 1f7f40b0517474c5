"""What the user asked for -> everything a training starts from: data, configuration, network.

Writes nothing but the cache of decoded images and the data sets that it fetches.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint, load_checkpoint
from torchlight.model.errors import DataError, TorchlightError
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    check_image_size,
    default_image_size,
    load_pretrained,
    published_image_spec,
    read_pretrained,
)
from torchlight.training.config import (
    HELD_OUT,
    RunOptions,
    TrainingConfig,
    default_batch_size,
    default_epochs,
    default_optimizer,
)
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet
from torchlight.training.optimisation.initialisation import whiten_first_layer
from torchlight.training.optimisation.loop import EpochResult, StepResult, best_precision


class RunStopped(TorchlightError):
    """A run ended before its end; what it has done is kept."""


@dataclass(frozen=True, kw_only=True)
class Observer:
    """What a run reports while it learns, and asks.

    ``on_data`` gets no configuration where the photos choose how to learn; ``on_stage`` gets what is being done, how
    much of it is, and how much there is.
    """

    on_image: Callable[[int, int], None] = lambda done, total: None
    on_data: Callable[[DataSet, TrainingConfig | None], None] = lambda dataset, config: None
    on_stage: Callable[[str, int, int], None] = lambda name, done, total: None
    on_note: Callable[[str], None] = lambda sentence: None
    on_step: Callable[[StepResult], None] = lambda result: None
    on_epoch: Callable[[EpochResult], None] = lambda result: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What training starts from.

    Attributes:
        network: with first weights: random, whitened, published or those of a checkpoint; on the device.
        class_weights: see :class:`training.optimisation.loop.Training`.
        start: the checkpoint that the weights are from, if any.
    """

    dataset: DataSet
    config: TrainingConfig
    network_config: NetworkConfig
    network: nn.Module
    spec: ImageSpec
    class_weights: Tensor | None
    start: Checkpoint | None


def set_up(options: RunOptions, device: torch.device, observer: Observer, num_processes: int = 1) -> Setup:
    """Read the data, settle what the user left open, and build the network.

    Raises:
        CheckpointError: ``start_from`` cannot be loaded.
        DataError, NetworkError: see there.
    """
    start = None if options.start_from is None else load_checkpoint(options.start_from)
    if start is not None:
        known = start.header
        options = dataclasses.replace(
            options, architecture=known.network.architecture, image_size=known.image_spec.size
        )
    size = options.image_size or default_image_size(options.loop_architecture)
    check_image_size(options.loop_architecture, size)
    if options.pretrained:
        read_pretrained(options.loop_architecture)  # if they are out of reach, that is said before minutes of decoding
    known_spec = _known_image_spec(options, start, size)
    dataset = loading.load_dataset(
        options.source,
        Resizing(size) if known_spec is None else known_spec.resizing,
        val_fraction=held_out_share(options.val_fraction),
        test_fraction=held_out_share(options.test_fraction),
        seed=options.seed,
        skip_unreadable=options.skip_unreadable,
        corrections=options.corrections,
        on_image=observer.on_image,
    )
    config = _configure(options, dataset, size, device, num_processes)
    observer.on_data(dataset, config)

    torch.manual_seed(config.seed)  # of the initial weights
    train = dataset.splits["train"]
    network_config = NetworkConfig(options.loop_architecture, len(dataset.class_names))
    network = build_network(network_config)
    if options.pretrained:
        load_pretrained(network, options.loop_architecture)
    elif start is not None:
        _check_classes(start, dataset)
        network.load_state_dict(start.network.state_dict())
    spec = known_spec or ImageSpec(size, *loading.statistics(train.images))
    if config.whitening:
        whiten_first_layer(network, train.images, spec)
    return Setup(
        dataset=dataset,
        config=config,
        network_config=network_config,
        network=network.to(device),
        spec=spec,
        class_weights=loading.class_weights(train.labels, network_config.num_classes) if config.balance else None,
        start=start,
    )


def describe_data(options: RunOptions, dataset: DataSet, val_fraction: float, test_fraction: float) -> dict[str, Any]:
    """Return what a run's checkpoint says of the images, see ``Header.data``."""
    described: dict[str, Any] = {
        "source": Path(options.source).name,
        "fingerprint": dataset.fingerprint,
        "images": {name: len(part) for name, part in dataset.splits.items()},
        "skipped": len(dataset.skipped),
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "trained_at": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    if dataset.corrections:
        described["corrections"] = dict(dataset.corrections)
    return described


def held_out_share(given: float | None) -> float:
    """Return the share of each class that a training loop holds out for a split."""
    return HELD_OUT if given is None else given


def _known_image_spec(options: RunOptions, start: Checkpoint | None, size: int) -> ImageSpec | None:
    """Return how the first weights expect images; None if they are random."""
    if options.pretrained:
        return published_image_spec(options.loop_architecture, size)
    return None if start is None else start.header.image_spec


def _configure(
    options: RunOptions, dataset: DataSet, size: int, device: torch.device, num_processes: int
) -> TrainingConfig:
    """Return the configuration, what the user left open following from network and data."""
    number = len(dataset.splits["train"])
    if not len(dataset.splits["val"]):
        raise DataError(f"{options.source} leaves no image for validation; add images or raise --val-fraction")
    if not number:
        raise DataError(f"{options.source} leaves 0 training images; lower --val-fraction and --test-fraction")
    defaults: dict[str, Any] = {
        "epochs": default_epochs(number),
        "batch_size": default_batch_size(number, num_processes),
        "optimizer": default_optimizer(options.loop_architecture, options.pretrained),
        "whitening": options.loop_architecture == "torchlight"
        and not options.pretrained
        and options.start_from is None,
        "frozen_epochs": 1 if options.pretrained else 0,  # a new head's first gradients would spoil learned filters
        "shift": size // 8,  # 4 of 32 pixels
        "cutout": size // 4,  # 8 of 32 pixels
        "precision": best_precision(device),
    }
    config = TrainingConfig(**(defaults | dict(options.settings)))
    if config.batch_size > number:
        raise DataError(f"{options.source} has {number} training images, fewer than one batch of {config.batch_size}")
    if config.batch_size % num_processes:
        lower = config.batch_size // num_processes * num_processes
        raise DataError(
            f"a batch of {config.batch_size} images cannot be divided equally among {num_processes} processes; "
            f"pass --batch-size {lower or num_processes}"
        )
    return config


def _check_classes(start: Checkpoint, dataset: DataSet) -> None:
    if start.header.class_names != dataset.class_names:
        known, found = (", ".join(names[:10]) for names in (start.header.class_names, dataset.class_names))
        raise DataError(f"{start.path} knows the classes {known}; the images are of {found}; both must be the same")
