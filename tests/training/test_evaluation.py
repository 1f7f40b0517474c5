"""Figures against ones worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from model.images import ImageSpec, normalise
from training.evaluation import evaluate, infer

NAMES = ("cat", "dog", "owl")


def logits_for(predicted: list[int], classes: int) -> Tensor:
    """Return logits whose largest is at the predicted class, by 2."""
    return 2.0 * torch.nn.functional.one_hot(torch.tensor(predicted), classes)


def test_confusion_counts_true_classes_by_row_and_predictions_by_column() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    metrics = evaluate(logits_for([0, 0, 0, 1, 1, 2, 2], 3), labels, NAMES)
    assert metrics.confusion == ((3, 1, 0), (0, 1, 1), (0, 0, 1))
    assert metrics.images == 7
    assert metrics.accuracy == pytest.approx(5 / 7)


def test_recall_and_precision_are_those_of_the_confusion() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    metrics = evaluate(logits_for([0, 0, 0, 1, 1, 2, 2], 3), labels, NAMES)
    figures = [(one.label, one.images, one.precision, one.recall) for one in metrics.per_class]
    assert figures == [("cat", 4, 3 / 3, 3 / 4), ("dog", 2, 1 / 2, 1 / 2), ("owl", 1, 1 / 2, 1 / 1)]


def test_class_without_images_or_predictions_has_zeros() -> None:
    metrics = evaluate(logits_for([0, 0], 3), torch.tensor([0, 1]), NAMES)
    owl = metrics.per_class[2]
    assert (owl.images, owl.precision, owl.recall) == (0, 0, 0)


def test_loss_is_mean_cross_entropy_in_natural_logarithms() -> None:
    right, wrong = math.log(1 + 2 * math.exp(-2)), math.log(1 + 2 * math.exp(-2)) + 2
    metrics = evaluate(logits_for([0, 1, 1], 3), torch.tensor([0, 1, 2]), NAMES)
    assert metrics.loss == pytest.approx((2 * right + wrong) / 3, rel=1e-6)


def test_top_5_accuracy_counts_labels_among_the_five_most_probable() -> None:
    logits = torch.tensor([[6.0, 5, 4, 3, 2, 1, 0]]).repeat(4, 1)
    metrics = evaluate(logits, torch.tensor([0, 4, 5, 6]), tuple("abcdefg"))
    assert metrics.top_5_accuracy == 0.5
    assert metrics.accuracy == 0.25


@pytest.mark.parametrize(("classes", "expected"), [(5, None), (6, 1.0)], ids=["five classes", "six classes"])
def test_top_5_accuracy_is_there_only_if_it_says_something(classes: int, expected: float | None) -> None:
    metrics = evaluate(logits_for([0], classes), torch.tensor([0]), tuple("abcdef"[:classes]))
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
