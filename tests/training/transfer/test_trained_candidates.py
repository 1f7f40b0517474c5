"""Networks that are trained are kept only where they are right more often than the heads, and only if there is time."""

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.images import ImageSpec
from torchlight.training.config import TrainingConfig
from torchlight.training.data.loading import LabelledImages
from torchlight.training.transfer import trained_candidates
from torchlight.training.transfer.trained_candidates import Recipe, try_training

PHOTOS = 40
FOLDS_OF = torch.arange(PHOTOS) % 5
LABELS = torch.arange(PHOTOS) // 5 % 2


def red_or_blue() -> LabelledImages:
    images = torch.randint(0, 60, (PHOTOS, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[LABELS == 0, 0] += 150
    images[LABELS == 1, 2] += 150
    return LabelledImages(images, LABELS)


def build(_seen: Tensor) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture
def recipe() -> Recipe:
    config = TrainingConfig(epochs=12, batch_size=8, learning_rate=6.0, shift=1, label_smoothing=0.0)
    spec = ImageSpec(8, (0.3,) * 3, (0.25,) * 3)
    return Recipe("a small network", "guide", spec, red_or_blue(), config, build)


def rival(right: int) -> Tensor:
    """Return logits that are right on the first ``right`` photos of each fold's eight."""
    is_right = torch.arange(PHOTOS) // 5 < right
    answers = torch.where(is_right, LABELS, 1 - LABELS)
    return nn.functional.one_hot(answers, 2).float()


def attempt(recipe: Recipe, other: Tensor, seconds: float) -> tuple[object, object, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    note: Callable[[int, int], None] = lambda done, total: steps.append((done, total))  # noqa: E731
    result, trained = try_training(recipe, FOLDS_OF, other, time.monotonic() + seconds, torch.device("cpu"), note)
    return result, trained, steps


def test_a_better_network_is_judged_on_every_fold_and_then_learns_from_all(recipe: Recipe) -> None:
    result, trained, steps = attempt(recipe, rival(right=4), 600)
    assert (result.accuracy, result.is_chosen) == (1.0, True)
    assert trained.judged.all()
    assert (trained.held_out_logits.argmax(1) == LABELS).all()
    assert trained.embeddings.shape == (PHOTOS, 4)
    assert (trained.distances.argmin(1) == LABELS).all()
    assert len(steps) == 5 * 12 * 4 + 12 * 5  # five folds of 32 photos, then all 40, in batches of 8
    assert result.note == "right on 40 of 40 photos, where the best so far is on 20"


def test_a_network_that_is_no_better_on_the_first_fold_is_given_up(recipe: Recipe) -> None:
    result, trained, steps = attempt(recipe, rival(right=8), 600)
    assert trained is None
    assert not result.is_chosen
    assert len(steps) == 12 * 4
    assert result.note == "right on 8 of 8 photos, where the best so far is on 8"


def test_nothing_is_trained_that_would_end_too_late(recipe: Recipe) -> None:
    result, trained, steps = attempt(recipe, rival(right=0), 0)
    assert (result.accuracy, trained, steps) == (None, None, [])
    assert result.note == "not tried: there was not enough time; a longer --budget tries it"


def test_two_steps_are_enough_to_see_that_a_training_is_far_too_slow(recipe: Recipe) -> None:
    steps = 0

    class Slow(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            nonlocal steps
            if self.training:
                steps += 1
                time.sleep(0.05)  # 5 an epoch, 10 epochs, and that twice: 5 s
            return maps

    slow = replace(recipe, build=lambda seen: nn.Sequential(Slow(), build(seen)))
    result, _, _ = attempt(slow, rival(right=0), 1.0)
    assert "not enough time" in result.note
    assert steps == 2


def test_the_temperature_is_in_the_weights(recipe: Recipe) -> None:
    recipe = replace(recipe, config=replace(recipe.config, label_smoothing=0.4))  # so that it is not sure enough
    _, trained, _ = attempt(recipe, rival(right=0), 600)
    assert trained.temperature < 1
    assert torch.allclose(
        trained.undivided_logits.abs().mean() / trained.held_out_logits.abs().mean(),
        torch.tensor(trained.temperature),
        atol=0.2,
    )


def test_a_machine_that_becomes_slower_does_not_lose_what_is_known_to_be_better(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seconds_of_step, steps = 0.0, 1.0, 0

    def tick(done: int, total: int) -> None:
        nonlocal now, seconds_of_step, steps
        steps += 1
        now += seconds_of_step
        if steps == 2 * 12 * 4:  # two folds were judged, for a third there is no time
            seconds_of_step = 2.5  # so that all photos, 60 steps, take until 246

    monkeypatch.setattr(trained_candidates, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(trained_candidates, "_time_epoch", lambda recipe, device, limit_s: 5.0)
    result, trained = try_training(recipe, FOLDS_OF, rival(right=4), 200.0, torch.device("cpu"), tick)
    assert (now, int(trained.judged.sum())) == (246.0, 16)
    assert result.is_chosen


def test_photos_that_do_not_fill_a_batch_are_not_tried(recipe: Recipe) -> None:
    few = replace(recipe, config=replace(recipe.config, batch_size=33))
    result, trained, steps = attempt(few, rival(right=0), 600)
    assert (result.accuracy, trained, steps) == (None, None, [])
    assert result.note == "not tried: a fold leaves 32 photos, fewer than a batch of 33"


def test_a_loss_that_is_no_number_ends_that_training_alone(recipe: Recipe) -> None:
    mad = replace(recipe, config=replace(recipe.config, learning_rate=1e30))
    result, trained, _ = attempt(mad, rival(right=0), 600)
    assert (result.accuracy, trained) == (None, None)
    assert result.note == "given up: its loss was no longer a finite number"


def test_a_training_that_takes_longer_than_foreseen_is_given_up(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_candidates, "_time_epoch", lambda recipe, device, limit_s: 1e-6)
    result, trained, steps = attempt(recipe, rival(right=0), 0.05)
    assert (result.accuracy, trained) == (None, None)
    assert len(steps) < 5 * 12 * 4
    assert result.note == "given up: it took longer than foreseen; a longer --budget lets it end"
