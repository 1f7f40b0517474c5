"""The loop learns, repeats itself for equal seeds, and stops when the loss is not a number."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.errors import TorchlightError
from torchlight.model.images import ImageSpec, normalise
from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.config import TrainingConfig, default_batch_size, default_epochs, default_optimizer
from torchlight.training.data.loading import LabelledImages
from torchlight.training.optimisation import loop
from torchlight.training.optimisation.loop import (
    EpochResult,
    StepResult,
    Training,
    TrainingDiverged,
    best_epoch,
    best_precision,
    half_squared_errors,
    learning_rate_factor,
)

SPEC = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def noise(number: int, classes: int, seed: int = 0) -> LabelledImages:
    """Return images without anything to generalise from: whoever tells them apart has learned them by heart."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (number, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return LabelledImages(images, torch.arange(number) % classes)


def seeded_network(architecture: str, classes: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_network(NetworkConfig(architecture, classes))


def seeded_dropout_network(classes: int, seed: int = 0) -> nn.Module:
    """Return a network that draws chance of its own in every forward pass."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        guide = build_network(NetworkConfig("guide", 8))
        return nn.Sequential(guide, nn.Dropout(0.3), nn.Linear(8, classes))


def run(
    network: nn.Module,
    config: TrainingConfig,
    train: LabelledImages,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> list[EpochResult]:
    return list(Training(network, train, SPEC, config).epochs(train, on_step))


@pytest.mark.parametrize(
    ("architecture", "optimizer", "learning_rate", "epochs"),
    [
        ("lenet5", "sgd", 6.4, 40),
        ("guide", "sgd", 2.0, 40),
        ("torchlight", "muon", 6.4, 20),
        ("torchlight", "sgd", 6.4, 20),
    ],
)
def test_network_overfits_eight_images(architecture: str, optimizer: str, learning_rate: float, epochs: int) -> None:
    config = TrainingConfig(
        epochs=epochs,
        batch_size=8,
        optimizer=optimizer,
        learning_rate=learning_rate,  # for a batch of 512; a batch of 8 gets a 64th
        label_smoothing=0,
        shift=0,
        flip=False,
    )
    last = run(seeded_network(architecture, 8), config, noise(8, 8))[-1]
    assert last.train_accuracy == 1
    assert last.val_accuracy == 1
    assert last.val_loss < 0.3  # ln 8, about 2.1, is guessing


def weights_after(seed: int, initial_seed: int = 0) -> Tensor:
    network = seeded_network("lenet5", 2, initial_seed)
    run(network, TrainingConfig(epochs=2, batch_size=4, seed=seed), noise(8, 2))
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_same_seed_gives_the_same_weights() -> None:
    assert torch.equal(weights_after(seed=1), weights_after(seed=1))


@pytest.mark.parametrize(("seed", "initial_seed"), [(2, 0), (1, 1)], ids=["of the order", "of the initial weights"])
def test_other_seed_gives_other_weights(seed: int, initial_seed: int) -> None:
    assert not torch.equal(weights_after(seed=1), weights_after(seed, initial_seed))


def test_only_the_generator_decides() -> None:
    before = weights_after(seed=1)
    torch.manual_seed(123)
    assert torch.equal(weights_after(seed=1), before)


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    weights_after(seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_what_seed_and_step_say() -> None:
    network = seeded_dropout_network(2)
    config = TrainingConfig(epochs=1, batch_size=4, flip=False, shift=0, learning_rate=0.0)
    images = LabelledImages(noise(1, 1).images.expand(8, -1, -1, -1), torch.zeros(8, dtype=torch.int64))
    losses: list[list[float]] = []
    for number in (1, 2):
        torch.manual_seed(number)
        seen: list[float] = []
        run(copy.deepcopy(network), config, images, lambda step, seen=seen: seen.append(step.loss))
        losses.append(seen)
    assert losses[0] == losses[1]
    assert losses[0][0] != losses[0][1]  # another step, other units dropped


@pytest.mark.parametrize("architecture", ["guide", "torchlight"])
def test_absurd_learning_rate_stops_with_the_way_out(architecture: str) -> None:
    config = TrainingConfig(epochs=20, batch_size=8, learning_rate=1e30)
    with pytest.raises(TrainingDiverged, match=r"loss is (nan|inf) at epoch \d+, step \d+; lower the learning rate"):
        run(seeded_network(architecture, 2), config, noise(8, 2))
    assert issubclass(TrainingDiverged, TorchlightError)


class Recorder(nn.Module):
    """Keeps what it is shown, and answers with the mean of the first two channels times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.shown: list[tuple[bool, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append((self.training, x.detach().clone()))
        return x[:, :2].mean((2, 3)) * self.weight


@pytest.mark.parametrize("flip", [True, False], ids=["flip", "no flip"])
def test_every_epoch_shows_each_image_at_most_once_and_whole_batches_only(flip: bool) -> None:
    train = noise(10, 2)
    network = Recorder()
    run(network, TrainingConfig(epochs=3, batch_size=4, shift=0, flip=flip), train)
    batches = [images for training, images in network.shown if training]
    assert [len(batch) for batch in batches] == [4, 4] * 3
    plain = normalise(train.images, SPEC)
    for first, second in zip(batches[::2], batches[1::2], strict=True):
        shown = torch.cat([first, second])
        same = (shown[:, None] == plain[None]).all((2, 3, 4)) | (shown[:, None] == plain[None].flip(4)).all((2, 3, 4))
        assert same.sum(1).tolist() == [1] * 8
        assert same.sum(0).max() == 1


def test_order_differs_between_epochs() -> None:
    network = Recorder()
    run(network, TrainingConfig(epochs=2, batch_size=8, shift=0, flip=False), noise(8, 2))
    first, second = (images for training, images in network.shown if training)
    assert not torch.equal(first, second)


def test_validation_images_are_shown_in_order_and_not_augmented() -> None:
    train, val = noise(8, 2), noise(6, 2, seed=1)
    network = Recorder()
    config = TrainingConfig(epochs=2, batch_size=8, shift=2, flip=True)
    list(Training(network, train, SPEC, config).epochs(val))
    shown = [images for training, images in network.shown if not training]
    assert all(torch.equal(images, normalise(val.images, SPEC)) for images in shown)
    assert len(shown) == 2


def test_network_is_in_evaluation_mode_at_every_yield() -> None:
    network = seeded_network("torchlight", 2).train()
    training = Training(network, noise(8, 2), SPEC, TrainingConfig(epochs=2, batch_size=4))
    modes = [{module.training for module in network.modules()} for _ in training.epochs(noise(4, 2))]
    assert modes == [{False}, {False}]


def test_results_count_from_one_and_are_means_over_the_steps() -> None:
    steps: list[StepResult] = []
    results = run(seeded_network("lenet5", 2), TrainingConfig(epochs=3, batch_size=4), noise(12, 2), steps.append)
    assert [result.epoch for result in results] == [1, 2, 3]
    assert [step.step for step in steps] == list(range(1, 10))
    assert {step.steps_per_epoch for step in steps} == {3}
    for index, result in enumerate(results):
        own = steps[3 * index : 3 * index + 3]
        assert result.train_loss == pytest.approx(sum(step.loss for step in own) / 3)
        assert result.train_accuracy == pytest.approx(sum(step.accuracy for step in own) / 3)
        assert 0 <= result.val_accuracy <= 1
        assert result.seconds > 0


def test_label_smoothing_is_for_training_only() -> None:
    """A network that is right and sure: smoothing makes that cost something, validation does not smooth."""
    network = Recorder()
    network.weight.data.fill_(1000)
    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    images[:, 0] = 255
    train = LabelledImages(images, torch.zeros(8, dtype=torch.int64))
    config = TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-9, label_smoothing=0.1)
    (result,) = run(network, config, train)
    assert result.train_loss > 10
    assert result.val_loss == 0


@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5], ids=str)
@pytest.mark.parametrize("total", [1, 2, 10, 1000], ids=str)
def test_learning_rate_is_always_a_share_of_its_peak(total: int, warmup: float) -> None:
    factors = [learning_rate_factor(step, total, warmup) for step in range(total)]
    assert min(factors) > 0
    assert max(factors) <= 1


