"""The hyperparameters of a training run, and the options that the user gave. Comments tell what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

HELD_OUT = 0.1  # share of each class, for validation and again for testing
DEFAULT_ARCHITECTURE = "torchlight"
FEW_PHOTOS = 250
BACKBONES = {f"efficientnet_lite{k}" for k in range(3)}  # whose features can be taken as they are

Optimizer = Literal["sgd", "muon"]
Loss = Literal["cross_entropy", "mse"]
Schedule = Literal["linear", "constant"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainingConfig:
    """What :class:`training.optimisation.loop.Training` needs besides the data; stored in the checkpoint.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, over all processes; the last incomplete batch of an epoch is left out.
        optimizer: ``sgd``, or ``muon`` for filters and ``sgd`` for the rest.
        learning_rate: of ``sgd``, for a batch of 512 images; scaled linearly to the batch size in use.
        muon_learning_rate: of ``muon``, at any batch size, since its steps have a fixed size.
        schedule: both rise over ``warmup``; then ``linear`` falls towards 0, and ``constant`` stays, as in the guide.
        warmup: share of all steps in which the learning rates rise from 0 to their peak.
        momentum: of ``sgd``, with Nesterov's correction; 0 is the guide's w = w - learning_rate * dL/dw.
        weight_decay: with ``sgd`` alone; pulls filters and matrices to zero, leaves biases and batch norm.
        loss: ``cross_entropy`` with ``label_smoothing``, or ``mse``: half the squared error of the probabilities.
        label_smoothing: share of the target that is spread over all classes.
        balance: weight each class by the inverse of its number of images.
        whitening: start the first layer from the patterns that patches of the training images are made of.
        frozen_epochs: the first epochs in which only the last layer learns, for pretrained networks.
        shift: images are moved by up to this many pixels in each direction, borders mirrored.
        cutout: a square of this side, in pixels, is hidden in each image at a random place; 0 hides nothing.
        flip: images are mirrored left-right every other epoch.
        precision: of the forward and backward pass; weights and updates are float32.
        seed: of the split, the initial weights, the order of the images, the augmentation and dropout.
    """

    epochs: int
    batch_size: int
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.1
    muon_learning_rate: float = 0.1  # 0.24 suits batches of 2,000; at 512 it ends 10 epochs at 88.4%, see docs/log.md
    schedule: Schedule = "linear"
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss: Loss = "cross_entropy"
    label_smoothing: float = 0.1
    balance: bool = False
    whitening: bool = False
    frozen_epochs: int = 0
    shift: int = 4  # of 32 pixels; with 2 it overfits: 96.5% on training images, 89.1% on others, see docs/log.md
    cutout: int = 0
    flip: bool = True
    precision: Precision = "float32"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user asked for.

    Attributes:
        architecture: None lets the photos choose how to learn, and is the default network in a training loop.
        pretrained: start from published weights.
        from_scratch: learn from nothing, in a training loop.
        budget_s: seconds in which ways to learn are tried; None takes :func:`default_budget_s`.
        image_size: None takes the network's own.
        val_fraction, test_fraction: None is ``HELD_OUT`` in a training loop. Where the photos choose, validation needs
            none, and for testing only what is asked for is held out.
        start_from: a checkpoint whose weights to start from; architecture, image size and classes are its own.
        corrections: a CSV file of decisions about single photos, as ``torchlight check`` writes it.
        keep_mistakes: write the held-out photos that were answered wrongly beside the checkpoint.
        resume: continue the run in ``out``, if there is one.
        settings: fields of :class:`TrainingConfig`; those left out follow from network and data.
    """

    source: str
    out: Path
    architecture: str | None = None
    pretrained: bool = False
    from_scratch: bool = False
    budget_s: float | None = None
    image_size: int | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    skip_unreadable: bool = False
    corrections: Path | None = None
    keep_mistakes: bool = False
    resume: bool = False
    start_from: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed in ``settings``, or its default."""
        seed: int = self.settings.get("seed", TrainingConfig.seed)
        return seed

    @property
    def loop_architecture(self) -> str:
        """The network that a training loop trains."""
        return self.architecture or DEFAULT_ARCHITECTURE

    @property
    def asks_for_loop(self) -> bool:
        """Whether an option was given that only a training loop knows, or a network that only it can train."""
        loop_options = (self.from_scratch, self.start_from, self.image_size, self.val_fraction)
        is_other_network = self.architecture is not None and not (self.pretrained and self.architecture in BACKBONES)
        return (
            any(option not in (None, False) for option in loop_options)
            or is_other_network
            or any(name != "seed" for name in self.settings)
        )


def default_budget_s(num_photos: int) -> float:
    """Return 10 seconds for few photos, where heads on frozen features are hard to beat, and 2 minutes for more."""
    return 10.0 if num_photos <= FEW_PHOTOS else 120.0


def default_optimizer(architecture: str, pretrained: bool) -> Optimizer:
    """Return ``muon`` for the default network, whose convolutions are all followed by batch norm; else ``sgd``."""
    return "muon" if architecture == "torchlight" and not pretrained else "sgd"


def default_epochs(num_images: int) -> int:
    """Return enough epochs to see about 450,000 images, but 10 (as for CIFAR-10) to 60 (for small sets)."""
    return max(10, min(60, 450_000 // max(1, num_images)))


def default_batch_size(num_images: int, num_processes: int = 1) -> int:
    """Return a batch of 8 to 512 images, in equal parts for all processes.

    An epoch of 128 images or more then has at least 16 steps.
    """
    size = max(8, min(512, num_images // 16))
    return max(num_processes, size - size % num_processes)
