"""A network as an ``openvino.Model``, layer by layer. Knows nothing of threads, settings or comparing answers.

``openvino.convert_model`` translates any network, but each worker process would pay for it at every start. CPU seconds
of this module, of ``convert_model`` of a ``torch.export`` program, and of it with a (deprecated) ``torch.jit.trace``:
the shipped network 0.09, 3.3 and 1.0; resnet18 at 224 pixels 0.6, 2.8 and 0.9. The probabilities differ from PyTorch's
by about 1e-6 in each way. A layer that is not in ``LAYERS`` is refused by its name.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.engines.int8_ranges import LEVELS, Quantisation, on_grid
from torchlight.model.errors import EngineUnavailable
from torchlight.model.graph import INPUT, Layer, NetworkGraph

SMALLEST = 1e-30  # range of weights that are all 0: a range of 0 has no levels
REPORTER = "openvino_telemetry"  # a dependency of OpenVINO that reports its use to Intel


def import_openvino() -> ModuleType:
    """Return the module ``openvino``, imported so that it reports nothing to its makers. Takes 0.3 s the first time.

    OpenVINO looks for its reporting package while it is imported, and works without it. The package is hidden for that
    long, and only from OpenVINO: afterwards other users of it in this process find it as before.
    """
    hidden = {name: module for name, module in sys.modules.items() if f"{name}.".startswith(f"{REPORTER}.")}
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # Python's documented way to make an import fail
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[REPORTER]
        sys.modules.update(hidden)


def translate_network(
    classifier: Classifier, quantisation: Quantisation | None = None, layers: Sequence[str] = ()
) -> Any:
    """Return :meth:`Classifier.probabilities` as an ``openvino.Model``: normalisation, layers, softmax.

    The outputs of ``layers`` are further outputs.

    With ``quantisation``, the input of each layer that multiplies is rounded to int8 over its range, and its weights
    over the range of each output channel. OpenVINO then multiplies integers.

    Raises:
        EngineUnavailable: a layer cannot be translated.
    """
    openvino = import_openvino()
    images, outputs = _translate_layers(openvino.opset13, classifier, quantisation)
    probabilities = openvino.opset13.softmax(outputs[classifier.graph.output], axis=1)  # (N, K)
    return openvino.Model(
        [probabilities, *(outputs[name] for name in layers)], [images], classifier.checkpoint.path.stem
    )


def translate_layers(classifier: Classifier, names: Sequence[str]) -> Any:
    """Return the outputs of some layers, in float32, as an ``openvino.Model``; layers after the last one are left out.

    Raises:
        EngineUnavailable: a layer cannot be translated.
    """
    openvino = import_openvino()
    images, outputs = _translate_layers(openvino.opset13, classifier, None)
    return openvino.Model([outputs[name] for name in names], [images], classifier.checkpoint.path.stem)


def translate_extremes(classifier: Classifier, names: Sequence[str]) -> Any:
    """Return the least and the largest value that each of some layers reads as an ``openvino.Model``.

    Its two outputs are of shape (names,), over all positions of all images of a batch.

    Raises:
        EngineUnavailable: a layer cannot be translated.
    """
    openvino = import_openvino()
    ops, graph = openvino.opset13, classifier.graph
    images, outputs = _translate_layers(ops, classifier, None)
    rows = [ops.reshape(outputs[graph.layers[name].inputs[0]], np.array([1, -1]), special_zero=False) for name in names]
    extremes = [
        ops.concat([reduce(row, 1) for row in rows], axis=0)  # (1, values) each -> (names,)
        for reduce in (ops.reduce_min, ops.reduce_max)
    ]
    return openvino.Model(extremes, [images], classifier.checkpoint.path.stem)


def _translate_layers(
    ops: Any, classifier: Classifier, quantisation: Quantisation | None
) -> tuple[Any, dict[str, Any]]:
    """Return the parameter that takes (N, 3, S, S) uint8 images, and the output of each layer by its name."""
    spec, graph = classifier.spec, classifier.graph
    images = ops.parameter([-1, 3, spec.size, spec.size], np.uint8, name="images")  # (N, 3, S, S)
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    pixels = ops.divide(ops.convert(images, np.float32), np.float32(255))
    outputs = {INPUT: ops.divide(ops.subtract(pixels, mean), std)}
    ranges = {} if quantisation is None else _ranges_before_padding(graph, quantisation.ranges)
    for name, layer in graph.layers.items():
        inputs = [outputs[source] for source in layer.inputs]
        if name in ranges:
            inputs = [_round_to_levels(ops, inputs[0], *on_grid(*ranges[name]), LEVELS)]
        if layer.type not in LAYERS:
            raise EngineUnavailable(f"layer {name} is a {layer.type}, which OpenVINO is not given here")
        outputs[name] = LAYERS[layer.type](_Step(ops, layer, inputs, is_int8=quantisation is not None))
    return images, outputs


def _ranges_before_padding(graph: NetworkGraph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Return the ranges by the layers whose input is to be rounded: a padding in place of the layer that reads it.

    The zeros of the padding are levels too, and OpenVINO makes a convolution of both only if nothing is between them.
    """
    first = {name: graph.layers.get(graph.layers[name].inputs[0]) for name in ranges}
    return {
        name if source is None or source.type != "ZeroPad2d" else source.name: ranges[name]
        for name, source in first.items()
    }


