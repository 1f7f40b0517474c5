"""The cross-validated part of a report: what follows from a cross-validation and its photos, as values for the page."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchlight.training.evaluation.classification_metrics import Metrics, compute_metrics
from torchlight.training.evaluation.cross_validation import CandidateResult, CrossValidation
from torchlight.training.evaluation.data_findings import TITLES, DataFindings, Finding
from torchlight.training.report import charts
from torchlight.training.report.few_photos_text import Advice, advise
from torchlight.training.report.markup import percent, thumbnail_uri
from torchlight.training.report.report_text import count_noun, duration

MAX_FOUND, MAX_OF_KIND = 24, 12  # photos that are shown because of what may be wrong with them


@dataclass(frozen=True)
class CrossValidated:
    """A cross-validation, and what follows from it.

    Attributes:
        learnt: photos of each class that the final network learnt from: those that were judged, and others if time was
            short.
    """

    result: CrossValidation
    metrics: Metrics
    learnt: Sequence[int]

    @property
    def num_doubts(self) -> int:
        """How many photos have a doubtful label."""
        return len(self.result.findings.of_kind("label"))


def choose_found(findings: DataFindings) -> dict[int, list[Finding]]:
    """Return the photos that are shown with what was found, by index: the most urgent, some of each kind."""
    shown: dict[int, list[Finding]] = {}
    kinds: Counter[str] = Counter()
    for index, found in findings.by_photo().items():
        kinds[found[0].kind] += 1
        if kinds[found[0].kind] <= MAX_OF_KIND and len(shown) < MAX_FOUND:
            shown[index] = found
    return shown


def relate(result: CrossValidation, class_names: Sequence[str], learnt: Sequence[int]) -> CrossValidated:
    """Return what follows from a cross-validation; ``learnt`` as in :class:`CrossValidated`."""
    return CrossValidated(result, compute_metrics(result.logits, result.photos.labels, class_names), learnt)


def list_advice(part: CrossValidated, num_warnings: int) -> list[Advice]:
    """Return what would help most, the most urgent first."""
    return list(advise(part.metrics, part.learnt, part.num_doubts, num_warnings))


def describe_cross_validated(part: CrossValidated) -> dict[str, Any]:
    """Return what ``report.html.j2`` says of the ways to learn and of what may be wrong with photos."""
    findings = part.result.findings
    found = findings.by_photo()
    return {
        "num_folds": part.result.num_folds,
        "images": sum(part.learnt),
        "temperature": part.result.calibration.temperature,
        "reason": part.result.reason,
        "candidates": _describe_candidates(part),
        "kinds": [(title, len(findings.of_kind(kind))) for kind, title in TITLES.items() if findings.of_kind(kind)],
        "found": [_describe_found(findings, *one) for one in choose_found(findings).items()],
        "num_found": len(found),
    }


def _describe_candidates(part: CrossValidated) -> dict[str, Any]:
    tried = [one for one in part.result.candidates if one.accuracy is not None]
    untried = [one for one in part.result.candidates if one.accuracy is None]
    most_frequent = max(one.images for one in part.metrics.per_class) / part.metrics.images
    label = f"Share of right answers of {count_noun(len(tried), 'way', 'ways')} to learn: " + "; ".join(
        f"{one.name} {percent(one.accuracy or 0.0)}" for one in tried
    )
    figure = charts.draw_candidates(tried, most_frequent)
    return {
        "chart": charts.to_html(figure, label) if tried else None,
        "rows": [_describe_candidate(one) for one in (*tried, *untried)],
        "untried": len(untried),
        "most_frequent": most_frequent,
    }


def _describe_candidate(one: CandidateResult) -> dict[str, Any]:
    return {
        "name": one.name,
        "note": one.note,
        "is_chosen": one.is_chosen,
        "accuracy": "not tried" if one.accuracy is None else percent(one.accuracy),
        "images": "–" if one.accuracy is None else f"{one.images:,}",
        "loss": "–" if one.loss is None else f"{one.loss:.3f}",
        "seconds": "–" if one.seconds is None else _describe_seconds(one.seconds),
    }


def _describe_seconds(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"


def _describe_found(findings: DataFindings, index: int, found: Sequence[Finding]) -> dict[str, Any]:
    photos = findings.source.photos
    return {
        "why": "; ".join(one.reason for one in found),
        "where": photos.names[index] if photos.names else f"photo {index}",
        "image": thumbnail_uri(photos.images[index]),
    }
