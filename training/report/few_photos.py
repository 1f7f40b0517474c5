"""The cross-validated part of a report: what follows from a cross-validation and its photos, as values for the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torchlight.training.evaluation.classification_metrics import Metrics, compute_metrics
from torchlight.training.evaluation.cross_validation import CandidateResult, CrossValidation
from torchlight.training.evaluation.label_doubts import LabelDoubt, find_label_doubts
from torchlight.training.report import charts
from torchlight.training.report.few_photos_text import Advice, advise
from torchlight.training.report.markup import percent, photo_uri
from torchlight.training.report.report_text import count_noun, duration

MAX_DOUBTS = 12  # photos that are shown


@dataclass(frozen=True)
class CrossValidated:
    """A cross-validation, and what follows from it.

    Attributes:
        doubts: photos whose label is doubtful, the least probable label first.
        learnt: photos of each class that the final network learnt from: those that were judged, and others if time was
            short.
    """

    result: CrossValidation
    metrics: Metrics
    doubts: Sequence[LabelDoubt]
    learnt: Sequence[int]


def relate(result: CrossValidation, class_names: Sequence[str], learnt: Sequence[int]) -> CrossValidated:
    """Return what follows from a cross-validation; ``learnt`` as in :class:`CrossValidated`."""
    labels = result.photos.labels
    metrics = compute_metrics(result.logits, labels, class_names)
    return CrossValidated(result, metrics, find_label_doubts(result.logits, labels), learnt)


def list_advice(part: CrossValidated, num_warnings: int) -> list[Advice]:
    """Return what would help most, the most urgent first."""
    return list(advise(part.metrics, part.learnt, len(part.doubts), num_warnings))


def describe_cross_validated(part: CrossValidated) -> dict[str, Any]:
    """Return what ``report.html.j2`` says of the ways to learn and of doubtful labels."""
    return {
        "num_folds": part.result.num_folds,
        "images": sum(part.learnt),
        "temperature": part.result.calibration.temperature,
        "reason": part.result.reason,
        "candidates": _describe_candidates(part),
        "doubts": [_describe_doubt(part, doubt) for doubt in part.doubts[:MAX_DOUBTS]],
        "num_doubts": len(part.doubts),
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


def _describe_doubt(part: CrossValidated, doubt: LabelDoubt) -> dict[str, Any]:
    photos = part.result.photos
    return {
        "given": part.metrics.per_class[doubt.given].label,
        "predicted": part.metrics.per_class[doubt.predicted].label,
        "given_probability": doubt.given_probability,
        "predicted_probability": doubt.predicted_probability,
        "where": photos.names[doubt.index] if photos.names else f"photo {doubt.index}",
        "image": photo_uri(photos.images[doubt.index]),
    }
