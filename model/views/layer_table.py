"""The layer table: what each layer of a network is, and which views apply to it."""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from torch import nn

from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import INPUT, Layer, NetworkGraph
from torchlight.model.network import first_convolution
from torchlight.model.views.deconvnet import RECTIFIERS, TRANSPOSABLE
from torchlight.model.views.receptive_field import Pair, ReceptiveField, receptive_fields, window
from torchlight.model.views.trace import find_trace_obstacle


@dataclass(frozen=True)
class LayerFacts:
    """One row of the table.

    Attributes:
        name, type, inputs, in_shapes, out_shape: as in :class:`model.graph.Layer`.
        kernel_size, stride, padding, dilation: (y, x) of a convolution, pooling or layer of zeros, see
            :func:`model.views.receptive_field.window`, else None; padding before the first.
        groups: of a convolution, else None.
        parameters: how many numbers training may change here; again for a module that runs again.
        multiply_adds: of a convolution or fully connected layer for one image, else 0.
        receptive_field: None where positions have no place in the image.
        views: ``filters``, ``activations``, ``trace``, ``receptive_field``, ``reconstructions``, ``grad_cam``,
            ``hires_cam``, as far as they apply.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    kernel_size: Pair | None
    stride: Pair | None
    padding: Pair | None
    dilation: Pair | None
    groups: int | None
    in_shapes: tuple[tuple[int, ...], ...]
    out_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: ReceptiveField | None
    views: tuple[str, ...]


def describe_layers(graph: NetworkGraph) -> list[LayerFacts]:
    """Return the facts of every layer, in the order they run."""
    fields, reversible = receptive_fields(graph), _reversible(graph)
    return [_facts(layer, fields[name], reversible) for name, layer in graph.layers.items()]


def first_convolution_name(graph: NetworkGraph) -> str:
    """Return the layer of :func:`model.network.first_convolution`.

    Raises:
        ViewNotApplicable: the network has no convolution.
    """
    convolution = first_convolution(graph.network)
    if convolution is None:
        raise ViewNotApplicable("this network has no convolution; name a layer")
    return graph.name_of(convolution)


def reads_image(graph: NetworkGraph, layer: Layer) -> bool:
    """Whether a layer reads the image itself, be it padded by a layer of zeros."""
    read = [graph.layers[name] for name in layer.inputs if name != INPUT]
    return all(isinstance(one.module, nn.ZeroPad2d) and reads_image(graph, one) for one in read)


def _facts(layer: Layer, field: ReceptiveField | None, reversible: Collection[str]) -> LayerFacts:
    slides = window(layer.module)
    return LayerFacts(
        name=layer.name,
        type=layer.type,
        inputs=layer.inputs,
        kernel_size=slides and slides.kernel_size,
        stride=slides and slides.stride,
        padding=slides and slides.padding,
        dilation=slides and slides.dilation,
        groups=layer.module.groups if isinstance(layer.module, nn.Conv2d) else None,
        in_shapes=layer.in_shapes,
        out_shape=layer.out_shape,
        parameters=sum(parameter.numel() for parameter in layer.module.parameters()) if layer.module else 0,
        multiply_adds=_multiply_adds(layer),
        receptive_field=field,
        views=_views(layer, field, reversible),
    )


def _multiply_adds(layer: Layer) -> int:
    if not isinstance(layer.module, nn.Conv2d | nn.Linear):
        return 0
    return prod(layer.out_shape) * layer.module.weight[0].numel()


def _views(layer: Layer, field: ReceptiveField | None, reversible: Collection[str]) -> tuple[str, ...]:
    is_vector = len(layer.out_shape) == 1
    applies = {
        "filters": layer.type == "Conv2d",
        "activations": layer.has_maps,
        "trace": find_trace_obstacle(layer) is None,
        "receptive_field": field is not None,
        "reconstructions": layer.name in reversible and (layer.has_maps or is_vector),
        "grad_cam": layer.has_places,
        "hires_cam": layer.has_places,
    }
    return tuple(view for view, is_applicable in applies.items() if is_applicable)


def _reversible(graph: NetworkGraph) -> set[str]:
    """Return the layers that :func:`model.views.deconvnet.reconstruct` has a way down from."""
    names = {INPUT}
    for layer in graph.layers.values():
        if layer.type in RECTIFIERS | TRANSPOSABLE and names.issuperset(layer.inputs):
            names.add(layer.name)
    return names
