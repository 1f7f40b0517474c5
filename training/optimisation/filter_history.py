"""The first layer's filters while the network learns: what is recorded, and which of it is shown."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchlight.model.network import first_convolution

MAX_FRAMES = 12  # shown and kept in the checkpoint: a row of a page, and a few hundred kilobytes
MAX_FILTER_NUMBERS = 40_000  # of one frame: the first layers of all convolutional networks, not those of transformers


def first_filters(network: nn.Module) -> Tensor:
    """Return a copy (C, 3, k, k) of the first convolution's weights, on the CPU; empty if there are very many."""
    convolution = first_convolution(network)
    if convolution is None or convolution.weight.numel() > MAX_FILTER_NUMBERS:
        return torch.empty(0)
    return convolution.weight.detach().cpu().clone()


def frame_positions(number: int) -> list[int]:
    """Return at most ``MAX_FRAMES`` positions spread evenly over ``number``, the first and the last among them."""
    return torch.linspace(0, number - 1, min(MAX_FRAMES, number)).round().int().tolist()


def select_frames(filters: Sequence[Tensor]) -> Tensor | None:
    """Return (E, C, 3, k, k) float16 frames for the checkpoint; None if the filters are not recorded."""
    frames = torch.stack([filters[position] for position in frame_positions(len(filters))]).half()
    return frames if frames.numel() else None
