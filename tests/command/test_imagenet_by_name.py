"""`imagenet` in place of a path: on the command line, from Python and in the service, which names its source."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import torchlight
from tests.server_process import PATIENCE_S, running_server
from torchlight.model.errors import CheckpointError
from torchlight.model.named_checkpoints import DIGESTS

SHIP = Path(__file__).parents[2] / "docs" / "pictures" / "ship.jpg"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new user's, in which the file is made once for this module."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "torchlight", *arguments]
    return subprocess.run(program, env=os.environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_command_says_that_it_makes_the_file_and_answers(home: Path) -> None:
    said = command("predict", "imagenet", str(SHIP), "--top-k", "1")
    assert said.returncode == 0
    assert said.stdout.split()[1:4] == ["container", "ship", "98.07%"]
    path = home / ".cache" / "torchlight" / "imagenet.safetensors"
    assert said.stderr == f"imagenet: made once from installed weights, into {path}\n"


def test_service_answers_as_python_does_and_names_source_and_licence(tmp_path: Path) -> None:
    best = torchlight.load("imagenet").predict(SHIP, top_k=5)
    with (
        running_server(checkpoint="imagenet", store_dir=tmp_path, deadline_s=PATIENCE_S) as server,
        httpx2.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        answer = client.post("/v1/predict?top_k=5", files={"file": SHIP.read_bytes()}).json()
        model = client.get("/v1/model").json()
    assert [one["label"] for one in answer["predictions"]] == [one.label for one in best]
    expected = [one.probability for one in best]
    assert [one["probability"] for one in answer["predictions"]] == pytest.approx(expected, abs=1e-5)
    assert (model["name"], model["digest"], len(model["classes"])) == ("imagenet", DIGESTS["imagenet"], 1000)
    assert model["preprocessing"]["resize"] == "centre_crop_bicubic_antialias"
    assert model["training"]["backbone"]["licence"] == "Apache-2.0"
    assert "Google" in model["training"]["backbone"]["source"]


def test_other_names_are_paths() -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint cifar does not exist"):
        torchlight.load("cifar")
