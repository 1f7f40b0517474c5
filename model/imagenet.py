"""The checkpoint ``imagenet``: EfficientNet-Lite0 as it was published, with readable names and calibrated.

    python -m torchlight.model.imagenet FILE.safetensors

Its card is ``model/pretrained/IMAGENET_CARD.md``. The same bytes come out each time: all but the weights is written
down here and in ``model/pretrained/imagenet.json``.
"""

import json
import sys
from pathlib import Path

from torch import nn

from torchlight.model.checkpoint import Header, save_checkpoint
from torchlight.model.defaults import PRETRAINED
from torchlight.model.errors import CheckpointError, TorchlightError
from torchlight.model.files.atomic import write_bytes
from torchlight.model.files.tensor_file import FileKind, read_tensors
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    classifier_head,
    default_image_size,
    describe_backbone,
    load_pretrained,
    published_image_spec,
)
from torchlight.model.published_weights import PUBLICATIONS
from torchlight.model.uncertainty.novelty import from_tensors

ARCHITECTURE = "efficientnet_lite0"
NOVELTY = PRETRAINED.with_name("imagenet.novelty.safetensors")  # made by benchmarks/imagenet_novelty.py
NOVELTY_KIND = FileKind(
    noun="novelty",
    command="python -m benchmarks.imagenet_novelty",
    format="torchlight-novelty",
    version="1",
    documents=("facts",),
    error=CheckpointError,
)
FACTS = PRETRAINED.with_name("imagenet.json")  # torchvision's names of the classes, and the answer to the canary image
# Fitted on 304 photos of ants, bees and daisies, measured on 213 others: benchmarks/imagenet_photos.py. Below 1, since
# label smoothing in training leaves a network less sure than it is right.
CALIBRATION = {
    "temperature": 0.757,
    "ece_before": 0.1679,
    "ece_after": 0.0827,
    "ece_by_chance": 0.0584,
    "nll_before": 0.9188,
    "nll_after": 0.8045,
    "images": 213,
}


def build_published_network() -> nn.Module:
    """Return the network with the published weights, in evaluation mode, before :func:`make_imagenet` calibrates it."""
    network = build_network(NetworkConfig(ARCHITECTURE, 1000)).eval()
    load_pretrained(network, ARCHITECTURE)
    return network.requires_grad_(False)


def read_class_names() -> tuple[str, ...]:
    """Return the names of the thousand classes, in the order of the outputs."""
    return tuple(json.loads(FACTS.read_text())["class_names"])


def build_imagenet() -> tuple[nn.Module, Header]:
    """Return the calibrated network and what the checkpoint says of it.

    Raises:
        WeightsNotInstalled, WeightsDamaged: see :func:`model.published_weights.read_weights`.
    """
    network = build_published_network()
    head = classifier_head(network)
    assert head.bias is not None
    head.weight /= CALIBRATION["temperature"]
    head.bias /= CALIBRATION["temperature"]
    return network, Header(
        network=NetworkConfig(ARCHITECTURE, 1000),
        class_names=read_class_names(),
        image_spec=published_image_spec(ARCHITECTURE, default_image_size(ARCHITECTURE)),
        metrics={
            "ImageNet's validation photos, as published": {"accuracy": 0.751},
            "calibration": CALIBRATION,
        },
        training={"backbone": describe_backbone(ARCHITECTURE)},
        data={"source": "ImageNet (ILSVRC 2012)"},
        versions=dict([PUBLICATIONS[ARCHITECTURE].package.split("==")]),
        golden=tuple(json.loads(FACTS.read_text())["golden"]),
    )


def make_imagenet(path: Path) -> None:
    """Write the checkpoint, and beside it what is beside ``FACTS``: int8 ranges, the result of the self-test.

    Raises:
        WeightsNotInstalled, WeightsDamaged: see :func:`build_imagenet`.
        OSError: the folder cannot be written.
    """
    network, header = build_imagenet()
    found = read_tensors(NOVELTY, NOVELTY_KIND)
    path.parent.mkdir(parents=True, exist_ok=True)
    for sidecar in FACTS.parent.glob(f"{FACTS.stem}.*.json"):
        write_bytes(path.with_name(path.stem + sidecar.name.removeprefix(FACTS.stem)), sidecar.read_bytes())
    save_checkpoint(path, network, header, novelty=from_tensors(found.tensors, 1000, found.documents["facts"]))


def main() -> None:
    """Write the file that the command line names; if that fails, say why in one line."""
    try:
        make_imagenet(Path(sys.argv[1]))
    except (TorchlightError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
