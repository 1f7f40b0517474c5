"""The arithmetic of one number of one layer, done again in float64 beside the network's own value.

A kind of arithmetic is one small class and one function that fills it; KINDS says which belongs to which type of layer.
Frameworks compute cross-correlations: no kernel is flipped. Knows nothing of pictures, files or HTTP.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchlight.model.classifier import Classifier
from torchlight.model.errors import ChannelOutOfRange, ViewNotApplicable
from torchlight.model.graph import Layer
from torchlight.model.views.receptive_field import ACTIVATIONS, IDENTITIES, check_position, window

RELATIVE_BOUND = 1e-5  # some fifty times what float32 sums of 4,608 terms were seen to lose
SOFTMAX = "softmax"  # the step after the last layer, from logits to probabilities
CONSTANTS = {"zeros": 0.0, "minus infinity": -math.inf}  # what some layers read outside the map


class Position(NamedTuple):
    """Which number of a layer's output; y = x = 0 in a vector."""

    channel: int
    y: int
    x: int


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """What all kinds share.

    Attributes:
        total: the result.
        magnitude: what rounding errors grow with. Sum and mean: the same of the terms' absolute values; activation:
            |input| + |output|; product and probability: |result|; 0 where a number is only picked, so that the network
            must agree exactly.
    """

    total: float
    magnitude: float


@dataclass(frozen=True, kw_only=True)
class Windowed(Arithmetic):
    """What is under a window.

    Attributes:
        patch: (..., window height, window width) float64 as the layer reads it: padding has its value, -inf under max.
        rows, columns: places in the input map; outside it in the padding.
        in_padding: (window height, window width) bool.
    """

    patch: Tensor
    rows: list[int]
    columns: list[int]
    in_padding: Tensor


@dataclass(frozen=True, kw_only=True)
class Convolution(Windowed):
    """patch * weights = products, all (C_in / groups, window height, window width); their sum + bias.

    Attributes:
        first_input_channel: which one the patch begins with; 0 without groups.
        channel_sums: (C_in / groups,) the products of each input channel added up.
        bias: 0 if the layer has none.
    """

    first_input_channel: int
    weights: Tensor
    products: Tensor
    channel_sums: Tensor
    bias: float


@dataclass(frozen=True, kw_only=True)
class MaxPool(Windowed):
    """The largest number of the patch; ``winner`` is its (y, x) in the input map, the first among equals."""

    winner: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class AveragePool(Windowed):
    """The sum of the patch / ``divisor``, which counts padding or not, as the layer is set."""

    divisor: int


@dataclass(frozen=True, kw_only=True)
class Linear(Arithmetic):
    """inputs * weights = products, all (C_in,) float64; their sum + bias. Of maps, the inputs of one position."""

    inputs: Tensor
    weights: Tensor
    products: Tensor
    bias: float


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Arithmetic):
    """(input - mean) / sqrt(variance + eps) * weight + bias, with the statistics kept from training."""

    input: float
    mean: float
    variance: float
    eps: float
    weight: float
    bias: float


@dataclass(frozen=True, kw_only=True)
class Activation(Arithmetic):
    """A function of one number; the layer's type names it."""

    input: float


@dataclass(frozen=True, kw_only=True)
class Sum(Arithmetic):
    """Branches added up, in the order of the layer's inputs."""

    terms: list[float]


@dataclass(frozen=True, kw_only=True)
class Product(Arithmetic):
    """Branches multiplied, in the order of the layer's inputs."""

    factors: list[float]


@dataclass(frozen=True, kw_only=True)
class Copy(Arithmetic):
    """The number at ``source_position`` of the layer ``source``."""

    source: str
    source_position: Position


@dataclass(frozen=True, kw_only=True)
class Padding(Arithmetic):
    """A zero that the layer puts beside the map; it comes from no other number."""


