"""One file: it gives back exactly what went in, or says in one line what is wrong with it."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn

from tests.novelty_of import novelty_of
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.errors import (
    CheckpointError,
    CheckpointNotFound,
    CheckpointTruncated,
    ForeignFile,
    InvalidHeader,
    UnsupportedVersion,
    WeightsMismatch,
)
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig
from torchlight.model.views.embedding import embed

Change = Callable[[bytes], bytes]


def read_metadata(content: bytes) -> dict[str, str]:
    """Return the header's text fields, read by the published layout: 8 bytes of length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def edited(fields: Callable[[dict[str, str]], dict[str, str]], tensors: Callable[..., dict[str, Tensor]]) -> Change:
    """Return a change that writes a well-formed file with other text fields and tensors."""
    return lambda content: safetensors.torch.save(
        tensors(safetensors.torch.load(content)), fields(read_metadata(content))
    )


def with_field(name: str, value: object) -> Change:
    """Return a change that sets a text field to the JSON of ``value``."""
    return edited(lambda fields: fields | {name: json.dumps(value)}, lambda tensors: tensors)


def with_text(name: str, text: str) -> Change:
    return edited(lambda fields: fields | {name: text}, lambda tensors: tensors)


def without_field(name: str) -> Change:
    return edited(lambda fields: {k: v for k, v in fields.items() if k != name}, lambda tensors: tensors)


def with_spec(**values: object) -> Change:
    """Return a change that replaces members of ``image_spec``."""
    good = {
        "size": 32,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "resize": "centre_square_bilinear_antialias",
    }
    return with_field("image_spec", good | values)


def with_tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    return edited(lambda fields: fields, change)


def for_four_classes(good: bytes) -> bytes:
    """Return the file with a fourth class in its header only."""
    renamed = with_field("class_names", ["cat", "dog", "owl", "yak"])(good)
    return with_field("network", {"architecture": "lenet5", "num_classes": 4})(renamed)


