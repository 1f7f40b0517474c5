"""The service under pressure: its network is held, so that what waits, waits as long as the test wants."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
import torch
from fastapi import FastAPI
from starlette.types import Message
from torch import Tensor

from torchlight.app.inference.decoder_pool import DecoderPool
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import Answers
from torchlight.model.graph import NetworkGraph

pytestmark = pytest.mark.anyio


class HeldNetwork:
    """Stands before a classifier's network, counts the images and lets none through until it is opened."""

    def __init__(self, answer: Callable[[Tensor], Answers]) -> None:
        self._answer = answer
        self.gate = threading.Event()
        self.is_running = threading.Event()
        self.images = 0

    def __call__(self, images: Tensor) -> Answers:
        self.images += len(images)
        self.is_running.set()
        assert self.gate.wait(timeout=120)
        return self._answer(images)

    async def until_running(self) -> None:
        await asyncio.to_thread(self.is_running.wait, 120)


Running = tuple[FastAPI, httpx2.AsyncClient, HeldNetwork]


async def until_waiting(app: FastAPI, images: int) -> None:
    async with asyncio.timeout(120):
        while app.state.service.batcher.waiting < images:
            await asyncio.sleep(0)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Running]:
    """Start the service and hold its network as soon as it is warm."""
    app = create_app(settings)
    service = app.state.service
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        while service.state != "ready":
            await asyncio.sleep(0)
        held = HeldNetwork(service.engine.answer)
        service.engine = replace(service.engine, answer=held)
        yield app, client, held
        held.gate.set()


def predict(client: httpx2.AsyncClient, photo: bytes) -> asyncio.Task[httpx2.Response]:
    return asyncio.create_task(client.post("/v1/predict", content=photo, headers={"Content-Type": "image/png"}))


async def test_full_queue_is_a_503_that_says_when_to_come_back(tiny_checkpoint: Path, photo: bytes) -> None:
    settings = Settings(checkpoint=tiny_checkpoint, queue_size=3, max_files=3)
    async with running(settings) as (app, client, held):
        first = predict(client, photo)
        await held.until_running()
        batch = asyncio.create_task(client.post("/v1/predict/batch", files=[("files", photo)] * 3))
        await until_waiting(app, 3)
        refused = await predict(client, photo)
        held.gate.set()
        answers = await asyncio.gather(first, batch)
    assert (refused.json()["code"], refused.headers["Retry-After"]) == ("overloaded", "1")
    assert [answer.status_code for answer in answers] == [200, 200]


async def test_answer_that_takes_too_long_is_a_504_and_what_waited_is_not_computed(
    tiny_checkpoint: Path, photo: bytes
) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=1)) as (_, client, held):
        first = predict(client, photo)
        await held.until_running()
        second = await predict(client, photo)
        held.gate.set()
        late = await first
    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
    assert (second.status_code, held.images) == (504, 1)


async def test_image_of_a_client_who_left_is_not_computed(tiny_checkpoint: Path, photo: bytes) -> None:
    messages: asyncio.Queue[Message] = asyncio.Queue()
    headers = [(b"content-type", b"image/png")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with running(Settings(checkpoint=tiny_checkpoint)) as (app, client, held):
        first = predict(client, photo)
        await held.until_running()
        await messages.put({"type": "http.request", "body": photo})
        await messages.put({"type": "http.disconnect"})
        await app(scope, messages.get, send)
        held.gate.set()
        assert (await first).status_code == 200
    assert (held.images, sent) == (1, [])


async def test_files_of_a_batch_are_decoded_side_by_side(
    tiny_checkpoint: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchlight.app.inference.cpu_quota.available_cpus", lambda: 3)
    monkeypatch.setitem(DecoderPool.__init__.__kwdefaults__, "module", "tests.app.inference.faulty_decoder")
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=120)) as (_, client, held):
        held.gate.set()
        meeting = photo + f"BREAK meet {tmp_path}".encode()  # each waits for the two others
        answer = await client.post("/v1/predict/batch", files=[("files", meeting)] * 3)
    assert [len(one["predictions"]) for one in answer.json()["results"]] == [3, 3, 3]


