"""Photos -> what a published network says of them before its last layer, and a last layer put on again.

The network is the multilevel form of a backbone without ``fc``: it gives the means of two earlier maps over 4x4 places
and the means of the last map, one after the other.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from torchlight.model import efficientnet_lite, images
from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.classifier import Classifier
from torchlight.model.efficientnet_lite import MULTILEVEL, feature_sizes
from torchlight.model.engines import engine, openvino_network
from torchlight.model.engines.engine import layer_outputs
from torchlight.model.images import ImageSpec
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    default_image_size,
    describe_backbone,
    load_pretrained,
    published_image_spec,
)
from torchlight.model.versions import library_versions

BATCH = 8  # photos at a time: more are slower on two cores, see docs/log.md


@dataclass(frozen=True)
class Backbone:
    """A published network.

    Attributes:
        architecture: a name in ``model.efficientnet_lite.SIZES``.
        network: its multilevel form with published weights, in evaluation mode; ``fc`` knows nothing yet.
        spec: how photos become its input.
        blocks: the columns of each part of the features, by name: ``level1``, ``level2`` and ``last``.
        digest: of the published file, and of the code and the libraries that compute features with it.
    """

    architecture: str
    network: nn.Sequential
    spec: ImageSpec
    blocks: dict[str, slice]
    digest: str


def load_backbone(architecture: str) -> Backbone:
    """Return a backbone with its published weights.

    Raises:
        NetworkError: the package that holds them is missing or damaged.
    """
    name = architecture + MULTILEVEL
    network = build_network(NetworkConfig(name, 2)).eval().requires_grad_(False)
    assert isinstance(network, nn.Sequential)
    load_pretrained(network, name)
    blocks, start = {}, 0
    for block, size in feature_sizes(name).items():
        blocks[block], start = slice(start, start + size), start + size
    spec = published_image_spec(name, default_image_size(name))
    return Backbone(architecture, network, spec, blocks, _digest(architecture))


def _digest(architecture: str) -> str:
    modules = (efficientnet_lite, engine, openvino_network, images)
    code = [Path(__file__).read_bytes(), *(Path(str(module.__file__)).read_bytes() for module in modules)]
    versions = library_versions(*(name for name in ("torch", "openvino") if find_spec(name)))
    known = [describe_backbone(architecture)["sha256"].encode(), str(versions).encode(), *code]
    return hashlib.sha256(b"\0".join(known)).hexdigest()


def compile_features(backbone: Backbone, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a function from images (n, 3, S, S) uint8 RGB to their features (n, D) float32, on the CPU."""
    header = Header(NetworkConfig(backbone.architecture + MULTILEVEL, 2), ("", " "), backbone.spec, {}, {}, {}, {})
    classifier = Classifier(Checkpoint(header, backbone.network, "", Path("backbone")), device)
    compute = layer_outputs(classifier, ["level1.flatten", "level2.flatten", "flatten"])
    return lambda images: torch.cat(compute(images), 1)


def extract_features(
    compute: Callable[[Tensor], Tensor], images: Tensor, on_photo: Callable[[int, int], None]
) -> Tensor:
    """Return the features (N, D) float32 of many images, a few at a time.

    Args:
        compute: as :func:`compile_features` returns it.
        images: (N, 3, S, S) uint8 RGB, by the backbone's spec.
        on_photo: called after each batch with how many photos are done and how many there are.
    """
    parts: list[Tensor] = []
    for start in range(0, len(images), BATCH):
        parts.append(compute(images[start : start + BATCH]))
        on_photo(min(start + BATCH, len(images)), len(images))
    return torch.cat(parts)


def attach_head(backbone: Backbone, weight: Tensor, bias: Tensor) -> tuple[str, nn.Module]:
    """Return the network with a last layer on all features, and its architecture.

    Where the layer reads nothing of the levels, that is the plain network without them.

    Args:
        weight: (K, D).
        bias: (K,).
    """
    is_plain = not weight[:, : backbone.blocks["last"].start].any()
    name = backbone.architecture if is_plain else backbone.architecture + MULTILEVEL
    network = build_network(NetworkConfig(name, len(weight))).eval()
    state = {key: value for key, value in backbone.network.state_dict().items() if not key.startswith("fc.")}
    state["fc.weight"] = weight[:, backbone.blocks["last"]].contiguous() if is_plain else weight
    network.load_state_dict(state | {"fc.bias": bias})
    return name, network
