"""Networks that are trained by gradient descent, tried against the heads on frozen features while there is time.

One fold is trained first. A network that is not better there than the heads are on the same photos is given up; else
more folds are judged as long as the final network, which learns from all photos, can still be trained.
"""

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchlight.model.images import ImageSpec
from torchlight.model.network import count_multiply_adds, embedding_size
from torchlight.training.config import TrainingConfig
from torchlight.training.data.loading import LabelledImages
from torchlight.training.evaluation.calibration import divide_crosswise, divide_logits, fit_temperature
from torchlight.training.evaluation.classification_metrics import infer_with_embeddings
from torchlight.training.evaluation.cross_validation import CandidateResult
from torchlight.training.evaluation.fit_novelty import MAX_LEARNT, distances_apart, spread_evenly
from torchlight.training.optimisation.loop import StepResult, Training, TrainingDiverged
from torchlight.training.transfer.folds import FOLDS

PROBE_STEPS = 4  # timed to foresee how long a training takes; the first one, which is slower, does not count
FASTEST = {
    "cpu": 1e12
}  # floating-point operations a second: more is not to be hoped for, so no time is spent on trying
FASTEST_ACCELERATOR = 1e14
SAFETY = 0.8  # of the time that is left is planned: machines that do other things too are slower than foreseen
GRACE = 0.4  # of the time, on top of it: what is known to be better is not lost because a machine has become slower
LEAST_EPOCHS = 10  # fewer are not worth a try, unless the recipe has fewer itself


class _Enough(Exception):
    """Ends the timing of a training."""


class _OutOfTime(Exception):
    """Ends a training that takes longer than foreseen."""


@dataclass(frozen=True)
class Clock:
    """When a candidate's turn began and when it ends, by ``time.monotonic``."""

    began: float
    deadline: float

    @property
    def latest(self) -> float:
        """When the training of a network that is known to be better ends at the latest."""
        return self.deadline + GRACE * (self.deadline - self.began)

    def has_time_for(self, trainings: int, each_s: float) -> bool:
        """Return whether so many more end in time."""
        return time.monotonic() + trainings * each_s < self.deadline


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained.

    Attributes:
        name: for the report.
        architecture: of the network.
        spec: how photos become its input.
        photos: all that are learnt from, decoded by ``spec``.
        config: of the loop; of its epochs as many are run as there is time for.
        build: returns the network that a training starts from, given the photos that it may see, (N,) bool.
    """

    name: str
    architecture: str
    spec: ImageSpec
    photos: LabelledImages
    config: TrainingConfig
    build: Callable[[Tensor], nn.Module]


@dataclass(frozen=True)
class Trained:
    """A network that was better than the heads.

    Attributes:
        network: learnt from all photos, its logits divided by the temperature.
        embeddings: (N, D) of all photos by that network.
        judged: (N,) bool, the photos of the folds that there was time for.
        held_out_logits, undivided_logits: (M, K) of those, with and without a temperature that they had no part in.
        distances: (M, K) of those to each class, by embeddings of networks that did not learn from them.
    """

    recipe: Recipe
    network: nn.Module
    embeddings: Tensor
    judged: Tensor
    held_out_logits: Tensor
    undivided_logits: Tensor
    distances: Tensor
    temperature: float


def try_training(
    recipe: Recipe,
    folds: Tensor,
    rival: Tensor,
    deadline: float,
    device: torch.device,
    on_step: Callable[[int, int], None],
) -> tuple[CandidateResult, Trained | None]:
    """Train a network on some folds, and on everything if it is right more often than its rival.

    Args:
        folds: (N,) int64.
        rival: (N, K) logits of the heads, each photo's by heads that did not learn from it.
        deadline: by ``time.monotonic``; no training is begun that would end after it, but one that has become slower
            meanwhile may, if its network is known to be better.
        on_step: called with the steps done and the steps of the training under way.

    Returns:
        What to say of it, and the network if it won.
    """
    began = time.monotonic()
    fewest = len(folds) - int(folds[folds >= 0].bincount().max())  # photos that a fold's network learns from
    if fewest < recipe.config.batch_size:
        return without_figures(
            recipe.name, f"not tried: a fold leaves {fewest} photos, fewer than a batch of {recipe.config.batch_size}"
        ), None
    least = min(LEAST_EPOCHS, recipe.config.epochs)
    limit_s = (deadline - began) / (2 * least)
    try:
        seconds_per_epoch = _foresee_epoch(recipe, device)
        if seconds_per_epoch < limit_s:
            seconds_per_epoch = _time_epoch(recipe, device, limit_s)
        epochs = min(recipe.config.epochs, int(SAFETY * (deadline - time.monotonic()) / (2 * seconds_per_epoch)))
        if epochs < least:
            return without_figures(recipe.name), None
        recipe = replace(recipe, config=replace(recipe.config, epochs=epochs))
        return _compete(recipe, folds, rival, Clock(began, deadline), device, on_step)
    except _OutOfTime:
        why = "given up: it took longer than foreseen; a longer --budget lets it end"
    except TrainingDiverged:
        why = "given up: its loss was no longer a finite number"
    return without_figures(recipe.name, why), None


def without_figures(
    name: str, why: str = "not tried: there was not enough time; a longer --budget tries it"
) -> CandidateResult:
    """Return the result of a way to learn that was not tried, or given up."""
    return CandidateResult(name, None, 0, None, None, False, why)


def _compete(
    recipe: Recipe,
    folds: Tensor,
    rival: Tensor,
    clock: Clock,
    device: torch.device,
    on_step: Callable[[int, int], None],
) -> tuple[CandidateResult, Trained | None]:
    """Judge fold after fold, as long as it is ahead and there is time; then let the winner learn from all photos."""
    labels, logits, distances = recipe.photos.labels, torch.zeros_like(rival), torch.zeros_like(rival)
    judged = torch.zeros(len(labels), dtype=torch.bool)
    for fold in range(FOLDS):
        own, began = folds == fold, time.monotonic()
        if not own.any():
            continue
        network = _train(recipe, ~own, device, _end_at(clock.deadline, on_step))
        logits[own], embeddings = _infer(network, recipe, own)
        learnt = spread_evenly(~own, MAX_LEARNT)
        distances[own] = distances_apart(_infer(network, recipe, learnt)[1], labels[learnt], embeddings, rival.shape[1])
        judged |= own
        right, rival_right = (_count_right(one[judged], labels[judged]) for one in (logits, rival))
        whole_s = (time.monotonic() - began) / (~own).double().mean().item()  # of a training on all photos
        if right <= rival_right or not clock.has_time_for(2, whole_s):
            break
    accuracy, loss = right / int(judged.sum()), F.cross_entropy(logits[judged], labels[judged]).item()
    note = f"right on {right} of {int(judged.sum())} photos, where the best so far is on {rival_right}"
    trained = None
    if right > rival_right:
        network = _train(recipe, torch.ones_like(judged), device, _end_at(clock.latest, on_step))
        trained = _finish(recipe, network, judged, logits[judged], distances[judged])
    seconds = time.monotonic() - clock.began
    return CandidateResult(recipe.name, accuracy, int(judged.sum()), loss, seconds, trained is not None, note), trained


def _end_at(limit: float, on_step: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Return ``on_step``, but that it raises _OutOfTime after a moment by ``time.monotonic``."""

    def end_or_go_on(done: int, total: int) -> None:
        on_step(done, total)
        if time.monotonic() > limit:
            raise _OutOfTime

    return end_or_go_on


