"""Which rule makes the smallest answer sets, and whether they hold the true label as often as asked for.

    python -m benchmarks.answer_sets NAME=PHOTOS,APART... [--splits 200] [--redraws 200] [--markdown answer-sets.md]

PHOTOS and APART are folders of classes. Rules are compared on PHOTOS alone, by cross-validated answers: 200 times one
half of them, drawn at random, fixes the threshold, and the sets of the other half are measured. Then a head learns
from PHOTOS, the threshold comes from its cross-validated answers, and the sets of APART are measured once; and 200
times the same with both folders together, divided at random into as many photos to learn from and others.

The rules differ in the score of a label. LAC: 1 minus its probability. APS: the sum of the probabilities down to it,
less a random share of its own. RAPS: that, and a penalty for each label before it, one of ``PENALTIES``. The most
probable label is in every set of every rule; "may be empty" is the coverage without that.

Sources: LAC: Sadinle, Lei, Wasserman, JASA 2019. APS: Romano, Sesia, Candès, NeurIPS 2020. RAPS: Angelopoulos, Bates,
Malik, Jordan, ICLR 2021.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from stress.load.report import Check, Report, Sheet, finish
from torchlight.model.defaults import COVERAGE, cache_folder
from torchlight.model.uncertainty.answer_sets import (
    SetFigures,
    find_threshold,
    measure_answer_sets,
    measure_set_figures,
)
from torchlight.training.data.source_photos import read_source
from torchlight.training.run_transfer import BACKBONE
from torchlight.training.transfer.feature_cache import compute_once, name_source
from torchlight.training.transfer.features import Backbone, compile_features, extract_features, load_backbone
from torchlight.training.transfer.folds import assign_folds
from torchlight.training.transfer.head_choice import HeadChoice, choose_heads, fit_all_heads

PENALTIES = (0.01, 0.1, 1.0)  # of RAPS
LOWEST, HIGHEST = 0.88, 0.92  # where the mean coverage must lie, unless the best label alone is right more often
Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Photos:
    """Features (N, D) of a folder, their labels (N,) and the groups of near-identical photos."""

    class_names: tuple[str, ...]
    features: Tensor
    labels: Tensor
    groups: tuple[str, ...]

    def select(self, rows: Tensor) -> "Photos":
        """Return those at these positions."""
        groups = tuple(self.groups[row] for row in rows.tolist())
        return Photos(self.class_names, self.features[rows], self.labels[rows], groups)


@dataclass(frozen=True)
class PhotoSet:
    """Photos to learn from, and photos apart."""

    name: str
    photos: Photos
    apart: Photos


@dataclass(frozen=True)
class SplitFigures:
    """Sets in one half of some photos, with the threshold of the other half.

    Attributes:
        may_be_empty: coverage, if the most probable label is not always in the set.
        by_class: (K,) coverage.
    """

    coverage: float
    may_be_empty: float
    mean_size: float
    single_share: float
    by_class: Tensor


def main() -> int:
    """Compare the rules on every set, measure the chosen one, and report."""
    arguments, console = _read_arguments(), Console()
    backbone = load_backbone(BACKBONE)
    rules, measured, checks = [], [], []
    for name, folders in arguments.sets:
        photos, apart = (_read(folder, backbone) for folder in folders)
        one = PhotoSet(name, photos, apart)
        choice = learn(photos, backbone.blocks)
        by_rule = compare_rules(choice.held_out_logits, photos.labels, arguments.splits)
        redrawn = [
            measure_apart(*redraw(one, seed), backbone.blocks)
            for seed in track(range(arguments.redraws), f"learning from {name}", console=console)
        ]
        right = _share_right(choice.held_out_logits, photos.labels)
        rules += [_describe_rule(name, rule, found, photos.class_names) for rule, found in by_rule.items()]
        measured += [
            _describe_measured(name, photos, "once", [measure_apart(photos, apart, backbone.blocks)]),
            _describe_measured(name, photos, f"{arguments.redraws} draws", redrawn),
        ]
        checks += check(name, by_rule, redrawn, right)
    report = Report(
        "Answer sets",
        f"Sets that hold the true label in {COVERAGE:.0%} of images; {arguments.splits} random halves, "
        f"{arguments.redraws} random draws.",
        [
            Sheet("Rules, on the photos to learn from", RULE_HEAD, rules),
            Sheet("LAC, thresholds from the photos to learn from, measured on others", MEASURED_HEAD, measured),
        ],
        checks,
    )
    names = " ".join(f"{name}=..." for name, _ in arguments.sets)
    return finish(report, console, f"python -m benchmarks.answer_sets {names}", arguments.markdown)


def score_lac(probabilities: Tensor, _uniform: Tensor) -> Tensor:
    """Return 1 minus each label's probability: (N, K)."""
    return 1 - probabilities


