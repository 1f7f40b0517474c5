"""Features and labels -> what heads that did not learn from a photo answer to it, however wrong some labels are.

Heads that learn from wrong labels doubt them less. So they learn twice: the second time without the photos that the
first ones doubt. Knows nothing of files and pictures.

Source: Northcutt, Jiang, Chuang: Confident Learning, JAIR 2021, which prunes in the same way before it learns.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from torchlight.training.evaluation.calibration import fit_temperature
from torchlight.training.evaluation.label_doubts import find_label_doubts
from torchlight.training.transfer.folds import assign_folds
from torchlight.training.transfer.head_choice import MEAN_OF, Head, fit_all_heads

ROUNDS = 2
MOST_DOUBTED = 0.5  # of a class: one that is mistaken more often is hard to recognise, not wrongly labelled


def answer_held_out(
    features: Tensor,
    labels: Tensor,
    groups: Sequence[str],
    blocks: Mapping[str, slice],
    on_head: Callable[[int, int], None] = lambda done, total: None,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
) -> Tensor:
    """Return (N, K) logits for all photos, each photo's by heads that saw neither it nor its near copies.

    Args:
        features: (N, D) float32.
        labels: (N,) int64, of at least two classes.
        groups: equal for near-identical photos, N names.
        blocks: columns of each part of the features.
        on_head: called after each head with how many are done and how many there are.
        seed: of the folds.
        rounds: how often heads learn, at least 1; all but the first without the photos that were doubted before.
    """
    folds = assign_folds(labels, groups, seed)
    trusted = torch.ones(len(labels), dtype=torch.bool)
    for number in range(rounds):
        heads = fit_all_heads(features, labels, folds, blocks, partial(_count_on, on_head, number, rounds), trusted)
        logits = _mean_of_best(heads, labels)
        trusted = _find_trusted(logits, labels)
    return logits


def _count_on(on_head: Callable[[int, int], None], rounds_done: int, rounds: int, done: int, total: int) -> None:
    """Report the heads of this round together with those of the rounds before."""
    on_head(rounds_done * total + done, rounds * total)


def _mean_of_best(heads: Sequence[Head], labels: Tensor) -> Tensor:
    """Return (N, K) the mean of the best heads, divided by the temperature that fits the labels."""
    mean = torch.stack([head.held_out_logits for head in heads[:MEAN_OF]]).mean(0)
    return mean / fit_temperature(mean, labels)


def _find_trusted(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) bool: photos whose label is not in doubt, and all of a class that would lose too many."""
    trusted = torch.ones(len(labels), dtype=torch.bool)
    trusted[[doubt.index for doubt in find_label_doubts(logits, labels)]] = False
    num_classes = logits.shape[1]
    doubted = labels[~trusted].bincount(minlength=num_classes)
    is_hard = doubted > MOST_DOUBTED * labels.bincount(minlength=num_classes)  # (K,)
    return trusted | is_hard[labels]
