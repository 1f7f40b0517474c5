"""What a layer of the served network makes of an image."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import Layer, NetworkGraph
from torchlight.model.views.facts import find_flags
from torchlight.model.views.receptive_field import ACTIVATIONS

MapStage = Literal["output", "pre_activation", "post_activation"]
NORMS = ("BatchNorm2d", "LayerNorm2d", "GroupNorm")


@dataclass(frozen=True)
class MapStatistics:
    """One map in figures; ``flag`` is ``all zero``, ``constant``, ``not finite`` or empty."""

    channel: int
    min: float
    max: float
    mean: float
    std: float
    zero_share: float
    flag: str


def activation_maps(classifier: Classifier, image: Tensor, layer: str, stage: MapStage = "output") -> Tensor:
    """Return a layer's activation maps for one image.

    Args:
        image: (3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes it.
        layer: name in ``classifier.graph``.
        stage: ``output`` is what the layer itself gives; ``pre_activation`` and ``post_activation`` are the values
            before and after the activation function that the layer is, or that follows it directly or after a norm.

    Returns:
        (C, H, W) float32 on the CPU.

    Raises:
        UnknownLayer: no layer has that name.
        ViewNotApplicable: its output is not a stack of maps, or it has no such stage.
    """
    found = layer_at_stage(classifier.graph, layer, stage)
    if not found.has_maps:
        size = "x".join(map(str, found.out_shape))
        raise ViewNotApplicable(f"layer {layer!r} gives {size} numbers, not maps; name a layer before it")
    with torch.inference_mode():
        outputs = classifier.graph.run(classifier.network_input(image[None]), [found.name])
    return outputs[found.name][0].float().cpu().contiguous()  # (1, C, H, W) -> (C, H, W)


def layer_at_stage(graph: NetworkGraph, name: str, stage: MapStage) -> Layer:
    """Return the layer whose output a stage of ``name`` is.

    Raises:
        UnknownLayer, ViewNotApplicable: as for :func:`activation_maps`.
    """
    layer = graph.find_layer(name)
    if stage == "output":
        return layer
    activation: Layer | None = layer
    while activation is not None and activation.type not in ACTIVATIONS:
        activation = graph.only_reader(activation.name) if activation is layer or activation.type in NORMS else None
    if activation is None:
        raise ViewNotApplicable(f"layer {name!r} has no activation function after it; ask for stage=output")
    return activation if stage == "post_activation" else graph.find_layer(activation.inputs[0])


def statistics(maps: Tensor) -> list[MapStatistics]:
    """Return the figures of each map (C, H, W) in float64; not-finite values are left out of all but the flag."""
    flat = maps.double().flatten(1).numpy()  # (C, H * W)
    is_finite = np.isfinite(flat)
    number = is_finite.sum(1)  # (C,)
    finite, divisor = np.where(is_finite, flat, 0), np.maximum(number, 1)
    mean = finite.sum(1) / divisor
    deviations = np.where(is_finite, flat - mean[:, None], 0)
    low, high = (np.where(is_finite, flat, end) for end in (np.inf, -np.inf))
    columns = (
        np.where(number > 0, low.min(1), 0),
        np.where(number > 0, high.max(1), 0),
        mean,
        np.sqrt((deviations**2).sum(1) / divisor),
        (flat == 0).mean(1),
    )
    rows = zip(*(column.tolist() for column in columns), find_flags(maps.numpy()), strict=True)
    return [MapStatistics(channel, *figures) for channel, figures in enumerate(rows)]