def container(header: object, tensor_bytes: bytes = b"") -> bytes:
    """Return the layout of a .safetensors file around any JSON."""
    document = json.dumps(header).encode()
    return len(document).to_bytes(8, "little") + document + tensor_bytes


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def torch_saved(value: object, *, as_zip: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


def test_same_logits_after_save_and_load(
    make_network: Callable[..., nn.Module],
    make_header: Callable[..., Header],
    noise_images: Callable[..., Tensor],
    tmp_path: Path,
) -> None:
    network = make_network("torchlight")
    save_checkpoint(tmp_path / "file", network, make_header("torchlight"))
    loaded = load_checkpoint(tmp_path / "file").network
    images = noise_images(4).float() / 255
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize("architecture", ["guide", "lenet5", "resnet18", "mobilenet_v3_small", "googlenet"])
def test_every_tensor_comes_back_bit_for_bit(
    architecture: str, make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    network = make_network(architecture)
    save_checkpoint(tmp_path / "file", network, make_header(architecture))
    loaded = load_checkpoint(tmp_path / "file").network
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.state_dict().items())
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_header_comes_back(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    header = make_header(class_names=("Käfer", "猫", '🦉 owl\n"quoted"'))
    save_checkpoint(tmp_path / "file", make_network(), header)
    assert load_checkpoint(tmp_path / "file").header == header


def test_loaded_network_is_ready_to_answer_and_cannot_be_trained_by_accident(checkpoint_path: Path) -> None:
    network = load_checkpoint(checkpoint_path).network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_equal_input_gives_equal_bytes(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    network = make_network("torchlight")
    save_checkpoint(tmp_path / "a", network, make_header("torchlight"))
    save_checkpoint(tmp_path / "b", network.to(memory_format=torch.channels_last), make_header("torchlight"))
    save_checkpoint(tmp_path / "c", make_network("torchlight"), make_header("torchlight"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_digest_is_that_of_the_file_and_changes_with_its_header(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "a", make_network(), make_header())
    save_checkpoint(tmp_path / "b", make_network(), make_header(class_names=("cat", "dog", "oWl")))
    first, second = (load_checkpoint(tmp_path / name).digest for name in "ab")
    assert first == "sha256:" + hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert first != second


@pytest.mark.parametrize("change", [lambda good: bytes(len(good)), lambda good: b""], ids=["overwritten", "cut"])
def test_what_happens_to_the_file_later_changes_nothing(
    change: Change, checkpoint_path: Path, noise_images: Callable[..., Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(checkpoint_path.read_bytes())
    loaded = load_checkpoint(path)
    images = noise_images(1).float()
    before = loaded.network(images)
    path.write_bytes(change(path.read_bytes()))  # in place, not a new file of that name
    assert torch.equal(loaded.network(images), before)
    assert loaded.digest == load_checkpoint(checkpoint_path).digest


def test_file_that_the_disk_does_not_give_is_one_line(checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(checkpoint_path)
    assert str(caught.value) == f"checkpoint {checkpoint_path} cannot be read (Permission denied)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_weights_load_as_float32(
    dtype: torch.dtype, make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    network = make_network("torchlight").to(dtype)
    save_checkpoint(tmp_path / "file", network, make_header("torchlight"))
    loaded = load_checkpoint(tmp_path / "file").network.state_dict()
    expected = network.state_dict()
    assert {value.dtype for value in loaded.values()} == {
        torch.float32,
        torch.int64,
    }  # int64: batches that were counted
    assert all(torch.equal(value, expected[name].to(value.dtype)) for name, value in loaded.items())


@pytest.fixture
def with_novelty(make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path) -> Path:
    network, header, path = make_network(), make_header(), tmp_path / "novelty.safetensors"
    save_checkpoint(path, network, header, novelty=novelty_of(network, header))
    return path


def test_what_tells_the_unknown_comes_back(with_novelty: Path, noise_images: Callable[..., Tensor]) -> None:
    loaded = load_checkpoint(with_novelty)
    saved = novelty_of(loaded.network, loaded.header)
    assert loaded.novelty is not None
    assert loaded.novelty.facts == saved.facts
    embeddings = embed(Classifier(loaded, torch.device("cpu")), noise_images(4))
    given, expected = (one.measure(embeddings, torch.full((4, 3), 1 / 3)) for one in (loaded.novelty, saved))
    assert [(a == b).all() for a, b in zip(given, expected, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (without_field("novelty"), WeightsMismatch, "header field 'novelty' is None"),
        (with_field("novelty", {"images": 3}), WeightsMismatch, "header field 'novelty' is {'images': 3}"),
        (with_tensors(lambda tensors: without(tensors, "novelty.mean")), WeightsMismatch, "'mean' is missing"),
        (with_tensors(lambda tensors: cut(tensors, 10)), WeightsMismatch, "embeddings of 10 numbers, .* have 84"),
    ],
    ids=["no facts", "other facts", "a tensor missing", "another network's"],
)
def test_novelty_that_does_not_fit_is_refused(
    change: Change, error: type[CheckpointError], says: str, with_novelty: Path
) -> None:
    with_novelty.write_bytes(change(with_novelty.read_bytes()))
    with pytest.raises(error, match=says):
        load_checkpoint(with_novelty)


def without(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if key != name}


def cut(tensors: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Return the tensors of a network whose embeddings have fewer numbers."""
    mean, directions = tensors["novelty.mean"][:size], tensors["novelty.directions"][:, :size]
    return tensors | {"novelty.mean": mean.clone(), "novelty.directions": directions.clone()}


def test_header_is_exactly_this_text(make_network: Callable[..., nn.Module], tmp_path: Path) -> None:
    header = Header(
        network=NetworkConfig("lenet5", 2),
        class_names=("zebra", "äpfel"),
        image_spec=ImageSpec(32, (0.5, 0.25, 0.125), (0.25, 0.5, 1.0)),
        metrics={"val": {"accuracy": 0.75}, "best_epoch": 3},
        training={"seed": 0, "epochs": 4},
        data={"source": "photos", "images": {"val": 1, "train": 8}},
        versions={"torch": "2.15.0", "python": "3.11.2"},
    )
    save_checkpoint(tmp_path / "file", make_network("lenet5", 2), header)
    assert read_metadata((tmp_path / "file").read_bytes()) == {
        "format": "torchlight",
        "format_version": "1",
        "network": '{"architecture": "lenet5", "num_classes": 2}',
        "class_names": '["zebra", "äpfel"]',
        "image_spec": '{"mean": [0.5, 0.25, 0.125], "resize": "centre_square_bilinear_antialias", "size": 32, '
        '"std": [0.25, 0.5, 1.0]}',
        "metrics": '{"best_epoch": 3, "val": {"accuracy": 0.75}}',
        "training": '{"epochs": 4, "seed": 0}',
        "data": '{"images": {"train": 8, "val": 1}, "source": "photos"}',
        "versions": '{"python": "3.11.2", "torch": "2.15.0"}',
    }


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_file_loads_whatever_the_length_of_its_header(
    padding: int, make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    """The first byte of the file is the low byte of that length: all values that alignment allows come up here."""
    header = make_header(training={"command": "x" * padding})
    save_checkpoint(tmp_path / "file", make_network(), header)
    assert load_checkpoint(tmp_path / "file").header == header


def test_file_is_plain_safetensors_that_other_tools_read(
    checkpoint_path: Path, make_network: Callable[..., nn.Module]
) -> None:
    tensors = safetensors.torch.load_file(checkpoint_path)
    assert all(torch.equal(tensors[name], value) for name, value in make_network().state_dict().items())


def test_save_makes_the_folder_and_leaves_nothing_else_in_it(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    path = tmp_path / "new" / "folder" / "file.safetensors"
    save_checkpoint(path, make_network(), make_header())
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_save_replaces_an_older_file(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    save_checkpoint(path, make_network(seed=1), make_header())
    save_checkpoint(path, make_network(seed=2), make_header())
    expected = make_network(seed=2).state_dict()["conv1.weight"]
    assert torch.equal(load_checkpoint(path).network.state_dict()["conv1.weight"], expected)


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=["disk full", "interrupted"])
def test_failing_write_leaves_the_old_file_and_no_temporary(
    step: str,
    error: BaseException,
    make_network: Callable[..., nn.Module],
    make_header: Callable[..., Header],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"the old one")

    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        save_checkpoint(path, make_network(), make_header())
    assert path.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_header_that_is_not_json_is_refused_before_anything_is_written(
    make_network: Callable[..., nn.Module], make_header: Callable[..., Header], tmp_path: Path
) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "file", make_network(), make_header(metrics={"val": object()}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        pytest.param(lambda good: b"", CheckpointTruncated, "0 bytes", id="empty"),
        pytest.param(lambda good: good[:5], CheckpointTruncated, "5 bytes", id="five bytes"),
        pytest.param(lambda good: good[:8], CheckpointTruncated, "8 bytes", id="only the length"),
        pytest.param(lambda good: good[:200], CheckpointTruncated, "200 bytes", id="cut in the header"),
        pytest.param(lambda good: good[:-1], CheckpointTruncated, "copy it again", id="last byte missing"),
        pytest.param(lambda good: good[:99_999], CheckpointTruncated, "copy it again", id="cut in the tensors"),
        pytest.param(lambda good: good + b"\n", ForeignFile, "not a valid", id="longer than it says"),
        pytest.param(lambda good: png(), ForeignFile, "not a .safetensors", id="PNG"),
        pytest.param(lambda good: b"version https://git-lfs", ForeignFile, "not a .safetensors", id="Git LFS pointer"),
        pytest.param(lambda good: b"<!DOCTYPE html><html>", ForeignFile, "not a .safetensors", id="web page"),
        pytest.param(lambda good: bytes(100), ForeignFile, "not a .safetensors", id="zeros"),
        pytest.param(lambda good: torch_saved({}, as_zip=True), ForeignFile, "pickled", id="torch.save"),
        pytest.param(lambda good: torch_saved({}, as_zip=False), ForeignFile, "pickled", id="legacy torch.save"),
        pytest.param(lambda good: pickle.dumps({}, protocol=4), ForeignFile, "pickled", id="pickle"),
        pytest.param(lambda good: pickle.dumps([0.5] * 9, protocol=0), ForeignFile, "not a", id="pickle protocol 0"),
        pytest.param(
            lambda good: container({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}) + b"\0",
            ForeignFile,
            "numbers of type 'F4'",
            id="type of numbers that torch has not",
        ),
        pytest.param(lambda good: container([1, 2]), ForeignFile, "not a .safetensors", id="header is a list"),
        pytest.param(lambda good: container({"a": 1}), ForeignFile, "not a .safetensors", id="entry is a number"),
        pytest.param(
            lambda good: container({"a": {"data_offsets": [0, "4"]}}), ForeignFile, "not a .safe", id="offset is a text"
        ),
        pytest.param(
            lambda good: container({"a": {"data_offsets": [0, None]}}), ForeignFile, "not a .safe", id="offset is null"
        ),
        pytest.param(
            lambda good: container({"a": {"data_offsets": [0, -4]}}), ForeignFile, "not a valid", id="negative offset"
        ),
        pytest.param(
            lambda good: (200_002).to_bytes(8, "little") + b'{"' + b"[" * 200_000,
            ForeignFile,
            "not a .safetensors",
            id="header is not JSON",
        ),
        pytest.param(
            lambda good: (200_005).to_bytes(8, "little") + b'{"a":' + b"[" * 200_000,
            ForeignFile,
            "not a .safetensors",
            id="header nested too deeply",
        ),
        pytest.param(
            lambda good: safetensors.torch.save({"a": torch.zeros(2)}), ForeignFile, "torchlight train", id="no fields"
        ),
        pytest.param(
            lambda good: safetensors.torch.save({"a": torch.zeros(2)}, {"format": "pt"}),
            ForeignFile,
            "not written by Torchlight",
            id="safetensors of another tool",
        ),
        pytest.param(with_text("format_version", "2"), UnsupportedVersion, "version 2", id="future version"),
        pytest.param(with_text("format", "pt"), ForeignFile, "not written by Torchlight", id="other format"),
        pytest.param(without_field("format_version"), UnsupportedVersion, "reads 1", id="no version"),
        *(
            pytest.param(without_field(name), InvalidHeader, f"no header field '{name}'", id=f"no {name}")
            for name in ("network", "class_names", "image_spec", "metrics", "training", "data", "versions")
        ),
        pytest.param(with_text("class_names", "[cat"), InvalidHeader, "'class_names' is not JSON", id="not JSON"),
        pytest.param(with_text("metrics", "[" * 200_000), InvalidHeader, "'metrics'", id="field nested too deeply"),
        pytest.param(with_field("metrics", []), InvalidHeader, "'metrics' is not an object", id="metrics is a list"),
        pytest.param(with_field("versions", "1"), InvalidHeader, "'versions'", id="versions is a text"),
        pytest.param(with_field("network", []), InvalidHeader, "", id="network is a list"),
        pytest.param(with_field("network", {}), InvalidHeader, "architecture", id="network without members"),
        pytest.param(
            with_field("network", {"architecture": "lenet6", "num_classes": 3}),
            InvalidHeader,
            "'lenet6' is unknown",
            id="unknown architecture",
        ),
        pytest.param(
            with_field("network", {"architecture": ["lenet5"], "num_classes": 3}),
            InvalidHeader,
            "lenet5",
            id="architecture is a list",
        ),
        pytest.param(
            with_field("network", {"architecture": "lenet5", "num_classes": "3"}),
            InvalidHeader,
            "num_classes is '3'",
            id="number of classes is a text",
        ),
        pytest.param(
            with_field("network", {"architecture": "lenet5", "num_classes": 1}),
            InvalidHeader,
            "at least 2",
            id="one class",
        ),
        pytest.param(with_field("class_names", ["a", "b", "a"]), InvalidHeader, "distinct", id="class named twice"),
        pytest.param(with_field("class_names", ["a", "b", 3]), InvalidHeader, "distinct names", id="class is a number"),
        pytest.param(with_field("class_names", "abc"), InvalidHeader, "list", id="class names are a text"),
        pytest.param(with_spec(size=0), InvalidHeader, "size is 0", id="size 0"),
        pytest.param(with_spec(size=-32), InvalidHeader, "size is -32", id="negative size"),
        pytest.param(with_spec(size=32.5), InvalidHeader, "size is 32.5", id="size with a fraction"),
        pytest.param(with_spec(size="32"), InvalidHeader, "size is '32'", id="size is a text"),
        pytest.param(with_spec(size=1_000_000), InvalidHeader, "size is 1000000", id="huge size"),
        pytest.param(with_spec(std=[0.2, 0.0, 0.2]), InvalidHeader, "std is not positive", id="std 0"),
        pytest.param(with_spec(std=[0.2, -1, 0.2]), InvalidHeader, "std is not positive", id="negative std"),
        pytest.param(with_spec(std=[0.2, float("nan"), 0.2]), InvalidHeader, "std", id="std not a number"),
        pytest.param(with_spec(mean=[0.2, float("inf"), 0.2]), InvalidHeader, "mean", id="infinite mean"),
        pytest.param(with_spec(mean=[0.5, 0.5]), InvalidHeader, "three numbers", id="two means"),
        pytest.param(with_spec(std=["1", "1", "1"]), InvalidHeader, "three numbers", id="std is texts"),
        pytest.param(with_spec(mean=0.5), InvalidHeader, "", id="mean is a number"),
        pytest.param(
            with_spec(resize="nearest"),
            InvalidHeader,
            "resize rule 'nearest' is unknown; this program has centre_square_bilinear_antialias and "
            "centre_crop_bicubic_antialias",
            id="other resize rule",
        ),
        pytest.param(with_spec(crop=0.9), InvalidHeader, "crop", id="unknown preprocessing"),
        pytest.param(with_field("image_spec", {"size": 32}), InvalidHeader, "mean", id="no mean"),
        pytest.param(
            with_field("class_names", ["a", "b"]), WeightsMismatch, "2 class names for 3 outputs", id="too few names"
        ),
        pytest.param(
            for_four_classes,
            WeightsMismatch,
            "'fc2.bias' is 3, the architecture wants 4",
            id="head of another size",
        ),
        pytest.param(
            with_tensors(lambda tensors: {k: v for k, v in tensors.items() if k != "fc1.bias"}),
            WeightsMismatch,
            "'fc1.bias' is absent, the architecture wants 84",
            id="missing tensor",
        ),
        pytest.param(
            with_tensors(lambda tensors: tensors | {"extra": torch.zeros(2, 3)}),
            WeightsMismatch,
            "'extra' is 2x3, the architecture wants absent",
            id="extra tensor",
        ),
        pytest.param(
            with_tensors(lambda tensors: tensors | {"conv1.weight": torch.zeros(6, 3, 3, 3)}),
            WeightsMismatch,
            "'conv1.weight' is 6x3x3x3, the architecture wants 6x3x5x5",
            id="wrong shape",
        ),
        pytest.param(
            with_field("network", {"architecture": "guide", "num_classes": 3}),
            WeightsMismatch,
            "the architecture wants",
            id="weights of another architecture",
        ),
    ],
)  # fmt: skip
def test_wrong_file_is_refused_with_what_is_wrong(
    change: Change, error: type[CheckpointError], words: str, checkpoint_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(change(checkpoint_path.read_bytes()))
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert type(caught.value) is error
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "nofolder/file", ""], ids=["file", "folder", "a folder"])
def test_missing_file_is_not_found(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound) as caught:
        load_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


class Payload:
    """Unpickling an instance makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    "encode",
    [
        lambda payload: torch_saved(payload, as_zip=True),
        lambda payload: torch_saved(payload, as_zip=False),
        lambda payload: pickle.dumps(payload, protocol=0),
        lambda payload: pickle.dumps(payload, protocol=5),
    ],
    ids=["torch.save", "legacy torch.save", "pickle protocol 0", "pickle protocol 5"],
)
def test_malicious_pickle_has_no_side_effect(encode: Callable[[Payload], bytes], tmp_path: Path) -> None:
    target = tmp_path / "harm"
    content = encode(Payload(target))
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ForeignFile):
        load_checkpoint(path)
    assert not target.exists()


@pytest.fixture(scope="module")
def small_file(make_network: Callable[..., nn.Module], make_header: Callable[..., Header]) -> bytes:
    """A good file with all header fields, but whose tensors are few bytes: one class of damage at a time is likely."""
    header = make_header()
    fields = {
        "format": "torchlight",
        "format_version": "1",
        **{field.name: json.dumps(_plain(getattr(header, field.name))) for field in dataclasses.fields(header)},
    }
    return safetensors.torch.save({"fc2.bias": torch.zeros(3)}, fields)


def _plain(value: object) -> object:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_raise_only_checkpoint_errors(seed: int, small_file: bytes, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    path = tmp_path / "damaged"
    for _ in range(250):
        damaged = bytearray(small_file)
        for place in random.integers(0, len(damaged), random.integers(1, 4)):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            load_checkpoint(path)


@pytest.mark.parametrize("alphabet", [b'0123456789"[]{},:-e.nul', b"\x00\xff\x80\\"], ids=["JSON's own", "hostile"])
def test_bytes_exchanged_for_significant_ones_raise_only_checkpoint_errors(
    alphabet: bytes, small_file: bytes, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for _ in range(400):
        damaged = bytearray(small_file)
        damaged[random.integers(8, len(damaged))] = alphabet[random.integers(len(alphabet))]
        path.write_bytes(damaged)
        with suppress(CheckpointError):
            load_checkpoint(path)


def test_every_cut_of_a_good_file_is_refused(checkpoint_path: Path, tmp_path: Path) -> None:
    content = checkpoint_path.read_bytes()
    path = tmp_path / "cut"
    for length in {*range(0, 40), *range(40, len(content), len(content) // 60), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointTruncated, match=f"has {length} bytes of at least"):
            load_checkpoint(path)
