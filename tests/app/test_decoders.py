"""Decoding in processes: what a file does to its decoder, it does to no one else."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app import decoders
from app.batcher import Overloaded
from app.decoders import DecoderFailed, Decoders
from app.main import create_app
from app.settings import Settings
from benchmarks.hostile_images import png
from model import images
from model.errors import ImageTooLarge, UnknownImageFormat, UnreadableImage

FAULTY = "tests.app.faulty_decoding"
TIME_LIMIT_S = 3.0
STARTS_WITHIN_S = 60.0  # a process that is replaced starts, on a busy machine


@pytest.fixture(scope="module")
def processes() -> Iterator[Decoders]:
    running = Decoders(time_limit_s=60, max_pixels=10_000, max_bytes=20_000_000)
    running.start(1)
    yield running
    running.close()


@pytest.fixture(scope="module")
def faulty() -> Iterator[Decoders]:
    """Decoders that a file can break by saying so after its pixels."""
    running = Decoders(time_limit_s=TIME_LIMIT_S, max_pixels=10_000, max_bytes=20_000_000, module=FAULTY)
    running.start(1)
    yield running
    running.close()


def test_pixels_are_those_of_training(processes: Decoders, photo: bytes) -> None:
    pixels, decoded = images.prepare(photo, 32)
    prepared = processes.prepare(photo, 32)
    assert prepared.tensor.equal(pixels)
    assert (prepared.width, prepared.height, prepared.format) == (decoded.width, decoded.height, decoded.format)


@pytest.mark.parametrize("size", [1, 32, 224])
def test_the_side_is_that_of_each_call(processes: Decoders, photo: bytes, size: int) -> None:
    assert processes.prepare(photo, size).tensor.shape == (3, size, size)


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", UnreadableImage, "image is empty"),
        (b"hello", UnknownImageFormat, "file is of an unknown format"),
        (png(200, 200), ImageTooLarge, "the limit is 0.01 MP"),
    ],
)
def test_refusals_are_those_of_the_decoder(
    processes: Decoders, content: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        processes.prepare(content, 32)


def test_many_threads_get_their_own_pictures(processes: Decoders, picture: object) -> None:
    photos = [picture(seed) for seed in range(40)]  # type: ignore[operator]
    with ThreadPoolExecutor(4) as pool:
        prepared = list(pool.map(lambda one: processes.prepare(one, 32).tensor, photos))
    assert all(one.equal(images.prepare(photo, 32)[0]) for one, photo in zip(prepared, photos, strict=True))


BREAKS = {
    "abort": (DecoderFailed, "the decoder crashed on this image"),
    "exit": (DecoderFailed, "the decoder crashed on this image"),
    "babble": (DecoderFailed, "the decoder crashed on this image"),
    "sleep": (DecoderFailed, "takes far longer to decode"),
    "loop": (DecoderFailed, "takes far longer to decode"),
    "allocate": (DecoderFailed, "the decoder crashed on this image"),
    "killed": (Overloaded, "send the image again"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_decoder_that_breaks_costs_one_answer(faulty: Decoders, photo: bytes, what: str) -> None:
    kind, words = BREAKS[what]
    faulty.prepare(photo, 32)  # so that a process waits, and starting one is not measured
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        faulty.prepare(photo + b"BREAK " + what.encode(), 32)
    assert time.monotonic() - started < TIME_LIMIT_S + STARTS_WITHIN_S
    assert faulty.prepare(photo, 32).tensor.equal(images.prepare(photo, 32)[0])


def test_a_decoder_that_was_killed_while_idle_is_not_missed(processes: Decoders, photo: bytes) -> None:
    for pid in processes.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert processes.prepare(photo, 32).tensor.shape == (3, 32, 32)


def test_decoders_end_with_the_service(photo: bytes) -> None:
    running = Decoders(time_limit_s=60, max_pixels=10_000, max_bytes=20_000_000)
    running.start(2)
    (one, other) = running.pids
    running.close()
    assert not Path(f"/proc/{one}").exists()
    assert not Path(f"/proc/{other}").exists()


def test_the_service_answers_on_after_a_crash(
    tiny_checkpoint: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(decoders.Decoders.__init__, "__kwdefaults__", {"module": FAULTY})
    app = create_app(Settings(checkpoint=tiny_checkpoint, store_dir=tmp_path))
    with TestClient(app) as client:
        broken = client.post("/v1/predict", content=photo + b"BREAK abort", headers={"Content-Type": "image/png"})
        assert (broken.status_code, broken.json()["code"]) == (422, "decoder_failed")
        assert client.post("/v1/predict", files={"file": photo}).status_code == 200
        files = [("files", photo), ("files", photo + b"BREAK abort"), ("files", photo)]
        results = client.post("/v1/predict/batch", files=files).json()["results"]
        assert ["problem" in result for result in results] == [False, True, False]
        stored = client.post("/v1/images", files={"file": photo + b"BREAK abort"})
        assert stored.json()["code"] == "decoder_failed"
        assert not list(tmp_path.rglob("*.jpg"))
