"""What a network reaches on a split -> ``report.html``, one file to send to somebody who was not there.

The file asks nobody for anything: pictures and style are in it, scripts there are none, and its content security policy
forbids both. Figures are drawn by :mod:`training.report.charts`, sentences made by :mod:`training.report.report_text`.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import torch.nn.functional as F
from torch import Tensor

from torchlight.model.checkpoint import Header
from torchlight.model.drawing.figures import draw_plain_filters, draw_plain_image
from torchlight.model.files.atomic import write_bytes
from torchlight.training.data.held_out import Exposure
from torchlight.training.evaluation.calibration import Calibration
from torchlight.training.evaluation.classification_metrics import ClassMetrics, Interval, Metrics, Mistake
from torchlight.training.evaluation.evaluate_checkpoint import Evaluation
from torchlight.training.optimisation.filter_history import frame_positions
from torchlight.training.optimisation.loop import EpochResult, best_epoch
from torchlight.training.report import charts, report_text
from torchlight.training.report.markup import Child, data_uri, element, percent, shorten, to_html

REPORT_FILES = ("report.html", "confusion.png", "curves.png")
MAX_FILTERS, FILTER_COLUMNS = 64, 8  # of a frame
MAX_PICTURE = 224  # pixels a side; a larger picture is shrunk by a whole number
MAX_NAME = 80  # characters
MAX_ROWS = 40  # of a table; what follows is folded away
SPLIT_STYLES = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report says.

    Attributes:
        source: name of the data that the figures are of.
        split: the part of it that they are of: ``test``, ``val``, ``train`` or any words, such as ``all images``.
        exposure: what that part had to do with the training: nothing (``unseen``), it decided which epoch was kept
            (``chose_epoch``), or nobody knows (``unknown``).
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


def make_report(
    evaluation: Evaluation,
    *,
    source: str,
    command: str,
    history: Sequence[EpochResult] = (),
    filters: Sequence[Tensor] = (),
) -> Report:
    """Return the report on a checkpoint; arguments as in :class:`Report`, ``filters`` without their epochs."""
    held_out, dataset = evaluation.held_out, evaluation.held_out.dataset
    number = len(dataset.class_names)
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
        counts={name: part.labels.bincount(minlength=number).tolist() for name, part in dataset.splits.items()},
        warnings=dataset.warnings,
        skipped=dataset.skipped,
        history=history,
        filters=list(enumerate(filters)),
        calibration=evaluation.calibration,
    )


def write_report(folder: Path, report: Report) -> None:
    """Write ``report.html``, ``confusion.png`` and, given a history, ``curves.png`` into ``folder``, each whole or not.

    Raises:
        OSError: the folder cannot be written; older files are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    html, confusion, curves = (folder / name for name in REPORT_FILES)
    write_bytes(html, render_report(report).encode())
    write_bytes(confusion, charts.to_png(charts.draw_confusion(report.metrics, report.split)))
    if report.history:
        write_bytes(curves, charts.to_png(charts.draw_curves(report.history)))


def render_report(report: Report) -> str:
    """Return the page. Equal reports give equal pages."""
    sections = (
        _key_figures(report),
        _curves(report.history),
        _confusion(report.metrics),
        _classes(report.metrics),
        _mistakes(report),
        _calibration(report.calibration),
        _filters(report.filters, is_whitened=bool(report.header.training.get("whitening"))),
        _data(report),
        _making(report),
    )
    style = Path(__file__).with_name("report.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"{percent(report.metrics.accuracy)} right on {report.source}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Torchlight"),
        element("link", rel="icon", href="data:,"),
        element("style", style),
    )
    header = element(
        "header",
        element("p", "Torchlight · report on an image classifier", class_="kicker"),
        element("h1", f"{percent(report.metrics.accuracy)} right on ", _name(report.source)),
        *(element("p", sentence, class_="lead") for sentence in report_text.summarise(report.metrics)),
        element("p", report_text.describe_split(report.split, report.exposure), class_="note"),
    )
    body = element("body", element("main", header, *sections))
    return to_html(element("html", head, body, lang="en"))


