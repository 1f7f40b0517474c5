"""Which pixels of the image one position of a layer can see. Knows nothing of weights: a bound, not a measurement.

How much each of those pixels counts is another matter: the effective field is a part of it, about Gaussian.

Source: Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from model.errors import PositionOutOfRange, ViewNotApplicable
from model.graph import INPUT, Layer, NetworkGraph

Pair = tuple[int, int]

# Names of layers whose every output depends on the input at its own place alone.
ACTIVATIONS = frozenset(
    "CELU ELU GELU Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish ReLU ReLU6 SELU SiLU Sigmoid Softplus "
    "Softsign Tanh hardsigmoid hardswish relu sigmoid silu tanh".split()
)
IDENTITIES = frozenset("Dropout Dropout2d Identity contiguous dropout stochastic_depth".split())  # in evaluation mode
SAME_PLACE = ACTIVATIONS | IDENTITIES | {"BatchNorm2d", "PReLU", "gelu", "add", "mul", "cat"}
ADAPTIVE_POOLS = frozenset({"AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling layer slides over its input; each pair is (y, x).

    ``padding`` is what lies before the first row and column; ``same`` may put one more after the last.
    """

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@dataclass(frozen=True)
class ReceptiveField:
    """The box that position (i, j) sees: centred on ``start + (i, j) * jump``, ``size`` pixels high and wide.

    Attributes:
        size: (height, width) in pixels, at least 1; may exceed the image.
        jump: (y, x) pixels between neighbouring positions; 0 where all positions see the same box.
        start: (y, x) centre of position (0, 0); pixel centres are whole numbers. May lie outside the image.
    """

    size: Pair
    jump: Pair
    start: tuple[float, float]


class Box(NamedTuple):
    """Pixels of the image from (y0, x0) to (y1, x1), both included."""

    y0: int
    x0: int
    y1: int
    x1: int


@dataclass(frozen=True)
class SeenPixels:
    """What one position sees.

    Attributes:
        full: may reach beyond the image, into padding.
        clipped: its part in the image; None where the position sees nothing but padding.
    """

    full: Box
    clipped: Box | None


def window(module: nn.Module | None) -> Window | None:
    """Return how a convolution, maximum or average pooling slides; None for anything else."""
    match module:
        case nn.Conv2d():
            return _convolution_window(module)
        case nn.MaxPool2d():
            stride, dilation = _pair(module.stride), _pair(module.dilation)
            return Window(_pair(module.kernel_size), stride, _pair(module.padding), dilation)
        case nn.AvgPool2d():
            return Window(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding), (1, 1))
    return None


def receptive_fields(graph: NetworkGraph) -> dict[str, ReceptiveField | None]:
    """Return the receptive field of every layer, by name.

    Walks forward: ``size += (kernel_size - 1) * dilation * jump``, ``start += ((kernel_size - 1) * dilation / 2 -
    padding) * jump``, then ``jump *= stride``. Where branches join, the field is the smallest box around theirs. A
    global pooling, and every layer that gives a vector, sees what all positions before it see together. So does a
    map that is scaled by such a vector (squeeze and excitation).

    None stands where positions have no place in the image: after attention, after maps are rearranged, where
    branches of different strides meet, and after a layer this module does not know.
    """
    side = _image_size(graph)
    spans: dict[str, _Spans | None] = {INPUT: (_Span(0, 0, 1), _Span(0, 0, 1))}
    for layer in graph.layers.values():
        spans[layer.name] = _spans(layer, [spans[name] for name in layer.inputs], side)
    return {name: _as_field(spans[name]) for name in graph.layers}


def box(graph: NetworkGraph, layer: str, y: int, x: int) -> SeenPixels:
    """Return the pixels that one position of a layer sees. A vector has the one position (0, 0).

    Raises:
        UnknownLayer: no layer has that name.
        PositionOutOfRange: the layer has no such position.
        ViewNotApplicable: its positions have no place in the image.
    """
    check_position(graph.find(layer), y, x)
    field = receptive_fields(graph)[layer]
    if field is None:
        raise ViewNotApplicable(f"layer {layer!r} has no receptive field; name one before the maps are rearranged")
    y0, x0 = (_low(field, axis, position) for axis, position in enumerate((y, x)))
    full = Box(y0, x0, y0 + field.size[0] - 1, x0 + field.size[1] - 1)
    last = _image_size(graph) - 1
    clipped = Box(max(full.y0, 0), max(full.x0, 0), min(full.y1, last), min(full.x1, last))
    is_inside = clipped.y0 <= clipped.y1 and clipped.x0 <= clipped.x1
    return SeenPixels(full, clipped if is_inside else None)


def check_position(layer: Layer, y: int, x: int) -> None:
    """Refuse a position that the layer's output does not have; a vector has (0, 0) only.

    Raises:
        PositionOutOfRange: with the limits.
    """
    height, width = _sides(layer.out_shape)
    if not (0 <= y < height and 0 <= x < width):
        raise PositionOutOfRange(
            f"position y={y}, x={x} does not exist: layer {layer.name!r} has {height}x{width} positions, "
            f"y 0 to {height - 1}, x 0 to {width - 1}"
        )


