"""A JSON file beside a checkpoint: at every moment either the old or the new one is there, whole."""

import json
import os
from pathlib import Path


def save(path: Path, document: object) -> None:
    """Write a document of finite numbers, texts, lists and dictionaries.

    Raises:
        OSError: the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
