"""Checks of numbers: traces, whole layers, logits, folded filters and receptive fields, each computed another way."""

import copy
import math
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchlight.model.checks.subject import Finding, Subject, below
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import Layer, NetworkGraph
from torchlight.model.views.embedding import layer_outputs
from torchlight.model.views.filters import filters, following_batch_norm
from torchlight.model.views.layer_table import first_convolution_name
from torchlight.model.views.receptive_field import ACTIVATIONS, Box, find_seen_pixels, receptive_fields, window
from torchlight.model.views.trace import Trace, find_trace_obstacle, trace

TRACED_NUMBERS = 200
FIELDS = 24  # layers whose receptive field is measured; a deep network has hundreds


def traces(subject: Subject) -> Finding:
    """Trace numbers at random places of random layers and images."""
    generator = torch.Generator().manual_seed(0)
    layers = [layer for layer in subject.graph.layers.values() if find_trace_obstacle(layer) is None]
    if not layers:
        raise ViewNotApplicable("no layer of this network can be traced")
    found = []
    for number in range(TRACED_NUMBERS):
        layer = layers[below(len(layers), generator)]
        place = [below(side, generator) for side in layer.out_shape]
        found.append(trace(subject.classifier, subject.images[number % len(subject.images)], layer.name, *place))
    worst = max(found, key=_relative_difference)
    return Finding(_relative_difference(worst), f"{len(found)} numbers, worst in {worst.layer} {tuple(worst.position)}")


def whole_layer(subject: Subject) -> Finding:
    """Compute the first convolution position by position."""
    layer = subject.graph.find_layer(first_convolution_name(subject.graph))
    source, given = _in_and_out(subject, layer)
    ours = _convolve_by_loops(source, layer)
    return Finding(_relative(ours, given), f"{layer.name}, {given.numel()} numbers")


def probabilities_sum_to_one(subject: Subject) -> Finding:
    """Add up the probabilities of each image."""
    sums = subject.classifier.probabilities(subject.images).double().sum(1)
    return Finding((sums - 1).abs().max().item(), f"{len(sums)} images")


def inspected_is_served(subject: Subject) -> Finding:
    """Compare the logits that views start from with those that are served."""
    inspected = layer_outputs(subject.classifier, subject.images, [subject.graph.output])[subject.graph.output]
    same = int((inspected.argmax(1) == subject.logits.argmax(1)).sum())
    note = f"{same} of {len(subject.images)} images with the same answer"
    difference = (inspected - subject.logits).abs().max().item()
    return Finding(difference if same == len(subject.images) else math.inf, note)


def folded_filters(subject: Subject) -> Finding:
    """Convolve with filters that have batch norm folded in, and compare with what batch norm gives."""
    errors = {}
    for layer in subject.graph.layers.values():
        if _is_followed_by_batch_norm(subject.graph, layer):
            norm = subject.graph.only_reader(layer.name)
            assert norm is not None
            source, _ = _in_and_out(subject, layer)
            _, given = _in_and_out(subject, norm)
            bank = filters(subject.classifier, layer.name, folded=True)
            errors[layer.name] = _relative(_convolve(source, layer, bank.weights, bank.bias), given)
    if not errors:
        raise ViewNotApplicable("no convolution of this network is followed by batch norm alone")
    worst = max(errors, key=lambda name: errors[name])
    return Finding(errors[worst], f"{len(errors)} convolutions, worst {worst}")


