"""Held-out answers for all photos: planted errors come first, and a second round without doubted photos finds more."""

import torch
from torch import Tensor

from torchlight.training.evaluation.label_doubts import rank_labels
from torchlight.training.transfer.label_check import ROUNDS, answer_held_out

BLOCKS = {"level1": slice(0, 8), "level2": slice(8, 16), "last": slice(16, 32)}


def make_photos(number: int, num_classes: int, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return features (N, 32) and true labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(number) % num_classes
    return torch.eye(32)[labels + 16] + noise * torch.randn(number, 32, generator=generator) / 4, labels


def test_planted_errors_are_at_the_head_of_the_list() -> None:
    features, truth = make_photos(120, 3)
    planted = [5, 17, 40, 77, 99, 110]
    labels = truth.clone()
    labels[planted] = (truth[planted] + 1) % 3
    calls: list[tuple[int, int]] = []
    logits = answer_held_out(
        features, labels, [str(k) for k in range(120)], BLOCKS, lambda done, total: calls.append((done, total))
    )
    assert set(rank_labels(logits, labels)[:6].tolist()) == set(planted)
    assert (logits.argmax(1) == truth).all()
    assert calls == [(k + 1, len(calls)) for k in range(len(calls))]
    assert len(calls) % ROUNDS == 0


def test_classes_that_cannot_be_told_apart_keep_their_photos() -> None:
    features, labels = make_photos(60, 3)
    generator = torch.Generator().manual_seed(1)
    mixed = labels < 2
    labels[mixed] = torch.randint(0, 2, (int(mixed.sum()),), generator=generator)
    logits = answer_held_out(features, labels, [str(k) for k in range(60)], BLOCKS)
    assert logits.isfinite().all()
    assert (logits[~mixed].argmax(1) == 2).all()


def test_one_photo_a_class_is_answered_too() -> None:
    features, labels = make_photos(2, 2)
    assert answer_held_out(features, labels, ["a", "b"], BLOCKS).shape == (2, 2)
