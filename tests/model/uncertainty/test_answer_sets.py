"""Sets of labels: the threshold is the conformal quantile, no set is empty, and the figures are of other images."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from torchlight.model.checkpoint import (
    ABSENT,
    PUBLISHED,
    Header,
    explain_absent_sets,
    load_checkpoint,
    save_checkpoint,
)
from torchlight.model.classifier import Classifier
from torchlight.model.errors import InvalidHeader
from torchlight.model.named_checkpoints import DIGESTS
from torchlight.model.uncertainty.answer_sets import (
    MAX_SCORES,
    AnswerSets,
    ClassCoverage,
    SetFigures,
    choose_members,
    find_threshold,
    measure_answer_sets,
    measure_set_figures,
)

ANIMALS = ("cat", "dog", "owl")
FIGURES = SetFigures(0.9, 4, 0.75, 1.5, 0.5, ClassCoverage("dog", 2, 0.5))


def draw_answers(images: int, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and labels that are as probable as the logits say."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def names(classes: int) -> list[str]:
    return [f"class {k}" for k in range(classes)]


# The threshold


@pytest.mark.parametrize(
    ("images", "coverage", "rank"), [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (99, 0.95, 95), (3, 0.5, 2)]
)
def test_the_threshold_is_the_conformal_quantile(images: int, coverage: float, rank: int) -> None:
    scores = torch.linspace(0.1, 0.9, images, dtype=torch.float64)[torch.randperm(images)]
    assert find_threshold(scores, coverage) == pytest.approx(0.1 + 0.8 * (rank - 1) / (images - 1))


@pytest.mark.parametrize(("images", "coverage"), [(0, 0.9), (8, 0.9), (18, 0.95), (1, 0.6)])
def test_too_few_images_for_a_coverage_give_all_labels(images: int, coverage: float) -> None:
    assert find_threshold(torch.full((images,), 0.2, dtype=torch.float64), coverage) == 1
    sets = AnswerSets((0.2,) * max(1, images), max(1, images), FIGURES)
    assert sets.threshold(coverage) == 1
    assert not sets.can_show(coverage)
    assert choose_members([0.9999, 0.0001, 0.0], sets.threshold(coverage)) == [0, 1, 2]


@given(images=st.integers(1, 20_000), thousandths=st.integers(500, 999))
def test_thinned_scores_give_a_rank_that_is_high_enough_and_hardly_higher(images: int, thousandths: int) -> None:
    rank = -(-(images + 1) * thousandths // 1000)
    kept = min(images, MAX_SCORES)
    ranks = [-(-j * images // kept) for j in range(1, kept + 1)]
    threshold = AnswerSets(tuple(one / images for one in ranks), images, FIGURES).threshold(thousandths / 1000)
    chosen = round(threshold * images)
    assert chosen == images if rank > images else rank <= chosen <= rank + images / MAX_SCORES


def test_scores_of_many_images_are_thinned_to_order_statistics() -> None:
    logits, labels = draw_answers(2_500)
    sets = measure_answer_sets(logits, labels, names(5))
    assert (len(sets.scores), sets.images) == (MAX_SCORES, 2_500)
    scores = (1 - logits.double().softmax(1).gather(1, labels[:, None])[:, 0]).sort().values
    assert sets.scores[-1] == pytest.approx(scores[-1].item(), abs=1e-6)
    assert sets.scores[0] == pytest.approx(scores[2].item(), abs=1e-6)
    assert sets.threshold(0.9) >= find_threshold(scores, 0.9)
    assert list(sets.scores) == sorted(sets.scores)


# Sets


def test_a_set_holds_the_most_probable_labels_down_to_the_threshold() -> None:
    probabilities = [0.2, 0.5, 0.3]
    assert choose_members(probabilities, 0.5) == [1]
    assert choose_members(probabilities, 0.7) == [1, 2]
    assert choose_members(probabilities, 0.8) == [1, 2, 0]


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_a_set_is_never_empty_and_begins_with_the_best_label(probabilities: list[float], threshold: float) -> None:
    members = choose_members(probabilities, threshold)
    assert probabilities[members[0]] == max(probabilities)
    assert len(set(members)) == len(members)


def test_sets_grow_with_the_coverage(make_classifier: Callable[..., Classifier]) -> None:
    logits, labels = draw_answers(500, 3)
    classifier = make_classifier()
    header = dataclasses.replace(classifier.checkpoint.header, answer_sets=measure_answer_sets(logits, labels, ANIMALS))
    classifier = Classifier(dataclasses.replace(classifier.checkpoint, header=header), torch.device("cpu"))
    probabilities = torch.tensor([0.25, 0.15, 0.6])
    found = [classifier.answer_set(probabilities, coverage) for coverage in (0.5, 0.9, 0.999)]
    assert found[0] == ["owl"]
    assert found[1] == ["owl", "cat"]
    assert found[2] == ["owl", "cat", "dog"]


def test_a_checkpoint_without_scores_has_no_sets(make_classifier: Callable[..., Classifier]) -> None:
    assert make_classifier().answer_set(torch.tensor([0.2, 0.5, 0.3]), 0.9) is None


# What is measured


def test_new_images_are_covered_as_often_as_asked_for() -> None:
    coverages = []
    for seed in range(40):
        logits, labels = draw_answers(600, seed=seed)
        sets = measure_answer_sets(logits[:300], labels[:300], names(5))
        coverages.append(measure_set_figures(sets, logits[300:], labels[300:], names(5)).coverage)
    assert sum(coverages) / len(coverages) == pytest.approx(0.9, abs=0.01)


def test_figures_count_what_they_say() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.9, 0.05, 0.05], [0.34, 0.33, 0.33]]).log()
    labels = torch.tensor([0, 1, 1, 2])
    sets = AnswerSets((0.1, 0.2, 0.65), 3, FIGURES)  # half of the images: a threshold of 0.2, so the best label alone
    assert measure_set_figures(sets, logits, labels, ANIMALS, 0.5) == SetFigures(
        0.5, 4, 0.25, 1.0, 1.0, ClassCoverage("dog", 2, 0.0)
    )
    assert measure_set_figures(sets, logits, labels, ANIMALS, 0.75) == SetFigures(
        0.75, 4, 0.5, 1.25, 0.75, ClassCoverage("owl", 1, 0.0)
    )


def test_no_image_has_a_part_in_the_threshold_that_it_is_measured_with() -> None:
    """The only hard image raises the threshold of the others, not its own."""
    logits = torch.tensor([[9.0, 0.0, 0.0]] * 10)
    labels = torch.tensor([0] * 9 + [1])
    sets = measure_answer_sets(logits, labels, ANIMALS)
    assert choose_members([0.9, 0.09, 0.01], sets.threshold(0.9)) == [0, 1, 2]  # by all ten: the hard one's score
    assert sets.measured.coverage == 0.9
    assert sets.measured.worst_class == ClassCoverage("dog", 1, 0.0)


def test_one_image_is_enough_to_measure() -> None:
    sets = measure_answer_sets(torch.tensor([[2.0, 0.0]]), torch.tensor([1]), ("cat", "dog"))
    assert sets.measured == SetFigures(0.9, 1, 1.0, 2.0, 0.0, ClassCoverage("dog", 1, 1.0))


# In the file


@pytest.fixture
def save_with(
    tmp_path: Path, make_network: Callable[..., nn.Module], make_header: Callable[..., Header]
) -> Callable[[Any], Path]:
    """Save a checkpoint for three classes with such answer sets."""

    def save(answer_sets: Any) -> Path:
        path = tmp_path / "changed.safetensors"
        save_checkpoint(path, make_network(), make_header(answer_sets=answer_sets))
        return path

    return save


def test_what_is_measured_comes_back_from_the_file(save_with: Callable[[Any], Path]) -> None:
    logits, labels = draw_answers(1_500, 3)
    sets = measure_answer_sets(logits, labels, ANIMALS)
    path = save_with(sets)
    checkpoint = load_checkpoint(path)
    assert checkpoint.header.answer_sets == sets
    assert explain_absent_sets(checkpoint) is None
    assert len(json.dumps(dataclasses.asdict(sets))) < 12_000


def test_a_checkpoint_without_sets_says_why(checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path)
    assert explain_absent_sets(checkpoint) == ABSENT
    assert explain_absent_sets(dataclasses.replace(checkpoint, digest=DIGESTS["imagenet"])) == PUBLISHED


GOOD = {"scores": [0.1, 0.2, 0.2, 1.0], "images": 4, "measured": dataclasses.asdict(FIGURES)}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({**GOOD, "scores": [0.1, 0.2, 0.2]}, "scores are not 4 numbers from 0 to 1"),
        ({**GOOD, "scores": [0.1, 0.2, 0.2, 1.5]}, "scores are not 4 numbers"),
        ({**GOOD, "scores": [0.1, 0.2, 0.2, float("nan")]}, "scores are not 4 numbers"),
        ({**GOOD, "scores": [0.1, 0.2, 0.2, "1"]}, "scores are not 4 numbers"),
        ({**GOOD, "scores": [0.1, 0.3, 0.2, 1.0]}, "scores do not rise"),
        ({**GOOD, "scores": 7}, "scores are not 4 numbers"),
        ({**GOOD, "images": 0}, "images is 0, not a number of at least 1"),
        ({**GOOD, "images": 10**9}, "scores are not 1000 numbers"),
        ({**GOOD, "measured": GOOD["measured"] | {"coverage": 2.0}}, "measured figures are out of range"),
        ({**GOOD, "measured": GOOD["measured"] | {"mean_size": 4.0}}, "measured figures are out of range"),
        (
            {**GOOD, "measured": GOOD["measured"] | {"worst_class": {"label": "cow", "images": 2, "coverage": 0.5}}},
            "measured figures are out of range",
        ),
        ({**GOOD, "measured": {"coverage": 0.9}}, "worst_class"),
        ({**GOOD, "measured": None}, "'answer_sets' is not what this program writes"),
        ({**GOOD, "measured": GOOD["measured"] | {"more": 1}}, "'answer_sets' is not what this program writes"),
        ({"images": 4}, "'answer_sets' is not what this program writes"),
        ("many", "'answer_sets' is not what this program writes"),
    ],
)
def test_what_cannot_be_is_refused(save_with: Callable[[Any], Path], bad: Any, said: str) -> None:
    with pytest.raises(InvalidHeader, match=said):
        load_checkpoint(save_with(bad))


def test_good_ones_are_taken(save_with: Callable[[Any], Path]) -> None:
    assert load_checkpoint(save_with(GOOD)).header.answer_sets == AnswerSets((0.1, 0.2, 0.2, 1.0), 4, FIGURES)
