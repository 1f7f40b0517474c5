"""Decoding in processes: what a file does to its decoder, it does to no one else."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from stress.hostile_images import png
from torchlight.app.errors import DeadlineExceeded, DecoderFailed, Overloaded
from torchlight.app.inference import decoder_pool
from torchlight.app.inference.decoder_pool import DecoderPool, Prepared
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.errors import ImageTooLarge, UnknownImageFormat, UnreadableImage
from torchlight.model.images import RESIZE_RULES, Resizing, prepare_image

Result = TypeVar("Result")
FAULTY = "tests.app.inference.faulty_decoder"
TIME_LIMIT_S = 3.0
STARTS_WITHIN_S = 60.0  # a process that is replaced starts, on a busy machine


class Running:
    """Decoders on an event loop of their own, called one after the other."""

    def __init__(self, **options: Any) -> None:
        self._runner = asyncio.Runner()
        usual = {"number": 1, "queue_size": 100, "time_limit_s": 60, "max_pixels": 10_000, "max_bytes": 20_000_000}
        self.decoders = DecoderPool(**usual | options)
        self._runner.run(self.decoders.start())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    def prepare(self, content: bytes, resizing: Resizing) -> Prepared:
        return self.run(self.decoders.prepare(content, resizing, None))

    def prepare_all(self, contents: list[bytes]) -> list[Prepared]:
        async def together() -> list[Prepared]:
            return await asyncio.gather(*(self.decoders.prepare(one, Resizing(32), None) for one in contents))

        return self.run(together())

    def close(self) -> None:
        self._runner.run(self.decoders.close())
        self._runner.close()


@pytest.fixture(scope="module")
def processes() -> Iterator[Running]:
    running = Running()
    yield running
    running.close()


@pytest.fixture(scope="module")
def faulty() -> Iterator[Running]:
    """Decoders that a file can break by saying so after its pixels."""
    running = Running(time_limit_s=TIME_LIMIT_S, module=FAULTY)
    yield running
    running.close()


def test_pixels_are_those_of_training(processes: Running, photo: bytes) -> None:
    pixels, decoded = prepare_image(photo, Resizing(32))
    prepared = processes.prepare(photo, Resizing(32))
    assert prepared.tensor.equal(pixels)
    assert (prepared.width, prepared.height, prepared.format) == (decoded.width, decoded.height, decoded.format)


@pytest.mark.parametrize("rule", RESIZE_RULES)
@pytest.mark.parametrize("size", [1, 32, 224])
def test_side_and_rule_are_those_of_each_call(processes: Running, photo: bytes, size: int, rule: str) -> None:
    resizing = Resizing(size, rule)
    assert processes.prepare(photo, resizing).tensor.equal(prepare_image(photo, resizing)[0])


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b"", UnreadableImage, "image is empty"),
        (b"hello", UnknownImageFormat, "file is of an unknown format"),
        (png(200, 200), ImageTooLarge, "the limit is 0.01 MP"),
    ],
)
def test_refusals_are_those_of_the_decoder(
    processes: Running, content: bytes, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        processes.prepare(content, Resizing(32))


def test_many_callers_get_their_own_pictures(processes: Running, picture: Callable[[int], bytes]) -> None:
    photos = [picture(seed) for seed in range(40)]
    prepared = processes.prepare_all(photos)
    assert all(
        one.tensor.equal(prepare_image(photo, Resizing(32))[0]) for one, photo in zip(prepared, photos, strict=True)
    )


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
def test_a_decoder_that_breaks_costs_one_answer(faulty: Running, photo: bytes, what: str) -> None:
    kind, words = BREAKS[what]
    faulty.prepare(photo, Resizing(32))  # so that a process waits, and starting one is not measured
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        faulty.prepare(photo + b"BREAK " + what.encode(), Resizing(32))
    assert time.monotonic() - started < TIME_LIMIT_S + STARTS_WITHIN_S
    assert faulty.prepare(photo, Resizing(32)).tensor.equal(prepare_image(photo, Resizing(32))[0])


def test_files_that_wait_behind_a_bad_one_are_decoded(faulty: Running, photo: bytes) -> None:
    async def together() -> list[Prepared | BaseException]:
        contents = [photo, photo, photo + b"BREAK abort", photo, b"hello", photo]  # the first keeps the process busy
        calls = (faulty.decoders.prepare(one, Resizing(32), None) for one in contents)
        return await asyncio.gather(*calls, return_exceptions=True)

    pids = faulty.decoders.pids
    outcomes = faulty.run(together())
    assert [type(one) for one in outcomes] == [
        Prepared,
        Prepared,
        DecoderFailed,
        Prepared,
        UnknownImageFormat,
        Prepared,
    ]
    expected = prepare_image(photo, Resizing(32))[0]
    assert all(one.tensor.equal(expected) for one in outcomes if isinstance(one, Prepared))
    assert faulty.decoders.pids != pids


def test_surplus_output_of_a_process_is_no_other_files_answer(faulty: Running, photo: bytes) -> None:
    with contextlib.suppress(DecoderFailed):  # as the pieces come
        assert faulty.prepare(photo + b"BREAK say more", Resizing(32)).format == "GIF"
    for _ in range(3):
        prepared = faulty.prepare(photo, Resizing(32))
        assert prepared.format == "PNG"
        assert prepared.tensor.equal(prepare_image(photo, Resizing(32))[0])


def test_a_decoder_that_was_killed_while_idle_is_not_missed(processes: Running, photo: bytes) -> None:
    for pid in processes.decoders.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert processes.prepare(photo, Resizing(32)).tensor.shape == (3, 32, 32)


def test_decoders_end_with_the_service() -> None:
    running = Running(number=2)
    (one, other) = running.decoders.pids
    running.close()
    assert not Path(f"/proc/{one}").exists()
    assert not Path(f"/proc/{other}").exists()


@pytest.fixture
async def full() -> AsyncIterator[DecoderPool]:
    """A decoder that is busy for as long as it may be, and the one file that may wait for it."""
    decoders = DecoderPool(
        number=1, queue_size=1, time_limit_s=TIME_LIMIT_S, max_pixels=10_000, max_bytes=20_000_000, module=FAULTY
    )
    await decoders.start()
    yield decoders
    await decoders.close()


@pytest.mark.anyio
async def test_a_file_more_than_may_wait_is_refused_at_once(full: DecoderPool, photo: bytes) -> None:
    slow = asyncio.create_task(full.prepare(photo + b"BREAK sleep", Resizing(32), None))
    waiting = asyncio.create_task(full.prepare(photo, Resizing(32), None))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="2 images are being decoded or wait for it"):
        await full.prepare(photo, Resizing(32), None)
    with pytest.raises(Overloaded):
        full.check_room(1)
    with pytest.raises(DecoderFailed):
        await slow
    assert (await waiting).width == Image.open(io.BytesIO(photo)).width


@pytest.mark.anyio
async def test_a_file_past_its_deadline_counts_only_while_its_decoder_is_busy(full: DecoderPool, photo: bytes) -> None:
    now = asyncio.get_running_loop().time()
    slow = asyncio.create_task(full.prepare(photo + b"BREAK sleep", Resizing(32), now + 0.5))
    await asyncio.sleep(0)
    for _ in range(5):  # each gives its place back
        with pytest.raises(DeadlineExceeded):
            await full.prepare(photo, Resizing(32), now)
    with pytest.raises(DeadlineExceeded):
        await slow
    waiting = asyncio.create_task(full.prepare(photo, Resizing(32), None))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await full.prepare(photo, Resizing(32), None)
    assert (await waiting).format


def has_room(decoders: DecoderPool) -> bool:
    try:
        decoders.check_room(1)
    except Overloaded:
        return False
    return True


@pytest.mark.anyio
async def test_files_are_refused_while_no_decoder_can_be_started(
    full: DecoderPool, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(DecoderFailed):
        await full.prepare(photo + b"BREAK abort", Resizing(32), None)
    async with asyncio.timeout(STARTS_WITHIN_S):
        while has_room(full):
            await asyncio.sleep(0.01)
    with pytest.raises(Overloaded, match="no decoder can be started"):
        await full.prepare(photo, Resizing(32), None)
    monkeypatch.undo()
    async with asyncio.timeout(STARTS_WITHIN_S):
        while not full.pids:
            await asyncio.sleep(0.01)
    assert (await full.prepare(photo, Resizing(32), None)).format


def test_the_service_answers_on_after_a_crash(
    tiny_checkpoint: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(decoder_pool.DecoderPool.__init__.__kwdefaults__, "module", FAULTY)
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
