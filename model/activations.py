"""What a layer of the served network makes of an image, and the weights it does it with."""

import torch
from torch import Tensor, nn

from model.classifier import Classifier
from model.errors import ViewNotApplicable
from model.images import normalise


def activation_maps(classifier: Classifier, image: Tensor, layer: str) -> Tensor:
    """Return the layer's output for one image: its activation maps.

    Args:
        image: (3, S, S) uint8 RGB as :func:`model.images.to_tensor` makes it.
        layer: name in ``classifier.graph``.

    Returns:
        (C, H, W) float32 on the CPU.

    Raises:
        UnknownLayer: no layer has that name.
        ViewNotApplicable: its output is not a stack of maps.
    """
    shape = classifier.graph.find(layer).out_shape
    if len(shape) != 3:
        size = "x".join(map(str, shape))
        raise ViewNotApplicable(f"layer {layer!r} gives {size} numbers, not maps; name a layer before it")
    with torch.inference_mode():
        batch = normalise(image[None].to(classifier.device), classifier.spec)
        output = classifier.graph.run(batch.contiguous(memory_format=torch.channels_last), [layer])[layer]
    return output[0].float().cpu().contiguous()


def filters(classifier: Classifier, layer: str) -> Tensor:
    """Return the weights of a convolution.

    Returns:
        (C_out, C_in / groups, kernel height, kernel width) float32 on the CPU.

    Raises:
        UnknownLayer: no layer has that name.
        ViewNotApplicable: the layer is not a convolution.
    """
    found = classifier.graph.find(layer)
    if not isinstance(found.module, nn.Conv2d):
        raise ViewNotApplicable(f"layer {layer!r} is of type {found.type}; only convolutions have filters")
    return found.module.weight.detach().float().cpu().contiguous()
