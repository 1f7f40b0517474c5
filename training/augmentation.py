"""Pure functions (images, ...) -> images on whole batches, on whatever device the images are."""

import torch
import torch.nn.functional as F
from torch import Tensor


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Move each image by its own random whole number of pixels, up to ``shift`` in y and in x, mirroring at the border.

    Args:
        images: (N, C, H, W) floating point; ``shift`` must be smaller than H and W.
        shift: 0 returns the images as they are.
        generator: on the CPU; decides the 2N offsets.

    Returns:
        (N, C, H, W), as a copy.
    """
    if shift == 0:
        return images
    number, _, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * shift + 1, (2, number, 1), generator=generator).to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (N, H)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (N, W)
    batch = torch.arange(number, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def alternating_flip(images: Tensor, starts_mirrored: Tensor, epoch: int) -> Tensor:
    """Mirror left-right the images whose turn it is: each image is seen mirrored exactly every other epoch.

    Args:
        images: (N, C, H, W).
        starts_mirrored: (N,) bool, whether the image is mirrored in epoch 0; drawn once per run.
        epoch: counted from 0.

    Source: the alternating flip of Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024.
    """
    mirrored = starts_mirrored ^ bool(epoch % 2)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)
