"""The Python door, ``torchlight.load``: a path or bytes in, the service's answer out."""

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import torchlight
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.image_classifier import ImageClassifier
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint
from torchlight.model.classifier import Prediction
from torchlight.model.defaults import PRETRAINED
from torchlight.model.errors import CheckpointNotFound, UnknownImageFormat
from torchlight.model.uncertainty.answer_sets import AnswerSets, ClassCoverage, SetFigures

SHIP = Path(__file__).parents[2] / "docs" / "pictures" / "ship.jpg"


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    return torchlight.load(str(PRETRAINED))


def test_answers_are_those_of_the_service(classifier: ImageClassifier, tmp_path: Path) -> None:
    settings = Settings(checkpoint=PRETRAINED, device="cpu", store_dir=tmp_path)
    with TestClient(create_app(settings)) as client:
        response = client.post("/v1/predict", content=SHIP.read_bytes(), headers={"Content-Type": "image/jpeg"})
    answered = response.json()["predictions"]
    predictions = classifier.predict(SHIP)
    assert [one["label"] for one in answered] == [one.label for one in predictions]
    assert [one["index"] for one in answered] == [one.index for one in predictions]
    assert [one["probability"] for one in answered] == pytest.approx([one.probability for one in predictions], abs=1e-6)


def test_path_string_and_bytes_are_answered_alike_most_probable_first(classifier: ImageClassifier) -> None:
    best = classifier.predict(SHIP, top_k=2)
    assert [type(one) for one in best] == [Prediction, Prediction]
    assert best == classifier.predict(str(SHIP), top_k=2) == classifier.predict(SHIP.read_bytes())[:2]
    assert best[0].label == classifier.class_names[best[0].index] == "ship"
    assert best[0].probability >= best[1].probability
    assert sum(one.probability for one in classifier.predict(SHIP)) == pytest.approx(1)
    assert set(asdict(best[0])) == {"label", "index", "probability"}


def test_a_set_holds_the_labels_that_are_likely_enough(tmp_path: Path) -> None:
    loaded = load_checkpoint(PRETRAINED)
    figures = SetFigures(0.9, 9, 1.0, 2.0, 0.0, ClassCoverage("cat", 9, 1.0))
    sets = AnswerSets(tuple([0.1] * 8 + [0.99999]), 9, figures)
    path = tmp_path / "with_sets.safetensors"
    save_checkpoint(path, loaded.network, replace(loaded.header, answer_sets=sets))
    classifier = torchlight.load(path)
    likely = [one.label for one in classifier.predict(SHIP) if 1 - one.probability <= 0.99999]
    assert classifier.predict_set(SHIP) == likely
    assert classifier.predict_set(SHIP, coverage=0.5) == ["ship"]
    with pytest.raises(ValueError, match=r"coverage is 1, not from 0\.5 to below 1"):
        classifier.predict_set(SHIP, coverage=1)


def test_a_checkpoint_of_an_older_program_gives_none(tmp_path: Path) -> None:
    loaded = load_checkpoint(PRETRAINED)
    save_checkpoint(tmp_path / "old.safetensors", loaded.network, replace(loaded.header, answer_sets=None))
    old = torchlight.load(tmp_path / "old.safetensors")
    assert old.predict_set(SHIP) is None
    assert old.p_value(SHIP) is None


def test_how_strange_an_image_is_comes_as_a_number(classifier: ImageClassifier) -> None:
    p_value = classifier.p_value(SHIP)
    assert p_value is not None
    assert 0.05 < p_value <= 1


def test_what_is_wrong_is_named(classifier: ImageClassifier, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match=r"absent\.safetensors"):
        torchlight.load(tmp_path / "absent.safetensors")
    with pytest.raises(UnknownImageFormat):
        classifier.predict(b"no picture")
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg"):
        classifier.predict(tmp_path / "absent.jpg")


def test_importing_the_package_loads_no_torch() -> None:
    program = "import sys, torchlight; sys.exit('torch' in sys.modules or torchlight.__all__ != ['load'])"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