async def test_files_of_a_batch_that_have_not_begun_at_its_deadline_are_dropped(
    tiny_checkpoint: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchlight.app.inference.cpu_quota.available_cpus", lambda: 1)
    monkeypatch.setitem(DecoderPool.__init__.__kwdefaults__, "module", "tests.app.inference.faulty_decoder")
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=1)) as (app, client, held):
        held.gate.set()
        slow = photo + b"BREAK sleep"
        late = await client.post("/v1/predict/batch", files=[("files", slow), ("files", photo), ("files", photo)])
        app.state.service.settings = Settings(checkpoint=tiny_checkpoint, deadline_s=120)
        assert (await predict(client, photo)).status_code == 200
    assert late.status_code == 200
    codes = [one["problem"]["code"] for one in late.json()["results"]]
    assert codes[0] in ("deadline_exceeded", "decoder_failed")  # it has the same second
    assert codes[1:] == ["deadline_exceeded"] * 2
    assert held.images == 1


async def test_room_for_a_file_is_checked_once(
    tiny_checkpoint: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []
    check_room = DecoderPool.check_room

    def count(pool: DecoderPool, number: int) -> None:
        checked.append(number)
        check_room(pool, number)

    monkeypatch.setattr(DecoderPool, "check_room", count)
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=120)) as (_, client, held):
        held.gate.set()
        assert (await predict(client, photo)).status_code == 200
    assert checked == [1]


async def test_layers_are_known_when_the_service_is_ready(tiny_checkpoint: Path) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint)) as (app, _, _):
        assert "graph" in vars(app.state.service.classifier)  # traced already


async def test_of_sixteen_clients_only_the_one_with_the_bad_image_gets_an_error(
    tiny_checkpoint: Path, picture: Callable[[int], bytes]
) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=120)) as (app, client, held):
        bad = (await app.state.service.prepare(picture(5))).tensor
        compute = held._answer

        def fail_on_bad(images: Tensor) -> Tensor:
            if any(image.equal(bad) for image in images):
                raise RuntimeError("cannot be computed")
            return compute(images)

        held._answer = fail_on_bad
        first = predict(client, picture(100))
        await held.until_running()
        rest = [predict(client, picture(seed)) for seed in range(16)]
        await until_waiting(app, 16)
        held.gate.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [getattr(answer, "status_code", 500) for answer in answers] == [200] * 6 + [500] + [200] * 10
    assert held.images <= 1 + 16 + 2 * 16  # each halving computes the sixteen or fewer again


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), torch.AcceleratorError("device is lost")])
async def test_an_error_of_the_device_is_everybodys_at_once(
    tiny_checkpoint: Path, picture: Callable[[int], bytes], error: Exception
) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint, deadline_s=120)) as (app, client, held):
        first = predict(client, picture(100))
        await held.until_running()
        rest = [predict(client, picture(seed)) for seed in range(16)]
        await until_waiting(app, 16)

        def fail(_images: Tensor) -> Tensor:
            raise error

        held._answer = fail
        held.gate.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [getattr(answer, "status_code", 500) for answer in answers] == [500] * 17
    assert held.images == 17


async def test_health_and_pictures_are_answered_while_the_network_is_busy(tiny_checkpoint: Path, photo: bytes) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint)) as (_, client, held):
        first = predict(client, photo)
        await held.until_running()
        alive = await client.get("/livez")
        maps = await client.post("/v1/activations", files={"file": photo})
        held.gate.set()
        await first
    assert (alive.status_code, maps.status_code) == (200, 200)


async def test_stopping_answers_what_was_accepted(tiny_checkpoint: Path, photo: bytes) -> None:
    async with running(Settings(checkpoint=tiny_checkpoint, max_batch_size=1)) as (app, client, held):
        accepted = [predict(client, photo) for _ in range(5)]
        await held.until_running()
        await until_waiting(app, 4)
        held.gate.set()
    assert [(await answer).status_code for answer in accepted] == [200] * 5


async def test_a_network_that_cannot_run_is_never_ready(
    tiny_checkpoint: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def out_of_memory(_classifier: Classifier, images: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Classifier, "network_input", out_of_memory)
    app = create_app(Settings(checkpoint=tiny_checkpoint, engine="pytorch"))
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        while app.state.service.state == "warming up":
            await asyncio.sleep(0)
        ready, answer = await client.get("/readyz"), await predict(client, photo)
    assert (ready.status_code, ready.json()["detail"]) == (503, "the service is broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "out of memory" in caplog.text
    assert "out of memory" not in answer.text


async def test_nothing_is_traced_once_requests_can_come(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings(checkpoint=tiny_checkpoint))

    def fail(*_: object) -> None:
        raise AssertionError("traced beside requests: torch.fx changes how all modules are called meanwhile")

    monkeypatch.setattr(NetworkGraph, "__init__", fail)
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        await app.state.service.warmed_up()
        assert (await client.get("/v1/layers")).status_code == 200
