"""What in the image activated one channel: its activation sent back down to the pixels.

It answers which pattern activated this channel, not why the network chose a class: it is known to recover parts of the
image whatever the decision (Nie, Zhang, Patel: A Theoretical Explanation for Perplexing Behaviors of
Backpropagation-based Visualizations, 2018). Show it beside the patch that caused it. Knows nothing of pictures, files
or HTTP.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import ChannelOutOfRange, ViewNotApplicable
from torchlight.model.graph import INPUT, Layer, NetworkGraph
from torchlight.model.views.receptive_field import Box, SeenPixels, check_position

RECTIFIERS = frozenset({"ReLU", "relu"})
# Layers that are linear once the switches of maximum pooling are set and constants left out: they have a transpose.
TRANSPOSABLE = frozenset(
    {"Conv2d", "ZeroPad2d", "Linear", "BatchNorm2d", "add", "cat", "Flatten", "flatten"}
    | {"Identity", "Dropout", "dropout"}
    | {"MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"}
    | {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "mean"}
)


@dataclass(frozen=True)
class Reconstruction:
    """One activation and what it is made of.

    Attributes:
        layer, channel: where the activation is.
        position: (y, x) of the activation in its map; (0, 0) in a vector.
        value: the activation. 0 gives pixels of zeros.
        pixels: (3, S, S) float32 on the CPU, signed, in normalised space: zero is the mean colour, times the data's
            standard deviation it is RGB in [0, 1]. Not divided by anything, so that it grows with ``value``, and not
            rectified. Exactly zero outside the receptive field.
    """

    layer: str
    channel: int
    position: tuple[int, int]
    value: float
    pixels: Tensor

    def frame(self, seen: SeenPixels | None) -> Box:
        """Return the pixels to show: what the position sees in the image, where that is known, else all."""
        last = self.pixels.shape[-1] - 1
        return (seen and seen.clipped) or Box(0, 0, last, last)


def reconstruct(
    classifier: Classifier, image: Tensor, layer: str, channel: int, position: tuple[int, int] | None = None
) -> Reconstruction:
    """Keep one activation of a map, set all others to zero, and walk back down to the pixels.

    On the way down a ReLU rectifies the signal itself, not by what it passed on the way up; every other layer sends it
    back by its transpose. So a convolution uses its own filters, batch norm only its scale, maximum pooling puts the
    signal where the maximum was (and adds, where windows overlap), sums and concatenations send it to all branches.
    Biases play no part.

    Args:
        image: (3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes it.
        layer: name in ``classifier.graph``; with its ReLU, if it has one, the network is as Zeiler and Fergus show it.
        channel: which map; which number of a vector.
        position: (y, x) in the map; None for the strongest activation, the first among equals.

    Raises:
        UnknownLayer: no layer has that name.
        ChannelOutOfRange, PositionOutOfRange: the layer has no such activation.
        ViewNotApplicable: it gives neither maps nor a vector, or a layer on the way down has no rule: this is for
            networks of ReLUs, so that GELU, SiLU, tanh and the like have none.

    Source: Zeiler and Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    graph = classifier.graph
    _check_activation(graph.find_layer(layer), channel, position)
    rectifiers = [step for step in _way_down(graph, layer) if step.type in RECTIFIERS]
    leaves, values = _cut_at(graph, classifier.network_input(image[None]), rectifiers, layer)
    start, place = _keep_one(values[layer], channel, position)
    signals = _send(values[layer], start, leaves, {})
    for rectifier in reversed(rectifiers):
        signals = _send(values[rectifier.inputs[0]], signals[rectifier.name].relu(), leaves, signals)
    pixels = signals[INPUT][0].float().cpu().contiguous()  # (1, 3, S, S) -> (3, S, S)
    return Reconstruction(layer, channel, place, start.sum().item(), pixels)


def _check_activation(layer: Layer, channel: int, position: tuple[int, int] | None) -> None:
    if not layer.has_maps and len(layer.out_shape) != 1:
        raise ViewNotApplicable(f"layer {layer.name!r} gives neither maps nor a vector; name another one")
    if not 0 <= channel < layer.out_shape[0]:
        raise ChannelOutOfRange(channel, layer.name, layer.out_shape[0])
    check_position(layer, *(position or (0, 0)))


def _way_down(graph: NetworkGraph, name: str) -> list[Layer]:
    """Return a layer and all that it depends on, in the order they run.

    Raises:
        ViewNotApplicable: one of them has no rule.
    """
    needed, way = {name}, []
    for layer in reversed(graph.layers.values()):
        if layer.name in needed:
            needed.update(layer.inputs)
            way.append(layer)
    for layer in way:
        if layer.type not in RECTIFIERS | TRANSPOSABLE:
            raise ViewNotApplicable(
                f"layer {layer.name!r}, of type {layer.type}, has no way down: a deconvnet is for networks of ReLUs; "
                "ask for a layer before it, or for saliency"
            )
    return way[::-1]


def _cut_at(
    graph: NetworkGraph, image: Tensor, rectifiers: Collection[Layer], layer: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run the network cut apart behind each ReLU.

    Returns:
        The image and the outputs of the ReLUs, each the beginning of a piece; and what the pieces end in: the inputs
        of the ReLUs and the layer's output, each a function of those beginnings, recorded for gradients.
    """
    with torch.no_grad():
        outputs = graph.run(image, [rectifier.name for rectifier in rectifiers])
    leaves = {name: value.requires_grad_() for name, value in ({INPUT: image} | outputs).items()}
    ends = {layer, *(rectifier.inputs[0] for rectifier in rectifiers)}
    with torch.enable_grad():
        replace = {name: leaf for name, leaf in leaves.items() if name != INPUT}
        return leaves, graph.run(leaves[INPUT], ends, replace)


def _keep_one(output: Tensor, channel: int, position: tuple[int, int] | None) -> tuple[Tensor, tuple[int, int]]:
    """Return a layer's output with one activation of a channel kept and all others zero; and its (y, x)."""
    maps = output.detach()  # (1, C, h, w) or (1, C)
    chosen = maps[0, channel]  # (h, w), or one number of a vector
    y, x = divmod(int(chosen.argmax()), chosen.shape[-1] if chosen.ndim else 1) if position is None else position
    place = (0, channel, y, x)[: maps.ndim]
    kept = torch.zeros_like(maps)
    kept[place] = maps[place]
    return kept, (y, x)


def _send(
    end: Tensor, signal: Tensor, leaves: Mapping[str, Tensor], arrived: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Send a signal down the piece before ``end``, and return what has then arrived at each leaf."""
    sent = torch.autograd.grad(end, list(leaves.values()), signal, retain_graph=True, allow_unused=True)
    new = {name: value for name, value in zip(leaves, sent, strict=True) if value is not None}
    return {**arrived, **{name: arrived.get(name, 0) + value for name, value in new.items()}}
