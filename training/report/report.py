"""What a network reaches on a split -> ``report.html``, one file to send to somebody who was not there.

The file asks nobody for anything: pictures and style are in it, scripts there are none, and its content security policy
forbids both. Figures are drawn by :mod:`training.report.charts`, sentences made by :mod:`training.report.report_text`;
``report.html.j2`` is the page. This module computes its values.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from torch import Tensor

from torchlight.model.checkpoint import Header
from torchlight.model.drawing.figures import draw_plain_filters
from torchlight.model.files.atomic import write_bytes
from torchlight.model.uncertainty.answer_sets import SetFigures
from torchlight.training.data.corrections import describe_corrections
from torchlight.training.data.held_out import Exposure, select_cross_validated
from torchlight.training.evaluation.calibration import Calibration
from torchlight.training.evaluation.classification_metrics import Metrics, Mistake, wilson_interval
from torchlight.training.evaluation.cross_validation import CrossValidation
from torchlight.training.evaluation.evaluate_checkpoint import Evaluation
from torchlight.training.evaluation.label_doubts import MIN_IMAGES
from torchlight.training.optimisation.filter_history import frame_positions
from torchlight.training.optimisation.loop import EpochResult, best_epoch
from torchlight.training.report import charts, few_photos_text, report_text
from torchlight.training.report.few_photos import (
    CrossValidated,
    choose_found,
    describe_cross_validated,
    list_advice,
    relate,
)
from torchlight.training.report.markup import clean, data_uri, name_interval, percent, photo_uri, shorten, thumbnail_uri

REPORT_FILES = ("report.html", "confusion.png", "curves.png")
MAX_CELL_PHOTOS = 240  # behind the cells of the confusion matrix, about 6 kB each
MAX_FILTERS, FILTER_COLUMNS = 64, 8  # of a frame
MAX_NAME = 80  # characters
BAR = 160  # pixels, the width of a bar of image counts; the template's viewBox has the same
MAX_ROWS = 40  # of a table; what follows is folded away
SPLIT_STYLES = ("train", "val", "test")
TEMPLATE, STYLE = (Path(__file__).with_name(name) for name in ("report.html.j2", "report.css"))


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says.

    Attributes:
        source: name of the data that the figures are of.
        split: the part of it that they are of: ``test``, ``val``, ``train`` or any words, such as ``all images``.
        exposure: what that part had to do with the training, as in :class:`training.data.held_out.HeldOut`.
        command: the command line that wrote the report.
        header, digest: of the checkpoint.
        metrics: of the split, its class names in the order of the header.
        images: (N, 3, S, S) uint8 RGB, those of the split in the order that ``metrics`` counts them in.
        names: of the images, such as their paths; or nothing.
        counts: for each split how many images each class has.
        warnings: sentences on what is wrong with the data.
        skipped: ``name: reason`` of each unreadable file that was left out.
        history: of the training, if the report is of one.
        filters: of the first layer, (epoch, (C, 3, kernel height, kernel width)); epoch 0 is before training. Empty
            tensors, for a network whose first layer is not worth a look, are left out.
        calibration: of the split; with temperature 1 the report says only how things are.
        set_figures: of answer sets on the split, if other images fixed them.
        cross_validated: of the training, if its way to learn was chosen so. With the exposure ``cross_validated`` the
            split and its metrics are those in there.
    """

    source: str
    split: str
    exposure: Exposure
    command: str
    header: Header
    digest: str
    metrics: Metrics
    images: Tensor
    names: Sequence[str] = ()
    counts: Mapping[str, Sequence[int]]
    warnings: Sequence[str] = ()
    skipped: Sequence[str] = ()
    history: Sequence[EpochResult] = ()
    filters: Sequence[tuple[int, Tensor]] = ()
    calibration: Calibration | None = None
    set_figures: SetFigures | None = None
    cross_validated: CrossValidated | None = None


