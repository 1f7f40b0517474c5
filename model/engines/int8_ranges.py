"""8-bit answers: the range of what each layer reads, measured once, and what the lower precision costs.

    cats.safetensors  ->  cats.int8.json

The weights stay as they are in the checkpoint; :mod:`model.engines.engine` rounds them when it builds the network. The
file names the digest of the checkpoint, so that it says nothing about another one. Knows nothing of OpenVINO.

Source: Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
2018.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import InvalidQuantisation, QuantisationNotFound
from torchlight.model.files.json_file import save_json
from torchlight.model.graph import Layer

LEVELS = 256  # of 8 bits
QUANTISED = ("Conv2d", "Linear")  # types of the layers that multiply; all others cost little in any precision
BATCH_SIZE = 100


@dataclass(frozen=True)
class Accuracy:
    """What share of some images each precision classifies right.

    Attributes:
        split: which images, for people.
        images: how many.
        float32, int8: shares in [0, 1].
    """

    split: str
    images: int
    float32: float
    int8: float


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is computed in 8 bits.

    Attributes:
        checkpoint: its digest.
        ranges: of what each layer that multiplies reads, by the layer's name: least and largest value, 0 inside.
        accuracy: measured on images that were not used for ``ranges``.
        difference: the largest from float32's probabilities over seeded noise, where the accuracy was measured.
    """

    checkpoint: str
    ranges: Mapping[str, tuple[float, float]]
    accuracy: Accuracy
    difference: float


def multiplying_layers(classifier: Classifier) -> list[Layer]:
    """Return the layers that are computed in 8 bits."""
    return [layer for layer in classifier.graph.layers.values() if layer.type in QUANTISED]


def measure_ranges(classifier: Classifier, images: Tensor) -> dict[str, tuple[float, float]]:
    """Return the range of what each layer that multiplies reads, over some images.

    Args:
        images: (N, 3, S, S) uint8 RGB, of the training data.
    """
    layers = multiplying_layers(classifier)
    ranges = {layer.name: (0.0, 0.0) for layer in layers}  # 0 is inside: borders are filled with it
    for start in range(0, len(images), BATCH_SIZE):
        batch = classifier.network_input(images[start : start + BATCH_SIZE])
        with torch.inference_mode():
            values = classifier.graph.run(batch, {layer.inputs[0] for layer in layers})
        for layer in layers:
            low, high = ranges[layer.name]
            least, most = values[layer.inputs[0]].aminmax()
            ranges[layer.name] = (min(low, least.item()), max(high, most.item()))
    return ranges


def on_grid(low: float, high: float) -> tuple[float, float]:
    """Return the range moved by less than one level, so that 0 is one of its ``LEVELS`` values."""
    step = (high - low) / (LEVELS - 1)
    if step == 0:
        return 0.0, 1.0
    zero = round(-low / step)
    return -zero * step, (LEVELS - 1 - zero) * step


def quantisation_path(checkpoint: Path) -> Path:
    """Return where the file for a checkpoint is: ``cats.safetensors`` has ``cats.int8.json``."""
    return checkpoint.with_name(f"{checkpoint.stem}.int8.json")


def save_quantisation(path: Path, made: Quantisation) -> None:
    """Write the file.

    Raises:
        OSError: the folder cannot be written.
    """
    save_json(path, asdict(made))


def load_quantisation(classifier: Classifier) -> Quantisation:
    """Return what is beside the classifier's checkpoint.

    Raises:
        QuantisationNotFound: nothing is.
        InvalidQuantisation: it is of another checkpoint, or is not such a file.
        OSError: it cannot be read.
    """
    checkpoint = classifier.checkpoint
    path = quantisation_path(checkpoint.path)
    make_one = f"make one with `torchlight quantise {checkpoint.path.name} SOURCE`"
    if not path.exists():
        raise QuantisationNotFound(f"{path} does not exist; {make_one}")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in said["ranges"].items()}
        found = Quantisation(str(said["checkpoint"]), ranges, Accuracy(**said["accuracy"]), float(said["difference"]))
        _validate(found)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidQuantisation(f"{path} says nothing of 8 bits ({error}); {make_one}") from error
    if found.checkpoint != checkpoint.digest:
        raise InvalidQuantisation(f"{path} is of another checkpoint, {found.checkpoint[:19]}; {make_one}")
    if found.ranges.keys() != {layer.name for layer in multiplying_layers(classifier)}:
        raise InvalidQuantisation(f"{path} names other layers than the network has; {make_one}")
    return found


def _validate(found: Quantisation) -> None:
    """Raise ValueError if a field does not hold what it should."""
    for name, (low, high) in found.ranges.items():
        if not -math.inf < low <= 0 <= high < math.inf:
            raise ValueError(f"the range of {name} is {low} to {high}")
    shares = (found.accuracy.float32, found.accuracy.int8, found.difference)
    if not all(isinstance(share, float | int) and 0 <= share <= 1 for share in shares):
        raise ValueError("an accuracy or the difference is not a share")
    if not isinstance(found.accuracy.split, str) or not isinstance(found.accuracy.images, int):
        raise ValueError("the images are not described")
