"""Checkpoints that go by a name: ``imagenet`` is made from installed weights the first time, then kept as a file.

Imports no torch, so that the parent process of a service can ask. A child process makes the file
(:mod:`model.imagenet`): so no pickle is ever read where uploads are answered.
"""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from torchlight.model.defaults import cache_folder
from torchlight.model.errors import CheckpointError

ROOT = Path(__file__).parents[2]  # where a process finds this package
MAKERS = {"imagenet": "torchlight.model.imagenet"}  # by name, the module whose program writes the file
# Of the file, which has the same bytes on every machine.
DIGESTS = {"imagenet": "sha256:baacbf6675cbd1d6ed21b280440f3c1cec77819ad9099ac2bf96de3b96d5661c"}


def find_checkpoint(given: Path, on_make: Callable[[str], None] = lambda sentence: None) -> Path:
    """Return the file of a checkpoint: ``given`` itself, or if it is a name, the file in the cache folder.

    That is made if it is not there, or not with the bytes that it should have.

    Args:
        given: a path, or a name in ``MAKERS``.
        on_make: called with a sentence before a file is made, which takes some seconds.

    Raises:
        CheckpointError: it cannot be made; the message has the reason and the way out.
    """
    name = str(given)
    if name not in MAKERS:
        return given
    path = cache_folder() / f"{name}.safetensors"
    if _digest(path) != DIGESTS[name]:
        damaged = f"{path} is damaged; made again from installed weights"
        on_make(f"{name}: {damaged}" if path.exists() else f"{name}: made once from installed weights, into {path}")
        _make(name, path)
    return path


def _digest(path: Path) -> str | None:
    """Return the digest of a file; None if it cannot be read."""
    try:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _make(name: str, path: Path) -> None:
    command = [sys.executable, "-m", MAKERS[name], str(path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        reason = made.stderr.strip().rpartition("\n")[2]
        raise CheckpointError(f"checkpoint {name} cannot be made: {reason}")