@dataclass(frozen=True)
class _Span:
    """One axis of the walk: position i sees the pixels ``low + i * jump`` to ``high + i * jump``."""

    low: int
    high: int
    jump: int

    def through(self, kernel_size: int, stride: int, padding: int, dilation: int) -> "_Span":
        """Return what a window over these positions sees."""
        first, last = -padding, -padding + (kernel_size - 1) * dilation
        return _Span(self.low + first * self.jump, self.high + last * self.jump, self.jump * stride)

    def over_all(self, positions: int, side: int) -> "_Span":
        """Return the pixels of the image that all positions see together."""
        return _Span(max(self.low, 0), min(self.high + (positions - 1) * self.jump, side - 1), 0)


_Spans = tuple[_Span, _Span]


def _spans(layer: Layer, sources: Sequence[_Spans | None], side: int) -> _Spans | None:
    """Return the field of a layer, given those of its inputs and the image's side."""
    slides = window(layer.module)
    is_global = len(layer.out_shape) == 1 or (layer.type in ADAPTIVE_POOLS and layer.out_shape[1:] == (1, 1))
    if is_global and sources:
        return _over_all(layer, sources, side)
    known = [source for source in sources if source is not None]
    if not known or len(known) < len(sources):
        return None
    if slides is not None:
        return _through(known[0], slides)
    if layer.type in ADAPTIVE_POOLS:
        return _through_adaptive_pool(layer, known[0])
    return _union(layer, known, side) if layer.type in SAME_PLACE else None


def _through(source: _Spans, slides: Window) -> _Spans:
    rows, columns = (
        span.through(*geometry)
        for span, *geometry in zip(
            source, slides.kernel_size, slides.stride, slides.padding, slides.dilation, strict=True
        )
    )
    return rows, columns


def _through_adaptive_pool(layer: Layer, source: _Spans) -> _Spans | None:
    """Return the field where the sizes divide, so that all windows are alike; None elsewhere."""
    (height, width), (out_height, out_width) = _sides(layer.in_shapes[0]), _sides(layer.out_shape)
    if height % out_height or width % out_width:
        return None
    step = height // out_height, width // out_width
    return _through(source, Window(step, step, (0, 0), (1, 1)))


def _over_all(layer: Layer, sources: Sequence[_Spans | None], side: int) -> _Spans:
    """Return the pixels seen by all positions of all inputs: the whole image where one of them is not known."""
    whole = _Span(0, side - 1, 0)
    seen = [
        (rows.over_all(height, side), columns.over_all(width, side))
        for (rows, columns), (height, width) in zip(
            (source or (whole, whole) for source in sources), map(_sides, layer.in_shapes), strict=True
        )
    ]
    return _around([rows for rows, _ in seen]), _around([columns for _, columns in seen])


def _union(layer: Layer, sources: Sequence[_Spans], side: int) -> _Spans | None:
    """Return the field where branches join; None if their strides disagree."""
    if len({tuple(span.jump for span in source) for source in sources}) == 1:
        return _around([rows for rows, _ in sources]), _around([columns for _, columns in sources])
    is_fixed = any(_sides(shape) == (1, 1) for shape in layer.in_shapes) or any(
        rows.jump == columns.jump == 0 for rows, columns in sources
    )
    return _over_all(layer, sources, side) if is_fixed else None


def _around(spans: Sequence[_Span]) -> _Span:
    return _Span(min(span.low for span in spans), max(span.high for span in spans), spans[0].jump)


def _as_field(spans: _Spans | None) -> ReceptiveField | None:
    if spans is None:
        return None
    rows, columns = spans
    return ReceptiveField(
        size=(rows.high - rows.low + 1, columns.high - columns.low + 1),
        jump=(rows.jump, columns.jump),
        start=((rows.low + rows.high) / 2, (columns.low + columns.high) / 2),
    )


def _low(field: ReceptiveField, axis: int, position: int) -> int:
    """Return the first pixel along an axis that a position sees."""
    return round(field.start[axis] + position * field.jump[axis] - (field.size[axis] - 1) / 2)


def _convolution_window(module: nn.Conv2d) -> Window:
    kernel_size, stride, dilation = _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation)
    if isinstance(module.padding, tuple):
        return Window(kernel_size, stride, _pair(module.padding), dilation)
    if module.padding == "valid":
        return Window(kernel_size, stride, (0, 0), dilation)
    before_y, before_x = ((size - 1) * step // 2 for size, step in zip(kernel_size, dilation, strict=True))
    return Window(kernel_size, stride, (before_y, before_x), dilation)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _sides(shape: tuple[int, ...]) -> Pair:
    """Return height and width of a map, (1, 1) for a vector."""
    return (shape[1], shape[2]) if len(shape) == 3 else (1, 1)


def _image_size(graph: NetworkGraph) -> int:
    """Return the side of the image, from the layer that reads it."""
    first = next(layer for layer in graph.layers.values() if INPUT in layer.inputs)
    return first.in_shapes[first.inputs.index(INPUT)][-1]