def _infer(network: nn.Module, recipe: Recipe, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and embeddings of some photos, (N,) bool."""
    size = embedding_size(network, recipe.architecture)
    return infer_with_embeddings(network, recipe.photos.images[chosen], recipe.spec, size)


def _finish(recipe: Recipe, network: nn.Module, judged: Tensor, logits: Tensor, distances: Tensor) -> Trained:
    labels = recipe.photos.labels[judged]
    divided = divide_crosswise(logits, labels).float()
    helps = F.cross_entropy(divided, labels) < F.cross_entropy(logits, labels)
    temperature = fit_temperature(logits, labels) if helps else 1.0
    divide_logits(network, temperature)
    _, embeddings = _infer(network, recipe, torch.ones_like(judged))
    return Trained(
        recipe, network.cpu(), embeddings, judged, divided if helps else logits, logits, distances, temperature
    )


def _train(recipe: Recipe, seen: Tensor, device: torch.device, on_step: Callable[[int, int], None]) -> nn.Module:
    """Return a network trained on some photos, its last epoch: no photo chooses one."""
    photos = recipe.photos
    part = LabelledImages(photos.images[seen], photos.labels[seen])
    training = Training(recipe.build(seen).to(device), part, recipe.spec, recipe.config)
    total = recipe.config.epochs * training.steps_per_epoch

    def report(result: StepResult) -> None:
        on_step(result.step, total)

    few = LabelledImages(part.images[:1], part.labels[:1])  # the loop validates after each epoch
    deque(training.epochs(few, report), maxlen=0)
    return training.network


def _foresee_epoch(recipe: Recipe, device: torch.device) -> float:
    """Return the seconds that one epoch takes at least, without a trial."""
    multiply_adds = count_multiply_adds(
        recipe.build(torch.ones(len(recipe.photos), dtype=torch.bool)), recipe.spec.size
    )
    return 2 * 3 * multiply_adds * len(recipe.photos) / FASTEST.get(device.type, FASTEST_ACCELERATOR)


def _time_epoch(recipe: Recipe, device: torch.device, limit_s: float) -> float:
    """Return the seconds of one epoch over all photos, foreseen from a few steps: two, if they show that it is late."""
    times: list[float] = []

    def foresee() -> float:
        return (times[-1] - times[0]) / (len(times) - 1) * training.steps_per_epoch

    def note(_result: StepResult) -> None:
        times.append(time.monotonic())
        if len(times) > PROBE_STEPS or (len(times) > 1 and foresee() > limit_s):
            raise _Enough

    everything = torch.ones(len(recipe.photos), dtype=torch.bool)
    training = Training(recipe.build(everything).to(device), recipe.photos, recipe.spec, recipe.config)
    few = LabelledImages(recipe.photos.images[:1], recipe.photos.labels[:1])
    with suppress(_Enough):
        deque(training.epochs(few, note), maxlen=0)
    return foresee()


def _count_right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum())
