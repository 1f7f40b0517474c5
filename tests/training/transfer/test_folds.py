"""Folds: near copies together, each class spread evenly, the same for any order of the photos."""

import torch

from torchlight.training.transfer.folds import FOLDS, assign_folds


def test_each_class_is_spread_evenly() -> None:
    labels = torch.tensor([0] * 23 + [1] * 11 + [2] * 5)
    folds = assign_folds(labels, [str(k) for k in range(39)], seed=0)
    for label, fewest, most in ((0, 4, 5), (1, 2, 3), (2, 1, 1)):
        counts = folds[labels == label].bincount(minlength=FOLDS)
        assert (int(counts.min()), int(counts.max())) == (fewest, most)


def test_a_group_is_never_divided() -> None:
    groups = [str(k // 3) for k in range(30)]
    folds = assign_folds(torch.arange(30) % 2, groups, seed=0)
    assert all(len({int(folds[row]) for row in range(30) if groups[row] == group}) == 1 for group in groups)


def test_folds_follow_from_content_not_from_order() -> None:
    labels, groups = torch.arange(20) % 4, [f"digest {k}" for k in range(20)]
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    folds = assign_folds(labels, groups, seed=3)
    assert torch.equal(assign_folds(labels[order], [groups[k] for k in order], seed=3), folds[order])


def test_another_seed_gives_other_folds() -> None:
    labels, groups = torch.arange(20) % 4, [f"digest {k}" for k in range(20)]
    assert not torch.equal(assign_folds(labels, groups, seed=0), assign_folds(labels, groups, seed=1))


def test_fewer_photos_than_folds_are_one_fold_each() -> None:
    assert sorted(assign_folds(torch.tensor([0, 1]), ["a", "b"], seed=0).tolist()) == [0, 1]
