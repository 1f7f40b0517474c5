"""One drawn picture, and the answer to it that is stored with the weights: do they still give it, where they run?

It finds what a digest of the file cannot: a device, a library or a layout that computes something else.
"""

import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint
from torchlight.model.errors import CanaryMismatch
from torchlight.model.images import ImageSpec, normalise

TOLERANCE = 1e-2  # of a probability; devices and libraries that work differ by less, see docs/decisions/checkpoint.md
DIGITS = 6  # of what is stored; beyond them float32 differs from one processor to the next


def draw_canary_image(size: int) -> Tensor:
    """Draw the picture: red rises to the right, green downwards, blue is the exclusive or of the two.

    Integers alone, so that it is the same everywhere; the third channel holds edges of every width.

    Args:
        size: side S in pixels.

    Returns:
        (3, S, S) uint8 RGB.
    """
    ramp = torch.arange(size) * 255 // max(1, size - 1)
    red, green = ramp.expand(size, size), ramp[:, None].expand(size, size)
    return torch.stack([red, green, red ^ green]).to(torch.uint8)


def canary_answer(network: nn.Module, spec: ImageSpec) -> tuple[float, ...]:
    """Return the probabilities that a network in evaluation mode on the CPU gives the picture, one for each class."""
    with torch.inference_mode():
        logits: Tensor = network(normalise(draw_canary_image(spec.size)[None], spec))
        probabilities: list[float] = logits.float().softmax(dim=1)[0].tolist()
    return tuple(round(probability, DIGITS) for probability in probabilities)


def check_canary(checkpoint: Checkpoint, got: Tensor) -> None:
    """Compare what the network of a checkpoint answers where it runs with what the checkpoint says it should.

    Args:
        got: (K,) probabilities for :func:`image`.

    Raises:
        CanaryMismatch: they differ by more than the tolerance. Files from before there was such an answer have none to
            differ from.
    """
    if checkpoint.header.golden is None:
        return
    expected = torch.tensor(checkpoint.header.golden)
    difference = (got - expected).abs()
    worst = int(difference.nan_to_num(torch.inf).argmax())
    if not difference[worst] <= TOLERANCE:
        label = checkpoint.header.class_names[worst]
        raise CanaryMismatch(
            f"checkpoint {checkpoint.path}: its golden image should be {label!r} with probability "
            f"{expected[worst]:.4f}, but the network here says {got[worst]:.4f}, further apart than {TOLERANCE:g}; "
            "train again, or look for what is wrong with this device"
        )
