"""Uploaded images on disk, each under the hash of its bytes, bounded in bytes and age. Knows nothing of their contents.

Several processes of one machine may share a folder without locks: a file is written beside its place and then moved
there, so that it is whole or absent, and one that another process has removed meanwhile is simply absent. Only files
that were made here are read, counted or removed.
"""

import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torchlight.app.errors import StoreFull, StoreUnavailable, UnknownImage
from torchlight.model.files.atomic import replacing

ID = re.compile(r"sha256:([0-9a-f]{64})")
STORED, BEING_WRITTEN = re.compile(r"[0-9a-f]{64}"), re.compile(r"\.[0-9a-f]{64}\.\w+\.part")
LEFTOVER_AGE_S = 3600  # nothing is written for so long: the process that began it has crashed
SMALLEST_BYTES = 4096  # what a file takes on disk however small; bounds their number too
SLACK = 8  # a sweep frees an eighth of the bound, so that it need not be done again for every upload
DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, order=True)
class _Entry:
    """A file of ours; ordered oldest first."""

    modified: float
    path: str
    bytes: int


class ImageStore:
    """The uploads in one folder, which is made private if it is made here.

    Looking through the folder takes time, so it is done once an eighth of the bound has been added, and then makes
    room for the next eighth. Of n processes that share a folder each adds its own: together they may exceed the bound
    by n - 1 eighths of it, until the next sweep.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_age_s: float) -> None:
        """Make the folder if it is not there.

        Raises:
            StoreUnavailable: it cannot be made or written, or another user owns it.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._slack = max_bytes // SLACK
        self._added = max_bytes  # since the last sweep; what the folder holds already is not known yet
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unavailable(folder, f"cannot be made ({error.strerror})") from error
        _check_folder(folder)

    def put(self, content: bytes) -> str:
        """Keep an upload and return its id; the oldest make room for it.

        Raises:
            StoreFull: the disk, not the bound, has no room.
        """
        name = hashlib.sha256(content).hexdigest()
        try:
            with replacing(self._folder / name, mode=0o600, is_durable=False) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            raise StoreFull(
                f"the disk has no room for {len(content)} bytes ({error.strerror}); ask the operator for room, or "
                "use POST /v1/predict, which stores nothing"
            ) from error
        if self._may_be_full(len(content)):
            self.sweep()
        return f"sha256:{name}"

    def get(self, image_id: str) -> bytes:
        """Return the bytes of an upload.

        Raises:
            UnknownImage: it is not here: never was, too old, or evicted.
        """
        path = self.find(image_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise self._unknown(image_id) from error
        if hashlib.sha256(content).hexdigest() != path.name:  # a machine that crashed may leave a file half written
            path.unlink(missing_ok=True)
            raise self._unknown(image_id)
        return content

    def find(self, image_id: str) -> Path:
        """Return where an upload lies, without reading it.

        Raises:
            UnknownImage: as :meth:`get`.
        """
        found = ID.fullmatch(image_id)
        if found is None:
            raise UnknownImage(
                f"image {image_id[:80]!r} does not exist; an id is sha256: and 64 hex digits; POST /v1/images gives it"
            )
        path = self._folder / found[1]
        try:
            facts = path.lstat()
        except FileNotFoundError as error:
            raise self._unknown(image_id) from error
        if time.time() - facts.st_mtime > self._max_age_s or not stat.S_ISREG(facts.st_mode):
            raise self._unknown(image_id)
        return path

    def sweep(self) -> None:
        """Remove what is too old, then the oldest, but not the newest, until there is room for others."""
        entries = sorted(self._entries())
        newest_bytes = entries[-1].bytes if entries else 0
        excess = sum(entry.bytes for entry in entries) - max(self._max_bytes - self._slack, newest_bytes)
        oldest_allowed = time.time() - self._max_age_s
        for entry in entries:
            if entry.modified >= oldest_allowed and excess <= 0:
                return
            Path(entry.path).unlink(missing_ok=True)
            excess -= entry.bytes

    def _may_be_full(self, size: int) -> bool:
        """Count an upload of that size, and say whether a sweep is due; to one of the threads that ask."""
        with self._lock:
            self._added += max(size, SMALLEST_BYTES)
            is_due = self._added > self._slack
            self._added = 0 if is_due else self._added
        return is_due

    def _entries(self) -> Iterator[_Entry]:
        with os.scandir(self._folder) as found:
            for one in found:
                try:
                    facts = one.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(facts.st_mode) and _is_ours(one.name, facts.st_mtime):
                    yield _Entry(facts.st_mtime, one.path, max(facts.st_size, SMALLEST_BYTES))

    def _unknown(self, image_id: str) -> UnknownImage:
        hours = self._max_age_s / 3600
        return UnknownImage(
            f"image {image_id!r} is not stored; upload it again with POST /v1/images; uploads are kept "
            f"{hours:.3g} hours, less if room is needed"
        )


def _is_ours(name: str, modified: float) -> bool:
    is_leftover = BEING_WRITTEN.fullmatch(name) and time.time() - modified > LEFTOVER_AGE_S
    return bool(STORED.fullmatch(name) or is_leftover)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that another user has put where ours is expected."""
    owner = folder.lstat().st_uid
    if owner != 0 and owner != os.geteuid():
        raise _unavailable(folder, "belongs to another user")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unavailable(folder, "cannot be written")


def _unavailable(folder: Path, reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"folder {folder} for uploads {reason}; choose another with TORCHLIGHT_STORE_DIR")