def _key_figures(report: Report) -> Element:
    metrics, training = report.metrics, report.header.training
    figures = [
        ("right", percent(metrics.accuracy), f"95% confidence: {_range(metrics.accuracy_interval)}"),
        ("images looked at", f"{metrics.images:,}", f"in {len(metrics.per_class)} classes"),
        ("calibration error", percent(metrics.calibration_error), "how far it is off when it says how sure it is"),
    ]
    if metrics.top_5_accuracy is not None:
        figures.insert(
            1, ("among the first five", percent(metrics.top_5_accuracy), "the right class is one of its five guesses")
        )
    if "seconds" in training:
        cost = report_text.operations(training["flops"]) if "flops" in training else "to train"
        figures.append(("training time", report_text.duration(training["seconds"]), cost))
    tiles = [
        element("div", element("dt", name), element("dd", element("b", value), element("small", note)))
        for name, value, note in figures
    ]
    return element("dl", *tiles, class_="tiles")


def _curves(history: Sequence[EpochResult]) -> Element | None:
    if not history:
        return None
    best = best_epoch(history)
    return _section(
        "How it learned",
        f"Each epoch is one pass over the training images. Loss falls and accuracy rises as the network learns; "
        f"epoch {best.epoch}, with {percent(best.val_accuracy)} of the validation images right, was kept.",
        element(
            "div",
            _figure(
                _curve(history, "Loss"),
                "Loss: how far the answers are from the truth, confident mistakes counting most. Lower is better.",
            ),
            _figure(
                _curve(history, "Accuracy"),
                "Accuracy: the share of images that it classifies correctly. Higher is better.",
            ),
            class_="pair",
        ),
        element(
            "p",
            "Validation images are never trained on. Training images are altered at random and scored while the "
            "network is still changing, so their line may lie on either side of the other. Training loss that falls "
            "while validation loss climbs would mean that the network learns its images by heart.",
            class_="note",
        ),
    )


def _curve(history: Sequence[EpochResult], kind: str) -> Element:
    return charts.to_svg(charts.draw_curves(history, [kind]), charts.label_curve(history, kind))


def _confusion(metrics: Metrics) -> Element:
    names = [one.label for one in metrics.per_class]
    pairs = report_text.confused_pairs(metrics)
    matrix = None
    if len(names) <= charts.MAX_MATRIX:
        label = f"Confusion matrix of {len(names)} classes. {report_text.name_confusion(metrics)}"
        picture = charts.to_svg(charts.draw_confusion(metrics), label)
        picture.set("class", "small" if len(names) <= charts.MAX_BESIDE else "large")
        matrix = _figure(
            _scrollable(picture, "confusion matrix"),
            "Each row holds the images of one class, each column what the network called them. Blue: correct. "
            "Orange: mistaken. The stronger the colour, the larger the share of the row; for mistakes its square root, "
            "so that rare ones show.",
        )
    limit = 10 if matrix is not None else MAX_ROWS
    rows: list[list[Child]] = [
        [_name(names[true]), _name(names[predicted]), f"{count:,} of {images:,}", percent(count / images)]
        for true, predicted, count, images in pairs[:limit]
    ]
    listed = _table("Most frequent mistakes", ["what it was", "taken for", "images", "share"], rows) if rows else None
    layout = "beside" if len(names) <= charts.MAX_BESIDE else "below"
    return _section(
        "What it confuses", report_text.name_confusion(metrics), element("div", matrix, listed, class_=layout)
    )


def _classes(metrics: Metrics) -> Element:
    ordered = sorted(metrics.per_class, key=lambda one: (not one.images, one.f1))
    seen = [one for one in ordered if one.images]
    mean: list[Child] = ["mean of the classes", f"{metrics.images:,}"]
    for kind in ("precision", "recall", "f1"):
        mean.append(percent(sum(getattr(one, kind) for one in seen) / max(1, len(seen))))
    return _section(
        "Class by class",
        "Recall: of the images of a class, the share it found. Precision: of the images it called so, the share that "
        "are. F1 is high only if both are. The range below a figure holds the true share with 95% confidence: it is "
        "wide where there are few images. The weakest class comes first.",
        *_long_table(
            "Figures of each class",
            ["class", "images", "precision", "recall", "F1"],
            [_class_row(one) for one in ordered],
            mean,
        ),
    )


def _class_row(one: ClassMetrics) -> list[Child]:
    if not one.images:
        return [_name(one.label), "0", "–", "–", "–"]
    return [
        _name(one.label),
        f"{one.images:,}",
        _with_interval(one.precision, one.precision_interval),
        _with_interval(one.recall, one.recall_interval),
        percent(one.f1),
    ]


def _with_interval(share: float, interval: Interval) -> Element:
    return element(
        "div",
        element("span", percent(share), element("small", _range(interval))),
        charts.draw_interval(share, interval),
        class_="share",
    )


