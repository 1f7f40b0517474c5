"""Which learning rate suits a network and its images: the range test, its figure, and what it suggests.

The rate rises exponentially, from one that changes nothing to one that breaks everything, while the network learns. It
is the rate of plain gradient descent: Muon's steps have a fixed size, so the loss says little about its rate.

Source: Smith: Cyclical Learning Rates for Training Neural Networks, 2017.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchlight.model.errors import TorchlightError
from torchlight.training.data.loading import LabelledImages
from torchlight.training.optimisation.loop import StepResult, Training, TrainingDiverged
from torchlight.training.report.charts import TRAIN, VAL
from torchlight.training.run_setup import Setup

LOWEST, HIGHEST = 1e-5, 10.0  # of the updates themselves, whatever the batch
STEPS = 100
BEGINNING = 10  # steps whose rates are too low to matter; the loss before any learning is their mean
WIDTH = 2.5  # standard deviation of the smoothing, in steps: a seventh of a factor of ten
MIN_DROP = 0.03  # share of the first loss that it must fall by, to tell learning from noise
REGIONS = (("too low", "#8a8f98"), ("right", "#0b6e99"), ("too high", "#c2571a"))


class NothingLearnt(TorchlightError):
    """The loss falls at no learning rate."""


class _Finished(Exception):
    """Ends the test: the loss has exploded, or all steps are done."""


class _RangeTest(Training):
    """Training at rates that rise by equal factors, whatever the config's schedule."""

    def rate_factor(self, step: int) -> float:
        return rate_factor(step)


@dataclass(frozen=True)
class Advice:
    """What the losses say: in units of the rates that they were measured at.

    Attributes:
        low: below it, next to nothing is learnt.
        high: above it, the loss rises again.
        suggestion: where the loss falls fastest.
    """

    low: float
    high: float
    suggestion: float


def measure(setup: Setup, on_step: Callable[[StepResult], None] = lambda _: None) -> tuple[list[float], list[float]]:
    """Train the network of ``setup`` at rising rates until the loss explodes, for at most ``STEPS`` steps.

    All layers learn, by gradient descent with the config's momentum and weight decay.

    Returns:
        Rates as ``--learning-rate`` counts them, for a batch of 512, and the loss of each step before its update.
    """
    train, batch_size = setup.dataset.splits["train"], setup.config.batch_size
    highest = HIGHEST * 512 / batch_size
    epochs = math.ceil(STEPS / (len(train) // batch_size))
    config = replace(setup.config, epochs=epochs, optimizer="sgd", learning_rate=highest, frozen_epochs=0)
    training = _RangeTest(setup.network, train, setup.spec, config, class_weights=setup.class_weights)
    losses: list[float] = []

    def watch(result: StepResult) -> None:
        losses.append(result.loss)
        on_step(result)
        if len(losses) == STEPS or has_exploded(losses):
            raise _Finished

    unwatched = LabelledImages(train.images[:1], train.labels[:1])  # validation plays no part
    with suppress(_Finished, TrainingDiverged):
        deque(training.epochs(unwatched, watch), maxlen=0)
    return [highest * rate_factor(step) for step in range(len(losses))], losses


def rate_factor(step: int) -> float:
    """Return the share of ``HIGHEST`` at a step: equal factors from step to step."""
    return float((LOWEST / HIGHEST) ** (1 - step / (STEPS - 1)))


def smooth(losses: Sequence[float]) -> Tensor:
    """Return (n,) float64 means of the losses around each step, weighted by a bell curve: they lag behind nothing."""
    steps = torch.arange(len(losses), dtype=torch.float64)
    weights = torch.exp(-((steps[:, None] - steps) ** 2) / (2 * WIDTH**2))
    return weights @ torch.tensor(losses, dtype=torch.float64) / weights.sum(1)


def has_exploded(losses: Sequence[float]) -> bool:
    """Return whether the smoothed loss is over four times its minimum, and worse than before any learning."""
    smoothed = smooth(losses)
    return bool(smoothed[-1] > 4 * smoothed.min() and smoothed[-1] > smoothed[:BEGINNING].mean())


def advise(rates: Sequence[float], losses: Sequence[float]) -> Advice:
    """Divide the rates into too low, right and too high, and choose one.

    Right begins where a tenth of the fall to the lowest smoothed loss is done, and ends at the lowest.

    Raises:
        NothingLearnt: the loss does not fall.
    """
    smoothed = smooth(losses)
    bottom, start = int(smoothed.argmin()), smoothed[:BEGINNING].mean()
    drop = start - smoothed[bottom]
    if drop < MIN_DROP * start or bottom < BEGINNING:
        raise NothingLearnt(
            f"the loss, {start:.3g} at first, falls at no learning rate between {rates[0]:.2g} and {rates[-1]:.2g}; "
            "look at the images and their labels, or try another --batch-size or --architecture"
        )
    low = int((smoothed[:bottom] > start - 0.1 * drop).nonzero().max())
    slopes = smoothed[2:] - smoothed[:-2]  # of steps 1, 2, ...
    steepest = low + int(slopes[low - 1 : bottom].argmin())
    return Advice(rates[low], rates[bottom], rates[steepest])


def draw(rates: Sequence[float], losses: Sequence[float], advice: Advice) -> Figure:
    """Return the losses against the rates on a logarithmic axis, the three regions shaded, the suggestion marked."""
    figure = Figure(figsize=(9, 4.6), layout="constrained")
    axes = figure.subplots()
    smoothed = smooth(losses)
    bounds = [rates[0], advice.low, advice.high, max(rates[-1], advice.high * 2)]
    _set_limits(axes, losses, smoothed, bounds)
    for (name, colour), left, right in zip(REGIONS, bounds, bounds[1:], strict=False):
        axes.axvspan(left, right, color=colour, alpha=0.13, linewidth=0)
        middle = math.sqrt(left * right)
        axes.text(middle, 1.02, name, transform=axes.get_xaxis_transform(), ha="center", color=colour, weight="bold")
    axes.plot(rates, losses, ".", color=TRAIN, markersize=4, alpha=0.7, label="each step")
    axes.plot(rates, smoothed, color=VAL, linewidth=2, label="smoothed")
    chosen = list(rates).index(advice.suggestion)
    axes.axvline(advice.suggestion, color=VAL, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(advice.suggestion, smoothed[chosen], "o", color=VAL, markersize=9)
    note = f"suggested: {advice.suggestion:.2g} "
    axes.text(advice.suggestion, 0.04, note, transform=axes.get_xaxis_transform(), ha="right", color=VAL)
    axes.set_title("Loss while the learning rate rises", pad=24)
    axes.set(xlabel="learning rate, for a batch of 512", ylabel="loss")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left")
    return figure


def _set_limits(axes: Axes, losses: Sequence[float], smoothed: Tensor, bounds: Sequence[float]) -> None:
    """Show the whole fall and the beginning of the explosion."""
    top, bottom = float(smoothed[:BEGINNING].max()), min(losses)
    axes.set_xscale("log")
    axes.set_xlim(bounds[0], bounds[-1])
    axes.set_ylim(max(0, bottom - 0.25 * (top - bottom)), top + 0.4 * (top - bottom))
