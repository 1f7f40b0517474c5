"""Figures against ones worked out by hand."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torchlight.model.images import ImageSpec, normalise
from torchlight.training.evaluation.classification_metrics import (
    MAX_MISTAKES,
    MAX_OF_CELL,
    compute_metrics,
    infer,
    wilson_interval,
)

NAMES = ("cat", "dog", "owl")


def logits_for(predicted: list[int], classes: int) -> Tensor:
    """Return logits whose largest is at the predicted class, by 2."""
    return 2.0 * torch.nn.functional.one_hot(torch.tensor(predicted), classes)


def test_confusion_counts_true_classes_by_row_and_predictions_by_column() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    metrics = compute_metrics(logits_for([0, 0, 0, 1, 1, 2, 2], 3), labels, NAMES)
    assert metrics.confusion == ((3, 1, 0), (0, 1, 1), (0, 0, 1))
    assert metrics.images == 7
    assert metrics.accuracy == pytest.approx(5 / 7)


def test_recall_and_precision_are_those_of_the_confusion() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    metrics = compute_metrics(logits_for([0, 0, 0, 1, 1, 2, 2], 3), labels, NAMES)
    figures = [(one.label, one.images, one.precision, one.recall) for one in metrics.per_class]
    assert figures == [("cat", 4, 3 / 3, 3 / 4), ("dog", 2, 1 / 2, 1 / 2), ("owl", 1, 1 / 2, 1 / 1)]


def test_class_without_images_or_predictions_has_zeros() -> None:
    metrics = compute_metrics(logits_for([0, 0], 3), torch.tensor([0, 1]), NAMES)
    owl = metrics.per_class[2]
    assert (owl.images, owl.precision, owl.recall, owl.f1) == (0, 0, 0, 0)
    assert owl.precision_interval == owl.recall_interval == (0, 1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.integers(2, 8), st.integers(1, 60))
def test_figures_equal_those_of_scikit_learn(seed: int, classes: int, images: int) -> None:
    reference = pytest.importorskip("sklearn.metrics")  # an optional companion of a test dependency
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (images,), generator=generator)
    metrics = compute_metrics(logits, labels, tuple(f"class {k}" for k in range(classes)))
    indices, predicted = list(range(classes)), logits.argmax(1)
    precision, recall, f1, number = reference.precision_recall_fscore_support(
        labels, predicted, labels=indices, zero_division=0
    )
    assert [one.precision for one in metrics.per_class] == pytest.approx(list(precision))
    assert [one.recall for one in metrics.per_class] == pytest.approx(list(recall))
    assert [one.f1 for one in metrics.per_class] == pytest.approx(list(f1))
    assert [one.images for one in metrics.per_class] == list(number)
    assert metrics.confusion == tuple(map(tuple, reference.confusion_matrix(labels, predicted, labels=indices)))
    assert metrics.accuracy == pytest.approx(reference.accuracy_score(labels, predicted))
    assert metrics.loss == pytest.approx(reference.log_loss(labels, logits.softmax(1), labels=indices))


@pytest.mark.parametrize(
    ("right", "number", "expected"),
    [
        (0, 0, (0, 1)),
        (0, 10, (0, 0.2775)),
        (10, 10, (0.7225, 1)),
        (5, 10, (0.2366, 0.7634)),
        (
            81,
            263,
            (0.2553, 0.3662),
        ),  # Newcombe: Two-sided confidence intervals for the single proportion, 1998, table I
    ],
)
def test_interval_of_a_share_equals_published_ones(right: int, number: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(right, number) == pytest.approx(expected, abs=1e-4)


@given(st.integers(1, 5000).flatmap(lambda number: st.tuples(st.integers(0, number), st.just(number))))
def test_interval_holds_its_share_and_stays_between_0_and_1(case: tuple[int, int]) -> None:
    right, number = case
    low, high = wilson_interval(right, number)
    assert 0 <= low <= right / number <= high <= 1
    widest = wilson_interval(1, 2)
    assert high - low <= widest[1] - widest[0] + 1e-12


def test_intervals_belong_to_the_counts_of_their_figures() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    metrics = compute_metrics(logits_for([0, 0, 0, 1, 1, 2, 2], 3), labels, NAMES)
    assert metrics.accuracy_interval == wilson_interval(5, 7)
    assert [one.recall_interval for one in metrics.per_class] == [wilson_interval(*x) for x in [(3, 4), (1, 2), (1, 1)]]
    assert [one.precision_interval for one in metrics.per_class] == [
        wilson_interval(*x) for x in [(3, 3), (1, 2), (1, 2)]
    ]


def test_mistakes_come_with_the_most_confident_first() -> None:
    logits = torch.tensor([[0.0, 1, 0], [0, 3, 0], [9, 0, 0], [0, 0, 2]])
    mistakes = compute_metrics(logits, torch.tensor([0, 2, 0, 1]), NAMES).mistakes
    assert [(one.index, one.true, one.predicted) for one in mistakes] == [(1, 2, 1), (3, 1, 2), (0, 0, 1)]
    assert [one.probability for one in mistakes] == pytest.approx(
        [math.exp(k) / (math.exp(k) + 2) for k in (3, 2, 1)], rel=1e-6
    )


def test_mistakes_are_few_even_if_all_answers_are_wrong() -> None:
    mistakes = compute_metrics(logits_for([1] * 100, 3), torch.zeros(100, dtype=torch.int64), NAMES).mistakes
    assert [one.index for one in mistakes] == list(range(MAX_MISTAKES))


def test_mistakes_of_each_cell_take_turns_the_most_confident_first() -> None:
    logits = torch.tensor([[0.0, 5, 0], [0, 7, 0], [0, 6, 0], [0, 0, 1], [9, 0, 0]])
    metrics = compute_metrics(logits, torch.tensor([0, 0, 0, 0, 0]), NAMES)
    assert [(one.index, one.true, one.predicted) for one in metrics.cell_mistakes] == [
        (1, 0, 1),
        (3, 0, 2),
        (2, 0, 1),
        (0, 0, 1),
    ]
    assert metrics.cell_mistakes[1].true_probability == pytest.approx(1 / (2 + math.e))


def test_a_cell_of_many_mistakes_leaves_room_for_the_others() -> None:
    logits = logits_for([1] * 100 + [2] * 3, 3)
    mistakes = compute_metrics(logits, torch.zeros(103, dtype=torch.int64), NAMES).cell_mistakes
    assert Counter((one.true, one.predicted) for one in mistakes) == {(0, 1): MAX_OF_CELL, (0, 2): 3}


def test_calibration_error_is_that_of_the_probabilities() -> None:
    sure = math.exp(2) / (math.exp(2) + 2)
    metrics = compute_metrics(logits_for([0, 1, 2, 2], 3), torch.tensor([0, 1, 2, 0]), NAMES)
    assert metrics.calibration_error == pytest.approx(abs(sure - 3 / 4))


def test_loss_is_mean_cross_entropy_in_natural_logarithms() -> None:
    right, wrong = math.log(1 + 2 * math.exp(-2)), math.log(1 + 2 * math.exp(-2)) + 2
    metrics = compute_metrics(logits_for([0, 1, 1], 3), torch.tensor([0, 1, 2]), NAMES)
    assert metrics.loss == pytest.approx((2 * right + wrong) / 3, rel=1e-6)


def test_top_5_accuracy_counts_labels_among_the_five_most_probable() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1, 0]]).repeat(4, 1)
    metrics = compute_metrics(logits, torch.tensor([0, 4, 5, 6]), tuple("abcdefg"))
    assert metrics.top_5_accuracy == 0.5
    assert metrics.accuracy == 0.25


@pytest.mark.parametrize(("classes", "expected"), [(5, None), (6, 1.0)], ids=["five classes", "six classes"])
def test_top_5_accuracy_is_there_only_if_it_says_something(classes: int, expected: float | None) -> None:
    metrics = compute_metrics(logits_for([0], classes), torch.tensor([0]), tuple("abcdef"[:classes]))
    assert metrics.top_5_accuracy == expected


class Means(nn.Module):
    """Answers with the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 512])
def test_inference_keeps_the_order_whatever_the_batch_size(batch_size: int) -> None:
    images = torch.randint(0, 256, (7, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    spec = ImageSpec(4, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    logits = infer(Means(), images, spec, batch_size)
    torch.testing.assert_close(logits, normalise(images, spec).mean((2, 3)))
    assert not logits.requires_grad