def _mistakes(report: Report) -> Element:
    if not report.metrics.mistakes:
        return _section("Most confident mistakes", "There are none: every image was classified correctly.")
    shown = [_mistake(report, one) for one in report.metrics.mistakes]
    return _section(
        "Most confident mistakes",
        "The images that it got wrong while being most sure. Some may be wrongly labelled, or show two things: "
        "worth a look, since mending labels is the cheapest way to a better network.",
        element("ul", *shown, class_="pictures"),
    )


def _mistake(report: Report, one: Mistake) -> Element:
    true, predicted = (report.metrics.per_class[k].label for k in (one.true, one.predicted))
    image = report.images[one.index]
    factor = -(-max(image.shape[1:]) // MAX_PICTURE)
    if factor > 1:
        image = F.avg_pool2d(image.float(), factor).round().to(image.dtype)
    where = report.names[one.index] if report.names else f"image {one.index} of {report_text.name_split(report.split)}"
    picture = element("img", src=data_uri(draw_plain_image(image)), alt=f"{where}: {true}, taken for {predicted}")
    caption = element(
        "figcaption",
        element("b", _name(true)),
        " taken for ",
        element("b", _name(predicted)),
        f", {percent(one.probability)} sure",
        element("small", _breakable(where)),
    )
    return element("li", element("figure", picture, caption))


def _calibration(calibration: Calibration | None) -> Element | None:
    if calibration is None:
        return None
    rows: list[list[Child]] = [
        ["expected calibration error", percent(calibration.ece_before), percent(calibration.ece_after)],
        ["negative log-likelihood", f"{calibration.nll_before:.4f}", f"{calibration.nll_after:.4f}"],
    ]
    heads = ["lower is better", "before", "after"]
    if calibration.temperature == 1:
        rows, heads = [[name, after] for name, _, after in rows], ["lower is better", "now"]
    label = f"Reliability diagram. Expected calibration error {percent(calibration.ece_after)}."
    figure = _figure(
        charts.to_svg(charts.draw_reliability(calibration.reliability), label),
        "Each dot gathers images of which the network was about equally sure, and shows how many of them it got right; "
        "the line through it is the 95% range. On the dashed line it means what it says; below, it is too sure; above, "
        "too modest. Bars: how many images each dot stands for.",
    )
    return _section(
        "Does it know when it is right?",
        report_text.describe_calibration(calibration),
        element("div", figure, _table(f"Over {calibration.images:,} images", heads, rows), class_="beside"),
    )


def _filters(snapshots: Sequence[tuple[int, Tensor]], *, is_whitened: bool) -> Element | None:
    filters = [(epoch, weights) for epoch, weights in snapshots if weights.numel()]
    if not filters:
        return None
    frames = [filters[position] for position in frame_positions(len(filters))]
    number, _, height, width = filters[0][1].shape
    notes = ["Mid-grey is zero: that pixel does not count. Each filter has its own scale, so that its pattern shows."]
    notes += ["They began as the patterns that patches of the training images are made of."] if is_whitened else []
    notes += [f"The first {MAX_FILTERS} of {number} are shown."] if number > MAX_FILTERS else []
    return _section(
        "What the first layer looks for",
        f"Each small square is one filter of the first layer: the pattern of {width}x{height} pixels that it answers "
        "to. Those that have learned something show edges, stripes or patches of colour; those that have not look like "
        "noise.",
        element("ol", *(_frame(*frame) for frame in frames), class_="strip"),
        element("p", " ".join(notes), class_="note"),
    )


def _frame(epoch: int, weights: Tensor) -> Element:
    when = "before training" if epoch == 0 else f"epoch {epoch}"
    png = draw_plain_filters(weights[:MAX_FILTERS].float(), min(FILTER_COLUMNS, len(weights)))
    picture = element("img", src=data_uri(png), alt=f"the filters of the first layer, {when}")
    return element("li", element("figure", picture, element("figcaption", when)))


def _data(report: Report) -> Element:
    labels = [one.label for one in report.metrics.per_class]
    splits = [name for name, counts in report.counts.items() if sum(counts)]
    styles = [name if name in SPLIT_STYLES else "test" for name in splits]
    totals = [sum(report.counts[name][k] for name in splits) for k in range(len(labels))]
    rows: list[list[Child]] = [
        [
            _name(label),
            *(f"{report.counts[name][k]:,}" for name in splits),
            charts.draw_stack([report.counts[name][k] for name in splits], styles, max(1, *totals)),
        ]
        for k, label in enumerate(labels)
    ]
    sums: list[Child] = ["all", *(f"{sum(report.counts[name]):,}" for name in splits), ""]
    heads: list[Child] = [
        "class",
        *(element("span", charts.draw_swatch(style), name) for name, style in zip(splits, styles, strict=True)),
        "together",
    ]
    warnings = [element("li", sentence) for sentence in report.warnings]
    skipped = [element("li", element("bdi", line)) for line in report.skipped]
    return _section(
        "The data",
        report_text.describe_data(report.counts, len(report.warnings), len(report.skipped)),
        element("ul", *warnings, class_="warnings") if warnings else None,
        *_long_table("Images of each class", heads, rows, sums),
        element("h3", "Files left out") if skipped else None,
        element("ul", *skipped, class_="files") if skipped else None,
    )


def _making(report: Report) -> Element:
    header, training = report.header, report.header.training
    facts: list[tuple[str, Child]] = [
        ("Trained by", element("code", str(training["command"])) if "command" in training else None),
        ("Measured by", element("code", report.command) if report.command != training.get("command") else None),
        ("Network", report_text.describe_network(header)),
        ("Training", report_text.describe_cost(training)),
        ("Seed", str(training["seed"]) if "seed" in training else None),
        ("Checkpoint", element("code", report.digest)),
        ("Training data", element("code", str(header.data["fingerprint"])) if "fingerprint" in header.data else None),
        ("Trained on", str(header.data["trained_at"]) if "trained_at" in header.data else None),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(header.versions.items()))),
    ]
    rows = [
        part for name, value in facts if value not in (None, "") for part in (element("dt", name), element("dd", value))
    ]
    settings: list[list[Child]] = [
        [name.replace("_", " "), f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)]
        for name, value in sorted(training.items())
        if _is_plain(value) and name not in ("command", "seconds", "flops")
    ]
    folded = element("details", element("summary", "Every setting"), _table("Settings", ["setting", "value"], settings))
    return _section(
        "How it was made",
        "The same command on the same data, with the same versions on the same kind of machine, gives the same network."
        if "command" in training
        else "How the network was trained is not written in its checkpoint.",
        element("dl", *rows, class_="facts"),
        folded if settings else None,
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _section(title: str, explanation: str, *children: Child) -> Element:
    return element("section", element("h2", title), element("p", explanation), *children)


def _figure(picture: Element, caption: str) -> Element:
    return element("figure", picture, element("figcaption", caption))


def _scrollable(child: Element, label: str) -> Element:
    """Let a wide child scroll by itself, so that the page need not; reachable by keyboard."""
    return element("div", child, class_="wide", tabindex="0", role="region", aria_label=label)


def _table(
    caption: str, heads: Sequence[Child], rows: Sequence[Sequence[Child]], foot: Sequence[Child] | None = None
) -> Element:
    """Return a table whose first column names its rows."""
    parts = [
        element("caption", caption),
        element("thead", element("tr", *(element("th", head, scope="col") for head in heads))),
        element("tbody", *map(_row, rows)),
        element("tfoot", _row(foot)) if foot else None,
    ]
    return _scrollable(element("table", *parts), caption)


def _row(cells: Sequence[Child]) -> Element:
    return element("tr", element("th", cells[0], scope="row"), *(element("td", cell) for cell in cells[1:]))


def _long_table(
    caption: str, heads: Sequence[Child], rows: Sequence[Sequence[Child]], foot: Sequence[Child]
) -> list[Element]:
    """Return a table, and what goes beyond ``MAX_ROWS`` folded away below it."""
    first = _table(caption, heads, rows[:MAX_ROWS], foot)
    if len(rows) <= MAX_ROWS:
        return [first]
    rest = _table(f"{caption}, continued", heads, rows[MAX_ROWS:])
    return [first, element("details", element("summary", f"The other {len(rows) - MAX_ROWS} classes"), rest)]


def _name(text: str) -> Element:
    """Return what a user wrote, kept apart from the direction of the text around it; a long one ends in a tooltip."""
    return element("bdi", text) if len(text) <= MAX_NAME else element("bdi", shorten(text, MAX_NAME), title=text)


def _breakable(path: str) -> Element:
    """Return a path that may break into lines after each slash."""
    parts: list[Child] = []
    for part in path.split("/"):
        parts += ["/", element("wbr"), part] if parts else [part]
    return element("bdi", *parts)


def _range(interval: Interval) -> str:
    low, high = interval
    return f"{percent(low)} to {percent(high)}".replace("% to", " to")
