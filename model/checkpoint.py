"""One ``.safetensors`` file: the weights, and in its header everything needed to answer with them.

The header is a flat map of text. Beside ``format`` and ``format_version`` each value is a JSON document:

    format           "torchlight"
    format_version   "1"
    network          {"architecture", "num_classes"}
    class_names      ["airplane", ...]                     in the order of the network's outputs
    image_spec       {"size", "mean", "std", "resize"}
    metrics          {"val": {"accuracy", ...}, ...}       what it reached, on which split
    training         the training configuration, the command, seconds, multiply-adds
    data             {"source", "fingerprint", images per split and class}
    versions         {"torchlight", "torch", ...}

Nothing is ever unpickled. Loading validates before it allocates and names what is wrong.
"""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from model.errors import (
    CheckpointNotFound,
    CheckpointTruncated,
    ForeignFile,
    InvalidHeader,
    UnknownArchitecture,
    UnsupportedVersion,
    WeightsMismatch,
)
from model.images import ImageSpec
from model.network import NetworkConfig, build

FORMAT = "torchlight"
FORMAT_VERSION = "1"
MAX_HEADER_BYTES = 100_000_000  # the limit that safetensors itself sets
PRETRAINED = Path(__file__).parent / "pretrained" / "torchlight-cifar10.safetensors"
_DOCUMENTS = ("network", "class_names", "image_spec", "metrics", "training", "data", "versions")


@dataclass(frozen=True)
class Header:
    """What a checkpoint says of itself; see the module's docstring for the fields."""

    network: NetworkConfig
    class_names: tuple[str, ...]
    image_spec: ImageSpec
    metrics: Mapping[str, Any]
    training: Mapping[str, Any]
    data: Mapping[str, Any]
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A loaded file.

    Attributes:
        network: in evaluation mode, float32, on the CPU, its parameters not requiring gradients.
        digest: ``sha256:`` and the hex digest of the file's bytes; changes whenever anything in it does.
    """

    header: Header
    network: nn.Module
    digest: str
    path: Path


def save(path: Path, network: nn.Module, header: Header) -> None:
    """Write the file so that at every moment either the old or the new one is there, whole.

    Weights are stored as they are (float32 after training), contiguous. Equal input gives equal bytes.

    Raises:
        OSError: the folder cannot be written; an older file at ``path`` is untouched.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION} | {
        name: json.dumps(_plain(getattr(header, name)), sort_keys=True, ensure_ascii=False) for name in _DOCUMENTS
    }
    content = safetensors.torch.save(tensors, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; a service runs as another user
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load(path: Path) -> Checkpoint:
    """Return the network and its header.

    Half-precision weights become float32. Nothing is fetched from a network.

    Raises:
        CheckpointNotFound, CheckpointTruncated, ForeignFile, UnsupportedVersion, InvalidHeader, WeightsMismatch:
            the first that applies, in this order; the message names the file.
    """
    if not path.is_file():
        raise CheckpointNotFound(f"checkpoint {path} does not exist")
    _check_container(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = _parse_header(path, file.metadata() or {})
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            network = _build_empty(path, header)
            _check_shapes(path, network, shapes)
            tensors = {name: _as_float32(file.get_tensor(name)) for name in shapes}
    except SafetensorError as error:
        raise ForeignFile(f"checkpoint {path} is not a valid .safetensors file ({error})") from error
    network.load_state_dict(tensors, assign=True)
    network.eval().requires_grad_(False)
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Checkpoint(header, network, digest, path)


def _check_container(path: Path) -> None:
    """Tell a truncated .safetensors file from something else, by its first bytes and its length."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise ForeignFile(
                f"checkpoint {path} is a pickled PyTorch file, which can run code when opened; "
                "Torchlight reads only the .safetensors files that `torchlight train` writes"
            )
        header_bytes = int.from_bytes(start, "little")
        document = file.read(min(header_bytes, MAX_HEADER_BYTES))
    if len(start) == 8 and (header_bytes > MAX_HEADER_BYTES or not b"{".startswith(document[:1])):
        raise ForeignFile(f"checkpoint {path} is not a .safetensors file")
    end = 8 + header_bytes
    if size >= end:
        end += _tensor_bytes(path, document)
    if size < max(8, end):
        raise CheckpointTruncated(f"checkpoint {path} has {size} bytes of at least {max(8, end)}; copy it again")


def _tensor_bytes(path: Path, document: bytes) -> int:
    """Return how many bytes of tensors the container's header announces."""
    try:
        entries = json.loads(document)
        return max((entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ForeignFile(f"checkpoint {path} is not a .safetensors file (its header is not readable)") from error


def _parse_header(path: Path, metadata: Mapping[str, str]) -> Header:
    if metadata.get("format") != FORMAT:
        raise ForeignFile(f"checkpoint {path} was not written by Torchlight; make one with `torchlight train`")
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise UnsupportedVersion(
            f"checkpoint {path} has format version {version}; this program reads {FORMAT_VERSION}; update Torchlight"
        )
    documents: dict[str, Any] = {}
    for name in _DOCUMENTS:
        try:
            documents[name] = json.loads(metadata[name])
        except KeyError as error:
            raise InvalidHeader(f"checkpoint {path} has no header field {name!r}") from error
        except ValueError as error:
            raise InvalidHeader(f"checkpoint {path}: header field {name!r} is not JSON ({error})") from error
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
    if not isinstance(network.num_classes, int) or network.num_classes < 2:
        raise ValueError(f"header field 'network': num_classes is {network.num_classes!r}, not a number of at least 2")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError("header field 'class_names' is not a list of distinct names")
    if spec.resize != ImageSpec.resize:
        raise ValueError(
            f"header field 'image_spec': resize rule {spec.resize!r} is unknown; this program has one, "
            f"{ImageSpec.resize!r}"
        )
    if not isinstance(spec.size, int) or not 1 <= spec.size <= 4096:
        raise ValueError(f"header field 'image_spec': size is {spec.size!r}, not a number from 1 to 4096")
    statistics = (*spec.mean, *spec.std)
    if len(spec.mean) != 3 or len(spec.std) != 3 or not all(isinstance(v, int | float) for v in statistics):
        raise ValueError("header field 'image_spec': mean and std are not three numbers each")
    if min(spec.std) <= 0:
        raise ValueError("header field 'image_spec': std is not positive")
    for name in ("metrics", "training", "data", "versions"):
        if not isinstance(documents[name], dict):
            raise ValueError(f"header field {name!r} is not an object")
    return Header(
        network, tuple(names), spec, *(documents[name] for name in ("metrics", "training", "data", "versions"))
    )


def _build_empty(path: Path, header: Header) -> nn.Module:
    """Return the architecture without memory for its weights, after comparing its head with the class names."""
    if header.network.num_classes != len(header.class_names):
        raise WeightsMismatch(
            f"checkpoint {path} has {len(header.class_names)} class names for {header.network.num_classes} outputs"
        )
    try:
        with torch.device("meta"):
            return build(header.network)
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


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