def test_learning_rate_rises_in_a_straight_line_then_falls_in_one() -> None:
    factors = torch.tensor([learning_rate_factor(step, 999, 0.2) for step in range(999)], dtype=torch.float64)
    peak = int(factors.argmax())
    changes = factors.diff()
    assert peak + 1 == 200
    assert factors[peak] == pytest.approx(1)
    torch.testing.assert_close(changes[:peak], torch.full((peak,), 1 / 200, dtype=torch.float64))
    torch.testing.assert_close(changes[peak:], torch.full((998 - peak,), -1 / 800, dtype=torch.float64))
    assert factors[-1] == pytest.approx(1 / 800)


def test_learning_rate_without_warmup_only_falls() -> None:
    factors = [learning_rate_factor(step, 9, 0.0) for step in range(9)]
    assert factors == pytest.approx([1 - (step + 1) / 10 for step in range(9)])


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size"),
    [(1, 60, 8), (30, 60, 8), (1_000, 60, 62), (9_000, 50, 512), (45_000, 10, 512), (5_000_000, 10, 512)],
)
def test_defaults_follow_the_number_of_images(images: int, epochs: int, batch_size: int) -> None:
    assert (default_epochs(images), default_batch_size(images)) == (epochs, batch_size)


@pytest.mark.parametrize(
    ("architecture", "pretrained", "optimizer"),
    [("torchlight", False, "muon"), ("torchlight", True, "sgd"), ("guide", False, "sgd"), ("resnet18", True, "sgd")],
)
def test_default_optimizer_suits_the_network(architecture: str, pretrained: bool, optimizer: str) -> None:
    assert default_optimizer(architecture, pretrained) == optimizer