def score_aps(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the sum of the probabilities down to each label, less a random share (N,) of its own: (N, K)."""
    return score_raps(probabilities, uniform, penalty=0.0)


def score_raps(probabilities: Tensor, uniform: Tensor, penalty: float) -> Tensor:
    """Return what :func:`score_aps` does, and a penalty for each more probable label: (N, K)."""
    falling, order = probabilities.sort(dim=1, descending=True, stable=True)
    before = torch.arange(probabilities.shape[1])
    summed = falling.cumsum(1) - uniform[:, None] * falling + penalty * before
    return torch.zeros_like(probabilities).scatter(1, order, summed)


RULES: Mapping[str, Score] = {
    "LAC": score_lac,
    "APS": score_aps,
    **{f"RAPS, {penalty:g}": partial(score_raps, penalty=penalty) for penalty in PENALTIES},
}


def compare_rules(logits: Tensor, labels: Tensor, splits: int) -> dict[str, list[SplitFigures]]:
    """Return for each rule the figures of each random half, the threshold coming from the other half.

    Args:
        logits: (N, K), of networks that did not learn from the photo.
        labels: (N,) int64.
    """
    probabilities = logits.double().softmax(1)
    found: dict[str, list[SplitFigures]] = {rule: [] for rule in RULES}
    for seed in range(splits):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(labels), generator=generator)
        uniform = torch.rand(len(labels), generator=generator, dtype=torch.float64)
        for rule, score in RULES.items():
            scores = score(probabilities, uniform)
            found[rule].append(measure_half(scores, probabilities, labels, order))
    return found


def measure_half(scores: Tensor, probabilities: Tensor, labels: Tensor, order: Tensor) -> SplitFigures:
    """Return the figures of the second half of ``order`` (N,), with the threshold of the first."""
    fixing, measured = order[: len(order) // 2], order[len(order) // 2 :]
    true = scores.gather(1, labels[:, None])[:, 0]
    members = scores[measured] <= find_threshold(true[fixing], COVERAGE)
    rows, expected = torch.arange(len(measured)), labels[measured]
    may_be_empty = members[rows, expected].double().mean().item()
    members[rows, probabilities[measured].argmax(1)] = True
    holds, sizes = members[rows, expected].double(), members.sum(1)
    number = probabilities.shape[1]
    counts = expected.bincount(minlength=number)
    return SplitFigures(
        coverage=holds.mean().item(),
        may_be_empty=may_be_empty,
        mean_size=sizes.double().mean().item(),
        single_share=(sizes == 1).double().mean().item(),
        by_class=torch.bincount(expected, holds, number) / counts,
    )


def learn(photos: Photos, blocks: Mapping[str, slice]) -> HeadChoice:
    """Return the heads that a run would choose, with their cross-validated answers."""
    folds = assign_folds(photos.labels, photos.groups, 0)
    heads = fit_all_heads(photos.features, photos.labels, folds, blocks, lambda done, total: None)
    return choose_heads(heads, photos.labels, folds)


def measure_apart(photos: Photos, apart: Photos, blocks: Mapping[str, slice]) -> SetFigures:
    """Return the figures of sets on photos apart: the threshold comes from the others, in cross-validation."""
    choice = learn(photos, blocks)
    sets = measure_answer_sets(choice.held_out_logits, photos.labels, photos.class_names)
    logits = apart.features @ choice.weight.T + choice.bias
    return measure_set_figures(sets, logits, apart.labels, apart.class_names)


def redraw(one: PhotoSet, seed: int) -> tuple[Photos, Photos]:
    """Return other photos to learn from and photos apart, as many as before; near-identical ones stay together."""
    both = Photos(
        one.photos.class_names,
        torch.cat([one.photos.features, one.apart.features]),
        torch.cat([one.photos.labels, one.apart.labels]),
        (*(f"photos {group}" for group in one.photos.groups), *(f"apart {group}" for group in one.apart.groups)),
    )
    names = sorted(set(both.groups))
    shuffled = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    place = dict(zip(names, shuffled, strict=True))
    order = torch.tensor([place[group] for group in both.groups]).argsort(stable=True)
    number = len(one.photos.labels)
    while number < len(order) and both.groups[order[number]] == both.groups[order[number - 1]]:
        number += 1
    return both.select(order[:number]), both.select(order[number:])


def check(
    name: str, by_rule: Mapping[str, Sequence[SplitFigures]], redrawn: Sequence[SetFigures], right: float
) -> Iterator[Check]:
    """Yield the limits of a set: mean coverages, and that LAC has the smallest sets."""
    highest = max(HIGHEST, right + HIGHEST - COVERAGE)
    limit = f"{LOWEST:.0%} to {highest:.1%}"
    for what, coverage in (
        ("in the mean over random halves", _mean(by_rule["LAC"], "coverage")),
        ("from the photos to learn from alone, in the mean over draws", _mean(redrawn, "coverage")),
    ):
        yield Check(f"{name}: coverage {what}", f"{coverage:.1%}", limit, LOWEST <= coverage <= highest)
    sizes = {rule: _mean(found, "mean_size") for rule, found in by_rule.items()}
    others = min(size for rule, size in sizes.items() if rule != "LAC")
    smallest = f"at most {others:.2f}, the smallest of the others"
    yield Check(f"{name}: labels in a set by LAC", f"{sizes['LAC']:.2f}", smallest, sizes["LAC"] <= others)


RULE_HEAD = ("set", "rule", "coverage", "may be empty", "labels in a set", "one label", "weakest class, mean")
MEASURED_HEAD = (
    "set",
    "photos",
    "drawn",
    "coverage",
    "5% to 95% of draws",
    "labels in a set",
    "one label",
    "weakest class",
)


def _describe_rule(name: str, rule: str, found: Sequence[SplitFigures], class_names: Sequence[str]) -> tuple[str, ...]:
    by_class = torch.stack([one.by_class for one in found]).nanmean(0)
    worst = int(by_class.argmin())
    figures = (f"{_mean(found, part):.1%}" for part in ("coverage", "may_be_empty"))
    size, single = f"{_mean(found, 'mean_size'):.2f}", f"{_mean(found, 'single_share'):.0%}"
    return (name, rule, *figures, size, single, f"{class_names[worst]} {by_class[worst]:.0%}")


def _describe_measured(name: str, photos: Photos, drawn: str, found: Sequence[SetFigures]) -> tuple[str, ...]:
    coverages = torch.tensor([one.coverage for one in found])
    low, high = (coverages.quantile(share).item() for share in (0.05, 0.95))
    worst = [one.worst_class for one in found]
    mean_worst = sum(one.coverage for one in worst) / len(worst)
    label = max({one.label for one in worst}, key=[one.label for one in worst].count)
    return (
        name,
        f"{len(photos.labels):,}",
        drawn,
        f"{coverages.mean():.1%}",
        f"{low:.1%} to {high:.1%}" if len(found) > 1 else "–",
        f"{_mean(found, 'mean_size'):.2f}",
        f"{_mean(found, 'single_share'):.0%}",
        f"{mean_worst:.0%}, most often {label}" if len(found) > 1 else f"{label} {mean_worst:.0%}",
    )


def _mean(found: Sequence[object], part: str) -> float:
    return sum(float(getattr(one, part)) for one in found) / len(found)


def _share_right(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def _read(folder: Path, backbone: Backbone) -> Photos:
    source = read_source(str(folder), backbone.spec.resizing)

    def compute() -> Tensor:
        extract = compile_features(backbone, torch.device("cpu"))
        return extract_features(extract, source.photos.images, lambda done, total: None)

    features = compute_once(cache_folder(), name_source(str(folder)), source.photos.images, backbone.digest, compute)
    return Photos(source.class_names, features, source.photos.labels, tuple(source.photos.groups))


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=_photo_folders, metavar="NAME=PHOTOS,APART")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--redraws", type=int, default=200)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def _photo_folders(named: str) -> tuple[str, list[Path]]:
    name, _, paths = named.partition("=")
    folders = [Path(path) for path in paths.split(",")]
    if len(folders) != 2 or not all(folder.is_dir() for folder in folders):
        raise argparse.ArgumentTypeError(f"{named!r} names no two folders; write NAME=PHOTOS,APART")
    return name, folders


if __name__ == "__main__":
    sys.exit(main())
