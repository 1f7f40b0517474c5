"""The self-test of a checkpoint: every rule checked on it, and the file beside it with the results.

    cats.safetensors  ->  cats.selftest.json

The images are drawn here, from a seed: the rules hold for any image. Knows nothing of terminals or HTTP.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from torchlight.model.checks.rules import ELSEWHERE, RULES
from torchlight.model.checks.subject import Rule, Subject
from torchlight.model.classifier import Classifier
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.files.sidecar import load_json, save_json, sidecar_path
from torchlight.model.views.image_index import Index

IMAGES = 4
Outcome = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Check:
    """The result of one rule.

    Attributes:
        id: ``C1`` to ``C21``, as in :mod:`model.checks.rules`; several rules may share one.
        title: the invariant, in words.
        outcome: ``pass`` if ``measured <= bound``.
        measured: the worst figure found; None if nothing was measured, or it is not finite.
        bound: the largest allowed.
        note: what was measured, or the reason why nothing was.
    """

    id: str
    title: str
    outcome: Outcome
    measured: float | None
    bound: float | None
    note: str


@dataclass(frozen=True)
class SelfTest:
    """The results of all rules for the checkpoint with that digest."""

    checkpoint: str
    seconds: float
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The rules that the checkpoint breaks."""
        return tuple(check for check in self.checks if check.outcome == "fail")


def run_self_test(
    classifier: Classifier, index: Index | None = None, on_check: Callable[[int, int], None] = lambda done, total: None
) -> SelfTest:
    """Check all rules on a checkpoint.

    Args:
        classifier: on the CPU.
        index: of the checkpoint, if there is one.
        on_check: called after each rule with the number done and the number of all.
    """
    started = time.perf_counter()
    subject = Subject(classifier, draw_images(IMAGES, classifier.spec.size), index)
    checks = []
    for rule in RULES:
        checks.append(_check(rule, subject))
        on_check(len(checks), len(RULES))
    checks += [Check(name, title, "not applicable", None, None, reason) for name, title, reason in ELSEWHERE]
    ordered = sorted(checks, key=lambda check: int(check.id[1:]))
    return SelfTest(classifier.digest, round(time.perf_counter() - started, 1), tuple(ordered))


def draw_images(number: int, size: int) -> Tensor:
    """Return (N, 3, S, S) uint8 of discs and stripes before a slope of colour, with some grain, seeded."""
    generator = torch.Generator().manual_seed(0)
    across = torch.linspace(0, 1, size)
    y, x = torch.meshgrid(across, across, indexing="ij")
    images = []
    for _ in range(number):
        sky, ground, disc = torch.rand(3, 3, 1, 1, generator=generator)
        centre, radius, turn = torch.rand(2, generator=generator), 0.15 + 0.2 * torch.rand((), generator=generator), 6
        is_disc = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
        stripes = 0.1 * torch.sin(turn * math.pi * (x * centre[0] + y * centre[1]))
        picture = torch.where(is_disc, disc, sky * (1 - y) + ground * y + stripes)
        picture = picture + 0.03 * torch.randn(3, size, size, generator=generator)
        images.append((255 * picture).round().clamp(0, 255).to(torch.uint8))
    return torch.stack(images)


def self_test_path(checkpoint: Path) -> Path:
    """Return where the result for a checkpoint is: ``cats.safetensors`` has ``cats.selftest.json``."""
    return sidecar_path(checkpoint, ".selftest.json")


def save_self_test(path: Path, result: SelfTest) -> None:
    """Write the file.

    Raises:
        OSError: the folder cannot be written.
    """
    save_json(path, asdict(result))


def load_self_test(path: Path, digest: str) -> SelfTest | None:
    """Return the result for the checkpoint with that digest; None if there is no file, or it is about another one.

    Raises:
        ValueError: the file holds something else.
        OSError: it cannot be read.
    """
    try:
        found = load_json(path, _parse_self_test)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is not the result of a self-test ({error})") from error
    return found if found.checkpoint == digest else None


def _parse_self_test(document: Any) -> SelfTest:
    """Raise KeyError, TypeError or ValueError if a field does not hold what it should."""
    found = SelfTest(**document | {"checks": tuple(Check(**check) for check in document["checks"])})
    figures = [figure for check in found.checks for figure in (check.measured, check.bound) if figure is not None]
    texts = [text for check in found.checks for text in (check.id, check.title, check.note)]
    if not all(type(figure) in (int, float) and math.isfinite(figure) for figure in (found.seconds, *figures)):
        raise ValueError("a figure is not a finite number")
    if not all(isinstance(text, str) for text in (found.checkpoint, *texts)):
        raise ValueError("a text is not one")
    if not all(check.outcome in get_args(Outcome) for check in found.checks):
        raise ValueError(f"an outcome is none of {', '.join(get_args(Outcome))}")
    return found


def _check(rule: Rule, subject: Subject) -> Check:
    try:
        measured, note = rule.measure(subject)
    except ViewNotApplicable as reason:
        return Check(rule.id, rule.title, "not applicable", None, None, str(reason))
    outcome: Outcome = "pass" if measured <= rule.bound else "fail"
    return Check(rule.id, rule.title, outcome, measured if math.isfinite(measured) else None, rule.bound, note)
