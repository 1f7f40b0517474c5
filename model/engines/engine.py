"""What computes the answers on a CPU: OpenVINO, which runs the same layers faster than PyTorch, or PyTorch itself.

The views always run on PyTorch. So a network is only given to OpenVINO if all its layers are known here and the
answers are the same: both are compared when the service starts, and the difference is part of what it says of itself.
On request the layers that multiply are computed in 8 bits; then the answers do differ, by what was measured beforehand.
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchlight.model.classifier import Classifier
from torchlight.model.engines.export_file import BATCH_SIZES, TOLERANCE, InferenceFunction, largest_difference
from torchlight.model.engines.int8_ranges import LEVELS, Quantisation, on_grid
from torchlight.model.errors import EngineUnavailable
from torchlight.model.graph import INPUT, Layer

SLACK = 0.05  # of a probability in 8 bits: another processor may round and saturate otherwise, but not by more
SMALLEST = 1e-30  # range of weights that are all 0
REPORTER = "openvino_telemetry"  # comes with OpenVINO, which tells its makers through it of each import


@dataclass(frozen=True)
class Engine:
    """A way to compute :meth:`Classifier.probabilities`.

    Attributes:
        name: ``openvino`` or ``pytorch``, with its version.
        run: (N, 3, S, S) uint8 RGB -> (N, K) float32 probabilities on the CPU; safe to call from several threads.
        difference: the largest between its probabilities and PyTorch's over seeded noise; 0 for PyTorch.
        reason: why it is not a faster one, for people; None if it is the fastest known.
        quantisation: what the answers are computed by, if it is in 8 bits.
    """

    name: str
    run: InferenceFunction
    difference: float
    reason: str | None = None
    quantisation: Quantisation | None = None


def choose_engine(classifier: Classifier, wanted: str, quantisation: Quantisation | None = None) -> Engine:
    """Return the fastest engine whose answers are the classifier's.

    Args:
        classifier: not changed.
        wanted: ``auto``, ``openvino`` or ``pytorch``.
        quantisation: compute in 8 bits; only OpenVINO does.

    Raises:
        EngineUnavailable: what is wanted cannot be had.
    """
    if quantisation is not None:
        if wanted == "pytorch":
            raise EngineUnavailable("8 bits are computed by OpenVINO; set TORCHLIGHT_ENGINE to auto or openvino")
        return openvino_engine(classifier, quantisation)
    if wanted == "pytorch":
        return pytorch_engine(classifier)
    try:
        return openvino_engine(classifier)
    except EngineUnavailable as error:
        if wanted == "openvino":
            raise
        return pytorch_engine(classifier, reason=str(error))


def pytorch_engine(classifier: Classifier, reason: str | None = None) -> Engine:
    """Return the engine that is always there."""
    return Engine(f"pytorch {version('torch')}", classifier.probabilities, 0.0, reason)


def openvino_engine(classifier: Classifier, quantisation: Quantisation | None = None) -> Engine:
    """Return OpenVINO with the network's layers, on as many threads as PyTorch has now.

    Args:
        quantisation: compute in 8 bits; the answers may then differ.

    Raises:
        EngineUnavailable: another device, a layer that is not known here, or answers that differ.
    """
    if classifier.device.type != "cpu":
        raise EngineUnavailable(f"OpenVINO is for the CPU; the device is {classifier.device}")
    if find_spec("openvino") is None:
        raise EngineUnavailable("OpenVINO is not installed; add it with `pip install openvino`")
    sys.modules[REPORTER] = None  # type: ignore[assignment]  # not importable: OpenVINO then goes on without it
    run = _compile(translate_network(classifier, quantisation), torch.get_num_threads())
    difference = largest_difference(classifier, run, BATCH_SIZES)
    limit = TOLERANCE if quantisation is None else quantisation.difference + SLACK
    if not difference <= limit:
        raise EngineUnavailable(
            f"OpenVINO's probabilities differ from PyTorch's by up to {difference:.2g}; the limit is {limit:.2g}"
        )
    return Engine(f"openvino {version('openvino')}", run, difference, quantisation=quantisation)


def translate_network(classifier: Classifier, quantisation: Quantisation | None = None) -> Any:
    """Return the served function as an ``openvino.Model``: normalisation, the layers one by one, softmax.

    With ``quantisation``, what it names is rounded to 8 bits: what the layers read, over the range of all of it, and
    their weights, over that of each output channel. OpenVINO then multiplies integers.

    Raises:
        EngineUnavailable: there is a layer that is not known here.
    """
    import openvino  # takes 0.3 s
    from openvino import opset13 as ops

    spec, graph = classifier.spec, classifier.graph
    images = ops.parameter([-1, 3, spec.size, spec.size], np.uint8, name="images")
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    pixels = ops.divide(ops.convert(images, np.float32), np.float32(255))
    outputs = {INPUT: ops.divide(ops.subtract(pixels, mean), std)}
    for name, layer in graph.layers.items():
        inputs = [outputs[one] for one in layer.inputs]
        if quantisation is not None and name in quantisation.ranges:
            inputs = [_rounded(inputs[0], *on_grid(*quantisation.ranges[name]))]
        outputs[name] = _translate_layer(layer, inputs, is_rounded=quantisation is not None)
    probabilities = ops.softmax(outputs[graph.output], axis=1)
    return openvino.Model([probabilities], [images], classifier.checkpoint.path.stem)


def _compile(network: Any, threads: int) -> InferenceFunction:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice would be bfloat16 where the processor has it
        "ENABLE_CPU_PINNING": False,  # several processes would share the first cores
    }
    request = openvino.Core().compile_model(network, "CPU", settings).create_infer_request()
    lock = threading.Lock()

    def run(images: Tensor) -> Tensor:
        with lock:
            (probabilities,) = request.infer([images.numpy()]).values()
            return torch.from_numpy(probabilities.copy())

    return run


def _translate_layer(layer: Layer, inputs: Sequence[Any], *, is_rounded: bool) -> Any:
    if layer.type in MULTIPLYING:
        return MULTIPLYING[layer.type](layer, inputs[0], _rounded_weights if is_rounded else _array)
    if layer.type not in LAYERS:
        raise EngineUnavailable(f"layer {layer.name} is a {layer.type}, which OpenVINO is not given here")
    return LAYERS[layer.type](layer, inputs)


def _rounded(values: Any, low: Any, high: Any, levels: int = LEVELS) -> Any:
    """Return the nearest of so many values from ``low`` to ``high``, each a number or one for each channel."""
    from openvino import opset13 as ops

    low, high = np.float32(low), np.float32(high)
    return ops.fake_quantize(values, low, high, low, high, levels)


def _rounded_weights(weight: Tensor) -> Any:
    """Return weights rounded to as many values below as above 0, over the range of each output channel."""
    from openvino import opset13 as ops

    inputs = tuple(range(max(1, weight.ndim - 3), weight.ndim))  # of one output channel, also in a group
    most = weight.detach().abs().amax(dim=inputs, keepdim=True).clamp(min=SMALLEST).numpy()
    return _rounded(ops.constant(_array(weight)), -most, most, LEVELS - 1)


def _convolution(layer: Layer, maps: Any, to_array: Callable[[Tensor], Any]) -> Any:
    from openvino import opset13 as ops

    module = _module(layer, nn.Conv2d)
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise EngineUnavailable(f"layer {layer.name} is padded with {module.padding_mode} ({module.padding})")
    padding = list(module.padding)
    places = (list(module.stride), padding, padding, list(module.dilation))
    if module.groups == 1:
        output = ops.convolution(maps, to_array(module.weight), *places)
    else:
        grouped = module.weight.unflatten(0, (module.groups, -1))
        output = ops.group_convolution(maps, to_array(grouped), *places)
    return output if module.bias is None else ops.add(output, _per_channel(module.bias))


def _batch_norm(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset13 as ops

    module = _module(layer, nn.BatchNorm2d)
    if module.running_mean is None or module.running_var is None:
        raise EngineUnavailable(f"layer {layer.name} has no statistics of its own")
    one = torch.ones_like(module.running_var)
    scale = (one if module.weight is None else module.weight) / torch.sqrt(module.running_var + module.eps)
    shift = (0 * one if module.bias is None else module.bias) - module.running_mean * scale
    return ops.add(ops.multiply(inputs[0], _per_channel(scale)), _per_channel(shift))


def _max_pool(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset1

    module = _module(layer, nn.MaxPool2d)
    if _pair(module.dilation) != [1, 1]:
        raise EngineUnavailable(f"layer {layer.name} is dilated by {module.dilation}")
    return opset1.max_pool(inputs[0], *_window(module), rounding_type=_rounding(module))


def _average_pool(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset1

    module = _module(layer, nn.AvgPool2d)
    if module.divisor_override is not None:
        raise EngineUnavailable(f"layer {layer.name} divides by {module.divisor_override}")
    return opset1.avg_pool(
        inputs[0], *_window(module), exclude_pad=not module.count_include_pad, rounding_type=_rounding(module)
    )


def _adaptive_average_pool(layer: Layer, inputs: Sequence[Any]) -> Any:
    """Average over equal windows; others are for PyTorch."""
    from openvino import opset1

    sides, wanted = layer.in_shapes[0][1:], layer.out_shape[1:]
    if any(side % number for side, number in zip(sides, wanted, strict=True)):
        raise EngineUnavailable(f"layer {layer.name} averages {sides} to {wanted}, which windows of one size cannot")
    window = [side // number for side, number in zip(sides, wanted, strict=True)]
    return opset1.avg_pool(inputs[0], window, [0, 0], [0, 0], window, exclude_pad=True)


def _linear(layer: Layer, values: Any, to_array: Callable[[Tensor], Any]) -> Any:
    from openvino import opset13 as ops

    module = _module(layer, nn.Linear)
    output = ops.matmul(values, to_array(module.weight), False, True)
    return output if module.bias is None else ops.add(output, _array(module.bias)[None])


def _flatten(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset13 as ops

    return ops.reshape(inputs[0], np.array([-1, *layer.out_shape]), special_zero=False)


def _function(name: str, arity: int = 1, **arguments: Any) -> Callable[[Layer, Sequence[Any]], Any]:
    def translate_function(layer: Layer, inputs: Sequence[Any]) -> Any:
        from openvino import opset13 as ops

        if len(inputs) != arity:
            raise EngineUnavailable(f"layer {layer.name} takes {len(inputs)} outputs of layers; here it takes {arity}")
        return getattr(ops, name)(*inputs, **arguments)

    return translate_function


def _concatenation(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset13 as ops

    if layer.out_shape[0] != sum(shape[0] for shape in layer.in_shapes):
        raise EngineUnavailable(f"layer {layer.name} joins other things than channels")
    return ops.concat(list(inputs), axis=1)


def _mean(layer: Layer, inputs: Sequence[Any]) -> Any:
    from openvino import opset13 as ops

    if layer.out_shape != layer.in_shapes[0][:1]:
        raise EngineUnavailable(f"layer {layer.name} averages other things than positions")
    return ops.reduce_mean(inputs[0], np.array([2, 3]))


def _nothing(_layer: Layer, inputs: Sequence[Any]) -> Any:
    return inputs[0]


MULTIPLYING: Mapping[str, Callable[[Layer, Any, Callable[[Tensor], Any]], Any]] = {
    "Conv2d": _convolution,
    "Linear": _linear,
}
LAYERS: Mapping[str, Callable[[Layer, Sequence[Any]], Any]] = {
    "BatchNorm2d": _batch_norm,
    "MaxPool2d": _max_pool,
    "AvgPool2d": _average_pool,
    "AdaptiveAvgPool2d": _adaptive_average_pool,
    "adaptive_avg_pool2d": _adaptive_average_pool,
    "Flatten": _flatten,
    "flatten": _flatten,
    "Dropout": _nothing,
    "Identity": _nothing,
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
    "stochastic_depth": _nothing,  # of whole branches, while learning
}


def _module(layer: Layer, kind: type) -> Any:
    assert isinstance(layer.module, kind), layer
    return layer.module


def _array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _per_channel(tensor: Tensor) -> Any:
    return _array(tensor).reshape(1, -1, 1, 1)


def _window(module: Any) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return stride, padding before, padding after and size, in OpenVINO's order."""
    padding = _pair(module.padding)
    return _pair(module.stride), padding, padding, _pair(module.kernel_size)


def _rounding(module: Any) -> str:
    return "ceil" if module.ceil_mode else "floor"


def _pair(value: int | tuple[int, int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
