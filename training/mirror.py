"""Mirror twins: half of each layer's channels are the other half's mirror images, so that a thing and its mirror image
get the same answer.

Channel c and channel c + C/2 are twins. The filter of one is the other's mirrored, and reads from each channel what the
other reads from its twin: so the maps of a mirrored image are the mirrored maps of the twins, through all layers, and
the mean over all positions makes one answer of both. It costs nothing when the network runs; only half of the weights
are free. The weights stay ordinary ones: they start as twins, and their gradients are made twins' at each step.

For straight chains of convolutions, batch norm, pooling and activations, a global pool and one fully connected layer,
with an even number of channels everywhere but in the image.

Source: a group convolution of two elements, as in Cohen, Welling: Group Equivariant Convolutional Networks, 2016.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def tie(network: nn.Module) -> None:
    """Make twins of a network's first weights.

    The first convolution keeps the filters of the first half of its channels; all others are drawn anew, from torch's
    global generator, and pass on what they read where there are channels for it, as the default network's do.
    """
    with torch.no_grad():
        for index, convolution in enumerate(one for one in network.modules() if isinstance(one, nn.Conv2d)):
            half, inputs = convolution.out_channels // 2, convolution.in_channels
            if index > 0:
                drawn = torch.empty_like(convolution.weight)
                nn.init.kaiming_uniform_(drawn, a=5**0.5)  # as PyTorch draws those of convolutions
                nn.init.dirac_(drawn[: inputs // 2])
                convolution.weight[:half] = drawn[:half]
            convolution.weight[half:] = 0
            convolution.weight += _twin(convolution.weight)
            if convolution.bias is not None:
                convolution.bias[half:] = convolution.bias[:half]
    symmetrise(network)


@torch.no_grad()
def symmetrise(network: nn.Module) -> None:
    """Make twins of weights and of batch norm's statistics that are twins but for rounding and for chance."""
    for tensor in _paired(network):
        tensor.add_(_twin(tensor)).mul_(0.5)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for statistic in (layer.running_mean, layer.running_var):
                assert statistic is not None
                statistic.add_(_twin(statistic)).mul_(0.5)


@torch.no_grad()
def symmetrise_gradients(network: nn.Module) -> None:
    """Make of each gradient that of weights which stay twins."""
    for parameter in _paired(network):
        if parameter.grad is not None:
            parameter.grad.add_(_twin(parameter.grad)).mul_(0.5)


def _paired(network: nn.Module) -> Iterator[Tensor]:
    """Yield the parameters whose channels have twins: all but the biases of the classes."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            yield layer.weight
            if layer.bias is not None and not isinstance(layer, nn.Linear):
                yield layer.bias


def _twin(tensor: Tensor) -> Tensor:
    """Return what the twins have: filters (C_out, C_in, kH, kW), (K, C) of the classes, or (C,) of batch norm."""
    if tensor.ndim == 1:
        return tensor.roll(len(tensor) // 2)
    if tensor.ndim == 4:
        tensor = tensor.flip(3).roll(len(tensor) // 2, 0)
    reads_image = tensor.shape[1] == 3  # all other numbers of channels are even
    return tensor if reads_image else tensor.roll(tensor.shape[1] // 2, 1)
