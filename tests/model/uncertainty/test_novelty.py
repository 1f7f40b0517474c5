"""How strange an image is: distances against a plain computation, p-values against what they promise."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.model.uncertainty.novelty import (
    FAR,
    Novelty,
    Plane,
    describe_p_value,
    from_tensors,
    join_ranks,
    rank_among,
    to_tensors,
)
from torchlight.training.evaluation.fit_novelty import KnownImages, distances_apart, fit_novelty

DIMENSIONS, CLASSES = 40, 3
FACTS = {"entropy_weight": 0.7, "images": 300, "measured_on": "val", "canary_distance": 3.5}


def embeddings_of(classes: Tensor, seed: int, spread: float = 0.3) -> Tensor:
    """Return (N, D) of length 1 around one direction for each class."""
    centres = torch.randn(10, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(len(classes), DIMENSIONS, generator=torch.Generator().manual_seed(seed))
    return F.normalize(F.normalize(centres)[classes] + spread * F.normalize(noise))


def logits_of(classes: Tensor) -> Tensor:
    return 4 * F.one_hot(classes % CLASSES, CLASSES).float()


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    learnt, known = torch.arange(90) % CLASSES, torch.arange(300) % CLASSES
    embeddings = embeddings_of(learnt, 1)
    distances = distances_apart(embeddings, learnt, embeddings_of(known, 2), CLASSES)
    return fit_novelty(embeddings, learnt, KnownImages(distances, known, logits_of(known), "val", False), 0.7)


def test_distance_is_the_mean_over_the_nearest_half_of_a_class_at_most_twenty(novelty: Novelty) -> None:
    plane = novelty.plane
    coordinates, outside = plane.project(embeddings_of(torch.tensor([0, 4]), 3).numpy())
    found = plane.class_distances(coordinates, outside)
    for image in range(2):
        for k in range(CLASSES):
            squared = np.square(plane.references[plane.classes == k] - coordinates[image]).sum(1)
            expected = np.sort(squared)[: min(20, len(squared) // 2)].mean() + outside[image] + plane.residual
            assert found[image, k] == pytest.approx(expected, rel=1e-4)


def test_coordinates_and_what_lies_outside_make_up_the_whole_length(novelty: Novelty) -> None:
    embeddings = embeddings_of(torch.arange(10), 3).numpy()
    coordinates, outside = novelty.plane.project(embeddings)
    whole = np.square(embeddings - novelty.plane.mean).sum(1)
    np.testing.assert_allclose(np.square(coordinates).sum(1) + outside, whole, rtol=1e-4)


def test_p_values_of_known_images_are_spread_evenly(novelty: Novelty) -> None:
    classes = torch.arange(3000) % CLASSES
    p_values = novelty.measure(embeddings_of(classes, 4), logits_of(classes).softmax(1)).p_values
    for share in (0.05, 0.2, 0.5, 0.9):
        assert (p_values <= share).mean() == pytest.approx(share, abs=0.06)
    assert p_values.min() > 0
    assert p_values.max() <= 1


def test_images_of_other_classes_are_stranger_than_nearly_all_known_ones(novelty: Novelty) -> None:
    others = 3 + torch.arange(200) % 7
    found = novelty.measure(embeddings_of(others, 5), logits_of(others).softmax(1))
    assert (found.p_values <= 0.05).mean() > 0.98
    assert np.median(found.distances) > 2


def test_an_unsure_answer_makes_an_image_stranger(novelty: Novelty) -> None:
    embeddings = embeddings_of(torch.arange(CLASSES), 6)
    sure = novelty.measure(embeddings, logits_of(torch.arange(CLASSES)).softmax(1))
    unsure = novelty.measure(embeddings, torch.full((CLASSES, CLASSES), 1 / CLASSES))
    assert (unsure.p_values < sure.p_values).all()
    assert (unsure.distances == sure.distances).all()


def test_images_alone_and_together_are_equally_strange(novelty: Novelty) -> None:
    classes = torch.arange(9)
    embeddings, probabilities = embeddings_of(classes, 7), logits_of(classes).softmax(1)
    together = novelty.measure(embeddings, probabilities)
    for k in range(len(classes)):
        alone = novelty.measure(embeddings[k : k + 1], probabilities[k : k + 1])
        assert alone.distances[0] == pytest.approx(together.distances[k], rel=1e-5)
        assert alone.p_values[0] == together.p_values[k]


def test_it_comes_back_from_its_tensors(novelty: Novelty) -> None:
    again = from_tensors(to_tensors(novelty), CLASSES, FACTS)
    embeddings, probabilities = embeddings_of(torch.arange(9), 8), logits_of(torch.arange(9)).softmax(1)
    for mine, theirs in zip(
        novelty.measure(embeddings, probabilities), again.measure(embeddings, probabilities), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert sum(tensor.nbytes for tensor in to_tensors(novelty).values()) < 50_000


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("mean", None, "'mean' is missing"),
        ("scores", torch.tensor([]), "'scores' is empty or not finite"),
        ("surprise", torch.ones(3), "'surprise' is unknown"),
        ("directions", torch.tensor(1.0), "'directions' is of torch.float32 and 0 dimensions"),
        ("scales", torch.ones(3, dtype=torch.complex64), "'scales' is of torch.complex64"),
        ("classes", torch.zeros(90), "'classes' is of torch.float32"),
        ("mean", torch.full((DIMENSIONS,), 1e300, dtype=torch.float64), "'mean' is empty or not finite"),
        ("scores", torch.ones(10_001), "'scores' has 10001 values; the limit is 10000"),
        ("mean", torch.full((DIMENSIONS,), torch.nan), "'mean' is empty or not finite"),
        ("directions", torch.ones(32, 7), "'directions' is (32, 7), not (32, 40)"),
        ("references", torch.ones(3, 32), "'references' is (3, 32), not (90, 32)"),
        ("classes", torch.full((90,), 3, dtype=torch.int32), "not of indices below 3"),
        ("classes", torch.full((90,), -1, dtype=torch.int32), "not of indices below 3"),
        ("scales", torch.zeros(3), "'scales' is not positive"),
        ("scales", torch.ones(4), "'scales' is (4,), not (3,)"),
        ("distances", torch.tensor([2.0, 1.0]), "not in ascending order"),
        ("residual", torch.ones(2), "'residual' is (2,), not (1,)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(novelty: Novelty, name: str, value: Tensor | None, says: str) -> None:
    tensors = {**to_tensors(novelty), name: value}
    with pytest.raises(ValueError, match=re.escape(says)):
        from_tensors({key: tensor for key, tensor in tensors.items() if tensor is not None}, CLASSES, FACTS)


@pytest.mark.parametrize(
    "change",
    [
        {"entropy_weight": -1},
        {"entropy_weight": 10**400},
        {"images": 0},
        {"images": "many"},
        {"measured_on": 3},
        {"canary_distance": float("nan")},
        {"canary_distance": None},
    ],
)
def test_facts_that_say_nothing_are_refused(novelty: Novelty, change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="header field 'novelty' is"):
        from_tensors(to_tensors(novelty), CLASSES, FACTS | change)


def test_a_class_without_references_is_far_from_everything() -> None:
    identity = np.eye(4, dtype=np.float32)
    plane = Plane(np.zeros(4, np.float32), identity, identity[:2], np.array([0, 2]), 0.0, 3)
    distances = plane.class_distances(*plane.project(identity[:1]))
    assert distances[0, 1] >= FAR
    assert distances[0].tolist()[::2] == pytest.approx([0, 2], abs=1e-5)


def test_facts_of_a_later_version_are_left_out(novelty: Novelty) -> None:
    again = from_tensors(to_tensors(novelty), CLASSES, FACTS | {"plane": 3, "later": "x"})
    assert again.facts == FACTS


def test_excluded_references_do_not_count() -> None:
    identity = np.eye(4, dtype=np.float32)
    plane = Plane(np.zeros(4, np.float32), identity, identity[[0, 1, 2]], np.array([0, 0, 1]), 0.0, 2)
    found = plane.class_distances(*plane.project(identity[:1]), np.array([[True, False, False]]))
    assert found[0].tolist() == pytest.approx([2, 2], abs=1e-5)


def test_a_rank_counts_equal_values_and_the_value_itself() -> None:
    known = np.array([1.0, 2.0, 2.0, 3.0])
    assert rank_among(known, np.array([0.0, 1.0, 2.0, 2.5, 3.0, 9.0])).tolist() == [1, 1, 0.8, 0.4, 0.4, 0.2]


def test_more_of_either_is_stranger() -> None:
    by_distance, by_entropy = np.array([0.9, 0.2, 0.9]), np.array([0.9, 0.9, 0.2])
    usual, far, unsure = join_ranks(by_distance, by_entropy, 0.7)
    assert usual < unsure < far  # the distance counts for more
    assert join_ranks(by_distance, by_entropy, 1.0)[1:].tolist() == pytest.approx([-np.log(0.18)] * 2)


def test_a_p_value_in_words() -> None:
    assert describe_p_value(0.05) == {"p_value": 0.05, "is_unknown": True, "threshold": 0.05}
    assert describe_p_value(0.0512345) == {"p_value": 0.0512, "is_unknown": False, "threshold": 0.05}
    assert describe_p_value(None) is None


@pytest.mark.parametrize("number", [20, 60, 300])
def test_as_many_new_images_are_called_unknown_as_promised_however_few_are_known(number: int) -> None:
    """Over many draws of known images, of which the last one is taken for new."""
    shares = []
    for seed in range(60):
        learnt, known, new = torch.arange(90) % CLASSES, torch.arange(number) % CLASSES, torch.arange(60) % CLASSES
        embeddings = embeddings_of(learnt, 1)
        distances = distances_apart(embeddings, learnt, embeddings_of(known, 100 + seed), CLASSES)
        images = KnownImages(distances, known, unsure_logits(known, seed), "val", False)
        found = fit_novelty(embeddings, learnt, images, 1.0).measure(
            embeddings_of(new, 500 + seed), unsure_logits(new, 1000 + seed).softmax(1)
        )
        shares.append((found.p_values <= 0.05).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


def unsure_logits(classes: Tensor, seed: int) -> Tensor:
    """Return logits of random height for the right class."""
    generator = torch.Generator().manual_seed(seed)
    return logits_of(classes) * torch.rand(len(classes), 1, generator=generator)