def receptive_field_boxes(subject: Subject) -> Finding:
    """Compare the box of the middle position with where its gradient reaches, on a linear twin in float64."""
    size = subject.classifier.spec.size
    placed = [name for name, field in receptive_fields(subject.graph).items() if field is not None]
    chosen = placed[:: math.ceil(len(placed) / FIELDS)]
    image = torch.ones(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    outputs = NetworkGraph(_linear_twin(subject.classifier.network), size).run(image, chosen)
    wrong = []
    for name in chosen:
        y, x = (side // 2 for side in (*subject.graph.layers[name].out_shape, 1, 1)[1:3])
        if find_seen_pixels(subject.graph, name, y, x).clipped != _reached(outputs[name], image, y, x):
            wrong.append(name)
    return Finding(len(wrong), f"{len(chosen)} layers" + (f", wrong: {', '.join(wrong)}" if wrong else ""))


def _relative_difference(one: Trace) -> float:
    """Return |trace - framework| / magnitude; where there is nothing to round, any difference is infinite."""
    if one.arithmetic.magnitude == 0:
        return math.inf if one.difference else 0.0
    return abs(one.difference) / one.arithmetic.magnitude


def _relative(ours: Tensor, given: Tensor) -> float:
    """Return the largest difference, relative to the largest value given."""
    return ((ours - given).abs().max() / given.abs().max().clamp(min=1e-30)).item()


def _in_and_out(subject: Subject, layer: Layer) -> tuple[Tensor, Tensor]:
    """Return what a layer with one input reads and gives for the first image, float64 without the batch."""
    kept = layer_outputs(subject.classifier, subject.images[:1], [layer.inputs[0], layer.name])
    return kept[layer.inputs[0]][0].double(), kept[layer.name][0].double()


def _convolve_by_loops(maps: Tensor, layer: Layer) -> Tensor:
    """Return what a convolution gives for (C, H, W), one position after the other."""
    module, slides = layer.module, window(layer.module)
    assert isinstance(module, nn.Conv2d)
    assert slides is not None
    if module.padding_mode != "zeros":
        raise ViewNotApplicable(f"layer {layer.name!r} pads with {module.padding_mode}, the loops with zeros")
    reach = [(size - 1) * step for size, step in zip(slides.kernel_size, slides.dilation, strict=True)]
    margins = [before + far for before, far in zip(slides.padding, reach, strict=True)]
    padded = F.pad(maps, (margins[1], margins[1], margins[0], margins[0]))
    weights = module.weight.detach().double().reshape(module.groups, -1, module.weight[0].numel())
    output = torch.zeros(layer.out_shape, dtype=torch.float64)
    for y, x in product(*map(range, layer.out_shape[1:])):
        rows, columns = (
            slice(start := place * stride + far, start + far + 1, step)
            for place, stride, far, step in zip((y, x), slides.stride, reach, slides.dilation, strict=True)
        )
        output[:, y, x] = (weights @ padded[:, rows, columns].reshape(module.groups, -1, 1)).flatten()
    return output if module.bias is None else output + module.bias.detach().double().view(-1, 1, 1)


def _convolve(maps: Tensor, layer: Layer, weights: Tensor, bias: Tensor) -> Tensor:
    """Return what the framework's convolution gives in float64 with these weights."""
    twin = copy.deepcopy(layer.module)
    assert isinstance(twin, nn.Conv2d)
    twin.weight, twin.bias = nn.Parameter(weights.double()), nn.Parameter(bias.double())
    with torch.no_grad():
        convolved: Tensor = twin(maps[None])[0]
    return convolved


def _is_followed_by_batch_norm(graph: NetworkGraph, layer: Layer) -> bool:
    if not isinstance(layer.module, nn.Conv2d):
        return False
    try:
        following_batch_norm(graph, layer)
    except ViewNotApplicable:
        return False
    return True


def _linear_twin(network: nn.Module) -> nn.Module:
    """Return a network of the same windows whose gradients reach as far as they can: positive, linear, no maxima."""
    twin = copy.deepcopy(network).double()
    _make_linear(twin)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return twin.eval()


def _make_linear(module: nn.Module) -> None:
    """Replace maxima by means, and what acts on each place alone by nothing."""
    for name, child in module.named_children():
        match child:
            case nn.MaxPool2d(dilation=1 | (1, 1)):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                setattr(module, name, mean)
            case nn.MaxPool2d():
                raise ViewNotApplicable(f"pooling {name!r} is dilated, which a mean cannot stand in for")
            case nn.AdaptiveMaxPool2d():
                setattr(module, name, nn.AdaptiveAvgPool2d(child.output_size))
            case nn.BatchNorm2d() | nn.LayerNorm():
                setattr(module, name, nn.Identity())
            case _ if type(child).__name__ in ACTIVATIONS:
                setattr(module, name, nn.Identity())
            case _:
                _make_linear(child)


def _reached(output: Tensor, image: Tensor, y: int, x: int) -> Box:
    """Return the box around the pixels that the gradient of one position reaches."""
    value = output[0, :, y, x].sum() if output.ndim == 4 else output.sum()
    (gradient,) = torch.autograd.grad(value, image, retain_graph=True)
    reached = gradient[0].abs().sum(0)
    rows, columns = (reached.sum(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return Box(rows[0], columns[0], rows[-1], columns[-1])
