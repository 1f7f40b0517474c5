"""Answers in int8: the range of each layer's input, and the accuracy that the precision costs.

    cats.safetensors  ->  cats.int8.json

The weights stay as they are in the checkpoint; :mod:`model.engines.openvino_network` rounds them when it builds the
network. Knows nothing of OpenVINO.

Source: Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
2018.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchlight.model.classifier import Classifier
from torchlight.model.errors import InvalidQuantisation, QuantisationNotFound
from torchlight.model.files.sidecar import load_json, save_json, sidecar_path
from torchlight.model.graph import Layer

LEVELS = 256  # values of an int8
QUANTISED = ("Conv2d", "Linear")  # the layers that multiply; all others cost little in any precision


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of each precision on the same images.

    Attributes:
        split: name of the images, such as ``val``.
        images: their number.
        float32, int8: shares in [0, 1].
    """

    split: str
    images: int
    float32: float
    int8: float


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is computed in int8.

    Attributes:
        checkpoint: its digest.
        ranges: least and largest input of each layer that multiplies, by the layer's name; 0 is inside.
        accuracy: measured on images that were not used for ``ranges``.
        difference: largest difference from float32's probabilities over seeded noise, on the machine that measured.
    """

    checkpoint: str
    ranges: Mapping[str, tuple[float, float]]
    accuracy: Accuracy
    difference: float


def multiplying_layers(classifier: Classifier) -> list[Layer]:
    """Return the layers that are computed in int8."""
    return [layer for layer in classifier.graph.layers.values() if layer.type in QUANTISED]


def on_grid(low: float, high: float) -> tuple[float, float]:
    """Return the range moved by less than one level, so that 0 is one of its ``LEVELS`` values."""
    step = (high - low) / (LEVELS - 1)
    if step == 0:
        return 0.0, 1.0
    zero = round(-low / step)
    return -zero * step, (LEVELS - 1 - zero) * step


def quantisation_path(checkpoint: Path) -> Path:
    """Return where the file for a checkpoint is: ``cats.safetensors`` has ``cats.int8.json``."""
    return sidecar_path(checkpoint, ".int8.json")


def save_quantisation(path: Path, made: Quantisation) -> None:
    """Write the file.

    Raises:
        OSError: the folder cannot be written.
    """
    save_json(path, asdict(made))


def load_quantisation(classifier: Classifier) -> Quantisation:
    """Return the ranges beside the classifier's checkpoint.

    Raises:
        QuantisationNotFound: there is no such file.
        InvalidQuantisation: it belongs to another checkpoint, or is some other kind of file.
        OSError: it cannot be read.
    """
    checkpoint = classifier.checkpoint
    path = quantisation_path(checkpoint.path)
    make_one = f"make one with `torchlight quantise {checkpoint.path.name} SOURCE`"
    try:
        found = load_json(path, _parse_quantisation)
    except FileNotFoundError as error:
        raise QuantisationNotFound(f"{path} does not exist; {make_one}") from error
    except ValueError as error:
        raise InvalidQuantisation(f"{path} holds no int8 ranges ({error}); {make_one}") from error
    if found.checkpoint != checkpoint.digest:
        raise InvalidQuantisation(f"{path} is of another checkpoint, {found.checkpoint[:19]}; {make_one}")
    if found.ranges.keys() != {layer.name for layer in multiplying_layers(classifier)}:
        raise InvalidQuantisation(f"{path} names other layers than the network has; {make_one}")
    return found


def _parse_quantisation(document: Any) -> Quantisation:
    """Raise KeyError, TypeError or ValueError if a field does not hold what it should."""
    ranges = {str(name): (float(low), float(high)) for name, (low, high) in document["ranges"].items()}
    accuracy = Accuracy(**document["accuracy"])
    found = Quantisation(str(document["checkpoint"]), ranges, accuracy, float(document["difference"]))
    for name, (low, high) in ranges.items():
        if not -math.inf < low <= 0 <= high < math.inf:
            raise ValueError(f"the range of {name} is {low} to {high}")
    shares = (accuracy.float32, accuracy.int8, found.difference)
    if not all(isinstance(share, float | int) and 0 <= share <= 1 for share in shares):
        raise ValueError("an accuracy or the difference is not from 0 to 1")
    if not isinstance(accuracy.split, str) or not isinstance(accuracy.images, int):
        raise ValueError("the images are not described")
    return found
