"""A ``.safetensors`` file with JSON documents in its header: written whole or not at all.

The container's lengths are checked before its content is read, the documents after. Knows nothing of the meaning of
tensors and documents. Nothing is ever unpickled.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, BinaryIO, Literal

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchlight.model.errors import TorchlightError
from torchlight.model.files.atomic import replacing

MAX_HEADER_BYTES = 100_000_000  # the limit that safetensors itself sets
Problem = Literal[
    "missing",  # there is no such file
    "unreadable",  # the disk or its permissions are in the way
    "truncated",  # it is shorter than its own header says
    "foreign",  # it is something else
    "unsupported",  # it has another format version
    "invalid",  # a document is missing or not JSON
]


@dataclass(frozen=True)
class FileKind:
    """The name of a kind of file, the fields of its header, and its errors.

    Attributes:
        noun: its name in messages.
        command: the command that writes it.
        format, version: the header's ``format`` and ``format_version``.
        documents: names of the header's other fields, each a JSON document.
        error: the error that it fails with, such as when the disk or its permissions are in the way.
        errors: more exact ones, by problem.
        optional: the documents that may be missing.
    """

    noun: str
    command: str
    format: str
    version: str
    documents: tuple[str, ...]
    error: type[TorchlightError]
    errors: Mapping[Problem, type[TorchlightError]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()

    def failure(self, problem: Problem, path: Path, reason: str) -> TorchlightError:
        """Return the error for a file with that problem; its message names the file."""
        return self.errors.get(problem, self.error)(f"{self.noun} {path} {reason}")


@dataclass(frozen=True)
class Contents:
    """All of a file, copied into memory: later changes of the file have no effect.

    Attributes:
        tensors, documents: by name.
        digest: ``sha256:`` and the hex digest of the bytes that were parsed.
    """

    tensors: Mapping[str, Tensor]
    documents: Mapping[str, Any]
    digest: str


def save_tensors(path: Path, kind: FileKind, tensors: Mapping[str, Tensor], documents: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all.

    Equal input gives equal bytes.

    Args:
        tensors: contiguous, on the CPU, sharing no memory.
        documents: JSON values; one for each of ``kind.documents`` that is not optional.

    Raises:
        OSError: the folder cannot be written; an older file at ``path`` is untouched.
    """
    metadata = {"format": kind.format, "format_version": kind.version} | {
        name: json.dumps(documents[name], sort_keys=True, ensure_ascii=False)
        for name in kind.documents
        if name in documents or name not in kind.optional
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _write(temporary, tensors, metadata)


@contextmanager
def open_tensors(path: Path, kind: FileKind) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Check the container and the header, then yield the reader of ``safetensors.safe_open`` and the documents.

    The reader's tensors are the file mapped into memory, also after it is closed: replace such a file, never write
    into it.

    Raises:
        TorchlightError: the error that ``kind`` has for the problem; the message names the file.
    """
    with _named_errors(path, kind):
        with path.open("rb") as container:
            _check_container(path, kind, container)
        with safe_open(path, framework="pt") as file:
            yield file, _parse_documents(path, kind, file.metadata() or {})


def read_tensors(path: Path, kind: FileKind) -> Contents:
    """Return all of the file, read once.

    Raises:
        TorchlightError: as :func:`open_tensors`.
    """
    with _named_errors(path, kind):
        with path.open("rb") as container:
            _check_container(path, kind, container)
            container.seek(0)
            content = container.read()
        try:
            tensors = safetensors.torch.load(content)
        except KeyError as error:
            raise kind.failure("foreign", path, f"has numbers of type {error}, which torch has not") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    documents = _parse_documents(path, kind, header.get("__metadata__") or {})
    return Contents(tensors, documents, "sha256:" + hashlib.sha256(content).hexdigest())


@contextmanager
def _named_errors(path: Path, kind: FileKind) -> Iterator[None]:
    """Raise ``kind``'s errors for those of the disk and of safetensors."""
    try:
        if not path.is_file():
            raise kind.failure("missing", path, "does not exist")
        yield
    except SafetensorError as error:
        raise kind.failure("foreign", path, f"is not a valid .safetensors file ({error})") from error
    except OSError as error:
        raise kind.failure("unreadable", path, f"cannot be read ({error.strerror or error})") from error


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    try:
        safetensors.torch.save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error})") from error
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(metadata.items()))  # safetensors writes them in random order
        document = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        assert len(document) == length
        file.seek(8)
        file.write(document)


def _check_container(path: Path, kind: FileKind, file: BinaryIO) -> None:
    """Raise the error for a truncated file or another kind of file, by the first bytes and the length."""
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    header_bytes = int.from_bytes(start, "little")
    document = file.read(min(header_bytes, MAX_HEADER_BYTES))
    begins_well = header_bytes <= MAX_HEADER_BYTES and b"{".startswith(document[:1])
    if (start[:2] == b"PK" or start[:1] == b"\x80") and not (begins_well and document):
        raise kind.failure(
            "foreign",
            path,
            f"is a pickled PyTorch file, which can run code when opened; "
            f"Torchlight reads only the .safetensors files that `{kind.command}` writes",
        )
    if len(start) == 8 and not begins_well:
        raise kind.failure("foreign", path, "is not a .safetensors file")
    end = 8 + header_bytes
    if size >= end:
        end += _tensor_bytes(path, kind, document)
    if size < max(8, end):
        raise kind.failure("truncated", path, f"has {size} bytes of at least {max(8, end)}; copy it again")


def _tensor_bytes(path: Path, kind: FileKind, document: bytes) -> int:
    """Return the number of bytes of tensors that the container's header announces."""
    try:
        entries = json.loads(document)
        ends = [index(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"]
        return max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise kind.failure("foreign", path, "is not a .safetensors file (its header is not readable)") from error


def _parse_documents(path: Path, kind: FileKind, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != kind.format:
        raise kind.failure(
            "foreign", path, f"is of another kind or not written by Torchlight; make one with `{kind.command}`"
        )
    version = metadata.get("format_version")
    if version != kind.version:
        raise kind.failure(
            "unsupported",
            path,
            f"has format version {version}; this program reads {kind.version}; "
            f"update Torchlight, or make it again with `{kind.command}`",
        )
    documents = {}
    for name in kind.documents:
        if name in kind.optional and name not in metadata:
            continue
        try:
            documents[name] = json.loads(metadata[name])
        except KeyError as error:
            raise kind.failure("invalid", path, f"has no header field {name!r}") from error
        except (ValueError, RecursionError) as error:
            raise kind.failure("invalid", path, f"is invalid: header field {name!r} is not JSON ({error})") from error
    return documents
