"""One ``.safetensors`` file: the weights, and in its header everything needed to answer with them.

The header is a flat map of text. Beside ``format`` and ``format_version`` each value is a JSON document:

    format           "torchlight"
    format_version   "1"
    network          {"architecture", "num_classes"}
    class_names      ["airplane", ...]                     in the order of the network's outputs
    image_spec       {"size", "mean", "std", "resize"}
    metrics          {"val": {"accuracy", ...}, ...}       by split; "best_epoch", "calibration", "cross_validation"
    training         the training configuration, the command, seconds, operations, multiply-adds of one image, device
    data             {"source", "fingerprint", images per split, ...}
    versions         {"torchlight", "torch", ...}
    golden           [0.0123, ...]                         the answer to the canary image of model/canary.py; optional
    novelty          {"entropy_weight", "images", "measured_on", "canary_distance"}   of known images; optional
    answer_sets      {"scores": [...], "images", "measured"}  of model/uncertainty/answer_sets.py; optional

Beside the weights there may be more tensors: ``filmstrip``, the first layer's filters while the network learnt; and
with ``novelty`` those that start with ``novelty.``, see model/uncertainty/novelty.py.

Nothing is ever unpickled. The file's lengths are checked before it is read, header and shapes before the network takes
the weights; each error names what is wrong.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.model.errors import (
    CheckpointError,
    CheckpointNotFound,
    CheckpointTruncated,
    ForeignFile,
    InvalidHeader,
    UnknownArchitecture,
    UnsupportedVersion,
    WeightsMismatch,
)
from torchlight.model.files.tensor_file import Contents, FileKind, read_tensors, save_tensors
from torchlight.model.images import RESIZE_RULES, ImageSpec
from torchlight.model.named_checkpoints import DIGESTS
from torchlight.model.network import NetworkConfig, build_network, embedding_size, first_convolution
from torchlight.model.uncertainty.answer_sets import AnswerSets, parse_answer_sets
from torchlight.model.uncertainty.novelty import Novelty, from_tensors, to_tensors

FORMAT_VERSION = "1"
KIND = FileKind(
    noun="checkpoint",
    command="torchlight train",
    format="torchlight",
    version=FORMAT_VERSION,
    documents=(
        "network",
        "class_names",
        "image_spec",
        "metrics",
        "training",
        "data",
        "versions",
        "golden",
        "answer_sets",
        "novelty",
    ),
    optional=frozenset({"golden", "answer_sets", "novelty"}),
    error=CheckpointError,
    errors={
        "missing": CheckpointNotFound,
        "truncated": CheckpointTruncated,
        "foreign": ForeignFile,
        "unsupported": UnsupportedVersion,
        "invalid": InvalidHeader,
    },
)
FILMSTRIP = "filmstrip"
NOVELTY = "novelty."  # what the names of its tensors begin with
# Why a checkpoint has no answer sets: those that go by a name, and others.
PUBLISHED = "made from published weights, without held-out photos that would fix the sets"
ABSENT = "trained before answer sets existed; train again, or run `torchlight calibrate` if it has validation images"


@dataclass(frozen=True)
class Header:
    """The header of a checkpoint; the module's docstring lists the fields."""

    network: NetworkConfig
    class_names: tuple[str, ...]
    image_spec: ImageSpec
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    golden: tuple[float, ...] | None = None
    answer_sets: AnswerSets | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file.

    Attributes:
        network: in evaluation mode, float32, its parameters not requiring gradients; loaded on the CPU, and moved by a
            :class:`model.classifier.Classifier` on another device.
        digest: ``sha256:`` and the hex digest of the file's bytes; changes with any of them.
        filmstrip: (E, C, 3, k, k) float32, the filters of the first convolution before training and at epochs spread
            evenly over it; None if the file has none.
        novelty: tells how strange an image is; None if the file has none.
    """

    header: Header
    network: nn.Module
    digest: str
    path: Path
    filmstrip: Tensor | None = None
    novelty: Novelty | None = None


def save_checkpoint(
    path: Path,
    network: nn.Module,
    header: Header,
    filmstrip: Tensor | None = None,
    novelty: Novelty | None = None,
) -> None:
    """Write the file, whole or not at all.

    Weights keep their precision (float32 after training). Equal input gives equal bytes.

    Args:
        filmstrip: as in :class:`Checkpoint`, in any precision.
        novelty: as in :class:`Checkpoint`.

    Raises:
        OSError: the folder cannot be written; an older file at ``path`` is untouched.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    if filmstrip is not None:
        tensors[FILMSTRIP] = filmstrip.contiguous()
    documents = {field.name: _plain(getattr(header, field.name)) for field in dataclasses.fields(header)}
    if novelty is not None:
        documents["novelty"] = novelty.facts
        tensors |= {NOVELTY + name: tensor for name, tensor in to_tensors(novelty).items()}
    save_tensors(path, KIND, tensors, {name: value for name, value in documents.items() if value is not None})


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the network and its header.

    Half-precision weights become float32. The file is read once into memory: later changes of it have no effect.

    Raises:
        CheckpointNotFound, CheckpointTruncated, ForeignFile, UnsupportedVersion, InvalidHeader, WeightsMismatch:
            the message names the file.
        CheckpointError: the disk or its permissions are in the way.
    """
    contents = read_tensors(path, KIND)
    header = _parse_header(path, contents.documents)
    network = _build_empty(path, header)
    novelty = _read_novelty(path, header, network, contents)
    weights = {name: value for name, value in contents.tensors.items() if not name.startswith(NOVELTY)}
    tensors = {name: _as_float32(tensor) for name, tensor in weights.items()}
    filmstrip = tensors.pop(FILMSTRIP, None)
    _check_shapes(path, network, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    _check_filmstrip(path, network, filmstrip)
    network.load_state_dict(tensors, assign=True)
    network.eval().requires_grad_(False)
    return Checkpoint(header, network, contents.digest, path, filmstrip, novelty)


def explain_absent_sets(checkpoint: Checkpoint) -> str | None:
    """Return why the answers of a checkpoint have no sets; None if they have."""
    if checkpoint.header.answer_sets is not None:
        return None
    return PUBLISHED if checkpoint.digest in DIGESTS.values() else ABSENT


def _parse_header(path: Path, documents: Mapping[str, Any]) -> Header:
    try:
        return _header_from(documents)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidHeader(f"checkpoint {path}: {error}") from error


def _header_from(documents: Mapping[str, Any]) -> Header:
    """Build the header, checking each field. Raises KeyError, TypeError or ValueError with the field in its text."""
    network = NetworkConfig(**documents["network"])
    names = documents["class_names"]
    fields: dict[str, Any] = documents["image_spec"]
    spec = ImageSpec(**fields | {"mean": tuple(fields["mean"]), "std": tuple(fields["std"])})
    if not isinstance(network.architecture, str):
        raise ValueError(f"header field 'network': architecture is {network.architecture!r}, not a name")
    if not isinstance(network.num_classes, int) or network.num_classes < 2:
        raise ValueError(f"header field 'network': num_classes is {network.num_classes!r}, not a number of at least 2")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("header field 'class_names' is not a list of distinct names")
    if spec.resize not in RESIZE_RULES:
        raise ValueError(
            f"header field 'image_spec': resize rule {spec.resize!r} is unknown; this program has "
            f"{' and '.join(RESIZE_RULES)}"
        )
    if not isinstance(spec.size, int) or not 1 <= spec.size <= 4096:
        raise ValueError(f"header field 'image_spec': size is {spec.size!r}, not a number from 1 to 4096")
    statistics = (*spec.mean, *spec.std)
    are_numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in statistics)
    if len(spec.mean) != 3 or len(spec.std) != 3 or not are_numbers:
        raise ValueError("header field 'image_spec': mean and std are not three numbers each")
    if min(spec.std) <= 0:
        raise ValueError("header field 'image_spec': std is not positive")
    for name in ("metrics", "training", "data", "versions"):
        if not isinstance(documents[name], dict):
            raise ValueError(f"header field {name!r} is not an object")
    facts = {name: documents[name] for name in ("metrics", "training", "data", "versions")}
    return Header(
        network,
        tuple(names),
        spec,
        **facts,
        golden=_golden_from(documents.get("golden"), len(names)),
        answer_sets=parse_answer_sets(documents.get("answer_sets"), names),
    )


def _golden_from(found: Any, number: int) -> tuple[float, ...] | None:
    if found is None:
        return None
    are_numbers = isinstance(found, list) and all(isinstance(one, int | float) for one in found)
    if not are_numbers or len(found) != number or not all(0 <= one <= 1 for one in found):
        raise ValueError(f"header field 'golden' is not {number} probabilities")
    return tuple(found)


def _build_empty(path: Path, header: Header) -> nn.Module:
    """Return the architecture without memory for its weights, once it fits the class names."""
    if header.network.num_classes != len(header.class_names):
        raise WeightsMismatch(
            f"checkpoint {path} has {len(header.class_names)} class names for {header.network.num_classes} outputs"
        )
    try:
        with torch.device("meta"):
            return build_network(header.network)
    except UnknownArchitecture as error:
        raise InvalidHeader(f"checkpoint {path}: {error}") from error


def _check_shapes(path: Path, network: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            raise WeightsMismatch(
                f"checkpoint {path}: tensor {name!r} is {_shape(shapes.get(name))}, "
                f"the architecture wants {_shape(expected.get(name))}"
            )


def _check_filmstrip(path: Path, network: nn.Module, filmstrip: Tensor | None) -> None:
    if filmstrip is None:
        return
    first = first_convolution(network)
    if first is None or filmstrip.shape[1:] != first.weight.shape:
        raise WeightsMismatch(
            f"checkpoint {path}: tensor {FILMSTRIP!r} is {_shape(tuple(filmstrip.shape))}, which are not frames of the "
            "first convolution's filters"
        )


def _read_novelty(path: Path, header: Header, network: nn.Module, contents: Contents) -> Novelty | None:
    facts = contents.documents.get("novelty")
    found = {key.removeprefix(NOVELTY): value for key, value in contents.tensors.items() if key.startswith(NOVELTY)}
    if facts is None and not found:
        return None
    try:
        novelty = from_tensors(found, header.network.num_classes, facts)
    except ValueError as error:
        raise WeightsMismatch(f"checkpoint {path}: {NOVELTY}*: {error}") from error
    wanted = embedding_size(network, header.network.architecture)
    if len(novelty.plane.mean) != wanted:
        raise WeightsMismatch(
            f"checkpoint {path}: {NOVELTY}* is for embeddings of {len(novelty.plane.mean)} numbers, "
            f"this network's have {wanted}"
        )
    return novelty


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