class Stop(Exception):
    """What a test interrupts a run with."""


def stop_after(step: int) -> Callable[[StepResult], None]:
    """Return a callback that leaves the run when so many steps are done."""

    def on_step(result: StepResult) -> None:
        if result.step == step:
            raise Stop

    return on_step


@pytest.mark.parametrize(
    "stopped_at",
    [
        pytest.param(1, id="after step 1", marks=pytest.mark.slow),
        pytest.param(3, id="after step 3"),
        pytest.param(4, id="after the last step of an epoch"),
        pytest.param(5, id="after step 5"),
        pytest.param(7, id="after step 7", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("seeded", "optimizer"),
    [
        pytest.param(partial(seeded_network, "torchlight"), "muon", id="torchlight-muon"),
        pytest.param(partial(seeded_network, "guide"), "sgd", id="guide-sgd"),
        pytest.param(seeded_dropout_network, "sgd", id="dropout-sgd"),
    ],
)
def test_run_taken_up_again_ends_with_the_same_weights_bit_for_bit(
    stopped_at: int, seeded: Callable[..., nn.Module], optimizer: Literal["muon", "sgd"]
) -> None:
    train, val = noise(16, 2), noise(4, 2, seed=1)
    config = TrainingConfig(epochs=2, batch_size=4, optimizer=optimizer, seed=3)
    whole, same = seeded(2), seeded(2)
    results = list(Training(whole, train, SPEC, config).epochs(val))

    first = Training(same, train, SPEC, config)
    with pytest.raises(Stop):
        list(first.epochs(val, stop_after(stopped_at)))
    saved = first.state()
    resumed = seeded(2, seed=99)  # everything must come from the state
    second = Training(resumed, train, SPEC, config)
    second.restore(saved)
    rest = list(second.epochs(val))

    expected = whole.state_dict()
    assert [name for name, value in resumed.state_dict().items() if not torch.equal(value, expected[name])] == []
    assert len(rest) == (
        2 if stopped_at <= 4 else 1
    )  # 4 steps an epoch; after the last of them, it is not validated yet
    assert [replace(one, seconds=0) for one in rest] == [replace(one, seconds=0) for one in results[-len(rest) :]]


def test_seconds_of_an_epoch_count_what_came_before_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that advances one second at each step, and a thousand while the run is interrupted."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    train, config = noise(16, 2), TrainingConfig(epochs=2, batch_size=4)

    def advance(result: StepResult) -> None:
        now[0] += 1
        stop_after(6)(result)

    first = Training(seeded_network("lenet5", 2), train, SPEC, config)
    with pytest.raises(Stop):
        list(first.epochs(train, advance))
    saved = first.state()
    now[0] += 1000
    second = Training(seeded_network("lenet5", 2), train, SPEC, config)
    second.restore(saved)
    (result,) = second.epochs(train, lambda _: now.__setitem__(0, now[0] + 1))
    assert (result.epoch, result.seconds) == (2, 4)


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.9, 0.7], [1, 1, 1], 2),
        ([0.75, 0.75], [0.8, 0.4], 2),
        ([0.75, 0.75], [0.4, 0.8], 1),
        ([0.75, 0.75], [0.4, 0.4], 1),
        ([0.75, 0.75], [math.nan, 9.0], 2),
        ([0.75, 0.75], [9.0, math.nan], 1),
    ],
    ids=["accuracy", "then loss", "either way", "then the earliest", "no number", "no number later"],
)
def test_best_epoch_has_the_highest_accuracy_then_the_lowest_loss_then_comes_first(
    accuracies: list[float], losses: list[float], best: int
) -> None:
    rows = enumerate(zip(accuracies, losses, strict=True), start=1)
    history = [EpochResult(epoch, 1.0, 0.5, loss, accuracy, 0.1, 1.0) for epoch, (accuracy, loss) in rows]
    assert best_epoch(history).epoch == best


