"""Which photos are judged together: each by networks that saw neither it nor its near copies."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

FOLDS = 5


def assign_folds(labels: Tensor, groups: Sequence[str], seed: int) -> Tensor:
    """Return the fold of each photo, (N,) int64 from 0 to ``FOLDS - 1``.

    Each class is spread evenly, and a group of near-identical photos stays together: groups go, the largest first, to
    the fold that has the fewest photos of their class, then the fewest of all. Depends on content alone.

    Args:
        labels: (N,) int64.
        groups: of near-identical photos, N names.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    order = sorted(
        members, key=lambda group: (-len(members[group]), hashlib.sha256(f"{seed} {group}".encode()).digest())
    )
    counts = torch.zeros(FOLDS, int(labels.max()) + 1, dtype=torch.int64)
    folds = torch.empty(len(labels), dtype=torch.int64)
    for group in order:
        label = int(labels[members[group][0]])
        fold = min(range(FOLDS), key=lambda k: (int(counts[k, label]), int(counts[k].sum())))
        folds[members[group]] = fold
        counts[fold] += labels[members[group]].bincount(minlength=counts.shape[1])
    return folds
