"""Decoded sources on disk: each image is decoded once, later runs open the array as it is.

Two files a source, image size and resize rule, ``<name>-<S>-<hash>.npy`` (mapped into memory, never unpickled) and
``.json`` with the rest. They are taken only if the key, the shapes and a checksum over all bytes are right; else they
are made anew.
The key changes with any file of the source and with the code that decodes. Deleting the folder is always safe.
"""

import hashlib
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchlight.model import images as model_images
from torchlight.model.files.atomic import replacing
from torchlight.model.images import Resizing
from torchlight.training.data import decode_files, duplicates, sources
from torchlight.training.data.decode_files import Decoded
from torchlight.training.data.sources import Item

FORMAT = "torchlight decoded images 1"
MIN_BYTES = 4_000_000  # of files or of pixels; less is decoded in a moment
STALE_S = 3600  # a temporary file this old was left by a process that was killed


@dataclass(frozen=True)
class Entry:
    """The place of one source, resized in one way.

    Attributes:
        stem: path of both files without their suffix; a source that has changed replaces its own old files.
        key: digest over what the content follows from.
    """

    stem: Path
    key: str

    @property
    def pixels(self) -> Path:
        return self.stem.with_name(self.stem.name + ".npy")

    @property
    def facts(self) -> Path:
        return self.stem.with_name(self.stem.name + ".json")


def decode_once(
    source: str, resizing: Resizing, items: Sequence[Item], folder: Path, on_image: Callable[[int, int], None]
) -> tuple[Decoded, list[str]]:
    """Return the decoded images, from ``folder`` or into it, and warnings of what could not be done about the cache."""
    if not _is_worthwhile(items, resizing.size):
        return decode_files.decode_items(items, resizing, on_image), []
    place = _entry(folder, source, resizing, items)
    decoded = _load(place)
    if decoded:
        on_image(len(items), len(items))
        return decoded, []
    decoded = decode_files.decode_items(items, resizing, on_image)
    try:
        _store(place, decoded)
    except OSError as error:
        reason = error.strerror or error
        return decoded, [
            f"the decoded images could not be kept in {folder} ({reason}); the next run decodes them again"
        ]
    return decoded, []


def _entry(folder: Path, source: str, resizing: Resizing, items: Sequence[Item]) -> Entry:
    """Return where the source is cached in ``folder``, and under which key."""
    path = os.path.abspath(source)
    name = re.sub(r"[^\w-]", "_", Path(path).name)[:80]
    place = hashlib.sha256(f"{resizing} {path}".encode(errors="surrogateescape")).hexdigest()[:16]
    key = hashlib.sha256(f"{FORMAT} {resizing} {_policy()}".encode())
    for item in items:
        key.update(f"\0{item.key}\0{item.stamp}".encode(errors="surrogateescape"))
    return Entry(folder / f"{name}-{resizing.size}-{place}", key.hexdigest())


def _is_worthwhile(items: Sequence[Item], size: int) -> bool:
    """Return whether the source is large enough to be cached."""
    return max(sum(item.file_bytes for item in items), len(items) * 3 * size * size) >= MIN_BYTES


def _load(place: Entry) -> Decoded | None:
    """Open what is there, its pixels mapped into memory; None if that is nothing, something else or damaged."""
    try:
        stored = json.loads(place.facts.read_bytes())
        images = np.lib.format.open_memmap(place.pixels, mode="c")  # changes in memory never reach the file
    except (OSError, ValueError, RecursionError):  # ValueError: not JSON, not an array, one of objects, or cut short
        return None
    if not isinstance(stored, dict) or stored.get("key") != place.key:
        return None
    facts = stored.get("facts")
    if not isinstance(facts, dict) or stored.get("checksum") != _checksum(images, facts):
        return None
    return Decoded(images, **facts)


def _store(place: Entry, decoded: Decoded) -> None:
    """Write both files, each at once or not at all, in place of older ones.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full; nothing is left behind.
    """
    place.stem.parent.mkdir(parents=True, exist_ok=True)
    for stale in place.stem.parent.glob(f".{place.stem.name}.*.part"):
        if stale.stat().st_mtime < time.time() - STALE_S:
            stale.unlink(missing_ok=True)
    facts = {name: value for name, value in vars(decoded).items() if name != "images"}
    stored = {"key": place.key, "checksum": _checksum(decoded.images, facts), "facts": facts}
    # Private, as photos may be, and not durable: what a power failure leaves is found wrong by its checksum.
    with replacing(place.pixels, mode=0o600, is_durable=False) as temporary, temporary.open("wb") as file:
        np.save(file, decoded.images, allow_pickle=False)
    with replacing(place.facts, mode=0o600, is_durable=False) as temporary:
        temporary.write_text(json.dumps(stored))


def _checksum(images: NDArray[np.uint8], facts: dict[str, Any]) -> int:
    shape = f"{images.dtype} {images.shape} "
    text = zlib.crc32((shape + json.dumps(facts, sort_keys=True)).encode())
    return zlib.crc32(images.data if images.flags.c_contiguous else images.tobytes(), text)


def _policy() -> str:
    """Return a digest of the code that a cached source follows from, so that no change of it needs a version raised."""
    code = [Path(str(module.__file__)).read_bytes() for module in (model_images, decode_files, duplicates, sources)]
    return hashlib.sha256(b"\0".join([*code, version("pillow").encode()])).hexdigest()