def make_report(
    evaluation: Evaluation,
    *,
    source: str,
    command: str,
    history: Sequence[EpochResult] = (),
    filters: Sequence[Tensor] = (),
    cross_validation: CrossValidation | None = None,
) -> Report:
    """Return the report on a checkpoint; arguments as in :class:`Report`, ``filters`` without their epochs."""
    held_out, dataset = evaluation.held_out, evaluation.held_out.dataset
    number = len(dataset.class_names)
    splits = dataset.splits
    if cross_validation is not None:
        splits = {"train": select_cross_validated(dataset), "test": splits["test"]}
    counts = {name: part.labels.bincount(minlength=number).tolist() for name, part in splits.items()}
    return Report(
        source=source,
        split=held_out.split,
        exposure=held_out.exposure,
        command=command,
        header=evaluation.checkpoint.header,
        digest=evaluation.checkpoint.digest,
        metrics=evaluation.metrics,
        images=held_out.examples.images,
        names=held_out.examples.names,
        counts=counts,
        warnings=dataset.warnings,
        skipped=dataset.skipped,
        history=history,
        filters=list(enumerate(filters)),
        calibration=evaluation.calibration,
        set_figures=evaluation.set_figures,
        cross_validated=relate(cross_validation, dataset.class_names, counts["train"]) if cross_validation else None,
    )


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.html``, ``confusion.png`` and, given a history, ``curves.png`` into ``folder``, each whole or not.

    Raises:
        OSError: the folder cannot be written; older files are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    html, confusion, curves = (folder / name for name in REPORT_FILES)
    write_bytes(html, render_report(report).encode())
    measured_on = f"{report.split}, cross-validated" if report.exposure == "cross_validated" else report.split
    write_bytes(confusion, charts.to_png(charts.draw_confusion(report.metrics, measured_on)))
    if report.history:
        write_bytes(curves, charts.to_png(charts.draw_curves(report.history)))


def render_report(report: Report) -> str:
    """Return the page. Equal reports give equal pages."""
    return render_page(TEMPLATE.read_text(encoding="utf-8"), describe_report(report))


def render_page(template: str, values: Mapping[str, Any]) -> str:
    """Return the template filled in; values are escaped, and characters that no document may hold are replaced.

    Raises:
        UndefinedError: the template names a value that is missing.
    """
    return clean(_compile(template).render(values))


@cache
def _compile(template: str) -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "counted": report_text.count_noun,
        "duration": report_text.duration,
        "interval": name_interval,
        "operations": report_text.operations,
        "percent": percent,
        "short": "{:.6g}".format,
        "shorten": shorten,
        "thousands": "{:,}".format,
    }
    return environment.from_string(template)


def describe_report(report: Report) -> dict[str, Any]:
    """Return what ``report.html.j2`` needs beside the report itself: texts, addresses of pictures, figures as SVG."""
    style, metrics, calibration = STYLE.read_text(encoding="utf-8"), report.metrics, report.calibration
    part = report.cross_validated
    seen = [one for one in metrics.per_class if one.images]
    means = [sum(getattr(one, kind) for one in seen) / max(1, len(seen)) for kind in ("precision", "recall", "f1")]
    return {
        "report": report,
        "style": style,
        "style_hash": "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "max_name": MAX_NAME,
        "max_rows": MAX_ROWS,
        "max_filters": MAX_FILTERS,
        "min_images": MIN_IMAGES,
        "training": report.header.training,
        "split": report_text.name_split(report.split),
        "title": _title(report),
        "summary": _summarise(report),
        "advice": list_advice(part, len(report.warnings)) if part else [],
        "cross_validated": describe_cross_validated(part) if part else None,
        "curves": _describe_curves(report.history),
        "confusion": _describe_confusion(report),
        "classes": metrics.per_class,
        "ranked_classes": sorted(metrics.per_class, key=lambda one: (not one.images, one.f1)),
        "means": ["mean of the classes", f"{metrics.images:,}", *map(percent, means)],
        "mistakes": [_describe_mistake(report, one) for one in _mistakes_left_to_show(report)],
        "reliability": _draw_reliability(calibration) if calibration else None,
        "answer_sets": report.header.answer_sets,
        "set_rows": _describe_answer_sets(report),
        "filters": _describe_filters(report.filters),
        "data": _describe_data(report),
        "corrections": describe_corrections(report.header.data.get("corrections", {})),
        "cost": report_text.describe_cost(report.header.training),
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(report.header.versions.items())),
        "settings": _describe_settings(report.header.training),
    }