@dataclass(frozen=True, kw_only=True)
class Softmax(Arithmetic):
    """exponentials[channel] / sum, where exponentials = exp(logits - shift), both (K,) float64.

    ``shift`` is the largest logit: it keeps exp in range and changes no probability.
    """

    logits: Tensor
    shift: float
    exponentials: Tensor
    sum: float


@dataclass(frozen=True)
class Trace:
    """One number of a layer's output: how it is computed, and what the network itself computed.

    ``framework`` is the network's value, float32, from the same forward pass as the inputs.
    """

    layer: str
    type: str
    position: Position
    arithmetic: Arithmetic
    framework: float

    @property
    def total(self) -> float:
        """Our own result, in float64."""
        return self.arithmetic.total

    @property
    def difference(self) -> float:
        """``total - framework``."""
        return self.total - self.framework

    @property
    def bound(self) -> float:
        """What the difference may be: 1e-5 of the arithmetic's magnitude."""
        return RELATIVE_BOUND * self.arithmetic.magnitude

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound; False where the difference is not a number."""
        return abs(self.difference) <= self.bound

    def to_dict(self) -> dict[str, Any]:
        """Return all of it flat, for JSON, in full precision; None stands for what is not finite."""
        facts = {"layer": self.layer, "type": self.type, **self.position._asdict()}
        checks = {"framework": self.framework, "difference": self.difference, "bound": self.bound, "holds": self.holds}
        arithmetic = {"kind": type(self.arithmetic).__name__, **vars(self.arithmetic)}
        return {name: _plain(value) for name, value in {**facts, **arithmetic, **checks}.items()}


def trace(classifier: Classifier, image: Tensor, layer: str, channel: int, y: int = 0, x: int = 0) -> Trace:
    """Compute one number of a layer's output again, keeping every step.

    Args:
        image: (3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes it.
        layer: name in ``classifier.graph``, or ``softmax`` for the probability of a class.
        channel: output channel of a map, place in a vector.
        y, x: position in a map; 0 in a vector.

    Raises:
        UnknownLayer: no layer has that name.
        ChannelOutOfRange, PositionOutOfRange: the output has no such number.
        ViewNotApplicable: the layer's arithmetic is of no kind below, or not done in float32.
    """
    found = _softmax_layer(classifier) if layer == SOFTMAX else classifier.graph.find_layer(layer)
    if reason := find_trace_obstacle(found):
        raise ViewNotApplicable(f"layer {layer!r} {reason} and cannot be traced; trace one before or after it")
    if not 0 <= channel < found.out_shape[0]:
        raise ChannelOutOfRange(channel, layer, found.out_shape[0])
    check_position(found, y, x)
    position = Position(channel, y, x)
    values = _run(classifier, image, found)
    sources = [values[name].double() for name in found.inputs]
    explain, _ = KINDS[found.type]
    framework = values[layer][position[: len(found.out_shape)]].item()
    return Trace(layer, found.type, position, explain(found, sources, position), framework)


def find_trace_obstacle(layer: Layer) -> str | None:
    """Return why a layer cannot be traced, None if it can."""
    if layer.type not in KINDS:
        return f"is of type {layer.type}"
    _, fits = KINDS[layer.type]
    ranks = {len(shape) for shape in (*layer.in_shapes, layer.out_shape)}
    has_channels = layer.has_maps or len(layer.out_shape) == 1
    if not has_channels or not ranks <= {1, 3} or not fits(layer):
        shapes = [*map(_text, layer.in_shapes), _text(layer.out_shape)]
        return f"is a {layer.type} of an unusual form ({' '.join(shapes[:-1])} -> {shapes[-1]})"
    return None


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _plain(value: Any) -> Any:
    """Return tensors as lists, and None for numbers that JSON has no words for."""
    match value:
        case Tensor():
            return _plain(value.tolist())
        case Position():
            return value._asdict()
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value


def _softmax_layer(classifier: Classifier) -> Layer:
    logits = classifier.graph.find_layer(classifier.graph.output)
    return Layer(SOFTMAX, SOFTMAX, None, (logits.name,), (logits.out_shape,), logits.out_shape)


def _run(classifier: Classifier, image: Tensor, layer: Layer) -> dict[str, Tensor]:
    """Return the values of a layer and of its inputs for one image, from one forward pass, on the CPU."""
    names = [*layer.inputs, layer.name] if layer.name != SOFTMAX else layer.inputs
    with torch.inference_mode():
        outputs = classifier.graph.run(classifier.network_input(image[None]), names)
    values = {name: output[0].cpu() for name, output in outputs.items()}
    for name, value in values.items():
        if value.dtype != torch.float32:
            raise ViewNotApplicable(f"layer {name!r} computes in {value.dtype}; traces are for float32 networks")
    return values | ({SOFTMAX: values[layer.inputs[0]].softmax(dim=0)} if layer.name == SOFTMAX else {})


def _convolution(layer: Layer, sources: Sequence[Tensor], position: Position) -> Convolution:
    module = layer.module
    assert isinstance(module, nn.Conv2d)
    number = module.in_channels // module.groups
    first = position.channel // (module.out_channels // module.groups) * number
    patch = _under(sources[0][first : first + number], *_window_places(layer, position), module.padding_mode)
    weighted = _weighted_sum(patch["patch"], module, position.channel)
    channel_sums = weighted["products"].sum(dim=(1, 2))
    return Convolution(**patch, **weighted, first_input_channel=first, channel_sums=channel_sums)


def _linear(layer: Layer, sources: Sequence[Tensor], position: Position) -> Linear:
    assert isinstance(layer.module, nn.Linear)
    inputs = sources[0] if sources[0].ndim == 1 else sources[0][:, position.y, position.x]
    return Linear(inputs=inputs, **_weighted_sum(inputs, layer.module, position.channel))


def _batch_norm(layer: Layer, sources: Sequence[Tensor], position: Position) -> BatchNorm:
    module = layer.module
    assert isinstance(module, nn.BatchNorm2d)
    names = {"mean": "running_mean", "variance": "running_var", "weight": "weight", "bias": "bias"}
    stored = {name: getattr(module, attribute) for name, attribute in names.items()}
    own = {name: tensor[position.channel].item() for name, tensor in stored.items() if tensor is not None}
    step = {"input": sources[0][position].item(), "eps": module.eps, "weight": 1.0, "bias": 0.0, **own}
    scale = step["weight"] / math.sqrt(step["variance"] + step["eps"])
    total = (step["input"] - step["mean"]) * scale + step["bias"]
    magnitude = (abs(step["input"]) + abs(step["mean"])) * abs(scale) + abs(step["bias"])
    return BatchNorm(**step, total=total, magnitude=magnitude)


def _activation(layer: Layer, sources: Sequence[Tensor], position: Position) -> Activation:
    function, value = layer.module or getattr(F, layer.type), _at(sources[0], position)
    total = function(torch.tensor(value, dtype=torch.float64)).item()
    return Activation(input=value, total=total, magnitude=abs(value) + abs(total))


def _max_pool(layer: Layer, sources: Sequence[Tensor], position: Position) -> MaxPool:
    rows, columns = _window_places(layer, position)
    under = _under(sources[0][position.channel], rows, columns, "minus infinity")
    row, column = divmod(int(under["patch"].argmax()), len(columns))
    return MaxPool(**under, winner=(rows[row], columns[column]), total=under["patch"].max().item(), magnitude=0.0)


def _average_pool(layer: Layer, sources: Sequence[Tensor], position: Position) -> AveragePool:
    module, (_, height, width) = layer.module, layer.in_shapes[0]
    assert isinstance(module, nn.AvgPool2d)
    slides = window(module)
    assert slides is not None
    rows, columns = _window_places(layer, position)
    rows = [row for row in rows if row < height + slides.padding[0]]  # ceil_mode: past the padding nothing counts
    columns = [column for column in columns if column < width + slides.padding[1]]
    under = _under(sources[0][position.channel], rows, columns, "zeros")
    counted = under["in_padding"].numel() if module.count_include_pad else int((~under["in_padding"]).sum())
    return _average(under, module.divisor_override or counted)


def _adaptive_average_pool(layer: Layer, sources: Sequence[Tensor], position: Position) -> AveragePool:
    """Explain windows that share the input out evenly, overlapping where the sizes do not divide."""
    outputs = layer.out_shape[1:] or (1, 1)  # a mean over rows and columns gives a vector
    rows, columns = (
        list(range(place * side // parts, -(-(place + 1) * side // parts)))
        for place, side, parts in zip(position[1:], layer.in_shapes[0][1:], outputs, strict=True)
    )
    return _average(_under(sources[0][position.channel], rows, columns, "zeros"), len(rows) * len(columns))


def _average(under: dict[str, Any], divisor: int) -> AveragePool:
    total, magnitude = (values.sum().item() / divisor for values in (under["patch"], under["patch"].abs()))
    return AveragePool(**under, divisor=divisor, total=total, magnitude=magnitude)


def _add(_layer: Layer, sources: Sequence[Tensor], position: Position) -> Sum:
    terms = [_at(source, position) for source in sources]
    return Sum(terms=terms, total=math.fsum(terms), magnitude=math.fsum(map(abs, terms)))


def _multiply(_layer: Layer, sources: Sequence[Tensor], position: Position) -> Product:
    factors = [_at(source, position) for source in sources]
    return Product(factors=factors, total=math.prod(factors), magnitude=abs(math.prod(factors)))


def _cat(layer: Layer, sources: Sequence[Tensor], position: Position) -> Copy:
    channel, index = position.channel, 0
    while channel >= len(sources[index]):
        channel, index = channel - len(sources[index]), index + 1
    return _copied(layer.inputs[index], sources[index], position._replace(channel=channel))


def _flatten(layer: Layer, sources: Sequence[Tensor], position: Position) -> Copy:
    places = [int(place) for place in torch.unravel_index(torch.tensor(position.channel), sources[0].shape)]
    return _copied(layer.inputs[0], sources[0], Position(*(*places, 0, 0)[:3]))


def _same(layer: Layer, sources: Sequence[Tensor], position: Position) -> Copy:
    return _copied(layer.inputs[0], sources[0], position)


def _zero_pad(layer: Layer, sources: Sequence[Tensor], position: Position) -> Copy | Padding:
    ((row,), (column,)), (_, height, width) = _window_places(layer, position), layer.in_shapes[0]
    if not (0 <= row < height and 0 <= column < width):
        return Padding(total=0.0, magnitude=0.0)
    return _copied(layer.inputs[0], sources[0], position._replace(y=row, x=column))


def _copied(source: str, values: Tensor, position: Position) -> Copy:
    return Copy(source=source, source_position=position, total=_at(values, position), magnitude=0.0)


def _softmax(_layer: Layer, sources: Sequence[Tensor], position: Position) -> Softmax:
    shift = sources[0].max().item()
    exponentials = (sources[0] - shift).exp()
    whole = exponentials.sum().item()
    total = exponentials[position.channel].item() / whole
    return Softmax(logits=sources[0], shift=shift, exponentials=exponentials, sum=whole, total=total, magnitude=total)


def _weighted_sum(values: Tensor, module: nn.Conv2d | nn.Linear, channel: int) -> dict[str, Any]:
    """Return weights, products and bias of one output channel, their sum, and that without the signs."""
    weights = module.weight[channel].detach().cpu().double()
    bias = 0.0 if module.bias is None else module.bias[channel].item()
    products = values * weights
    total, magnitude = products.sum().item() + bias, products.abs().sum().item() + abs(bias)
    return {"weights": weights, "products": products, "bias": bias, "total": total, "magnitude": magnitude}


def _window_places(layer: Layer, position: Position) -> tuple[list[int], list[int]]:
    """Return the rows and columns of the input under the window of a position."""
    slides = window(layer.module)
    assert slides is not None
    rows, columns = (
        [place * stride - padding + step * dilation for step in range(kernel_size)]
        for place, kernel_size, stride, padding, dilation in zip(position[1:], *slides, strict=True)
    )
    return rows, columns


def _under(maps: Tensor, rows: list[int], columns: list[int], outside: str) -> dict[str, Any]:
    """Return the patch of (..., H, W) maps at those rows and columns, by what the layer reads outside the map."""
    (height, width), (y, x) = maps.shape[-2:], (torch.tensor(rows), torch.tensor(columns))
    in_padding = ((y < 0) | (y >= height))[:, None] | ((x < 0) | (x >= width))
    match outside:
        case "reflect":
            y, x = height - 1 - (height - 1 - y.abs()).abs(), width - 1 - (width - 1 - x.abs()).abs()
        case "circular":
            y, x = y % height, x % width
    patch = maps[..., y.clamp(0, height - 1)[:, None], x.clamp(0, width - 1)]  # replicates the border
    if outside in CONSTANTS:
        patch = patch.masked_fill(in_padding, CONSTANTS[outside])
    return {"patch": patch, "rows": rows, "columns": columns, "in_padding": in_padding}


def _at(values: Tensor, position: Position) -> float:
    """Return one number of a map or vector; where it has one row or column, that stands for all."""
    return values[tuple(min(place, side - 1) for place, side in zip(position, values.shape, strict=False))].item()


def _reads_maps(layer: Layer) -> bool:
    return len(layer.in_shapes[0]) == 3


def _averages_maps(layer: Layer) -> bool:
    channels = layer.in_shapes[0][:1]
    return _reads_maps(layer) and layer.out_shape in (channels, (*channels, 1, 1))


def _keeps_shape(layer: Layer) -> bool:
    return layer.in_shapes == (layer.out_shape,)


def _is_flat(layer: Layer) -> bool:
    return layer.out_shape == (math.prod(layer.in_shapes[0]),) and layer.layout == "channels first"


def _joins_two(layer: Layer) -> bool:
    """Whether it joins two branches, rather than one with itself or a constant."""
    return len(layer.in_shapes) == 2 and len(layer.in_shapes[0]) == len(layer.in_shapes[1])


def _stacks_channels(layer: Layer) -> bool:
    channels = sum(shape[0] for shape in layer.in_shapes)
    return all((channels, *shape[1:]) == layer.out_shape for shape in layer.in_shapes)


Explain = Callable[[Layer, Sequence[Tensor], Position], Arithmetic]
Fits = Callable[[Layer], bool]
KINDS: dict[str, tuple[Explain, Fits]] = {  # by type of layer, with the form of it that is understood
    **dict.fromkeys(ACTIVATIONS - {"PReLU", "gelu"}, (_activation, _keeps_shape)),  # these two take more than a number
    **dict.fromkeys(IDENTITIES, (_same, _keeps_shape)),
    **dict.fromkeys(("Flatten", "flatten", "reshape", "view"), (_flatten, _is_flat)),
    **dict.fromkeys(("AdaptiveAvgPool2d", "adaptive_avg_pool2d"), (_adaptive_average_pool, _reads_maps)),
    "mean": (_adaptive_average_pool, _averages_maps),
    "AvgPool2d": (_average_pool, _reads_maps),
    "MaxPool2d": (_max_pool, _reads_maps),
    "ZeroPad2d": (_zero_pad, _reads_maps),
    "BatchNorm2d": (_batch_norm, lambda layer: getattr(layer.module, "running_mean", None) is not None),
    "Conv2d": (_convolution, _reads_maps),
    "Linear": (_linear, lambda layer: len(layer.in_shapes[0]) == 1 or layer.layout == "channels last"),
    "permute": (_same, _keeps_shape),
    "add": (_add, _joins_two),
    "mul": (_multiply, _joins_two),
    "cat": (_cat, _stacks_channels),
    SOFTMAX: (_softmax, lambda layer: layer.name == SOFTMAX),
}
