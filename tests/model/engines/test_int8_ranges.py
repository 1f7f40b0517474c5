"""8 bits: ranges that hold what the layers read, answers near those of float32, a file that fits no other model."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.defaults import PRETRAINED
from torchlight.model.engines import int8_ranges, openvino_network
from torchlight.model.engines.engine import choose_engine, measure_ranges, openvino_engine
from torchlight.model.engines.int8_ranges import (
    Accuracy,
    Quantisation,
    load_quantisation,
    quantisation_path,
    save_quantisation,
)
from torchlight.model.errors import EngineUnavailable, InvalidQuantisation, QuantisationNotFound

MakeClassifier = Callable[..., Classifier]
MEASURED = Accuracy("val", 100, float32=0.9, int8=0.89)


def images_of(number: int, size: int, seed: int = 0) -> Tensor:
    """Return 4 x 4 squares of one colour each."""
    generator = torch.Generator().manual_seed(seed)
    squares = torch.randint(0, 256, (number, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return squares.repeat_interleave(size // 4, dim=2).repeat_interleave(size // 4, dim=3)


def quantised(classifier: Classifier, number: int = 150) -> Quantisation:
    ranges = measure_ranges(classifier, images_of(number, classifier.spec.size))
    return Quantisation(classifier.digest, ranges, MEASURED, difference=0.5)


def test_ranges_are_the_extremes_of_what_each_multiplying_layer_reads(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier("guide")
    images = images_of(150, 32)
    ranges = measure_ranges(classifier, images)
    assert list(ranges) == ["conv1", "conv2", "conv3", "fc"]
    values = classifier.graph.run(classifier.network_input(images), ["relu1", "input"])
    assert ranges["conv2"] == pytest.approx((0.0, values["relu1"].max().item()))
    assert ranges["conv1"] == pytest.approx((values["input"].min().item(), values["input"].max().item()))


@pytest.mark.parametrize(("low", "high"), [(-2.0, 2.1), (0.0, 7.3), (-0.001, 9.0), (-5.0, 0.0), (0.0, 0.0)])
def test_zero_is_a_level(low: float, high: float) -> None:
    moved_low, moved_high = int8_ranges.on_grid(low, high)
    step = (moved_high - moved_low) / 255
    assert step > 0
    assert moved_low / step == pytest.approx(round(moved_low / step), abs=1e-9)
    assert moved_low <= 0 <= moved_high
    assert abs(moved_low - low) <= step
    assert high - moved_high <= step


@pytest.mark.parametrize(
    ("architecture", "size"), [("torchlight", 32), ("guide", 32), ("resnet18", 64), ("mobilenet_v3_small", 64)]
)
def test_answers_are_near_those_of_float32_and_not_the_same(
    architecture: str, size: int, make_classifier: MakeClassifier
) -> None:
    classifier = make_classifier(architecture, size=size)
    images = images_of(20, size, seed=1)
    expected = classifier.probabilities(images)
    chosen = choose_engine(classifier, "auto", quantised(classifier))
    given = chosen.run(images)
    assert given.sum(dim=1) == pytest.approx(1, abs=1e-5)
    assert 1e-6 < (given - expected).abs().max() < 0.05
    assert chosen.difference > 1e-6
    torch.testing.assert_close(torch.cat([chosen.run(image[None]) for image in images]), given, rtol=0, atol=1e-5)


def test_a_range_that_is_too_small_shows_in_the_answers(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier("guide")
    made = quantised(classifier)
    narrow = Quantisation(made.checkpoint, dict(made.ranges) | {"fc": (0.0, 0.01)}, MEASURED, 1.0)
    images = images_of(20, 32, seed=1)
    expected = classifier.probabilities(images)
    wide_error = (openvino_engine(classifier, made).run(images) - expected).abs().max()
    assert (openvino_engine(classifier, narrow).run(images) - expected).abs().max() > 5 * wide_error


def test_int8_computes_padding_within_the_convolution(make_classifier: MakeClassifier) -> None:
    """Padding apart from it would be computed in float32, and slowly."""
    classifier = make_classifier("efficientnet_lite0", size=64)
    openvino = openvino_network.import_openvino()
    network = openvino_network.translate_network(classifier, quantised(classifier, 4))
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    facts = [operation.get_rt_info() for operation in compiled.get_ops()]
    kinds = Counter((fact["layerType"].astype(str), fact["runtimePrecision"].astype(str)) for fact in facts)
    assert kinds["Convolution", "u8"] + kinds["Convolution", "i8"] == 49
    assert "Pad" not in {kind for kind, _ in kinds}


def test_rounded_weights_of_a_filter_have_the_same_sum() -> None:
    rows = torch.randn(50, 25, generator=torch.Generator().manual_seed(0)).numpy() * 30
    rows[0] = range(-12, 13)
    rounded = openvino_network._round_keeping_sums(rows)
    assert (rounded == rounded.round()).all()
    assert abs(rounded - rows).max() < 1
    assert abs(rounded.sum(axis=1) - rows.sum(axis=1)).max() <= 0.5 + 1e-4
    assert (rounded[0] == rows[0]).all()


@pytest.fixture(scope="module")
def shipped() -> Classifier:
    return Classifier(load_checkpoint(PRETRAINED), torch.device("cpu"))


def test_answers_that_differ_more_than_when_they_were_measured_are_refused(shipped: Classifier) -> None:
    made = load_quantisation(shipped)
    wrong = replace(made, ranges=dict.fromkeys(made.ranges, (0.0, 1e-3)))
    with pytest.raises(EngineUnavailable, match="differ from PyTorch's by up to"):
        openvino_engine(shipped, wrong)


def test_pytorch_computes_nothing_in_8_bits(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier("guide")
    with pytest.raises(EngineUnavailable, match="TORCHLIGHT_ENGINE"):
        choose_engine(classifier, "pytorch", quantised(classifier))


def test_the_shipped_network_has_its_file(shipped: Classifier) -> None:
    accuracy = load_quantisation(shipped).accuracy
    assert accuracy.int8 >= accuracy.float32 - 0.003


def test_the_file_is_read_as_it_was_written(make_classifier: MakeClassifier) -> None:
    classifier = make_classifier("guide")
    made = quantised(classifier)
    save_quantisation(quantisation_path(classifier.checkpoint.path), made)
    assert load_quantisation(classifier) == made


def test_without_the_file_it_is_said_how_to_make_it(make_classifier: MakeClassifier) -> None:
    with pytest.raises(QuantisationNotFound, match=r"guide.int8.json does not exist; make one with"):
        load_quantisation(make_classifier("guide"))


BROKEN: dict[str, Callable[[dict[str, object]], object]] = {
    "no object": lambda said: [],
    "no ranges": lambda said: said | {"ranges": {}},
    "a layer more": lambda said: said | {"ranges": said["ranges"] | {"conv9": [0, 1]}},  # type: ignore[operator]
    "a range without 0": lambda said: said | {"ranges": said["ranges"] | {"fc": [1, 2]}},  # type: ignore[operator]
    "an infinite range": lambda said: said | {"ranges": said["ranges"] | {"fc": [0, 1e999]}},  # type: ignore[operator]
    "another checkpoint": lambda said: said | {"checkpoint": "sha256:0"},
    "an accuracy of 90": lambda said: said | {"accuracy": said["accuracy"] | {"int8": 90}},  # type: ignore[operator]
    "a difference of 2": lambda said: said | {"difference": 2},
    "an accuracy of nothing": lambda said: said | {"accuracy": {}},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_does_not_fit_is_refused(
    change: Callable[[dict[str, object]], object], make_classifier: MakeClassifier
) -> None:
    classifier = make_classifier("guide")
    path: Path = quantisation_path(classifier.checkpoint.path)
    save_quantisation(path, quantised(classifier))
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(InvalidQuantisation, match=str(path)):
        load_quantisation(classifier)