def summarise_run(report: Report) -> list[str]:
    """Return the sentences that a run ends with: how good the network is, how sure that is, what would help most."""
    part = report.cross_validated
    advice = list_advice(part, len(report.warnings)) if part else []
    return _summarise(report) + [f"{one.title}: {one.sentence}" for one in advice]


def _title(report: Report) -> str:
    if report.exposure != "cross_validated":
        return f"{percent(report.metrics.accuracy)} right"
    if report.metrics.accuracy == 1:
        return f"All of {report.metrics.images:,} right"
    return f"About {few_photos_text.of_hundred(report.metrics.accuracy)} right"


def _summarise(report: Report) -> list[str]:
    """Return what the report begins with; held-out images, if there are any, speak before cross-validation."""
    part = report.cross_validated
    if part is None:
        return list(report_text.summarise(report.metrics))
    if report.exposure == "cross_validated":
        learnt = sum(part.learnt)
        return list(few_photos_text.summarise_cross_validated(part.metrics, part.result.num_folds, learnt))
    second = few_photos_text.describe_second_opinion(part.metrics, part.result.num_folds)
    return [*report_text.summarise(report.metrics), second]


def _mistakes_left_to_show(report: Report) -> list[Mistake]:
    """Return the mistakes that are not already shown with what may be wrong with them."""
    part = report.cross_validated
    shown = choose_found(part.result.findings) if part and report.exposure == "cross_validated" else {}
    return [one for one in report.metrics.mistakes if one.index not in shown]


def _describe_curves(history: Sequence[EpochResult]) -> dict[str, Any] | None:
    if not history:
        return None
    drawn = {
        kind.lower(): charts.to_html(charts.draw_curves(history, [kind]), charts.label_curve(history, kind))
        for kind in ("Loss", "Accuracy")
    }
    return {"best": best_epoch(history), **drawn}


def _describe_confusion(report: Report) -> dict[str, Any]:
    metrics = report.metrics
    number, sentence = len(metrics.per_class), report_text.name_confusion(metrics)
    is_small, is_drawn = number <= charts.MAX_BESIDE, number <= charts.MAX_MATRIX
    label = f"Confusion matrix of {number} classes. {sentence}"
    size = "small" if is_small else "large"
    pairs = report_text.confused_pairs(metrics)[: 10 if is_drawn else MAX_ROWS]
    opened = _open_cells(report, None if is_drawn else {(true, predicted) for true, predicted, *_ in pairs})
    links = {cell: f"#{_name_cell(*cell)}" for cell in opened}
    return {
        "sentence": sentence,
        "matrix": charts.to_html(charts.draw_confusion(metrics, links=links), label, size) if is_drawn else None,
        "pairs": [(*pair, links.get(pair[:2])) for pair in pairs],
        "cells": [_describe_cell(report, cell, found) for cell, found in sorted(opened.items())],
        "layout": "beside" if is_small else "below",
    }


def _open_cells(report: Report, some: Set[tuple[int, int]] | None) -> dict[tuple[int, int], list[Mistake]]:
    """Return the mistakes that are shown of each cell (true, predicted) of the confusion matrix, or of some cells."""
    listed = [one for one in report.metrics.cell_mistakes if some is None or (one.true, one.predicted) in some]
    opened: dict[tuple[int, int], list[Mistake]] = {}
    for one in listed[:MAX_CELL_PHOTOS]:
        opened.setdefault((one.true, one.predicted), []).append(one)
    return opened


