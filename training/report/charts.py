"""Figures as inline SVG: sharp at any size, in the page's colours by day and by night, read aloud by their label.

Colours are classes of ``report.css``. Knows nothing of networks.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from torchlight.training.evaluation.calibration import ReliabilityBin
from torchlight.training.evaluation.classification_metrics import Interval, wilson_interval
from torchlight.training.report.markup import element, percent, shorten

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 18, 34, 34  # around the plotted area
MAX_MATRIX = 40  # classes; more cells than these cannot be told apart on paper
MAX_BESIDE = 12  # classes of a matrix that leaves room for something at its side
CELL = 34  # pixels


@dataclass(frozen=True)
class Series:
    """A line: its name, its class in the style sheet, and a value for each epoch."""

    name: str
    style: str
    values: Sequence[float]


@dataclass(frozen=True)
class _Frame:
    """Where data lie on the picture."""

    x_range: Interval
    y_range: Interval
    height: float = HEIGHT

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def draw_lines(name: str, epochs: Sequence[int], series: Sequence[Series], kept: int, *, as_percent: bool) -> Element:
    """Return a chart of the series over the epochs; values that are not finite are left out.

    Args:
        kept: the epoch to mark.
        as_percent: values are shares, and their axis need not begin at 0.
    """
    values = [value for one in series for value in one.values if math.isfinite(value)] or [0.0]
    ticks = _ticks(min(values) if as_percent else 0.0, max(values))
    first, last = epochs[0], epochs[-1]
    frame = _Frame((first - 0.5, last + 0.5) if first == last else (first, last), (ticks[0], ticks[-1]))
    parts = [*_horizontal_lines(frame, ticks, as_percent), *_epoch_labels(frame, first, last)]
    x = frame.x(kept)
    parts.append(element("line", x1=x, y1=TOP, x2=x, y2=HEIGHT - BOTTOM, class_="line guide"))
    parts.append(_write(x - 5, HEIGHT - BOTTOM - 6, "kept", "tick", text_anchor="end"))
    for position, one in enumerate(series):
        points = [(k, value) for k, value in zip(epochs, one.values, strict=True) if math.isfinite(value)]
        path = " ".join(f"{frame.x(k):.1f},{frame.y(value):.1f}" for k, value in points)
        parts.append(element("polyline", points=path, class_=f"line {one.style}"))
        parts += [_dot(frame, k, value, one, as_percent) for k, value in points]
        parts += _legend(one, LEFT + position * 120)
    told = [f"{one.name} from {one.values[0]:.3g} to {one.values[-1]:.3g}" for one in series]
    return _svg(WIDTH, HEIGHT, f"{name} from epoch {first} to {last}: {', '.join(told)}.", parts)


def draw_confusion(label: str, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Element:
    """Return a matrix of counts, a row for each true class and a column for each predicted one.

    The strength of a cell is its share of the row; mistakes grow with its root from a visible one, so that rare ones
    show.

    Args:
        names: at most ``MAX_MATRIX``.
    """
    number = len(names)
    cell = CELL if number <= 20 else CELL * 20 / number
    gutter = 26 + 7 * max(len(shorten(name)) for name in names)
    head = 24 + 0.75 * gutter
    parts = [
        _write(gutter + number * cell / 2, 14, "predicted class", "axis", text_anchor="middle"),
        _write(0, 0, "true class", "axis", text_anchor="middle", transform=_turn(14, head + number * cell / 2, -90)),
    ]
    for k, name in enumerate(names):
        middle = (k + 0.5) * cell
        parts.append(_write(gutter - 6, head + middle + 4, shorten(name), "tick", text_anchor="end"))
        parts.append(_write(0, 0, shorten(name), "tick", transform=_turn(gutter + middle + 4, head - 6, -45)))
    for row, counts in enumerate(confusion):
        for column, count in enumerate(counts):
            corner = (gutter + column * cell, head + row * cell)
            parts.append(_cell(corner, cell, count, sum(counts), row == column, (names[row], names[column])))
    overhang = 0.75 * gutter - cell / 2
    drawn = _svg(gutter + number * cell + max(8, overhang), head + number * cell + 4, label, parts)
    drawn.set("class", "small" if number <= MAX_BESIDE else "large")
    return drawn


def draw_reliability(label: str, bins: Sequence[ReliabilityBin]) -> Element:
    """Return accuracy against confidence with 95% intervals, the diagonal, and below how many images each bin has."""
    frame, floor = _Frame((0, 1), (0, 1), 360), 430
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    most = max(1, *(one.count for one in bins))
    parts = list(_horizontal_lines(frame, ticks, True))
    parts += [_write(frame.x(tick), floor + 18, f"{100 * tick:g}%", "tick", text_anchor="middle") for tick in ticks]
    parts.append(element("line", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1), class_="line guide"))
    parts.append(_write(LEFT, 18, "share of right answers", "axis"))
    parts.append(_write(WIDTH - RIGHT, floor + 36, "how sure the network is", "axis", text_anchor="end"))
    for one in filter(lambda one: one.count, bins):
        x, right = frame.x(one.mean_confidence), round(one.accuracy * one.count)
        low, high = wilson_interval(right, one.count)
        told = f"{percent(one.mean_confidence)} sure: {right} of {one.count} right ({percent(one.accuracy)})"
        parts.append(element("line", x1=x, y1=frame.y(low), x2=x, y2=frame.y(high), class_="whisker val"))
        dot = element("circle", element("title", told), cx=x, cy=frame.y(one.accuracy), r=4.5, class_="dot val")
        parts.append(dot)
        left, wide = frame.x(one.lower), frame.x(one.upper) - frame.x(one.lower)
        tall = max(1, 66 * one.count / most)
        parts.append(element("rect", x=left + 1, y=floor - tall, width=wide - 2, height=tall, class_="fill train"))
    parts.append(_write(LEFT, 350, f"images in each bin, at most {most:,}", "axis"))
    return _svg(WIDTH, floor + 42, label, parts)


def draw_interval(share: float, interval: Interval) -> Element:
    """Return a share on a line from 0 to 1, with its interval; the numbers stand beside it."""
    low, high = (100 * value for value in interval)
    parts = [
        element("line", x1=0, y1=7, x2=100, y2=7, class_="rule"),
        element("line", x1=low, y1=7, x2=high, y2=7, class_="whisker val"),
        element("circle", cx=100 * share, cy=7, r=3.5, class_="dot val"),
    ]
    return element("svg", *parts, viewBox="-4 0 108 14", width=108, height=14, class_="spark", aria_hidden="true")


def draw_stack(counts: Sequence[int], styles: Sequence[str], most: int) -> Element:
    """Return a bar of counts one after the other, ``most`` filling it; the numbers stand beside it."""
    parts, x = [], 0.0
    for count, style in zip(counts, styles, strict=True):
        width = 160 * count / most
        parts.append(element("rect", x=x, y=2, width=width, height=10, class_=f"fill {style}"))
        x += width
    return element("svg", *parts, viewBox="0 0 160 14", width=160, height=14, class_="spark", aria_hidden="true")


def draw_swatch(style: str) -> Element:
    """Return a small square in the colour of a bar, to stand beside its name."""
    square = element("rect", width=10, height=10, class_=f"fill {style}")
    return element("svg", square, viewBox="0 0 10 10", width=10, height=10, class_="swatch", aria_hidden="true")


def _svg(width: float, height: float, label: str, parts: Iterable[Element]) -> Element:
    box = f"0 0 {width:.0f} {height:.0f}"
    return element("svg", *parts, viewBox=box, width=round(width), height=round(height), role="img", aria_label=label)


def _write(x: float, y: float, text: str, style: str, **attributes: str) -> Element:
    return element("text", text, x=x, y=y, class_=style, **attributes)


def _turn(x: float, y: float, degrees: int) -> str:
    return f"translate({x:.1f} {y:.1f}) rotate({degrees})"


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers that enclose the range."""
    span = max(high - low, 1e-3)
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if span / (unit * factor) <= 5)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [k * step for k in range(first, last + 1)]


