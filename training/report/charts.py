"""Figures by matplotlib: as PNG to paste anywhere, and as inline SVG in the report's colours by day and by night.

In the SVG, text is text, a point or cell shows its figures when it is pointed at, and a screen reader reads the label.
The small bars within tables are drawn by the page's template. Knows nothing of networks.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from torchlight.training.evaluation.calibration import ReliabilityBin
from torchlight.training.evaluation.classification_metrics import Metrics, wilson_interval
from torchlight.training.evaluation.cross_validation import CandidateResult
from torchlight.training.optimisation.loop import EpochResult, best_epoch
from torchlight.training.report.markup import clean, name_interval, percent, shorten

# The colours of report.css by day, under the names of its variables; grey and blue are apart in lightness too, for
# print and for the colour-blind.
PAPER, INK, MUTED, LINE = "#ffffff", "#1c2128", "#545c66", "#d6d9de"
VAL, TRAIN, RIGHT, WRONG = "#0b6e99", "#7f858f", "#3a9ccb", "#e8833a"
VARIABLES = {PAPER: "paper", INK: "ink", MUTED: "muted", LINE: "line"} | {
    VAL: "accent",
    TRAIN: "train",
    RIGHT: "right",
    WRONG: "wrong",
}
WIDTH, HEIGHT = 420, 260  # of a chart, in pixels of the page
MAX_MATRIX = 40  # classes; more cells than these cannot be told apart on paper
MAX_BESIDE = 12  # classes of a matrix that leaves room for something at its side
ROW = 38  # pixels of a bar with its name
CELL = 34  # pixels, up to 20 classes; more share the room of 20
TIP = "tip:"  # marks an id that becomes a tooltip


def draw_curves(history: Sequence[EpochResult], kinds: Sequence[str] = ("Loss", "Accuracy")) -> Figure:
    """Return charts of training and validation over the epochs, the kept one marked; what is not finite is left out."""
    figure = _make_figure(WIDTH * len(kinds), HEIGHT)
    for axes, kind in zip(np.ravel(figure.subplots(1, len(kinds))), kinds, strict=True):
        _draw_curve(axes, history, kind)
    return figure


def label_curve(history: Sequence[EpochResult], kind: str) -> str:
    """Return what a screen reader says of one of the charts."""
    first, last = vars(history[0]), vars(history[-1])
    changes = [
        f"{name} from {first[f'{split}_{kind.lower()}']:.3g} to {last[f'{split}_{kind.lower()}']:.3g}"
        for split, name in (("train", "training"), ("val", "validation"))
    ]
    return f"{kind} from epoch {first['epoch']} to {last['epoch']}: {', '.join(changes)}."


def _draw_curve(axes: Axes, history: Sequence[EpochResult], kind: str) -> None:
    best, field = best_epoch(history), kind.lower()
    axes.axvline(best.epoch, color=MUTED, linewidth=1, linestyle=":")
    for split, name, colour, style in (("train", "training", TRAIN, "--"), ("val", "validation", VAL, "-")):
        values = [float(getattr(result, f"{split}_{field}")) for result in history]
        axes.plot([result.epoch for result in history], values, style, color=colour, linewidth=2, label=name)
        for result, value in zip(history, values, strict=True):
            shown = percent(value) if kind == "Accuracy" else f"{value:.4g}"
            if math.isfinite(value):
                _draw_dot(axes, result.epoch, value, colour, f"epoch {result.epoch}, {name}: {shown}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    if kind == "Accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        _finish_axes(axes, f"Accuracy; best: {best.val_accuracy:.2%} in epoch {best.epoch}")
    else:
        axes.set_ylim(bottom=0)
        _finish_axes(axes, "Loss")
    axes.legend(frameon=False, labelcolor=MUTED, loc="lower right" if kind == "Accuracy" else "upper right")


def draw_confusion(
    metrics: Metrics, split: str = "", links: Mapping[tuple[int, int], str] = MappingProxyType({})
) -> Figure:
    """Return a matrix of counts, a row for each true class and a column for each predicted one.

    The strength of a cell is its share of the row; mistakes grow with its root from a visible one, so that rare ones
    show. Beyond ``MAX_MATRIX`` classes there are colours only.

    Args:
        split: for a title that says what was measured; without it there is none.
        links: addresses that cells (true, predicted) of the SVG lead to.
    """
    counts = np.array(metrics.confusion)  # (K, K)
    labels = [shorten(clean(one.label)) for one in metrics.per_class]
    number, longest = len(labels), max(map(len, labels))
    cell = CELL * min(1, 20 / number)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    strengths = np.where(np.eye(number, dtype=bool), shares, np.where(counts, 0.15 + 0.85 * np.sqrt(shares), 0))
    beside, below = 7 * longest + 34, 5 * longest + 44
    figure = _make_figure(number * cell + beside + 16, number * cell + below + 30, left=beside, bottom=below)
    axes = figure.subplots()
    axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if number <= MAX_MATRIX:
        axes.set_xticks(range(number), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(number), labels, parse_math=False)
        edges = np.arange(number + 1) - 0.5
        axes.hlines(edges, -0.5, number - 0.5, colors=LINE, linewidth=0.6, clip_on=False)
        axes.vlines(edges, -0.5, number - 0.5, colors=LINE, linewidth=0.6, clip_on=False)
        for row, column in np.argwhere(counts).tolist():
            count, size = counts[row, column], min(12.0, 1.5 * cell / len(str(counts[row, column])))
            tip = f"{labels[row]} taken for {labels[column]}: {count:,} of {counts[row].sum():,}"
            colour, alpha = RIGHT if row == column else WRONG, strengths[row, column]
            corner = (column - 0.485, row - 0.485)
            square = Rectangle(corner, 0.97, 0.97, color=colour, alpha=alpha, linewidth=0, clip_on=False, gid=TIP + tip)
            square.set_url(links.get((row, column)))
            axes.add_patch(square)
            axes.text(column, row, str(count), ha="center", va="center_baseline", color=INK, fontsize=size)
    else:
        right, wrong = (np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255 for colour in (RIGHT, WRONG))
        colours = np.where(np.eye(number, dtype=bool)[..., None], right, wrong)  # (K, K, 3)
        axes.imshow(1 - strengths[..., None] * (1 - colours), interpolation="nearest")
    title = f"{metrics.accuracy:.2%} of {metrics.images} images right ({clean(split)})" if split else ""
    _finish_axes(axes, title, has_grid=False)
    return figure


def draw_reliability(bins: Sequence[ReliabilityBin]) -> Figure:
    """Return accuracy against confidence with 95% intervals, the diagonal, and below how many images each bin has."""
    figure = _make_figure(WIDTH, 470)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    for one in filter(lambda one: one.count, bins):
        x, right = one.mean_confidence, round(one.accuracy * one.count)
        axes.plot([x, x], wilson_interval(right, one.count), color=VAL, linewidth=2, clip_on=False)
        tip = f"{percent(x)} sure: {right} of {one.count} right ({percent(one.accuracy)})"
        _draw_dot(axes, x, one.accuracy, VAL, tip, size=8)
        below.bar(one.lower, one.count, 0.9 * (one.upper - one.lower), align="edge", color=TRAIN)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for one_axis in (axes.xaxis, axes.yaxis):
        one_axis.set_major_formatter(PercentFormatter(1))
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below.set_xlabel("how sure the network is")
    _finish_axes(axes, "share of right answers")
    _finish_axes(below, "images in each bin")
    return figure


def draw_candidates(candidates: Sequence[CandidateResult], most_frequent: float) -> Figure:
    """Return a bar for each way to learn that was tried: its share of right answers with the 95% interval.

    Args:
        most_frequent: the share that always answering the most frequent class would get; dotted.
    """
    figure = _make_figure(WIDTH, 62 + ROW * len(candidates), left=16)
    axes = figure.subplots()
    for row, one in enumerate(candidates):
        share = one.accuracy or 0.0
        low, high = wilson_interval(round(share * one.images), one.images)
        tip = f"{clean(one.name)}: {percent(share)}, 95% confidence {name_interval((low, high))}"
        colour = RIGHT if one.is_chosen else TRAIN
        axes.add_patch(Rectangle((0, row), share, 0.4, color=colour, linewidth=0, gid=TIP + tip))
        axes.plot([low, high], [row + 0.2] * 2, color=INK, linewidth=1.5)
        axes.plot([most_frequent] * 2, [row, row + 0.4], color=INK, linewidth=1.5, linestyle=":")
        axes.text(0, row - 0.08, shorten(clean(one.name), 48), color=INK, fontsize=11, parse_math=False)
        axes.text(1, row - 0.08, percent(share), color=INK, fontsize=11, ha="right")
    axes.set(xlim=(0, 1), ylim=(len(candidates) - 0.4, -0.6), yticks=[])
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    _finish_axes(axes, "share of right answers", has_grid=False)
    return figure


def _make_figure(width: float, height: float, left: float = 48, bottom: float = 40) -> Figure:
    """Return a figure of so many points, with room for text around its axes; fixed, so that nothing is measured."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=150)  # 72 points an inch
    figure.subplots_adjust(left / width, bottom / height, 1 - 16 / width, 1 - 30 / height, wspace=0.18, hspace=0.2)
    return figure


