"""Labels in doubt: planted errors come first, and what is merely hard or hardly known is left out."""

import torch

from torchlight.training.evaluation.label_doubts import find_label_doubts, rank_labels


def test_planted_errors_are_found_and_the_least_probable_label_comes_first() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(100) % 4
    logits = 3 * torch.nn.functional.one_hot(truth, 4) + 0.3 * torch.randn(100, 4, generator=generator)
    labels = truth.clone()
    planted = [3, 40, 77]
    labels[planted] = (labels[planted] + 1) % 4
    logits[40] *= 2  # the surest of them
    doubts = find_label_doubts(logits, labels)
    assert {doubt.index for doubt in doubts} <= set(planted)
    assert doubts[0].index == 40
    assert (doubts[0].given, doubts[0].predicted) == (1, 0)
    assert [doubt.given_probability for doubt in doubts] == sorted(doubt.given_probability for doubt in doubts)
    probabilities = logits.double().softmax(1)
    assert doubts[0].given_probability == probabilities[40, 1]
    assert doubts[0].predicted_probability == probabilities[40, 0]


def test_an_answer_less_sure_than_usual_raises_no_doubt() -> None:
    labels = torch.arange(20) % 2
    logits = 4.0 * torch.nn.functional.one_hot(labels, 2)
    logits[0] = torch.tensor([0.0, 0.5])  # wrong, and 62% sure where the others are 98%
    assert find_label_doubts(logits, labels) == []


def test_photos_of_classes_that_are_hardly_known_are_not_doubted() -> None:
    labels = torch.tensor([0] * 20 + [1] * 20 + [2] * 4)
    logits = 4.0 * torch.nn.functional.one_hot(labels.clamp(max=1), 3)  # the third class is never recognised
    assert find_label_doubts(logits, labels) == []


def test_a_class_without_photos_does_no_harm() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10)
    logits = torch.nn.functional.one_hot(labels, 3) * 4.0
    logits[0] = torch.tensor([0.0, 0.0, 9.0])
    assert [doubt.index for doubt in find_label_doubts(logits, labels)] == [0]


def test_all_images_are_ranked_and_those_of_classes_hardly_known_come_last() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 4)
    logits = 4.0 * torch.nn.functional.one_hot(labels.clamp(max=1), 3)  # the third class is never recognised
    logits[12] = torch.tensor([4.0, 0.0, 0.0])
    logits[3] = torch.tensor([1.0, 0.9, 0.0])
    order = rank_labels(logits, labels).tolist()
    assert order[:2] == [12, 3]
    assert order[-4:] == [20, 21, 22, 23]
    assert sorted(order) == list(range(24))
