"""Uploads on disk: bounded in bytes and age, private, and safe when several processes share the folder."""

import errno
import multiprocessing
import os
import stat
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from torchlight.app.errors import StoreFull, StoreUnavailable, UnknownImage
from torchlight.app.inspection.image_store import ImageStore

MakeStore = Callable[..., ImageStore]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def make_store(folder: Path) -> MakeStore:
    def make(max_bytes: int = 100_000, max_age_s: float = 3600) -> ImageStore:
        return ImageStore(folder, max_bytes=max_bytes, max_age_s=max_age_s)

    return make


def age(path: Path, seconds: float) -> None:
    """Make a file look as if it had been written some time ago."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def file_of(folder: Path, image_id: str) -> Path:
    return folder / image_id.removeprefix("sha256:")


def test_upload_comes_back_by_the_hash_of_its_bytes(make_store: MakeStore) -> None:
    image_id = make_store().put(b"picture")
    assert image_id == f"sha256:{sha256(b'picture').hexdigest()}"
    assert make_store().get(image_id) == b"picture"


def test_same_upload_twice_is_one_file_that_counts_from_the_second_time(make_store: MakeStore, folder: Path) -> None:
    store = make_store()
    path = file_of(folder, store.put(b"picture"))
    age(path, 3000)
    store.put(b"picture")
    assert len(list(folder.iterdir())) == 1
    assert time.time() - path.stat().st_mtime < 1000


def test_folder_and_files_are_for_their_owner_alone(make_store: MakeStore, folder: Path) -> None:
    path = file_of(folder, make_store().put(b"picture"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_oldest_uploads_make_room(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_bytes=40_000)
    ids = [store.put(bytes([n]) * 10_000) for n in range(3)]
    for n, image_id in enumerate(ids):
        age(file_of(folder, image_id), 100 - n)
    ids.append(store.put(b"new" * 4_000))
    assert [file_of(folder, image_id).exists() for image_id in ids] == [False, True, True, True]


def test_newest_upload_stays_even_if_it_takes_all_the_room(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_bytes=40_000)
    age(file_of(folder, store.put(b"old")), 100)
    image_id = store.put(bytes(40_000))
    assert [path.name for path in folder.iterdir()] == [file_of(folder, image_id).name]


def test_folder_is_not_looked_through_for_every_upload(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []
    sweep = ImageStore.sweep
    monkeypatch.setattr(ImageStore, "sweep", lambda store: sweeps.append(sweep(store)))
    store = make_store(max_bytes=100 * 4096)
    for n in range(300):
        store.put(n.to_bytes(2, "big"))
    assert len(sweeps) == 1 + 299 // 13  # once for what was there, then whenever an eighth has been added


def test_many_small_uploads_are_bounded_in_number(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_bytes=40_960)
    numbers = []
    for n in range(30):
        store.put(bytes([n]))
        numbers.append(len(list(folder.iterdir())))
    assert max(numbers) <= 10  # each takes a block of 4096 bytes
    assert min(numbers[10:]) >= 8


def test_upload_that_is_too_old_is_unknown_even_before_it_is_removed(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_age_s=7200)
    image_id = store.put(b"picture")
    age(file_of(folder, image_id), 7300)
    with pytest.raises(UnknownImage, match="upload it again with POST /v1/images; uploads are kept 2 hours"):
        store.get(image_id)
    store.sweep()
    assert not list(folder.iterdir())


def test_what_others_put_into_the_folder_is_neither_read_nor_removed(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_bytes=5000)
    foreign = [folder / "notes.txt", folder / "video.part"]
    for path in foreign:
        path.write_bytes(bytes(9000))
        age(path, 10**6)
    outside = folder.parent / "outside"
    outside.write_bytes(b"secret")
    link = folder / ("0" * 64)
    link.symlink_to(outside)
    store.put(b"picture")
    store.put(b"another picture")
    assert all(path.exists() for path in (*foreign, outside, link))
    with pytest.raises(UnknownImage):
        store.get(f"sha256:{'0' * 64}")
    assert link.exists()


def test_half_written_file_of_a_crashed_process_is_removed_after_an_hour(make_store: MakeStore, folder: Path) -> None:
    store = make_store(max_age_s=600)
    fresh, leftover = (folder / f".{'0' * 64}.{name}.part" for name in ("fresh", "left"))
    for path, seconds in ((fresh, 3000), (leftover, 4000)):
        path.write_bytes(b"half")
        age(path, seconds)
    store.sweep()
    assert [path.name for path in folder.iterdir()] == [fresh.name]


def test_file_that_is_not_what_its_name_says_is_unknown_and_removed(make_store: MakeStore, folder: Path) -> None:
    store = make_store()
    image_id = store.put(b"picture")
    file_of(folder, image_id).write_bytes(b"pict")
    with pytest.raises(UnknownImage):
        store.get(image_id)
    assert not file_of(folder, image_id).exists()


@pytest.mark.parametrize(
    "image_id",
    [
        "",
        "sha256:",
        "../../etc/passwd",
        f"sha256:../{'0' * 61}",
        f"sha256:{'A' * 64}",
        f"sha256:{'0' * 63}\0",
        "0" * 64,
    ],
)
def test_hostile_id_is_unknown_and_touches_no_file(make_store: MakeStore, image_id: str) -> None:
    with pytest.raises(UnknownImage, match="64 hex digits"):
        make_store().get(image_id)


def test_full_disk_is_named_and_leaves_nothing_behind(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()

    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(StoreFull, match=r"disk has no room for 7 bytes \(No space left"):
        store.put(b"picture")
    assert not list(folder.iterdir())


def test_other_failure_of_the_disk_is_not_called_full(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()

    def fail(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        store.put(b"picture")


def test_file_that_vanishes_during_a_sweep_is_no_matter(
    make_store: MakeStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(max_age_s=60)
    path = file_of(folder, store.put(b"picture"))
    age(path, 100)
    unlink = Path.unlink

    def twice(self: Path, missing_ok: bool = False) -> None:
        unlink(self)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", twice)
    store.sweep()
    assert not path.exists()


def test_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="TORCHLIGHT_STORE_DIR"):
        ImageStore(tmp_path / "file" / "store", max_bytes=1, max_age_s=1)


def test_folder_of_another_user_is_refused(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    make_store()
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result((0o40700, 1, 1, 1, 12345, 12345, 0, 0, 0, 0)))
    with pytest.raises(StoreUnavailable, match="belongs to another user"):
        make_store()


def put_many(folder: Path, first: int) -> int:
    """Store 150 uploads in a folder with room for 200 and count those that were there right after.

    However long this process is kept waiting, another one that does the same cannot push out what was just put.
    """
    store = ImageStore(folder, max_bytes=1_600_000, max_age_s=3600)
    found = 0
    for n in range(first, first + 150):
        content = n.to_bytes(4, "big") * 2000
        path = file_of(folder, store.put(content))
        found += path.exists()
    return found


def test_two_processes_share_a_folder_without_losing_what_they_have_just_put(folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(put_many, [(folder, 0), (folder, 10_000)])
    assert found == [150, 150]
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_800_000
    ImageStore(folder, max_bytes=1_600_000, max_age_s=3600).sweep()
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_600_000
    assert all(path.name == sha256(path.read_bytes()).hexdigest() for path in folder.iterdir())