def _draw_dot(axes: Axes, x: float, y: float, colour: str, tip: str, size: float = 5) -> None:
    axes.plot(x, y, "o", color=colour, markersize=size, markeredgewidth=0, clip_on=False, gid=TIP + tip)


def _finish_axes(axes: Axes, title: str, *, has_grid: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=MUTED, weight="bold", parse_math=False)
    axes.tick_params(labelsize=10, labelcolor=MUTED, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=MUTED, fontsize=11)
    axes.spines[:].set_visible(False)
    if has_grid:
        axes.grid(axis="y", color=LINE, linewidth=1)
        axes.set_axisbelow(True)


@contextmanager
def _settings() -> Iterator[None]:
    """Let equal figures give equal files, text be text, and signs that the font lacks be boxes."""
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "torchlight"}):
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def to_png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    buffer = io.BytesIO()
    with _settings():
        figure.savefig(buffer, format="png", bbox_inches="tight")  # a title may be wider than a small matrix
    return buffer.getvalue()


def to_svg(figure: Figure, label: str) -> Element:
    """Return the figure as an element of a page, its colours those of the page's style sheet.

    Args:
        label: what a screen reader says.
    """
    buffer = io.BytesIO()
    with _settings():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = fromstring(buffer.getvalue())
    box = root.get("viewBox", "")
    _, _, width, height = box.split()
    size = {"viewBox": box, "width": width, "height": height}
    svg = Element("svg", size | {"role": "img", "aria-label": label, "stroke-linecap": "round"})
    svg.extend(_inline(child) for child in root if child.tag.endswith("}g"))
    if svg.find(".//a") is not None:
        svg.set("role", "group")  # a picture would hide its links from screen readers
    return svg


