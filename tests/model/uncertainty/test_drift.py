"""Drift: no alarm while all is as in training, one soon after it is not, and what is said of the last images."""

import numpy as np
import numpy.typing as npt
import pytest

from torchlight.model.uncertainty.drift import ALARM_ODDS, LEAST, POWER, RECENT, WINDOW, Drift, DriftFigures
from torchlight.model.uncertainty.novelty import Novelty, Plane

DIRECTIONS, EACH = 8, 50  # of the plane; images of each class
MEANS = 10 * np.eye(2, DIRECTIONS)  # (K, R) of the classes, whose images have a standard deviation of 1
Floats = npt.NDArray[np.float64]


def novelty_of(references: npt.NDArray[np.floating], classes: list[int], num_classes: int = 2) -> Novelty:
    plane = Plane(
        mean=np.zeros(DIRECTIONS, np.float32),
        directions=np.eye(DIRECTIONS, dtype=np.float32),
        references=references.astype(np.float32),
        classes=np.array(classes),
        residual=0.0,
        num_classes=num_classes,
    )
    known = np.arange(100.0)
    return Novelty(plane, np.ones(num_classes, np.float32), known, known, known, 0.7, images=100, measured_on="val")


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def novelty(generator: np.random.Generator) -> Novelty:
    labels = [0] * EACH + [1] * EACH
    return novelty_of(MEANS[labels] + generator.normal(size=(2 * EACH, DIRECTIONS)), labels)


def add(
    drift: Drift, p_values: Floats, labels: list[int] | None = None, coordinates: Floats | None = None, name: str = ""
) -> None:
    """Count images, all different: by default of class 0, and where its images are."""
    labels = labels or [0] * len(p_values)
    coordinates = MEANS[labels] if coordinates is None else coordinates
    rows = zip(labels, coordinates.astype(np.float32), p_values.tolist(), strict=True)
    for number, row in enumerate(rows):
        drift.add(f"{name}{number}", *row)


def figures(drift: Drift) -> DriftFigures:
    found = drift.figures()
    assert found is not None
    return found


@pytest.mark.parametrize("known", [5, 20, 1_000])
def test_a_bet_on_an_image_like_known_ones_pays_no_more_than_it_costs(known: int) -> None:
    p_values = np.arange(1, known + 2) / (known + 1)  # each is as likely
    assert 0.5 < np.mean(POWER * p_values ** (POWER - 1)) <= 1


def test_no_alarm_in_ten_thousand_images_like_known_ones(novelty: Novelty, generator: np.random.Generator) -> None:
    for stream in range(5):
        drift = Drift(novelty)
        for number, p_value in enumerate((generator.integers(1, 102, size=10_000) / 101).tolist()):
            drift.add(f"{stream} {number}", 0, MEANS[0].astype(np.float32), p_value)
            assert drift.drift < 1


def test_strange_images_are_found_soon_and_forgotten_when_they_have_gone(
    novelty: Novelty, generator: np.random.Generator
) -> None:
    drift = Drift(novelty)
    add(drift, generator.uniform(size=400), name="usual")
    assert drift.drift < 1
    add(drift, generator.uniform(0, 0.1, size=20), name="strange")
    assert drift.drift >= 1
    add(drift, generator.uniform(0, 0.1, size=1_000), name="strange for long")
    assert drift.drift == 2
    add(drift, generator.uniform(size=150), name="usual again")
    assert drift.drift < 1


def test_nothing_is_said_before_there_are_enough_images(novelty: Novelty) -> None:
    drift = Drift(novelty)
    add(drift, np.full(LEAST - 1, 1e-3))
    assert (drift.figures(), drift.drift) == (None, 0)
    add(drift, np.full(1, 1e-3), name="one more")
    assert figures(drift).drift >= 1


def test_processes_share_the_window(novelty: Novelty) -> None:
    drift = Drift(novelty, processes=3)
    add(drift, np.full(17, 1e-3))
    assert figures(drift).unknown_share == 1
    add(drift, np.ones(WINDOW // 3 + 1), name="usual")
    assert figures(drift).unknown_share == 0


def test_image_that_comes_again_and_again_counts_once(novelty: Novelty) -> None:
    drift = Drift(novelty)
    for _ in range(1_000):
        drift.add("health check", 0, MEANS[0].astype(np.float32), 1e-3)
    assert drift.figures() is None


def test_strange_image_among_usual_ones_raises_no_alarm_however_often_it_comes(
    novelty: Novelty, generator: np.random.Generator
) -> None:
    drift = Drift(novelty)
    for turn in range(500):
        drift.add("health check", 0, MEANS[0].astype(np.float32), 1e-3)
        add(drift, generator.uniform(size=RECENT), name=f"{turn} ")
        assert drift.drift < 1


def test_odds_end_at_a_bound(novelty: Novelty) -> None:
    drift = Drift(novelty)
    add(drift, np.full(2_000, 1e-3))
    assert figures(drift).drift == pytest.approx(np.log(ALARM_ODDS**2) / np.log(ALARM_ODDS))


def test_shares_are_those_of_the_last_images(novelty: Novelty) -> None:
    drift = Drift(novelty)
    add(drift, np.full(300, 0.01), [1] * 300, name="before")
    assert figures(drift)[2:] == (1, pytest.approx(0.5, abs=0.03))  # half of them would have to be of the other class
    add(drift, np.array([0.01, 1, 1, 1] * (WINDOW // 4)), [0, 1] * (WINDOW // 2))
    assert figures(drift)[2:] == (0.25, 0)


@pytest.mark.parametrize("shift", [0, 2, 4])
def test_distance_is_that_of_the_mean_in_standard_deviations(
    novelty: Novelty, generator: np.random.Generator, shift: float
) -> None:
    drift, labels = Drift(novelty), [0, 1] * 100
    coordinates = MEANS[labels] + generator.normal(size=(200, DIRECTIONS))
    coordinates[:, 3] += shift
    add(drift, np.ones(200), labels, coordinates)
    assert figures(drift).distance == pytest.approx(shift, rel=0.2)


def test_other_shares_of_the_classes_are_no_distance(novelty: Novelty, generator: np.random.Generator) -> None:
    drift = Drift(novelty)
    add(drift, np.ones(200), [1] * 200, MEANS[1] + generator.normal(size=(200, DIRECTIONS)))
    found = figures(drift)
    assert found.distance == 0
    assert found.label_distance > 0.4


def test_distance_is_left_out_where_the_spread_of_the_classes_is_not_known() -> None:
    drift = Drift(novelty_of(MEANS, [0, 1]))  # one image of each
    add(drift, np.ones(100))
    assert figures(drift).distance is None


def test_images_of_a_class_that_nothing_is_known_of_are_no_distance(generator: np.random.Generator) -> None:
    drift = Drift(novelty_of(generator.normal(size=(10, DIRECTIONS)), [0] * 10))
    add(drift, np.ones(100), [1] * 100)
    assert figures(drift).distance is None
    add(drift, np.ones(100), [0, 1] * 50, np.zeros((100, DIRECTIONS)), name="and of a known one")
    assert figures(drift).distance == 0


def test_direction_without_spread_among_the_images_of_training_is_no_distance(generator: np.random.Generator) -> None:
    references = generator.normal(size=(10, DIRECTIONS))
    references[:, 0] = 0
    drift = Drift(novelty_of(references, [0] * 10))
    add(drift, np.ones(100), coordinates=generator.normal(0, 0.1, size=(100, DIRECTIONS)))
    assert figures(drift).distance == 0
