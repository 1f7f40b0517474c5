"""JSON files beside a checkpoint, named after it: ``cats.safetensors`` has ``cats.int8.json``.

Each holds the digest of its checkpoint, so that it is never used with another one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torchlight.model.files.atomic import write_bytes

Document = TypeVar("Document")


def sidecar_path(checkpoint: Path, suffix: str) -> Path:
    """Return the path of the file beside a checkpoint whose name ends in ``suffix``, such as ``.int8.json``."""
    return checkpoint.with_name(f"{checkpoint.stem}{suffix}")


def save_json(path: Path, document: object) -> None:
    """Write a document of finite numbers, texts, lists and dictionaries: whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    write_bytes(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def load_json(path: Path, parse: Callable[[Any], Document]) -> Document:
    """Return what ``parse`` makes of the document.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        ValueError: it is not JSON, or ``parse`` finds something else in it than it expects.
    """
    content = path.read_text(encoding="utf-8", errors="replace")
    try:
        return parse(json.loads(content))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(repr(error)) from error
