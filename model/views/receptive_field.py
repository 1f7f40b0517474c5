"""Which pixels of the image one position of a layer can see. Knows nothing of weights: a bound, not a measurement.

How much each of those pixels counts is another matter: the effective field is a part of it, about Gaussian.

Source: Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor, nn

from torchlight.model.errors import PositionOutOfRange, ViewNotApplicable
from torchlight.model.graph import INPUT, Layer, NetworkGraph

Pair = tuple[int, int]

# Layers whose every output depends on the input at its own place alone.
ACTIVATIONS = frozenset(
    {"ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Softplus", "Softsign"}
    | {"Sigmoid", "LogSigmoid", "Tanh", "Hardtanh", "Hardsigmoid", "Hardswish"}
    | {"relu", "gelu", "silu", "sigmoid", "tanh", "hardsigmoid", "hardswish"}
)
IDENTITIES = frozenset({"Identity", "Dropout", "Dropout2d", "dropout", "stochastic_depth", "contiguous"})  # evaluating
SAME_PLACE = ACTIVATIONS | IDENTITIES | {"BatchNorm2d", "LayerNorm2d", "add", "mul", "cat", "permute"}
ADAPTIVE_POOLS = frozenset({"AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"})


class Window(NamedTuple):
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

    def crop(self, pixels: Tensor) -> Tensor:
        """Return these pixels of (3, S, S), not a copy."""
        return pixels[:, self.y0 : self.y1 + 1, self.x0 : self.x1 + 1]


@dataclass(frozen=True)
class SeenPixels:
    """What one position sees.

    Attributes:
        full: may reach beyond the image, into padding.
        clipped: its part in the image; None where the position sees nothing but padding.
    """

    full: Box
    clipped: Box | None


@dataclass(frozen=True)
class SeenPosition:
    """A position of a layer, and what it sees: the layer's receptive field, placed."""

    y: int
    x: int
    field: ReceptiveField
    box: SeenPixels


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie on the image: centre of the first and distance to the next, in pixels, as (y, x).

    Pixel centres are whole numbers. A map as large as the image has start (0, 0) and step (1, 1).
    """

    start: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)


def window(module: nn.Module | None) -> Window | None:
    """Return how a convolution, maximum or average pooling slides; None for anything else.

    A layer that pads with zeros is a window of one position, which begins in the padding.
    """
    match module:
        case nn.Conv2d():
            return _convolution_window(module)
        case nn.MaxPool2d():
            geometry = module.kernel_size, module.stride, module.padding, module.dilation
            return Window(*map(_pair, geometry))
        case nn.AvgPool2d():
            geometry = module.kernel_size, module.stride, module.padding, 1
            return Window(*map(_pair, geometry))
        case nn.ZeroPad2d(padding=(left, _, top, _)):
            return Window((1, 1), (1, 1), (top, left), (1, 1))
    return None


@lru_cache(maxsize=1)  # boxes are asked for by the dozen; a process serves one network
def receptive_fields(graph: NetworkGraph) -> dict[str, ReceptiveField | None]:
    """Return the receptive field of every layer, by name.

    Walks forward: ``size += (kernel_size - 1) * dilation * jump``, ``start += ((kernel_size - 1) * dilation / 2 -
    padding) * jump``, then ``jump *= stride``. Where branches join, the field is the smallest box around theirs. A
    global pooling, and every layer that gives a vector, sees what all positions before it see together. So does a
    map that is scaled by such a vector (squeeze and excitation).

    None stands where positions have no place in the image: after attention, after maps are rearranged, where
    branches of different strides meet, and after a layer this module does not know.
    """
    rows, columns = _walk(graph, axis=0), _walk(graph, axis=1)
    return {name: _as_field(rows[name], columns[name]) for name in graph.layers}


def find_seen_pixels(graph: NetworkGraph, layer: str, y: int, x: int) -> SeenPixels:
    """Return the pixels that one position of a layer sees. A vector has the one position (0, 0).

    Raises:
        UnknownLayer: no layer has that name.
        PositionOutOfRange: the layer has no such position.
        ViewNotApplicable: its positions have no place in the image.
    """
    check_position(graph.find_layer(layer), y, x)
    field = receptive_fields(graph)[layer]
    if field is None:
        raise ViewNotApplicable(
            f"positions of layer {layer!r} have no known place in the image; /v1/layers lists the layers "
            "whose positions have one"
        )
    y0, x0 = _low(field, 0, y), _low(field, 1, x)
    full = Box(y0, x0, y0 + field.size[0] - 1, x0 + field.size[1] - 1)
    last = _image_size(graph) - 1
    clipped = Box(max(full.y0, 0), max(full.x0, 0), min(full.y1, last), min(full.x1, last))
    sees_pixels = clipped.y0 <= clipped.y1 and clipped.x0 <= clipped.x1
    return SeenPixels(full, clipped if sees_pixels else None)


def find_seen_pixels_if_placed(graph: NetworkGraph, layer: str, y: int, x: int) -> SeenPixels | None:
    """Return what :func:`find_seen_pixels` does; None where the layer's positions have no place in the image."""
    return find_seen_pixels(graph, layer, y, x) if receptive_fields(graph)[layer] is not None else None


