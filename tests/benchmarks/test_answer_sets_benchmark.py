"""The benchmark of answer sets: what the rules score, what a half fixes for the other, and how photos are divided."""

import pytest
import torch

from benchmarks.answer_sets import (
    RULES,
    Photos,
    PhotoSet,
    SplitFigures,
    check,
    compare_rules,
    measure_half,
    redraw,
    score_aps,
    score_raps,
)
from torchlight.model.uncertainty.answer_sets import ClassCoverage, SetFigures

ROW = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)


def test_rules_add_up_from_the_most_probable_label_down() -> None:
    none, half = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    assert score_aps(ROW, none)[0].tolist() == pytest.approx([1.0, 0.5, 0.8])
    assert score_aps(ROW, half)[0].tolist() == pytest.approx([0.9, 0.25, 0.65])
    assert score_raps(ROW, none, penalty=0.1)[0].tolist() == pytest.approx([1.2, 0.5, 0.9])
    assert RULES["LAC"](ROW, none)[0].tolist() == pytest.approx([0.8, 0.5, 0.7])


def test_one_half_fixes_the_threshold_of_the_other() -> None:
    probabilities = torch.tensor([[0.9, 0.1]] * 9 + [[0.6, 0.4]] * 9, dtype=torch.float64)
    labels = torch.tensor([0] * 17 + [1])
    found = measure_half(1 - probabilities, probabilities, labels, torch.arange(18))
    assert found.may_be_empty == 0  # 0.6 is not as probable as 0.9
    assert found.coverage == pytest.approx(8 / 9)
    assert (found.mean_size, found.single_share) == (1, 1)
    assert found.by_class.tolist() == [1, 0]


def test_every_rule_covers_as_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2_000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    for rule, found in compare_rules(logits, labels, splits=3).items():
        mean = sum(one.may_be_empty for one in found) / 3
        assert (rule, mean) == (rule, pytest.approx(0.9, abs=0.02))


def test_photos_are_drawn_anew_and_near_copies_stay_together() -> None:
    features = torch.arange(60.0)[:, None]
    photos = Photos(("cat", "dog"), features[:40], torch.arange(40) % 2, tuple(f"{k // 2}" for k in range(40)))
    apart = Photos(("cat", "dog"), features[40:], torch.arange(20) % 2, tuple(f"{k}" for k in range(20)))
    learnt, others = redraw(PhotoSet("pets", photos, apart), seed=1)
    assert len(learnt.labels) in (40, 41)
    assert sorted([*learnt.features[:, 0].tolist(), *others.features[:, 0].tolist()]) == list(range(60))
    assert not {*learnt.groups} & {*others.groups}
    assert learnt.features.tolist() != redraw(PhotoSet("pets", photos, apart), seed=2)[0].features.tolist()


@pytest.mark.parametrize(
    ("coverage", "right", "kept"), [(0.9, 0.8, True), (0.87, 0.8, False), (0.93, 0.8, False), (0.97, 0.96, True)]
)
def test_limits_are_kept_or_missed(coverage: float, right: float, kept: bool) -> None:
    halves = [SplitFigures(0.9, 0.9, 1.5, 0.5, torch.tensor([0.9, 0.9]))]
    larger = [SplitFigures(0.9, 0.9, 1.4, 0.5, torch.tensor([0.9, 0.9]))]
    drawn = [SetFigures(0.9, 10, coverage, 1.0, 1.0, ClassCoverage("cat", 5, 0.8))]
    checks = list(check("pets", {"LAC": halves, "APS": larger}, drawn, right))
    assert [one.is_kept for one in checks] == [True, kept, False]
