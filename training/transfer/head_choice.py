"""Features and labels -> one linear layer: heads on several parts of the features, compared by cross-validation.

The final layer is the mean of the best few. A linear layer on some columns is one on all, with zeros elsewhere, and
the mean of linear layers is a linear layer: so all of it is folded into ``fc``, and every view shows it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.training.evaluation.calibration import fit_temperature
from torchlight.training.evaluation.cross_validation import CandidateResult
from torchlight.training.transfer.folds import FOLDS
from torchlight.training.transfer.linear_heads import (
    MAX_DIRECTIONS,
    find_basis,
    fit_heads,
    head_logits,
    mean_linear,
    to_linear,
)

STRENGTHS = (1e-3, 1e-4, 1e-5)  # of the regularisation, for features of mean length 1
NAMES = {
    ("last",): "last layer",
    ("level2", "last"): "last layer and the maps before it",
    ("level1", "level2", "last"): "last layer and maps of two depths",
}
Linear = tuple[Tensor, Tensor]  # weight (K, D) and bias (K,)
MEAN_OF = 3  # heads: one alone is chosen by luck where photos are few, see docs/log.md
MAX_MIRROR_LOSS = 0.1  # of the photos that are recognised; cats lose none, drawn dials nearly all, see docs/log.md
MAX_WORK = 5e8  # multiply-adds of one product over all folds, such as of 2,000 photos in 20 classes: above it one head


@dataclass(frozen=True)
class Head:
    """One way to read the features.

    Attributes:
        parts: names of the blocks that it reads.
        strength: of its regularisation.
        held_out_logits: (N, K), each row by a head that did not learn from that photo's fold.
        weight, bias: (K, D) and (K,), of the head that learnt from all photos.
    """

    parts: tuple[str, ...]
    strength: float
    held_out_logits: Tensor
    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class HeadChoice:
    """The mean of the best heads, calibrated.

    Attributes:
        heads: all that were compared, best first.
        chosen: those whose mean it is.
        held_out_logits: (N, K): for each fold heads were chosen and a temperature was fitted by the answers to the
            others. As is usual in stacking, the heads that gave those had learnt from this fold.
        undivided_logits: (N, K): the same without a temperature.
        weight, bias: (K, D) and (K,), divided by the temperature.
        temperature: 1 where dividing did not help on held-out folds.
    """

    heads: Sequence[Head]
    chosen: Sequence[Head]
    held_out_logits: Tensor
    undivided_logits: Tensor
    weight: Tensor
    bias: Tensor
    temperature: float


def fit_all_heads(
    features: Tensor,
    labels: Tensor,
    folds: Tensor,
    blocks: Mapping[str, slice],
    on_head: Callable[[int, int], None],
    trusted: Tensor | None = None,
) -> list[Head]:
    """Fit a head for each choice of parts and each strength; return them, best first.

    Args:
        features: (N, D) float32.
        labels, folds: (N,) int64.
        blocks: columns of each part.
        on_head: called after each head with how many are done and how many there are.
        trusted: (N,) bool, photos that may be learnt from and that decide which head is best; the others are only
            answered. None trusts all.
    """
    known = torch.ones(len(labels), dtype=torch.bool) if trusted is None else trusted
    learnt = torch.stack([known & (folds != fold) for fold in range(FOLDS)] + [known])
    rows, work = torch.arange(len(labels)), learnt.numel() * min(len(labels), MAX_DIRECTIONS) * (int(labels.max()) + 1)
    tried, strengths = (list(NAMES), STRENGTHS) if work <= MAX_WORK else ([("last",)], STRENGTHS[1:2])
    heads: list[Head] = []
    for parts in tried:
        for strength, logits, weight, bias in _fit(
            features, labels, [blocks[part] for part in parts], strengths, learnt
        ):
            heads.append(Head(parts, strength, logits[folds, rows], weight, bias))
            on_head(len(heads), len(tried) * len(strengths))
    return sorted(heads, key=lambda head: _loss(head.held_out_logits[known], labels[known]))


def fit_again(head: Head, features: Tensor, labels: Tensor, blocks: Mapping[str, slice], seen: Tensor) -> Linear:
    """Return weight (K, D) and bias (K,) of such a head that learns from some photos only, (N,) bool."""
    columns = [blocks[part] for part in head.parts]
    (_, _, weight, bias), *_ = _fit(features, labels, columns, [head.strength], seen[None])
    return weight, bias


def may_be_mirrored(
    choice: HeadChoice, features: Tensor, mirrored: Tensor, labels: Tensor, folds: Tensor, blocks: Mapping[str, slice]
) -> bool:
    """Return whether a mirror image is of the same class: heads that never saw one recognise it nearly as often.

    A mirrored cat is a cat; a mirrored arrow, letter or hand sign may be another one.

    Args:
        features, mirrored: (N, D), of the photos and of their mirror images.
    """
    head, right, right_mirrored = choice.chosen[0], 0, 0
    for fold in range(FOLDS):
        own = folds == fold
        if not own.any():
            continue
        weight, bias = fit_again(head, features, labels, blocks, ~own)
        right += int((F.linear(features[own], weight, bias).argmax(1) == labels[own]).sum())
        right_mirrored += int((F.linear(mirrored[own], weight, bias).argmax(1) == labels[own]).sum())
    return right_mirrored >= (1 - MAX_MIRROR_LOSS) * right


def _fit(
    features: Tensor, labels: Tensor, columns: Sequence[slice], strengths: Sequence[float], learnt: Tensor
) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
    """Yield for each strength the logits (B, N, K) of all heads, and the last one as a linear layer on all features.

    Args:
        learnt: (B, N) bool, what each head learns from.
    """
    num_classes = int(labels.max()) + 1
    scale = _scale(features, columns)  # (D,)
    kept = scale > 0
    basis = find_basis(features[:, kept] * scale[kept])
    for strength in strengths:
        fitted = fit_heads(basis, labels, num_classes, strength, learnt)
        partial, bias = to_linear(basis, fitted.weights[-1], fitted.biases[-1])
        weight = partial.new_zeros(num_classes, features.shape[1])
        weight[:, kept] = partial * scale[kept]
        yield strength, head_logits(basis, fitted), weight, bias


def choose_heads(heads: Sequence[Head], labels: Tensor, folds: Tensor) -> HeadChoice:
    """Take the mean of the best heads, and find what it answers to photos that had no part in that choice.

    Args:
        heads: best first.
        labels, folds: (N,) int64.
    """
    undivided, divided = torch.zeros_like(heads[0].held_out_logits), torch.zeros_like(heads[0].held_out_logits)
    for fold in range(FOLDS):
        own, others = folds == fold, folds != fold
        if not own.any() or not others.any():
            continue
        best = _best([head.held_out_logits[others] for head in heads], labels[others])
        mean = torch.stack([heads[k].held_out_logits for k in best]).mean(0)  # (N, K)
        undivided[own] = mean[own]
        divided[own] = mean[own] / fit_temperature(mean[others], labels[others])
    chosen = [heads[k] for k in _best([head.held_out_logits for head in heads], labels)]
    weight, bias = mean_linear([(head.weight, head.bias) for head in chosen])
    helps = _loss(divided, labels) < _loss(undivided, labels)
    temperature = fit_temperature(torch.stack([h.held_out_logits for h in chosen]).mean(0), labels) if helps else 1.0
    return HeadChoice(
        heads=heads,
        chosen=chosen,
        held_out_logits=divided if helps else undivided,
        undivided_logits=undivided,
        weight=weight / temperature,
        bias=bias / temperature,
        temperature=temperature,
    )


def title(backbone: str) -> str:
    """Return a backbone's name as its authors write it: ``EfficientNet-Lite2`` for ``efficientnet_lite2``."""
    return backbone.replace("efficientnet_lite", "EfficientNet-Lite")


