"""A tiny checkpoint, pictures drawn in code, and real servers."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.novelty_of import novelty_of, plain_images
from tests.server_process import PATIENCE_S, Server, StartServer, running_server
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.uncertainty.answer_sets import AnswerSets, ClassCoverage, SetFigures

# Thresholds of 0.61 for a coverage of 0.5, 0.69 for 0.9: on both sides of 2/3, as the labels' probabilities of 1/3 are.
ANSWER_SETS = AnswerSets(
    scores=tuple(round(0.5 + k / 100, 2) for k in range(1, 21)),
    images=20,
    measured=SetFigures(0.9, 20, 0.95, 1.5, 0.75, ClassCoverage("owl", 5, 0.8)),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def save_random_checkpoint(path: Path, seed: int) -> Path:
    """Save a network with random weights for three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(NetworkConfig("guide", 3))
    header = Header(
        network=NetworkConfig("guide", 3),
        class_names=("cat", "dog", "owl"),
        image_spec=ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        metrics={"test": {"accuracy": 0.5}},
        training={"epochs": 1, "command": "torchlight train /home/someone/photos"},
        data={},
        versions={"torch": "2.15.0"},
        answer_sets=ANSWER_SETS,
    )
    save_checkpoint(path, network, header, novelty=novelty_of(network, header))
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights for three classes."""
    return save_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", seed=0)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with other weights."""
    return save_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", seed=1)


@pytest.fixture(scope="session")
def classifier(tiny_checkpoint: Path) -> Classifier:
    """What the servers serve, in this process."""
    return Classifier(load_checkpoint(tiny_checkpoint), torch.device("cpu"))


def draw(seed: int, image_format: str = "PNG", size: tuple[int, int] = (48, 40)) -> bytes:
    """Return a file of noise; other seeds give other pictures."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    return draw


@pytest.fixture(scope="session")
def photo() -> bytes:
    return draw(seed=0)


@pytest.fixture(scope="session")
def plain_photo() -> bytes:
    """A file of one colour with a little noise, which the tiny network knows; the others are noise."""
    pixels = plain_images(1, 32, seed=3)[0].permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def start_server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start ``torchlight serve`` on a free port, with settings by their names; stopped with the module."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Server:
            usual = {"checkpoint": tiny_checkpoint, "store_dir": tmp_path_factory.mktemp("store")}
            return stack.enter_context(running_server(**usual | settings))

        yield start


@pytest.fixture(scope="session")
def server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with usual settings that all modules share."""
    store = tmp_path_factory.mktemp("store")
    with running_server(checkpoint=tiny_checkpoint, store_dir=store, deadline_s=PATIENCE_S) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as session:
        yield session


@pytest.fixture(scope="session")
def stored(client: httpx2.Client, photo: bytes) -> str:
    """The path of the photo on the server."""
    answer = client.post("/v1/images", files={"file": photo})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"])
