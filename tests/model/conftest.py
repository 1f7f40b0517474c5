"""Small networks with random weights, their checkpoints, and images of noise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchlight.model.checkpoint import Checkpoint, Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.images import ImageSpec
from torchlight.model.network import (
    NetworkConfig,
    build_network,
    default_image_size,
    load_pretrained,
    published_image_spec,
)

MakeClassifier = Callable[..., Classifier]


@pytest.fixture(scope="session")
def make_network() -> Callable[..., nn.Module]:
    """Return a function that builds a network in evaluation mode, its batch norm as if it had seen images."""

    def make(architecture: str = "lenet5", num_classes: int = 3, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(NetworkConfig(architecture, num_classes)).eval()
            for module in network.modules():
                for name, statistic in module.named_buffers(recurse=False):
                    spread = {"running_mean": (-0.3, 0.3), "running_var": (0.5, 2.0)}
                    statistic.data = statistic.uniform_(*spread[name]) if name in spread else statistic
        return network

    return make


@pytest.fixture(scope="session")
def make_header() -> Callable[..., Header]:
    """Return a function that describes a network; arguments replace fields."""

    def make(architecture: str = "lenet5", size: int = 32, **fields: object) -> Header:
        names = fields.pop("class_names", ("cat", "dog", "owl"))
        defaults = {
            "network": NetworkConfig(architecture, len(names)),
            "class_names": names,
            "image_spec": ImageSpec(size, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)),
            "metrics": {"val": {"accuracy": 0.75}},
            "training": {"epochs": 1, "seed": 0},
            "data": {"source": "photos"},
            "versions": {"torch": "2.15.0"},
        }
        return Header(**{**defaults, **fields})

    return make


@pytest.fixture(scope="session")
def make_classifier(
    tmp_path_factory: pytest.TempPathFactory,
    make_network: Callable[..., nn.Module],
    make_header: Callable[..., Header],
) -> MakeClassifier:
    """Return a function that takes a network through its file, as the service does."""

    def make(architecture: str = "lenet5", size: int = 32) -> Classifier:
        path = tmp_path_factory.mktemp("checkpoint") / f"{architecture}.safetensors"
        save_checkpoint(path, make_network(architecture), make_header(architecture, size))
        return Classifier(load_checkpoint(path), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def make_backbone() -> MakeClassifier:
    """Return a function that makes a classifier of 224 pixels with published weights before a random last layer."""

    def make(architecture: str) -> Classifier:
        names = ("cat", "dog", "owl")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_network(NetworkConfig(architecture, len(names))).eval().requires_grad_(False)
        load_pretrained(network, architecture)
        spec = published_image_spec(architecture, default_image_size(architecture))
        header = Header(NetworkConfig(architecture, len(names)), names, spec, {}, {}, {}, {})
        return Classifier(Checkpoint(header, network, "sha256:test", Path("unsaved")), torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def checkpoint_path(
    tmp_path_factory: pytest.TempPathFactory,
    make_network: Callable[..., nn.Module],
    make_header: Callable[..., Header],
) -> Path:
    """A good file: LeNet-5 for three classes. Never to be written to."""
    path = tmp_path_factory.mktemp("checkpoint") / "good.safetensors"
    save_checkpoint(path, make_network(), make_header())
    return path


@pytest.fixture(scope="session")
def noise_images() -> Callable[..., Tensor]:
    """Return a function that gives (N, 3, S, S) uint8 of seeded noise."""

    def make(number: int, size: int = 32, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (number, 3, size, size), generator=generator, dtype=torch.uint8)

    return make