def _scale(features: Tensor, columns: Sequence[slice]) -> Tensor:
    """Return (D,) factors that bring each part, over all photos, to the same mean length; 0 outside the parts.

    Together the parts have mean length 1, so that a strength means the same for each choice of parts.
    """
    scale = features.new_zeros(features.shape[1])
    for part in columns:
        scale[part] = 1 / (features[:, part].norm(dim=1).mean().clamp(min=1e-6) * len(columns) ** 0.5)
    return scale


def _best(logits: Sequence[Tensor], labels: Tensor) -> list[int]:
    losses = [_loss(one, labels) for one in logits]
    return sorted(range(len(losses)), key=losses.__getitem__)[:MEAN_OF]


def _loss(logits: Tensor, labels: Tensor) -> float:
    return F.cross_entropy(logits, labels).item()


def describe_heads(choice: HeadChoice, labels: Tensor, backbone: str, seconds: float) -> list[CandidateResult]:
    """Return the best head of each choice of parts, best first.

    Args:
        backbone: its name.
        seconds: spent on the features and all heads.
    """
    results: dict[tuple[str, ...], CandidateResult] = {}
    for head in choice.heads:  # best first
        if head.parts not in results:
            logits = head.held_out_logits
            accuracy = (logits.argmax(1) == labels).float().mean().item()
            is_chosen = any(one.parts == head.parts for one in choice.chosen)
            name = f"{title(backbone)}, {NAMES[head.parts]}"
            results[head.parts] = CandidateResult(
                name, accuracy, len(labels), _loss(logits, labels), seconds, is_chosen
            )
    return list(results.values())