def to_html(figure: Figure, label: str, size: str = "") -> str:
    """Return the figure for a page; ``size`` names a rule of the style sheet, and ``label`` is for screen readers."""
    svg = to_svg(figure, label)
    if size:
        svg.set("class", size)
    return tostring(svg, encoding="unicode", method="html")


def _inline(node: Element) -> Element:
    """Return matplotlib's node as HTML knows it, without namespaces and the style attributes that the page's policy
    forbids; ids of groups become tooltips or go."""
    attributes = {name.rpartition("}")[2]: value for name, value in node.items()}
    for part in filter(None, attributes.pop("style", "").split("; ")):
        name, _, value = part.partition(": ")
        if name != "font-family":
            attributes[name] = f"var(--{VARIABLES[value]})" if value in VARIABLES else value
    tag, identity = node.tag.rpartition("}")[2], attributes.get("id", "")
    for name in {"g": ("id",), "a": ("target",)}.get(tag, ()):  # a link leads to a place on the page
        attributes.pop(name, None)
    made = Element(tag, attributes)
    made.text = node.text if tag == "text" else None
    if identity.startswith(TIP):
        SubElement(made, "title").text = identity.removeprefix(TIP)
    made.extend(_inline(child) for child in node)
    for link in made.findall("a"):
        link.set("aria-label", identity.removeprefix(TIP))
    return made
