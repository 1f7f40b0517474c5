"""The weights of convolutions, as they are or as what they amount to."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from torchlight.model.classifier import Classifier
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import Layer, NetworkGraph
from torchlight.model.views.layer_table import first_convolution_name, reads_image

Space = Literal["normalised", "pixel"]


@dataclass(frozen=True)
class FilterBank:
    """The filters of a convolution.

    Attributes:
        weights: (C_out, C_in / groups, kernel height, kernel width) float32 on the CPU.
        bias: (C_out,) float32 on the CPU; zeros if the layer has none.
    """

    weights: Tensor
    bias: Tensor


@dataclass(frozen=True)
class FilterStatistics:
    """One filter in figures."""

    channel: int
    min: float
    max: float
    norm: float
    bias: float


@dataclass(frozen=True)
class FilterHistory:
    """The filters of the first convolution while the network learnt.

    Attributes:
        frames: (E, C_out, C_in, h, w) float32.
        epochs: after which epoch each of the E frames was taken; 0 is before training.
    """

    frames: Tensor
    epochs: list[int]


def filters(classifier: Classifier, layer: str, *, space: Space = "normalised", folded: bool = False) -> FilterBank:
    """Return the filters of a convolution.

    Args:
        layer: name in ``classifier.graph``.
        space: ``normalised`` for the weights as trained. ``pixel``, for a layer that reads the image itself, for the
            weights on RGB in [0, 1]: w / std, and the bias less sum(w * mean / std). Exact away from padding, which
            stands for the mean colour, not for black.
        folded: include the batch norm that follows, as it is at evaluation: w * g / sqrt(var + eps).

    Raises:
        UnknownLayer: no layer has that name.
        ViewNotApplicable: it is not a convolution, does not read the image, or no batch norm follows it alone.
    """
    found = classifier.graph.find_layer(layer)
    module = found.module
    if not isinstance(module, nn.Conv2d):
        raise ViewNotApplicable(f"layer {layer!r} is of type {found.type}; only convolutions have filters")
    weights = module.weight.detach().double().cpu()
    bias = torch.zeros(len(weights)).double() if module.bias is None else module.bias.detach().double().cpu()
    if folded:
        norm = following_batch_norm(classifier.graph, found)
        scale = norm.scale.double().cpu()
        weights, bias = weights * scale.view(-1, 1, 1, 1), bias * scale + norm.shift.double().cpu()
    if space == "pixel":
        weights, bias = _to_pixel_space(classifier, found, weights, bias)
    return FilterBank(weights.float().contiguous(), bias.float())


def filter_statistics(bank: FilterBank) -> list[FilterStatistics]:
    """Return the figures of each filter, computed in float64."""
    flat = bank.weights.double().flatten(1)  # (C_out, C_in * h * w)
    columns = (flat.amin(1), flat.amax(1), flat.norm(dim=1), bank.bias)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [FilterStatistics(channel, *figures) for channel, figures in enumerate(rows)]


def filter_history(classifier: Classifier, layer: str) -> FilterHistory:
    """Return the filters of a layer over the training, from the checkpoint.

    Raises:
        UnknownLayer: no layer has that name.
        ViewNotApplicable: the checkpoint has none, or those of another layer.
    """
    frames, graph = classifier.checkpoint.filmstrip, classifier.graph
    graph.find_layer(layer)
    if frames is None:
        raise ViewNotApplicable("this checkpoint has no filmstrip; those that `torchlight train` makes now have one")
    first = first_convolution_name(graph)
    if layer != first:
        raise ViewNotApplicable(f"the filmstrip is of layer {first!r}, not of {layer!r}")
    epochs = len(classifier.checkpoint.header.training.get("history", ()))
    return FilterHistory(frames.float(), torch.linspace(0, epochs, len(frames)).round().int().tolist())


@dataclass(frozen=True)
class Affine:
    """What a batch norm does at evaluation: output = input * scale + shift, (C,) each."""

    scale: Tensor
    shift: Tensor


def following_batch_norm(graph: NetworkGraph, layer: Layer) -> Affine:
    """Return the batch norm that is the only reader of a layer.

    Raises:
        ViewNotApplicable: something else reads it, or nothing does.
    """
    reader = graph.only_reader(layer.name)
    norm = reader.module if reader else None
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise ViewNotApplicable(f"layer {layer.name!r} is not followed by batch norm alone; ask for it unfolded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    offset = torch.zeros_like(scale) if norm.bias is None else norm.bias.detach().double()
    return Affine(scale, offset - norm.running_mean.double() * scale)


def _to_pixel_space(classifier: Classifier, layer: Layer, weights: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    if not reads_image(classifier.graph, layer) or weights.shape[1] != 3:
        raise ViewNotApplicable(f"layer {layer.name!r} does not read the image; pixel space is for the layer that does")
    mean = torch.tensor(classifier.spec.mean, dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(classifier.spec.std, dtype=torch.float64).view(1, 3, 1, 1)
    return weights / std, bias - (weights * mean / std).sum((1, 2, 3))