@dataclass(frozen=True)
class _Step:
    """One layer to translate.

    Attributes:
        ops: OpenVINO's operations, ``openvino.opset13``.
        inputs: outputs of the layers that it reads.
        is_int8: whether its weights are rounded.
    """

    ops: Any
    layer: Layer
    inputs: Sequence[Any]
    is_int8: bool

    @property
    def module(self) -> Any:
        """The layer's module; its type is the key in ``LAYERS``."""
        assert self.layer.module is not None
        return self.layer.module

    def weights(self, weights: Tensor) -> Any:
        """Return (out_channels, ...) or (groups, out_channels, ...) weights in the precision of the network."""
        values = _as_array(weights)
        if not self.is_int8:
            return values
        # One range for each output channel, over the axes within it: the last three of a convolution (grouped weights
        # have five axes), the last one of a linear layer.
        axes = tuple(range(max(1, values.ndim - 3), values.ndim))
        most = np.abs(values).max(axis=axes, keepdims=True).clip(min=SMALLEST)
        step = most / (LEVELS // 2 - 1)  # as many levels below 0 as above, so that 0 stays 0
        rounded = _round_keeping_sums((values / step).reshape(most.size, -1)).reshape(values.shape) * step
        return _round_to_levels(self.ops, self.ops.constant(rounded), -most, most, LEVELS - 1)

    def refuse(self, reason: str) -> EngineUnavailable:
        """Return the error for a layer whose type is known, but not this use of it."""
        return EngineUnavailable(f"layer {self.layer.name} {reason}")


def _convolution(step: _Step) -> Any:
    ops, module = step.ops, step.module
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise step.refuse(f"is padded with {module.padding_mode} ({module.padding})")
    padding = list(module.padding)
    geometry = (list(module.stride), padding, padding, list(module.dilation))
    if module.groups == 1:
        output = ops.convolution(step.inputs[0], step.weights(module.weight), *geometry)
    else:
        grouped = module.weight.unflatten(0, (module.groups, -1))  # (groups, out / groups, in / groups, kh, kw)
        output = ops.group_convolution(step.inputs[0], step.weights(grouped), *geometry)
    return output if module.bias is None else ops.add(output, _per_channel(module.bias))


def _linear(step: _Step) -> Any:
    output = step.ops.matmul(step.inputs[0], step.weights(step.module.weight), False, True)
    return output if step.module.bias is None else step.ops.add(output, _as_array(step.module.bias)[None])


def _batch_norm(step: _Step) -> Any:
    """Multiply and add per channel: ``(x - mean) / sqrt(var + eps) * weight + bias``."""
    module = step.module
    if module.running_mean is None or module.running_var is None:
        raise step.refuse("has no statistics of its own")
    std = torch.sqrt(module.running_var + module.eps)  # (C,)
    scale = 1 / std if module.weight is None else module.weight / std
    shift = -module.running_mean * scale if module.bias is None else module.bias - module.running_mean * scale
    return step.ops.add(step.ops.multiply(step.inputs[0], _per_channel(scale)), _per_channel(shift))


def _zero_pad(step: _Step) -> Any:
    left, right, top, bottom = step.module.padding
    return step.ops.pad(step.inputs[0], [0, 0, top, left], [0, 0, bottom, right], "constant", np.float32(0))


def _max_pool(step: _Step) -> Any:
    module = step.module
    padding = _pair(module.padding)
    pooled = step.ops.max_pool(
        step.inputs[0],
        _pair(module.stride),
        _pair(module.dilation),
        padding,
        padding,
        _pair(module.kernel_size),
        rounding_type="ceil" if module.ceil_mode else "floor",
    )
    return pooled.output(0)  # the other one is where the largest values are


def _average_pool(step: _Step) -> Any:
    module = step.module
    if module.divisor_override is not None:
        raise step.refuse(f"divides by {module.divisor_override}")
    padding = _pair(module.padding)
    return step.ops.avg_pool(
        step.inputs[0],
        _pair(module.stride),
        padding,
        padding,
        _pair(module.kernel_size),
        exclude_pad=not module.count_include_pad,
        rounding_type="ceil" if module.ceil_mode else "floor",
    )


def _adaptive_average_pool(step: _Step) -> Any:
    """Average over equal windows; other uses are left to PyTorch."""
    sides, wanted = step.layer.in_shapes[0][1:], step.layer.out_shape[1:]
    if any(side % number for side, number in zip(sides, wanted, strict=True)):
        raise step.refuse(f"averages {sides} to {wanted}, which windows of one size cannot")
    window = [side // number for side, number in zip(sides, wanted, strict=True)]
    return step.ops.avg_pool(step.inputs[0], window, [0, 0], [0, 0], window, exclude_pad=True)


def _flatten(step: _Step) -> Any:
    return step.ops.reshape(step.inputs[0], np.array([-1, *step.layer.out_shape]), special_zero=False)


def _concatenation(step: _Step) -> Any:
    if step.layer.out_shape[0] != sum(shape[0] for shape in step.layer.in_shapes):
        raise step.refuse("joins along another axis than channels")
    return step.ops.concat(list(step.inputs), axis=1)


def _mean(step: _Step) -> Any:
    if step.layer.out_shape != step.layer.in_shapes[0][:1]:  # (C, H, W) -> (C,)
        raise step.refuse("averages over other axes than height and width")
    return step.ops.reduce_mean(step.inputs[0], np.array([2, 3]))


def _identity(step: _Step) -> Any:
    return step.inputs[0]


def _function(name: str, arity: int = 1, **arguments: Any) -> Callable[[_Step], Any]:
    """Return the translation to OpenVINO's operation of that name, for layers that read ``arity`` others."""

    def translate(step: _Step) -> Any:
        if len(step.inputs) != arity:  # such as `maps * 2`, whose number is no layer
            raise step.refuse(f"takes {len(step.inputs)} outputs of layers; here it takes {arity}")
        return getattr(step.ops, name)(*step.inputs, **arguments)

    return translate


LAYERS: Mapping[str, Callable[[_Step], Any]] = {  # by :attr:`Layer.type`: a module's class or a function's name
    "Conv2d": _convolution,
    "Linear": _linear,
    "BatchNorm2d": _batch_norm,
    "ZeroPad2d": _zero_pad,
    "MaxPool2d": _max_pool,
    "AvgPool2d": _average_pool,
    "AdaptiveAvgPool2d": _adaptive_average_pool,
    "adaptive_avg_pool2d": _adaptive_average_pool,
    "Flatten": _flatten,
    "flatten": _flatten,
    "Dropout": _identity,  # in evaluation mode
    "Identity": _identity,
    "stochastic_depth": _identity,  # drops whole branches, in training only
    "ReLU": _function("relu"),
    "relu": _function("relu"),
    "ReLU6": _function("clamp", min_value=0.0, max_value=6.0),
    "Hardswish": _function("hswish"),
    "Hardsigmoid": _function("hsigmoid"),
    "SiLU": _function("swish"),
    "Sigmoid": _function("sigmoid"),
    "Tanh": _function("tanh"),
    "add": _function("add", arity=2),
    "mul": _function("multiply", arity=2),
    "cat": _concatenation,
    "mean": _mean,
}


def _round_keeping_sums(rows: Any) -> Any:
    """Return each row as whole numbers whose sum is the row's, rounded: those of the largest remainders are rounded up.

    After ReLU a filter reads values of one sign, so errors of its weights that do not cancel move its whole map. Each
    weight rounded by itself costs more, see docs/log.md.

    Args:
        rows: (filters, weights) float32.
    """
    below = np.floor(rows)
    remainders = rows - below
    ups = remainders.sum(axis=1, keepdims=True).round()  # how many weights of each row are rounded up
    ranks = (-remainders).argsort(axis=1).argsort(axis=1)  # 0 for the largest remainder
    return below + (ranks < ups)


def _round_to_levels(ops: Any, values: Any, low: Any, high: Any, levels: int) -> Any:
    """Return the nearest of ``levels`` values from ``low`` to ``high``, each a number or one for each channel."""
    low, high = np.float32(low), np.float32(high)
    return ops.fake_quantize(values, low, high, low, high, levels)


def _as_array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _per_channel(tensor: Tensor) -> Any:
    return _as_array(tensor).reshape(1, -1, 1, 1)  # (C,) -> (1, C, 1, 1)


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
