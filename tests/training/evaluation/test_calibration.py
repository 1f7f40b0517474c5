"""Calibration's laws, and its figures against definitions written the long way."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from torchlight.training.evaluation.calibration import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    divide_crosswise,
    error_by_chance,
    expected_calibration_error,
    fit_temperature,
    measure_calibration,
    reliability,
)

seeds = st.integers(0, 2**31 - 1)


def draw_logits(seed: int, images: int, classes: int, sharpness: float = 3.0) -> tuple[Tensor, Tensor]:
    """Return logits, and labels drawn from their own softmax: calibrated but for chance."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(images, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_logits_that_mean_what_they_say_need_no_temperature() -> None:
    logits = torch.tensor([[math.log(3), 0.0]]).repeat(40_000, 1)  # 75% sure
    labels = (torch.arange(40_000) % 4 == 3).long()  # and right 3 times of 4
    assert fit_temperature(logits, labels) == pytest.approx(1, abs=1e-3)


@settings(deadline=None, max_examples=10)
@given(seeds, st.sampled_from([2, 10, 100]))
def test_labels_drawn_from_the_probabilities_give_a_temperature_of_one(seed: int, classes: int) -> None:
    assert fit_temperature(*draw_logits(seed, 20_000, classes)) == pytest.approx(1, abs=0.05)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 12), st.sampled_from([0.125, 0.5, 2.0, 8.0]))
def test_scaling_the_logits_scales_the_temperature(seed: int, classes: int, factor: float) -> None:
    logits, labels = draw_logits(seed, 500, classes)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 12), st.floats(-50, 50))
def test_adding_a_number_to_all_logits_of_an_image_changes_nothing(seed: int, classes: int, shift: float) -> None:
    logits, labels = draw_logits(seed, 200, classes)
    shifted = logits.double() + shift * torch.arange(200)[:, None]
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 300), st.integers(2, 12), st.floats(0.01, 1000))
def test_no_other_temperature_fits_better(seed: int, images: int, classes: int, scale: float) -> None:
    logits, labels = draw_logits(seed, images, classes)
    spread = 1 / (images + 1)

    def misfit(temperature: float) -> float:
        return F.cross_entropy(scale * logits.double() / temperature, labels, label_smoothing=spread).item()

    fitted = fit_temperature(scale * logits, labels)
    grid = torch.logspace(math.log10(LOWEST_TEMPERATURE), math.log10(HIGHEST_TEMPERATURE), 200).tolist()
    assert LOWEST_TEMPERATURE <= fitted <= HIGHEST_TEMPERATURE * (1 + 1e-6)
    assert misfit(fitted) <= min(map(misfit, grid)) * (1 + 1e-6)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 12))
def test_no_answer_changes(seed: int, classes: int) -> None:
    logits, labels = draw_logits(seed, 300, classes)
    noisy = 5 * logits + torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
    divided = noisy / fit_temperature(noisy, labels)
    assert torch.equal(divided.argmax(1), noisy.argmax(1))


@pytest.mark.parametrize("images", [4, 20, 1000])
def test_a_few_images_all_right_do_not_prove_that_the_network_is_never_wrong(images: int) -> None:
    labels = torch.arange(images) % 4
    logits = 4.0 * F.one_hot(labels, 4)
    sure = (logits / fit_temperature(logits, labels)).softmax(1).max().item()
    assert sure == pytest.approx(1 - 3 / 4 / (images + 1), abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        pytest.param(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 1, id="all equal"),
        pytest.param(torch.eye(2).repeat(50, 1), torch.tensor([1, 0] * 50), HIGHEST_TEMPERATURE, id="always wrong"),
        pytest.param(1e6 * torch.eye(2), torch.tensor([1, 0]), HIGHEST_TEMPERATURE, id="always wrong, and very sure"),
        pytest.param(1e-6 * torch.eye(2), torch.tensor([0, 1]), LOWEST_TEMPERATURE, id="right, and hardly sure"),
    ],
)
def test_temperature_stays_within_bounds(logits: Tensor, labels: Tensor, expected: float) -> None:
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "logits",
    [torch.zeros(0, 3), torch.tensor([[math.nan, 0, 0]]), torch.tensor([[0, math.inf, 0]])],
    ids=["no images", "not a number", "infinite"],
)
def test_logits_without_a_temperature_are_refused(logits: Tensor) -> None:
    with pytest.raises(ValueError, match="needs images and finite logits"):
        fit_temperature(logits, torch.zeros(len(logits), dtype=torch.int64))


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 60), st.integers(2, 6), st.integers(1, 20))
def test_calibration_error_is_what_its_definition_says(seed: int, images: int, classes: int, bins: int) -> None:
    logits, labels = draw_logits(seed, images, classes)
    probabilities = logits.double().softmax(1)
    expected = 0.0
    for k in range(bins):
        inside = [row for row in range(images) if k / bins < probabilities[row].max().item() <= (k + 1) / bins]
        confidence = sum(probabilities[row].max().item() for row in inside)
        right = sum(int(probabilities[row].argmax()) == int(labels[row]) for row in inside)
        expected += abs(confidence - right) / images
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-9)