def test_state_is_a_copy() -> None:
    network = seeded_network("lenet5", 2)
    training = Training(network, noise(8, 2), SPEC, TrainingConfig(epochs=1, batch_size=4))
    before = training.state()["network/conv1.weight"]
    kept = before.clone()
    list(training.epochs(noise(4, 2)))
    assert torch.equal(before, kept)


def test_half_squared_error_is_the_guides() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    errors = half_squared_errors(logits, torch.tensor([0, 0, 0]))
    assert errors.tolist() == pytest.approx([(0.5**2 + 0.5**2) / 2, 0, 1])


def test_network_learns_with_the_guides_loss_and_plain_gradient_descent() -> None:
    """w = w - learning_rate * dL/dw, on half the squared error: one step, compared with the same written out."""
    network = seeded_network("guide", 2)
    expected = copy.deepcopy(network)
    train = noise(4, 2)
    config = TrainingConfig(
        epochs=1,
        batch_size=4,
        learning_rate=64.0,  # for a batch of 512; a batch of 4 gets 0.5
        momentum=0,
        weight_decay=0,
        schedule="constant",
        warmup=0,
        loss="mse",
        shift=0,
        flip=False,
    )
    run(network, config, train)
    half_squared_errors(expected(normalise(train.images, SPEC)), train.labels).mean().backward()
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own, other - 0.5 * other.grad)


def test_class_weights_scale_the_gradient_of_their_class() -> None:
    """With one image a step, a class of weight 0 leaves the weights as they are."""
    train = LabelledImages(noise(2, 2).images, torch.tensor([1, 1]))
    config = TrainingConfig(epochs=1, batch_size=2, weight_decay=0, warmup=0)
    network = seeded_network("lenet5", 2)
    before = network.conv1.weight.detach().clone()
    list(Training(network, train, SPEC, config, class_weights=torch.tensor([2.0, 0.0])).epochs(train))
    assert torch.equal(network.conv1.weight, before)


def test_frozen_epochs_train_the_head_alone() -> None:
    network = seeded_network("torchlight", 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training = Training(network, noise(8, 2), SPEC, TrainingConfig(epochs=2, batch_size=4, frozen_epochs=1))
    changed = []
    for _ in training.epochs(noise(4, 2)):
        changed.append({name for name, value in network.state_dict().items() if not torch.equal(value, before[name])})
    assert changed[0] == {"fc.weight", "fc.bias"}
    assert {"conv1.weight", "bn1.running_mean", "fc.weight"} <= changed[1]


def test_bfloat16_learns_what_float32_does() -> None:
    """Weights stay float32, and the loss is close after a few steps."""
    losses = []
    for precision in ("float32", "bfloat16"):
        network = seeded_network("torchlight", 2)
        config = TrainingConfig(epochs=2, batch_size=8, precision=precision, shift=0)
        losses.append(run(network, config, noise(16, 2))[-1].train_loss)
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_precision_follows_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, precision in (
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known)
        assert best_precision(torch.device("cpu")) == precision


def test_constant_schedule_stays_at_its_peak() -> None:
    assert [learning_rate_factor(step, 9, 0.2, "constant") for step in range(9)] == [0.5] + [1.0] * 8
