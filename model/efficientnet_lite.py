"""EfficientNet-Lite: the networks whose published weights come with the installation. No squeeze-excite, no swish.

A network is a stem, blocks that widen, look around each channel by itself and narrow again, a head, a mean and one
linear layer: ``stem.conv``, ``block1.depthwise``, ..., ``block16.project``, ``head.conv``, ``global_pool``, ``fc``.
With ``_multilevel`` behind its name the last layer also reads two earlier maps, each averaged over 4x4 places: the last
block forgets where things are, which some pictures are about.

Source: Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, and Google's
EfficientNet-Lite of 2020, whose code is in the repository tensorflow/tpu.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280  # of every size
EPS, MOMENTUM = 1e-3, 0.01  # of batch norm; TensorFlow's decay of 0.99 is PyTorch's momentum of 0.01


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride, the others 1."""

    repeats: int
    kernel_size: int
    stride: int
    expansion: int  # times as many channels inside the block as at its entrance
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Size:
    """One of the family.

    Attributes:
        width, depth: multiply the channels and the repeats of the stages.
        image_size: side S in pixels that it was trained at; the padding of its layers fits this side.
        dropout: before the last layer, in training.
    """

    width: float
    depth: float
    image_size: int
    dropout: float


SIZES = {
    "efficientnet_lite0": Size(1.0, 1.0, 224, 0.2),
    "efficientnet_lite1": Size(1.0, 1.1, 240, 0.2),
    "efficientnet_lite2": Size(1.1, 1.2, 260, 0.3),
}
MULTILEVEL = "_multilevel"  # behind the name of a size
EFFICIENTNET_LITES = tuple(name + suffix for name in SIZES for suffix in ("", MULTILEVEL))
LEVELS = (4, 5)  # the stages whose last maps a multilevel network reads: 14x14 and 7x7 positions at 224 pixels
PLACES = 4  # of a level, in each direction


class Multilevel(nn.Sequential):
    """A network whose last layer also reads earlier maps, shrunk by ``level1`` and ``level2``.

    ``fc`` reads 4x4 means of each channel of the first level, then those of the second one, then the means of the head.
    """

    def forward(self, images: Tensor) -> Tensor:
        maps, features = images, []
        for name, layer in self.named_children():
            if name.startswith("level"):
                features.append(layer(maps))  # (N, C * 4 * 4); the maps pass on as they are
            elif name == "fc":
                maps = layer(torch.cat([*features, maps], dim=1))  # (N, K)
            else:
                maps = layer(maps)
        return maps


class Residual(nn.Sequential):
    """A chain whose input is added to its output."""

    def forward(self, maps: Tensor) -> Tensor:
        output = maps
        for layer in self:
            output = layer(output)
        return output + maps  # (N, C, H, W) both


def feature_sizes(name: str) -> dict[str, int]:
    """Return what ``fc`` reads, in order, with how many numbers each part has; a plain network has only ``last``."""
    width = SIZES[name.removesuffix(MULTILEVEL)].width
    levels = LEVELS if name.endswith(MULTILEVEL) else ()
    sizes = [PLACES**2 * _scale_channels(STAGES[place].channels, width) for place in levels]
    return {f"level{number}": size for number, size in enumerate(sizes, 1)} | {"last": HEAD_CHANNELS}


def build_efficientnet_lite(name: str, num_classes: int) -> nn.Sequential:
    """Return the network of that name in ``EFFICIENTNET_LITES``, freshly initialised, in training mode."""
    size, is_multilevel = SIZES[name.removesuffix(MULTILEVEL)], name.endswith(MULTILEVEL)
    layers = OrderedDict(_body(size, is_multilevel))
    layers["global_pool"] = nn.AdaptiveAvgPool2d(1)  # (N, 1280, 7, 7) -> (N, 1280, 1, 1) at 224 pixels
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(size.dropout)
    layers["fc"] = nn.Linear(sum(feature_sizes(name).values()), num_classes)
    return Multilevel(layers) if is_multilevel else nn.Sequential(layers)


def _body(size: Size, is_multilevel: bool) -> Iterator[tuple[str, nn.Module]]:
    """Yield stem, blocks, levels and head with their names."""
    side, in_channels, blocks = size.image_size, STEM_CHANNELS, count(1)
    yield "stem", nn.Sequential(_convolution("conv", 3, STEM_CHANNELS, 3, 2, side))
    side = math.ceil(side / 2)
    for place, stage in enumerate(STAGES):
        is_fixed = place in (0, len(STAGES) - 1)  # the first and the last stage keep their repeats
        repeats = stage.repeats if is_fixed else math.ceil(stage.repeats * size.depth)
        out_channels = _scale_channels(stage.channels, size.width)
        for repeat in range(repeats):
            stride = stage.stride if repeat == 0 else 1
            yield f"block{next(blocks)}", _block(stage, stride, in_channels, out_channels, side)
            side, in_channels = math.ceil(side / stride), out_channels
        if is_multilevel and place in LEVELS:
            yield f"level{LEVELS.index(place) + 1}", _level(side)
    yield "head", nn.Sequential(_convolution("conv", in_channels, HEAD_CHANNELS, 1, 1, side))


def _level(side: int) -> nn.Sequential:
    """Return what shrinks maps to the means of 4x4 equal places, which overlap where the side is no multiple of 4."""
    stride = side // PLACES
    pool = nn.AvgPool2d(side - (PLACES - 1) * stride, stride)  # 5x5 every 3 positions of 14, 4x4 every position of 7
    return nn.Sequential(OrderedDict[str, nn.Module](pool=pool, flatten=nn.Flatten()))


def _block(stage: Stage, stride: int, in_channels: int, out_channels: int, side: int) -> nn.Sequential:
    """Return expand (1x1), depthwise (each channel by itself), project (1x1, without activation)."""
    inside = in_channels * stage.expansion
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stage.expansion > 1:
        layers |= _convolution("expand", in_channels, inside, 1, 1, side)
    layers |= _convolution("depthwise", inside, inside, stage.kernel_size, stride, side, groups=inside)
    layers |= _convolution("project", inside, out_channels, 1, 1, side)
    del layers["project_relu"]  # an activation where channels are few would lose too much
    return Residual(layers) if stride == 1 and in_channels == out_channels else nn.Sequential(layers)


def _convolution(
    name: str, in_channels: int, out_channels: int, kernel_size: int, stride: int, side: int, groups: int = 1
) -> OrderedDict[str, nn.Module]:
    """Return a convolution, its batch norm and ReLU6, padded as TensorFlow's SAME does for maps of that side.

    Where the zeros cannot be shared out equally, one more is at the right and at the bottom: a layer of its own.
    """
    zeros = max(0, (math.ceil(side / stride) - 1) * stride + kernel_size - side)
    before, after = zeros // 2, zeros - zeros // 2
    prefix = "" if name == "conv" else f"{name}_"
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if before != after:
        layers["pad"] = nn.ZeroPad2d((before, after, before, after))  # left, right, top, bottom
    padding = before if before == after else 0
    layers[name] = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    layers[f"{prefix}bn"] = nn.BatchNorm2d(out_channels, eps=EPS, momentum=MOMENTUM)
    layers[f"{prefix}relu"] = nn.ReLU6()
    return layers


def _scale_channels(channels: int, width: float) -> int:
    """Return ``channels * width`` rounded to a multiple of 8, not down by more than a tenth."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