def test_calibration_error_by_hand() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.8, 0.2], [0.1, 0.9], [0.1, 0.9]])
    labels = torch.tensor([0, 1, 1, 1])  # 80% sure: right 1 of 2; 90% sure: right 2 of 2
    assert expected_calibration_error(probabilities, labels) == pytest.approx((2 * 0.3 + 2 * 0.1) / 4)


def test_bins_hold_every_image_once_and_empty_ones_are_zero() -> None:
    bins = reliability(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.7, 0.3]]), torch.tensor([0, 1, 0]), bins=10)
    assert [one.count for one in bins] == [0, 0, 0, 0, 1, 0, 1, 0, 0, 1]
    assert [one.accuracy for one in bins if one.count] == [0, 1, 1]
    assert [one.mean_confidence for one in bins if one.count] == pytest.approx([0.5, 0.7, 1.0])
    assert (bins[0].lower, bins[0].upper, bins[9].upper) == (0, 0.1, 1)
    assert (bins[0].mean_confidence, bins[0].accuracy) == (0, 0)


def test_a_network_that_is_too_sure_is_mended() -> None:
    logits, labels = draw_logits(0, 20_000, 10, sharpness=1.5)
    too_sure = 3 * logits
    temperature = fit_temperature(too_sure, labels)
    measured = measure_calibration(too_sure, too_sure / temperature, labels, temperature)
    assert measured.temperature == pytest.approx(3, rel=0.05)
    assert measured.ece_before > 0.2
    assert measured.ece_after < 0.02
    assert measured.nll_after == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)
    assert measured.nll_after < measured.nll_before
    assert (measured.images, sum(one.count for one in measured.reliability)) == (20_000, 20_000)


@pytest.mark.parametrize(
    ("images", "classes", "sharpness", "tolerance"),
    [(300, 2, 3, 0.08), (2_000, 10, 3, 0.08), (20_000, 10, 3, 0.08), (30, 3, 12, 0.2), (200, 3, 30, 0.2)],
)
def test_chance_makes_the_error_that_labels_drawn_from_the_probabilities_have(
    images: int, classes: int, sharpness: float, tolerance: float
) -> None:
    probabilities = draw_logits(1, images, classes, sharpness)[0].double().softmax(1)
    generator = torch.Generator().manual_seed(2)
    labels = torch.multinomial(probabilities, 300, replacement=True, generator=generator)
    errors = [expected_calibration_error(probabilities, drawn) for drawn in labels.T]
    assert error_by_chance(probabilities) == pytest.approx(sum(errors) / len(errors), rel=tolerance)


def test_a_label_has_no_part_in_the_temperature_of_its_own_image() -> None:
    logits, labels = draw_logits(4, 100, 3)
    changed = labels.clone()
    changed[0] = (labels[0] + 1) % 3
    before, after = divide_crosswise(logits, labels), divide_crosswise(logits, changed)
    is_same = (before == after).all(1)
    assert is_same[0]
    assert is_same.sum() == 50  # its own half


@pytest.mark.parametrize("images", [2, 3, 400, 401])
def test_each_image_is_divided_by_the_temperature_of_one_half_of_the_others(images: int) -> None:
    logits, labels = draw_logits(3, images, 5)
    divisors = (logits.double() / divide_crosswise(logits, labels))[:, 0]
    found, place = divisors.round(decimals=9).unique(return_inverse=True)
    assert len(found) == 2
    for which, divisor in enumerate(found.tolist()):
        others = place != which
        assert abs(int(others.sum()) - images / 2) <= 0.5
        assert divisor == pytest.approx(fit_temperature(logits[others], labels[others]), rel=1e-6)


def test_labels_in_turn_do_not_fit_a_temperature_for_each_class() -> None:
    """As a table of paths may have them; if the network leans to one class, each has a temperature of its own."""
    logits, _ = draw_logits(5, 4_000, 2)
    labels = torch.arange(4_000) % 2
    leaning = logits + torch.tensor([2.0, 0.0])
    divided = divide_crosswise(leaning, labels)
    kept = leaning.double() / fit_temperature(leaning, labels)
    torch.testing.assert_close(divided, kept, rtol=0.2, atol=0)


def test_one_image_has_no_others_to_take_a_temperature_from() -> None:
    logits = torch.tensor([[2.0, 1.0]])
    assert torch.equal(divide_crosswise(logits, torch.tensor([0])), logits.double())
