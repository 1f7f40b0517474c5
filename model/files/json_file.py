"""A JSON file beside a checkpoint: at every moment either the old or the new one is there, whole."""

import json
from pathlib import Path

from torchlight.model.files.atomic import write_bytes


def save_json(path: Path, document: object) -> None:
    """Write a document of finite numbers, texts, lists and dictionaries.

    Raises:
        OSError: the folder cannot be written.
    """
    write_bytes(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
