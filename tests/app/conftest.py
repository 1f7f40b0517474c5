"""A tiny checkpoint, pictures drawn in code, and real servers."""

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image

from torchlight.model import checkpoint
from torchlight.model.checkpoint import Header
from torchlight.model.classifier import Classifier
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120  # machines that run tests are busy


@dataclass(frozen=True)
class Server:
    """A running process; ``url`` is what its greeting says."""

    process: subprocess.Popen[str]
    greeting: str
    url: str
    log: "Log"


class Log:
    """What a process has written to standard output."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._text, self._changed = stream, "", threading.Condition()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def wait_for(self, pattern: str, number: int = 1) -> list[re.Match[str]]:
        """Return what the pattern finds, once it finds so much."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._find(pattern, number), PATIENCE_S)
            assert found, self._text
            return found

    def _find(self, pattern: str, number: int) -> list[re.Match[str]]:
        found = list(re.finditer(pattern, self._text))
        return found if len(found) >= number else []

    def _follow(self) -> None:
        for line in self._stream:
            with self._changed:
                self._text += line
                self._changed.notify_all()


StartServer = Callable[..., Server]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def save_checkpoint(path: Path, seed: int) -> Path:
    """Save a network with random weights for three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(NetworkConfig("guide", 3))
    header = Header(
        network=NetworkConfig("guide", 3),
        class_names=("cat", "dog", "owl"),
        image_spec=ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        metrics={"test": {"accuracy": 0.5}},
        training={"epochs": 1, "command": "torchlight train /home/someone/photos"},
        data={},
        versions={"torch": "2.15.0"},
    )
    checkpoint.save(path, network, header)
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights for three classes."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", seed=0)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with other weights."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", seed=1)


@pytest.fixture(scope="session")
def classifier(tiny_checkpoint: Path) -> Classifier:
    """What the servers serve, in this process."""
    return Classifier(checkpoint.load(tiny_checkpoint), torch.device("cpu"))


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
def start_server(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start ``torchlight serve`` on a free port, with settings by their names; stopped at the end."""

    def start(stdin: int = subprocess.DEVNULL, **settings: object) -> Server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLIGHT_")}
        defaults = {"device": "cpu", "store_dir": tmp_path_factory.mktemp("store"), "checkpoint": tiny_checkpoint}
        settings = defaults | settings
        environment |= {f"TORCHLIGHT_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, "-m", "torchlight", "serve", "--port", "0"]
        streams = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env=environment, text=True, process_group=0, **streams)
        )
        assert process.stderr is not None
        assert process.stdout is not None
        log = Log(process.stdout)
        stack.callback(log.close)
        stack.callback(process.terminate)
        greeting = process.stderr.readline()
        found = re.search(r"(http://\S+)/$", greeting, re.MULTILINE)
        assert found, greeting + process.stderr.read()
        while httpx2.get(f"{found[1]}/readyz", timeout=PATIENCE_S).status_code != 200:
            assert process.poll() is None
        return Server(process, greeting, found[1], log)

    with ExitStack() as stack:
        yield start


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> Server:
    return start_server(deadline_s=PATIENCE_S)


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
