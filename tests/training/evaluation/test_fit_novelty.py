"""Distances of known images: by networks that did not learn from them, and crosswise where nothing learnt at all."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.training.evaluation.fit_novelty import (
    MAX_KNOWN,
    MAX_REFERENCES,
    KnownImages,
    distances_apart,
    distances_crosswise,
    fit_novelty,
    spread_evenly,
)

LABELS = torch.arange(60) % 2
FOLDS = torch.arange(60) // 2 % 5


def embeddings(number: int, dimensions: int = 24, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(number, dimensions, generator=torch.Generator().manual_seed(seed)))


def test_no_image_is_measured_by_itself_or_a_copy_of_it() -> None:
    alone = embeddings(60)
    doubled = alone.clone()
    doubled[30:] = alone[:30]
    own = [str(k) for k in range(60)]
    pairs = [str(k % 30) for k in range(60)]
    labels, folds = torch.arange(60) % 30 % 2, torch.arange(60) % 30 % 5
    as_copies = distances_crosswise(doubled, labels, folds, pairs, 2)
    as_others = distances_crosswise(doubled, labels, folds, own, 2)
    usual = distances_crosswise(alone, LABELS, FOLDS, own, 2)
    assert as_others.min(1).values.mean() < 0.99 * as_copies.min(1).values.mean()
    assert as_copies.min(1).values.mean().item() == pytest.approx(usual.min(1).values.mean().item(), rel=0.1)


def test_distances_of_images_that_were_left_out_are_as_those_of_new_ones() -> None:
    labels, folds = torch.arange(600) % 2, torch.arange(600) // 2 % 5
    some, others = embeddings(600), embeddings(600, seed=1)
    crosswise = distances_crosswise(some, labels, folds, [str(k) for k in range(600)], 2)
    apart = distances_apart(some, labels, others, 2)
    assert crosswise.mean().item() == pytest.approx(apart.mean().item(), rel=0.02)


@pytest.mark.parametrize("burst", [3, 7, 10])
def test_a_burst_of_copies_leaves_the_other_classes_as_they_are(burst: int) -> None:
    """Twelve images a class, of which one class has many near-identical ones."""
    labels, folds = torch.arange(36) % 3, torch.arange(36) // 3 % 5
    centres = F.normalize(torch.randn(3, 24, generator=torch.Generator().manual_seed(9)))
    some = F.normalize(centres[labels] + 0.3 * embeddings(36))
    copies = (labels == 0).nonzero()[:burst, 0]
    some[copies], folds[copies] = some[copies[0]].clone(), folds[copies[0]].clone()
    groups = ["burst" if k in copies.tolist() else str(k) for k in range(36)]
    distances = distances_crosswise(some, labels, folds, groups, 3)
    logits = torch.randn(36, 3, generator=torch.Generator().manual_seed(1))
    novelty = fit_novelty(some, labels, KnownImages(distances, labels, logits, "photos", False), 0.7)
    assert novelty.scales.max() < 3 * novelty.scales.min()
    strange = novelty.measure(embeddings(50, seed=3), torch.full((50, 3), 1 / 3))
    assert (strange.p_values <= 0.05).mean() > 0.9


@pytest.mark.parametrize("dimensions", [8, 24, 200])  # fewer and more than images, and than directions
def test_any_number_of_dimensions_will_do(dimensions: int) -> None:
    some = embeddings(60, dimensions)
    distances = distances_crosswise(some, LABELS, FOLDS, [str(k) for k in range(60)], 2)
    novelty = fit_novelty(some, LABELS, KnownImages(distances, LABELS, torch.randn(60, 2), "val", False), 0.7)
    directions = torch.from_numpy(novelty.plane.directions)
    assert directions.shape == (min(32, dimensions), dimensions)
    torch.testing.assert_close(directions @ directions.T, torch.eye(len(directions)), atol=2e-3, rtol=0)


def test_its_size_is_bounded() -> None:
    some, labels = embeddings(5000), torch.arange(5000) % 2
    novelty = fit_novelty(
        some, labels, KnownImages(torch.rand(5000, 2), labels, torch.randn(5000, 2), "val", False), 0.7
    )
    assert len(novelty.plane.references) == MAX_REFERENCES
    assert {len(novelty.distances), len(novelty.entropies), len(novelty.scores)} == {MAX_KNOWN}


def test_a_class_with_few_known_images_has_the_usual_distance_of_all() -> None:
    known = torch.tensor([0] * 6 + [1] * 2)
    distances = torch.full((8, 3), 9.0)
    distances[range(8), known] = torch.tensor([1.0, 2, 3, 4, 5, 6, 50, 60])
    novelty = fit_novelty(
        embeddings(9), torch.arange(9) % 3, KnownImages(distances, known, torch.randn(8, 3), "val", False), 0.7
    )
    assert novelty.scales.tolist() == [3, 4, 4]


def test_one_image_and_equal_images_are_no_error() -> None:
    one = embeddings(1).expand(4, -1)
    labels = torch.tensor([0, 1, 0, 1])
    distances = distances_apart(one, labels, one, 2)
    novelty = fit_novelty(one, labels, KnownImages(distances, labels, torch.zeros(4, 2), "val", False), 0.7)
    found = novelty.measure(one[:1], torch.full((1, 2), 0.5))
    assert 0 < found.p_values[0] <= 1


def test_some_of_the_chosen_images_are_spread_over_all_of_them() -> None:
    chosen = torch.arange(100) >= 50
    assert spread_evenly(chosen, 3).nonzero()[:, 0].tolist() == [50, 74, 99]
    assert torch.equal(spread_evenly(chosen, 50), chosen)
