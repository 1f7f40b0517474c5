"""Strangers: far from all, or far from their class; copies of a stranger do not keep it company."""

import torch
from torch import Tensor

from torchlight.training.evaluation.strangers import find_far, find_far_from_class, measure_distances


def make_features(number: int = 40) -> tuple[Tensor, Tensor]:
    """Return features of two classes that point in two directions, (N, 8), and their labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % 2
    directions = torch.eye(8)[labels * 2]
    return directions + 0.2 * torch.randn(number, 8, generator=generator), labels


def each_alone(number: int) -> list[str]:
    return [str(k) for k in range(number)]


def test_a_photo_of_something_else_is_far_from_all_and_so_is_its_copy() -> None:
    features, labels = make_features()
    features[6:8] = torch.eye(8)[7]
    groups = each_alone(40)
    groups[7] = groups[6]
    to_all, _ = measure_distances(features, labels, groups)
    assert set(find_far(to_all)) == {6, 7}


def test_a_photo_of_another_class_is_far_from_its_own_class_only() -> None:
    features, labels = make_features()
    labels[10] = 1 - labels[10]
    to_all, to_class = measure_distances(features, labels, each_alone(40))
    assert find_far(to_all) == []
    assert find_far_from_class(to_class, labels) == [10]


def test_of_few_photos_or_equal_ones_none_is_far() -> None:
    features, labels = make_features(8)
    features[0] = torch.eye(8)[7]
    to_all, to_class = measure_distances(features, labels, each_alone(8))
    assert find_far(to_all) == find_far_from_class(to_class, labels) == []
    to_all, to_class = measure_distances(torch.ones(20, 8), torch.zeros(20, dtype=torch.int64), each_alone(20))
    assert find_far(to_all) == find_far_from_class(to_class, torch.zeros(20, dtype=torch.int64)) == []


def test_a_photo_without_any_neighbour_has_no_distance() -> None:
    to_all, to_class = measure_distances(torch.eye(3), torch.tensor([0, 0, 1]), each_alone(3))
    assert to_all.tolist() == [1, 1, 1]
    assert to_class.tolist() == [1, 1, 0]