def _name_cell(true: int, predicted: int) -> str:
    return f"cell-{true}-{predicted}"


def _describe_cell(report: Report, cell: tuple[int, int], shown: Sequence[Mistake]) -> dict[str, Any]:
    true, predicted = cell
    return {
        "id": _name_cell(*cell),
        "true": report.metrics.per_class[true].label,
        "predicted": report.metrics.per_class[predicted].label,
        "count": report.metrics.confusion[true][predicted],
        "photos": [_describe_mistake(report, one, thumbnail_uri) for one in shown],
    }


def _describe_mistake(report: Report, one: Mistake, draw: Callable[[Tensor], str] = photo_uri) -> dict[str, Any]:
    unnamed = f"image {one.index} of {report_text.name_split(report.split)}"
    return {
        "true": report.metrics.per_class[one.true].label,
        "predicted": report.metrics.per_class[one.predicted].label,
        "probability": one.probability,
        "true_probability": one.true_probability,
        "where": report.names[one.index] if report.names else unnamed,
        "image": draw(report.images[one.index]),
    }


def _draw_reliability(calibration: Calibration) -> str:
    label = f"Reliability diagram. Expected calibration error {percent(calibration.ece_after)}."
    return charts.to_html(charts.draw_reliability(calibration.reliability), label)


def _describe_answer_sets(report: Report) -> list[dict[str, Any]]:
    """Return a row for each measurement of answer sets: on the images that fixed them, crosswise, and on the split."""
    sets = report.header.answer_sets
    if sets is None:
        return []
    measured = {"images that fixed the sets, each by others": sets.measured}
    if report.set_figures is not None:
        measured[report_text.name_split(report.split)] = report.set_figures
    return [
        {
            "where": where,
            "interval": wilson_interval(round(one.coverage * one.images), one.images),
            "figures": one,
        }
        for where, one in measured.items()
    ]


def _describe_filters(snapshots: Sequence[tuple[int, Tensor]]) -> dict[str, Any] | None:
    filters = [(epoch, weights) for epoch, weights in snapshots if weights.numel()]
    if not filters:
        return None
    number, _, height, width = filters[0][1].shape
    frames = []
    for epoch, weights in (filters[position] for position in frame_positions(len(filters))):
        png = draw_plain_filters(weights[:MAX_FILTERS].float(), min(FILTER_COLUMNS, len(weights)))
        frames.append(("before training" if epoch == 0 else f"epoch {epoch}", data_uri(png)))
    return {"number": number, "height": height, "width": width, "frames": frames}


def _describe_data(report: Report) -> dict[str, Any]:
    """Return the splits that hold images, and for each class its counts with the parts of its bar, in pixels."""
    splits = {name: counts for name, counts in report.counts.items() if sum(counts)}
    by_class = [[counts[k] for counts in splits.values()] for k in range(len(report.metrics.per_class))]
    scale = BAR / max(1, *map(sum, by_class))  # the class with the most images fills its bar
    return {
        "splits": [
            {"name": name, "style": name if name in SPLIT_STYLES else "test", "total": sum(counts)}
            for name, counts in splits.items()
        ],
        "rows": [
            {
                "label": one.label,
                "counts": counts,
                "bar": [(scale * sum(counts[:k]), scale * counts[k]) for k in range(len(counts))],
            }
            for one, counts in zip(report.metrics.per_class, by_class, strict=True)
        ],
        "totals": ["all", *(f"{sum(counts):,}" for counts in splits.values()), ""],
    }


def _describe_settings(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.replace("_", " "), f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
        for name, value in sorted(training.items())
        if isinstance(value, str | int | float | bool) and name not in ("command", "seconds", "flops")
    ]