def see_position(graph: NetworkGraph, layer: str, position: Pair | None) -> SeenPosition:
    """Return what a position (y, x) of a layer sees; None is the position in the middle.

    Raises as :func:`find_seen_pixels`.
    """
    shape = graph.find_layer(layer).out_shape
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    y, x = position or (height // 2, width // 2)
    seen, field = find_seen_pixels(graph, layer, y, x), receptive_fields(graph)[layer]
    assert field is not None  # find_seen_pixels has refused such layers
    return SeenPosition(y, x, field, seen)


def find_grid(graph: NetworkGraph, layer: str) -> Grid:
    """Return where the positions of a layer, or the pixels of ``input``, lie on the image.

    Raises:
        ViewNotApplicable: they have no place in the image.
    """
    if layer == INPUT:
        return Grid()
    field = receptive_fields(graph)[layer]
    if field is None:
        raise ViewNotApplicable(
            f"positions of layer {layer!r} have no known place in the image; take the map as .json or .npy, "
            "or name a layer before it"
        )
    y, x = (float(jump or _image_size(graph)) for jump in field.jump)
    return Grid(field.start, (y, x))


def check_position(layer: Layer, y: int, x: int) -> None:
    """Refuse a position that the layer's output does not have; a vector has (0, 0) only.

    Raises:
        PositionOutOfRange: with the limits.
    """
    height, width = _positions(layer.out_shape, 0), _positions(layer.out_shape, 1)
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


def _walk(graph: NetworkGraph, axis: int) -> dict[str, _Span | None]:
    side = _image_size(graph)
    spans: dict[str, _Span | None] = {INPUT: _Span(0, 0, 1)}
    for layer in graph.layers.values():
        spans[layer.name] = _step(layer, [spans[name] for name in layer.inputs], axis, side)
    return spans


def _step(layer: Layer, sources: Sequence[_Span | None], axis: int, side: int) -> _Span | None:
    """Return the span of a layer, given those of its inputs and the image's side."""
    if sources and _is_global(layer):
        return _over_all(layer, [source or _Span(0, side - 1, 0) for source in sources], axis, side)
    known = [source for source in sources if source is not None]
    if not known or len(known) < len(sources):
        return None
    if (slides := window(layer.module)) is not None:
        return known[0].through(*(pair[axis] for pair in slides))
    if layer.type in ADAPTIVE_POOLS:
        return _through_adaptive_pool(layer, known[0], axis)
    return _union(layer, known, axis, side) if _keeps_places(layer) else None


def _keeps_places(layer: Layer) -> bool:
    """Whether each output depends on the inputs at its own place alone."""
    if layer.type in SAME_PLACE:
        return layer.layout != "unknown"
    is_over_channels = layer.layout == "channels last" and layer.type in ("Linear", "LayerNorm")
    return is_over_channels and len(getattr(layer.module, "normalized_shape", (0,))) == 1


def _is_global(layer: Layer) -> bool:
    """Whether each output depends on all positions."""
    pools = layer.type in ADAPTIVE_POOLS or layer.type == "mean"
    return len(layer.out_shape) == 1 or (pools and layer.out_shape[1:] == (1, 1))


def _through_adaptive_pool(layer: Layer, source: _Span, axis: int) -> _Span | None:
    """Return the span where the sizes divide, so that all windows are alike; None elsewhere."""
    step, rest = divmod(_positions(layer.in_shapes[0], axis), _positions(layer.out_shape, axis))
    return None if rest else source.through(kernel_size=step, stride=step, padding=0, dilation=1)


def _union(layer: Layer, sources: Sequence[_Span], axis: int, side: int) -> _Span | None:
    """Return the span where branches join; None if their strides disagree."""
    positions = {_positions(shape, axis) for shape in layer.in_shapes}
    if max(positions) != _positions(layer.out_shape, axis):
        return None
    jumps = {source.jump for source in sources}
    if len(jumps) == len(positions) == 1:
        return _around(sources)
    return _over_all(layer, sources, axis, side) if 0 in jumps or 1 in positions else None


def _over_all(layer: Layer, sources: Sequence[_Span], axis: int, side: int) -> _Span:
    """Return the pixels seen by all positions of all inputs."""
    shapes = zip(sources, layer.in_shapes, strict=True)
    return _around([source.over_all(_positions(shape, axis), side) for source, shape in shapes])


def _around(spans: Sequence[_Span]) -> _Span:
    return _Span(min(span.low for span in spans), max(span.high for span in spans), spans[0].jump)


def _as_field(rows: _Span | None, columns: _Span | None) -> ReceptiveField | None:
    if rows is None or columns is None:
        return None
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
    is_same = module.padding == "same"
    before = [(size - 1) * step // 2 * is_same for size, step in zip(kernel_size, dilation, strict=True)]
    return Window(kernel_size, stride, (before[0], before[1]), dilation)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _positions(shape: tuple[int, ...], axis: int) -> int:
    """Return the rows (axis 0) or columns (axis 1) of a map; a vector has one of each."""
    return shape[1 + axis] if len(shape) == 3 else 1


def _image_size(graph: NetworkGraph) -> int:
    """Return the side of the image, from the layer that reads it."""
    first = next(layer for layer in graph.layers.values() if INPUT in layer.inputs)
    return first.in_shapes[first.inputs.index(INPUT)][-1]