def _horizontal_lines(frame: _Frame, ticks: Sequence[float], as_percent: bool) -> Iterable[Element]:
    for tick in ticks:
        y = frame.y(tick)
        yield element("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="rule")
        yield _write(LEFT - 6, y + 4, f"{100 * tick:g}%" if as_percent else f"{tick:g}", "tick", text_anchor="end")


def _epoch_labels(frame: _Frame, first: int, last: int) -> Iterable[Element]:
    step = max(1, math.ceil((last - first) / 8))
    for epoch in range(first, last + 1, step):
        yield _write(frame.x(epoch), HEIGHT - BOTTOM + 18, str(epoch), "tick", text_anchor="middle")
    yield _write(WIDTH - RIGHT, HEIGHT - 2, "epoch", "axis", text_anchor="end")


def _dot(frame: _Frame, epoch: int, value: float, series: Series, as_percent: bool) -> Element:
    told = f"epoch {epoch}, {series.name}: {percent(value) if as_percent else f'{value:.4g}'}"
    return element(
        "circle", element("title", told), cx=frame.x(epoch), cy=frame.y(value), r=2.5, class_=f"dot {series.style}"
    )


def _legend(series: Series, x: float) -> list[Element]:
    line = element("line", x1=x, y1=14, x2=x + 22, y2=14, class_=f"line {series.style}")
    return [line, _write(x + 28, 18, series.name, "axis")]


def _cell(
    corner: tuple[float, float], side: float, count: int, images: int, is_right: bool, names: tuple[str, str]
) -> Element:
    x, y = corner
    share = count / max(1, images)
    told = f"{names[0]} taken for {names[1]}: {count:,} of {images:,}"
    square = element("rect", x=x + 0.5, y=y + 0.5, width=side - 1, height=side - 1, class_="rule empty")
    if not count:
        return square
    strength = share if is_right else 0.15 + 0.85 * math.sqrt(share)
    style = "fill right" if is_right else "fill wrong"
    square = element("rect", x=x + 0.5, y=y + 0.5, width=side - 1, height=side - 1, class_=style, fill_opacity=strength)
    size = min(12.0, 1.5 * side / len(str(count)))
    number = _write(
        x + side / 2, y + side / 2 + size / 3, str(count), "count", text_anchor="middle", font_size=f"{size:.1f}"
    )
    return element("g", element("title", told), square, number if side >= 24 else None)
