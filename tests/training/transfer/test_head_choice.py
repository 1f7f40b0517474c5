"""Which heads are kept, what they answer to photos they have not seen, and that their mean is one linear layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.training.transfer import head_choice
from torchlight.training.transfer.folds import FOLDS, assign_folds
from torchlight.training.transfer.head_choice import (
    MEAN_OF,
    NAMES,
    STRENGTHS,
    Head,
    choose_heads,
    describe_heads,
    fit_again,
    fit_all_heads,
    may_be_mirrored,
)

BLOCKS = {"level1": slice(0, 30), "level2": slice(30, 50), "last": slice(50, 60)}


def draw_photos(telling: str, photos: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Return features of which one block tells the classes apart, labels and folds."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(photos) % 3
    features = torch.rand(photos, 60, generator=generator)
    features[:, BLOCKS[telling]][torch.arange(photos), labels] += 1.5
    return features, labels, assign_folds(labels, [str(k) for k in range(photos)], seed=0)


def fit(telling: str) -> tuple[list[Head], Tensor, Tensor, Tensor]:
    features, labels, folds = draw_photos(telling)
    return fit_all_heads(features, labels, folds, BLOCKS, lambda done, total: None), features, labels, folds


def test_every_choice_of_parts_is_tried_at_every_strength_and_progress_is_told() -> None:
    features, labels, folds = draw_photos("last")
    told: list[tuple[int, int]] = []
    heads = fit_all_heads(features, labels, folds, BLOCKS, lambda done, total: told.append((done, total)))
    assert {(head.parts, head.strength) for head in heads} == {(parts, s) for parts in NAMES for s in STRENGTHS}
    assert told[-1] == (len(heads), len(heads))


def test_the_best_head_reads_the_part_that_tells_the_classes_apart() -> None:
    heads, _, labels, _ = fit("last")
    assert heads[0].parts == ("last",)
    losses = [F.cross_entropy(head.held_out_logits, labels).item() for head in heads]
    assert losses == sorted(losses)
    assert "level2" in fit("level2")[0][0].parts


def test_held_out_answers_are_those_of_a_head_that_did_not_learn_from_the_photo() -> None:
    heads, features, labels, folds = fit("last")
    for fold in range(FOLDS):
        weight, bias = fit_again(heads[0], features, labels, BLOCKS, folds != fold)
        own = F.linear(features[folds == fold], weight, bias).softmax(1)
        assert torch.allclose(own, heads[0].held_out_logits[folds == fold].softmax(1), atol=0.02)


def test_the_final_layer_is_the_mean_of_the_chosen_heads_divided_by_the_temperature() -> None:
    heads, features, labels, folds = fit("last")
    choice = choose_heads(heads, labels, folds)
    assert len(choice.chosen) == MEAN_OF
    mean = torch.stack([F.linear(features, head.weight, head.bias) for head in choice.chosen]).mean(0)
    got = F.linear(features, choice.weight, choice.bias)
    assert torch.allclose(got * choice.temperature, mean, atol=1e-3)


def test_a_temperature_is_kept_only_where_it_helps_on_photos_it_was_not_fitted_on() -> None:
    heads, _, labels, folds = fit("last")
    choice = choose_heads(heads, labels, folds)
    losses = [F.cross_entropy(logits, labels) for logits in (choice.held_out_logits, choice.undivided_logits)]
    assert losses[0] <= losses[1]
    assert (choice.temperature == 1) == torch.equal(choice.held_out_logits, choice.undivided_logits)


def test_labels_without_meaning_give_held_out_answers_at_chance() -> None:
    """Were a fold judged by heads that had seen it, it would be right far more often than one in three."""
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(150, 60, generator=generator)
    labels = torch.randint(3, (150,), generator=generator)
    folds = assign_folds(labels, [str(k) for k in range(150)], seed=0)
    heads = fit_all_heads(features, labels, folds, BLOCKS, lambda done, total: None)
    weakest = next(head for head in heads if head.strength == STRENGTHS[-1] and len(head.parts) == 3)
    assert (F.linear(features, weakest.weight, weakest.bias).argmax(1) == labels).float().mean() > 0.8
    held_out = [weakest.held_out_logits, choose_heads(heads, labels, folds).held_out_logits]
    assert all((logits.argmax(1) == labels).float().mean() < 0.45 for logits in held_out)


def test_a_part_that_says_nothing_is_no_division_by_zero() -> None:
    features, labels, folds = draw_photos("last")
    features[:, BLOCKS["level1"]] = 0
    heads = fit_all_heads(features, labels, folds, BLOCKS, lambda done, total: None)
    assert all(torch.isfinite(head.weight).all() for head in heads)


def test_the_report_gets_the_best_head_of_each_choice_of_parts() -> None:
    heads, _, labels, folds = fit("last")
    rows = describe_heads(choose_heads(heads, labels, folds), labels, "backbone", 2.0)
    assert len(rows) == len(NAMES)
    assert rows[0].name == "backbone, last layer"
    assert rows[0].is_chosen
    assert [row.loss for row in rows] == sorted(row.loss or 0 for row in rows)


def test_mirroring_is_allowed_where_it_changes_no_answer_and_refused_where_it_does() -> None:
    heads, features, labels, folds = fit("last")
    choice = choose_heads(heads, labels, folds)
    same = features + 0.01
    other = features.clone()
    other[:, BLOCKS["last"]] = features[:, BLOCKS["last"]].roll(1, dims=1)  # one class looks like the next
    assert may_be_mirrored(choice, features, same, labels, folds, BLOCKS)
    assert not may_be_mirrored(choice, features, other, labels, folds, BLOCKS)


def test_many_photos_of_many_classes_get_one_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_choice, "MAX_WORK", 10)
    told: list[tuple[int, int]] = []
    features, labels, folds = draw_photos("last")
    heads = fit_all_heads(features, labels, folds, BLOCKS, lambda done, total: told.append((done, total)))
    assert [head.parts for head in heads] == [("last",)]
    assert told == [(1, 1)]
    assert (choose_heads(heads, labels, folds).held_out_logits.argmax(1) == labels).float().mean() > 0.8
