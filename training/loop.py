"""The guide's four steps, over and over: forward pass, loss, backward pass, weight update.

No files, no prints: :func:`fit` yields what happened, its caller decides what to keep and what to show.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from model.errors import TorchlightError
from model.images import ImageSpec, normalise
from training.augmentation import alternating_flip, random_shift
from training.config import TrainingConfig
from training.data import LabelledImages
from training.evaluation import infer
from training.optimizer import build_optimizer


class TrainingDiverged(TorchlightError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class StepResult:
    """One weight update: its place in the run, and loss and accuracy of its batch before the update."""

    step: int
    steps_per_epoch: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class EpochResult:
    """One pass over the training images.

    ``train_loss`` and ``train_accuracy`` are means over the batches as they were trained on (augmented, weights still
    moving); ``val_loss`` is plain cross-entropy.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float


def fit(
    network: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    spec: ImageSpec,
    config: TrainingConfig,
    generator: torch.Generator,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> Iterator[EpochResult]:
    """Train ``network`` in place, on the device it is on, yielding after each epoch.

    Args:
        network: in any mode; in evaluation mode at every yield.
        train: at least ``config.batch_size`` images.
        generator: on the CPU; the only source of randomness, so equal seeds give equal weights on one machine.
        on_step: called after each weight update.

    Raises:
        TrainingDiverged: the loss became infinite or not a number.
    """
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)
    steps_per_epoch = len(train) // config.batch_size
    optimizer = build_optimizer(network, config)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, config.epochs * steps_per_epoch, config.warmup)
    )
    starts_mirrored = torch.rand(len(train), generator=generator) < 0.5
    for epoch in range(config.epochs):
        started = time.perf_counter()
        network.train()
        order = torch.randperm(len(train), generator=generator)
        losses, accuracies = [], []
        for step in range(steps_per_epoch):
            chosen = order[step * config.batch_size : (step + 1) * config.batch_size]
            images = normalise(train.images[chosen].to(device), spec)
            images = random_shift(images, config.shift, generator)
            if config.flip:
                images = alternating_flip(images, starts_mirrored[chosen].to(device), epoch)
            labels = train.labels[chosen].to(device)

            logits = network(images.contiguous(memory_format=torch.channels_last))  # forward pass
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            if not torch.isfinite(loss):
                raise TrainingDiverged(
                    f"loss is {loss.item()} at epoch {epoch + 1}, step {step + 1}; "
                    f"lower the learning rate (it is {schedule.get_last_lr()[0]:.3g})"
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # backward pass
            optimizer.step()  # weight update
            schedule.step()

            losses.append(loss.item())
            accuracies.append((logits.argmax(1) == labels).float().mean().item())
            on_step(StepResult(epoch * steps_per_epoch + step + 1, steps_per_epoch, losses[-1], accuracies[-1]))
        network.eval()
        logits = infer(network, val.images, spec)
        yield EpochResult(
            epoch=epoch + 1,
            train_loss=sum(losses) / len(losses),
            train_accuracy=sum(accuracies) / len(accuracies),
            val_loss=F.cross_entropy(logits, val.labels).item(),
            val_accuracy=(logits.argmax(1) == val.labels).float().mean().item(),
            learning_rate=float(schedule.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
        )


def learning_rate_factor(step: int, total_steps: int, warmup: float) -> float:
    """Return the share of the peak learning rate at ``step``: a straight line up for ``warmup``, then down to 0."""
    progress = (step + 1) / (total_steps + 1)
    return min(progress / warmup if warmup > 0 else 1.0, (1 - progress) / (1 - warmup))
