"""The knobs of a training run, each default with its reason."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """What :func:`training.loop.fit` needs besides the network and the data; stored in the checkpoint.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step; the last incomplete batch of an epoch is left out.
        optimizer: ``sgd``, or ``muon`` for filters and ``sgd`` for the rest.
        learning_rate: of ``sgd``, for a batch of 512 images; scaled linearly to the batch size in use.
        muon_learning_rate: of ``muon``, at any batch size, since its steps have a fixed size.
        warmup: share of all steps in which the learning rates rise from 0 to their peak; then they fall to 0.
        momentum: of ``sgd``, with Nesterov's correction.
        weight_decay: with ``sgd`` alone; pulls filters and matrices to zero, leaves biases and batch norm.
        label_smoothing: share of the target that is spread over all classes.
        shift: images are moved by up to this many pixels in each direction, borders mirrored.
        flip: images are mirrored left-right every other epoch.
        seed: of the initial weights, the order of the images and the augmentation.
    """

    epochs: int
    batch_size: int
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    muon_learning_rate: float = 0.1  # 0.24 suits batches of 2,000; at 512 it ends 10 epochs at 88.4%, see docs/log.md
    warmup: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 2
    flip: bool = True
    seed: int = 0


def default_optimizer(architecture: str, pretrained: bool) -> str:
    """Return ``muon`` for the default network, whose convolutions are all followed by batch norm; else ``sgd``."""
    return "muon" if architecture == "torchlight" and not pretrained else "sgd"


def default_epochs(num_images: int) -> int:
    """Return enough epochs to see about 450,000 images: 10 for CIFAR-10; at most 60, which small sets get."""
    return max(10, min(60, 450_000 // num_images))


def default_batch_size(num_images: int) -> int:
    """Return the batch that gives at least 16 steps an epoch: at most 512, at least 8."""
    return max(8, min(512, num_images // 16))
