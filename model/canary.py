"""The canary image, and the answer to it that a checkpoint holds: is the network still computed right where it runs?

A digest proves the bytes of a file; the canary finds a device, a library or a memory layout that computes another
function with them.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint
from torchlight.model.errors import CanaryMismatch
from torchlight.model.images import ImageSpec, normalise
from torchlight.model.uncertainty.novelty import Novelty
from torchlight.model.views.embedding import answer_with_embeddings

TOLERANCE = 1e-2  # of a probability; right devices and libraries differ by less, see docs/decisions/checkpoint.md
DISTANCE_TOLERANCE = 0.05  # of the distance itself
DIGITS = 6  # stored of each probability; the seventh of a float32 differs from one processor to the next


def draw_canary_image(size: int) -> Tensor:
    """Return an image whose red rises to the right and green downwards; blue is their exclusive or.

    Computed in integers, so that it is the same everywhere; the third channel has edges of every width.

    Args:
        size: side S in pixels.

    Returns:
        (3, S, S) uint8 RGB.
    """
    ramp = torch.arange(size) * 255 // max(1, size - 1)  # (S,) from 0 to 255
    red, green = ramp.expand(size, size), ramp[:, None].expand(size, size)
    return torch.stack([red, green, red ^ green]).to(torch.uint8)


def canary_answer(network: nn.Module, spec: ImageSpec) -> tuple[float, ...]:
    """Return the K probabilities of the canary image, by a network in evaluation mode on the CPU."""
    with torch.inference_mode():
        logits: Tensor = network(normalise(draw_canary_image(spec.size)[None], spec))  # (1, K)
        probabilities: list[float] = logits.float().softmax(dim=1)[0].tolist()
    return tuple(round(probability, DIGITS) for probability in probabilities)


def add_canary_distance(novelty: Novelty, network: nn.Module, spec: ImageSpec) -> Novelty:
    """Return it with the canary image's distance to the nearest class, by a network in evaluation mode on the CPU."""
    image = draw_canary_image(spec.size)[None]
    logits, embeddings = answer_with_embeddings(network, spec, image, len(novelty.plane.mean))
    return replace(novelty, canary_distance=float(novelty.measure(embeddings, logits.softmax(dim=1)).distances[0]))


def check_canary(checkpoint: Checkpoint, got: Tensor, got_distance: float | None = None) -> None:
    """Compare an answer to the canary image with the one in the checkpoint, if it has one (older files have none).

    Args:
        got: (K,) probabilities for :func:`draw_canary_image`.
        got_distance: to the nearest class, if the checkpoint tells what is unknown.

    Raises:
        CanaryMismatch: a probability differs by more than ``TOLERANCE``, or the distance by ``DISTANCE_TOLERANCE``.
    """
    if checkpoint.header.golden is not None:
        _check_probabilities(checkpoint, got, torch.tensor(checkpoint.header.golden))
    if checkpoint.novelty is not None and got_distance is not None:
        expected = checkpoint.novelty.canary_distance
        if not abs(got_distance - expected) <= DISTANCE_TOLERANCE * expected:
            raise CanaryMismatch(
                f"checkpoint {checkpoint.path}: its canary image should be {expected:.4f} from the nearest class, but "
                f"the network here says {got_distance:.4f}, further apart than {DISTANCE_TOLERANCE:.0%}; train again, "
                "or look for what is wrong with this device"
            )


def _check_probabilities(checkpoint: Checkpoint, got: Tensor, expected: Tensor) -> None:
    difference = (got - expected).abs()  # (K,)
    worst = int(difference.nan_to_num(torch.inf).argmax())
    if not difference[worst] <= TOLERANCE:
        label = checkpoint.header.class_names[worst]
        raise CanaryMismatch(
            f"checkpoint {checkpoint.path}: its canary image should be {label!r} with probability "
            f"{expected[worst]:.4f}, but the network here says {got[worst]:.4f}, further apart than {TOLERANCE:g}; "
            "train again, or look for what is wrong with this device"
        )
