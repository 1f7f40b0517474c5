"""A service in int8: what it answers, what it says of itself, and what its views say of what they show."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from tests.app.conftest import save_random_checkpoint
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import measure_ranges
from torchlight.model.engines.int8_ranges import Accuracy, Quantisation, quantisation_path, save_quantisation
from torchlight.model.errors import QuantisationNotFound
from torchlight.model.images import prepare_image

ACCURACY = Accuracy("val (held out of its training data)", 5000, float32=0.9062, int8=0.9060)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the file that int8 takes."""
    path = save_random_checkpoint(tmp_path_factory.mktemp("int8") / "tiny.safetensors", seed=0)
    classifier = Classifier(load_checkpoint(path), torch.device("cpu"))
    size = classifier.spec.size
    noise = torch.randint(0, 256, (50, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Quantisation(classifier.digest, measure_ranges(classifier, noise), ACCURACY, 0.1)
    save_quantisation(quantisation_path(path), made)
    return path


@pytest.fixture(scope="module")
def int8_service(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(checkpoint=path, precision="int8", store_dir=tmp_path_factory.mktemp("store"))
    with TestClient(create_app(settings)) as client:
        yield client


def test_answers_are_the_engines_and_near_float32s(int8_service: TestClient, path: Path, photo: bytes) -> None:
    given = {
        one["label"]: one["probability"]
        for one in int8_service.post("/v1/predict", files={"file": photo}).json()["predictions"]
    }
    classifier = Classifier(load_checkpoint(path), torch.device("cpu"))
    exact = classifier.probabilities(prepare_image(photo, classifier.spec.resizing)[0][None])[0]
    expected = dict(zip(classifier.class_names, exact.tolist(), strict=True))
    assert given == pytest.approx(expected, abs=0.05)
    assert given != pytest.approx(expected, abs=1e-7)


def test_it_says_so_and_what_that_costs(int8_service: TestClient) -> None:
    engine = int8_service.get("/v1/model").json()["engine"]
    assert engine["precision"] == "int8"
    assert engine["accuracy"] == vars(ACCURACY)
    assert engine["name"].startswith("openvino")
    assert engine["difference"] > 0


def test_views_say_that_they_explain_float32(int8_service: TestClient, photo: bytes) -> None:
    said = "the float32 network; answers are int8, see /v1/model"
    stored = int8_service.post("/v1/images", files={"file": photo}).json()["id"]
    answers = [
        int8_service.get(f"/v1/images/{stored}/prediction"),
        int8_service.get(f"/v1/images/{stored}/input.png"),
        int8_service.post("/v1/activations", files={"file": photo}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers["X-Explains"] for answer in answers] == [said] * 3
    pictures = [Image.open(io.BytesIO(answer.content)) for answer in answers[1:]]
    assert all(said in picture.text.values() for picture in pictures)  # type: ignore[attr-defined]


def test_in_float32_nothing_is_said(tiny_checkpoint: Path, photo: bytes) -> None:
    with TestClient(create_app(Settings(checkpoint=tiny_checkpoint))) as client:
        engine = client.get("/v1/model").json()["engine"]
        assert (engine["precision"], engine["accuracy"]) == ("float32", None)
        assert "X-Explains" not in client.post("/v1/activations", files={"file": photo}).headers


def test_without_the_file_the_service_does_not_start(tiny_checkpoint: Path) -> None:
    with pytest.raises(QuantisationNotFound, match="torchlight quantise"):
        create_app(Settings(checkpoint=tiny_checkpoint, precision="int8"))
