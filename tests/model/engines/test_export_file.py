"""An exported file answers as the classifier does, says how to feed it, and is never left half right."""

import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from torchlight.model import checkpoint
from torchlight.model.checkpoint import Header
from torchlight.model.classifier import Classifier
from torchlight.model.engines import export_file, parity
from torchlight.model.engines.export_file import export_network
from torchlight.model.errors import ExportError

MakeClassifier = Callable[..., Classifier]


def run_onnx(path: Path, images: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(probabilities)


def run_program(path: Path, images: Tensor) -> Tensor:
    return torch.export.load(path).module()(images)


RUN = {".onnx": run_onnx, ".pt2": run_program}


def onnx_metadata(path: Path) -> dict[str, str]:
    return {one.key: one.value for one in onnx.load(path).metadata_props}


def program_metadata(path: Path) -> dict[str, str]:
    texts = dict.fromkeys(("network", "class_names", "image_spec", "versions", "digest"), "")
    torch.export.load(path, extra_files=texts)
    return texts


METADATA = {".onnx": onnx_metadata, ".pt2": program_metadata}


class Exported(NamedTuple):
    classifier: Classifier
    path: Path
    difference: float


ExportOnce = Callable[..., Exported]


@pytest.fixture(scope="module")
def export_once(make_classifier: MakeClassifier, tmp_path_factory: pytest.TempPathFactory) -> ExportOnce:
    """Return a function that exports a network, once for each architecture and format. Its files are only read."""

    @cache
    def export(suffix: str, architecture: str, size: int) -> Exported:
        classifier, path = make_classifier(architecture, size), tmp_path_factory.mktemp("exported") / f"network{suffix}"
        return Exported(classifier, path, export_network(classifier, path))

    return export


@pytest.mark.parametrize("suffix", export_file.FORMATS)
@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("torchlight", 32),
        ("lenet5", 32),
        pytest.param("guide", 32, marks=pytest.mark.slow),
        pytest.param("resnet18", 32, marks=pytest.mark.slow),
        pytest.param("mobilenet_v3_small", 40, marks=pytest.mark.slow),
    ],
)
def test_the_file_answers_as_the_classifier_does_for_any_number_of_images(
    export_once: ExportOnce, noise_images: Callable[..., Tensor], architecture: str, size: int, suffix: str
) -> None:
    classifier, path, difference = export_once(suffix, architecture, size)
    assert difference <= parity.TOLERANCE
    for number in (1, 2, 5):
        images = noise_images(number, size, seed=number)
        torch.testing.assert_close(
            RUN[suffix](path, images), classifier.probabilities(images), atol=parity.TOLERANCE, rtol=0
        )


@pytest.mark.parametrize("suffix", export_file.FORMATS)
def test_the_metadata_says_how_to_prepare_an_image_and_what_the_outputs_are(
    export_once: ExportOnce, suffix: str
) -> None:
    classifier, path, _ = export_once(suffix, "lenet5", 32)
    texts = METADATA[suffix](path)
    assert texts["digest"] == classifier.digest
    assert json.loads(texts["class_names"]) == ["cat", "dog", "owl"]
    assert json.loads(texts["network"]) == {"architecture": "lenet5", "num_classes": 3}
    assert json.loads(texts["versions"])["torch"] == "2.15.0"
    assert json.loads(texts["image_spec"]) == {
        "size": 32,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.25, 0.2, 0.3],
        "resize": "centre_square_bilinear_antialias",
    }


def test_onnx_names_its_input_its_output_and_the_free_axis(export_once: ExportOnce) -> None:
    path = export_once(".onnx", "lenet5", 32).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (images,), (probabilities,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 32, 32])
    assert (probabilities.name, probabilities.type) == ("probabilities", "tensor(float)")
    assert probabilities.shape == ["batch", 3]


def test_a_fixed_batch_takes_exactly_one_image(
    tmp_path: Path, make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier = make_classifier()
    export_network(classifier, tmp_path / "one.onnx", dynamic_batch=False)
    export_network(classifier, tmp_path / "one.pt2", dynamic_batch=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "one.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, 32, 32]
    images = noise_images(1)
    torch.testing.assert_close(run_program(tmp_path / "one.pt2", images), classifier.probabilities(images))
    with pytest.raises(AssertionError, match="size"):
        run_program(tmp_path / "one.pt2", noise_images(2))


@pytest.mark.parametrize("suffix", export_file.FORMATS)
def test_a_file_that_answers_otherwise_is_not_kept(
    tmp_path: Path, make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    forward = export_file.ServedFunction.forward
    monkeypatch.setattr(export_file.ServedFunction, "forward", lambda self, images: forward(self, images) + 0.001)
    with pytest.raises(ExportError, match=r"differ from the network's by up to 0\.001; the limit is 0\.0001"):
        export_network(make_classifier(), tmp_path / f"network{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_not_a_number_is_not_kept(
    tmp_path: Path, make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = export_file.ServedFunction.forward
    monkeypatch.setattr(
        export_file.ServedFunction, "forward", lambda self, images: forward(self, images) * float("nan")
    )
    with pytest.raises(ExportError, match="by up to nan"):
        export_network(make_classifier(), tmp_path / "network.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_stays_unless_told_otherwise(tmp_path: Path, make_classifier: MakeClassifier) -> None:
    path = tmp_path / "network.pt2"
    path.write_bytes(b"older")
    with pytest.raises(ExportError, match="exists; choose another name, or overwrite it with --force"):
        export_network(make_classifier(), path)
    assert path.read_bytes() == b"older"
    export_network(make_classifier(), path, overwrite=True)
    assert path.read_bytes() != b"older"


def test_another_suffix_is_refused_by_name(tmp_path: Path, make_classifier: MakeClassifier) -> None:
    with pytest.raises(ExportError, match=r"ends in '\.pth'; the formats are \.onnx and \.pt2"):
        export_network(make_classifier(), tmp_path / "network.pth")


def test_a_missing_package_is_named_with_the_way_to_install_it(
    tmp_path: Path, make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    with pytest.raises(ExportError, match="missing: onnxruntime; install with `pip install onnx onnxscript onnxrun"):
        export_network(make_classifier(), tmp_path / "network.onnx")
    export_network(make_classifier(), tmp_path / "network.pt2")  # needs none of them


class DependsOnContent(nn.Module):
    """A network whose path depends on the pixels, which no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 3) if x.sum() > 0 else torch.ones(len(x), 3)


def test_a_network_that_cannot_be_exported_is_one_line(tmp_path: Path, make_header: Callable[..., Header]) -> None:
    loaded = checkpoint.Checkpoint(make_header(), DependsOnContent(), "sha256:0", tmp_path / "none")
    with pytest.raises(ExportError, match=r"^lenet5 cannot be exported to \.pt2 \([^\n]+\)$"):
        export_network(Classifier(loaded, torch.device("cpu")), tmp_path / "network.pt2")
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_served_network_as_it_was(
    tmp_path: Path, make_classifier: MakeClassifier, noise_images: Callable[..., Tensor]
) -> None:
    classifier, images = make_classifier("torchlight"), noise_images(3)
    before = classifier.probabilities(images)
    export_network(classifier, tmp_path / "network.pt2")
    assert torch.equal(classifier.probabilities(images), before)
    assert classifier.network.conv2.weight.is_contiguous(memory_format=torch.channels_last)
