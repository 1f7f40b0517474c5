"""Inspection beside prediction: neither changes the other, and nothing is left on the network."""

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from torch import Tensor, nn

from stress.load.service import read
from tests.app.conftest import StartServer
from torchlight.app.main import create_app
from torchlight.app.settings import Settings

pytestmark = pytest.mark.anyio
Picture = Callable[..., bytes]
VIEWS = [
    "prediction",
    "input.npy",
    "activations/relu2.npy",
    "activations/conv2/3.json",
    "trace/conv2/3/1/2",
    "attributions/grad_cam.json?target=dog",
    "attributions/integrated_gradients.npy?n_steps=4",
    "reconstructions/relu3/5.npy",
    "occlusion?y=4&x=4",
    "attributions/occlusion.npy?window=16&stride=16",
]


@asynccontextmanager
async def running(checkpoint: Path, folder: Path, **settings: int) -> AsyncIterator[tuple[FastAPI, httpx2.AsyncClient]]:
    app = create_app(Settings(checkpoint=checkpoint, device="cpu", store_dir=folder, deadline_s=120, **settings))
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        await app.state.service.warmed_up()
        yield app, client


async def store(client: httpx2.AsyncClient, content: bytes) -> str:
    return str((await client.post("/v1/images", files={"file": content})).headers["Location"])


def probabilities(answer: httpx2.Response) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in json.loads(answer.content)["predictions"]}


def hooks(network: nn.Module) -> Iterator[object]:
    for module in network.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()
        yield from module._backward_hooks.values()


async def test_mixed_calls_at_once_give_what_they_give_one_by_one(
    tiny_checkpoint: Path, tmp_path: Path, picture: Picture
) -> None:
    pictures = [picture(seed) for seed in range(3)]
    async with running(tiny_checkpoint, tmp_path, view_cache_bytes=0) as (app, client):
        paths = [await store(client, content) for content in pictures]
        addresses = [f"{path}/{view}" for view in VIEWS for path in paths][:22]

        async def predict(content: bytes) -> httpx2.Response:
            return await client.post("/v1/predict", files={"file": content})

        async def call() -> list[httpx2.Response]:
            calls = [client.get(address) for address in addresses]
            for n in range(10):
                calls.insert(3 * n, predict(pictures[n % 3]))
            return list(await asyncio.gather(*calls))

        answered = {(n % 3): probabilities(await predict(pictures[n % 3])) for n in range(3)}
        serial = {address: (await client.get(address)).content for address in addresses}
        together = await call()
        network = app.state.service.classifier.network
    assert len(together) == 32
    assert {answer.status_code for answer in together} == {200}
    seen = {str(answer.request.url.raw_path, "ascii"): answer.content for answer in together}
    assert {address: seen[address] for address in addresses} == serial
    for n in range(10):
        assert probabilities(together[3 * n]) == pytest.approx(answered[n % 3], abs=1e-6)
    assert not list(hooks(network))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.training


async def test_predictions_are_answered_while_a_view_takes_its_time(
    tiny_checkpoint: Path, tmp_path: Path, photo: bytes
) -> None:
    async with running(tiny_checkpoint, tmp_path) as (app, client):
        path = await store(client, photo)
        inspector = app.state.inspector
        started, released = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        compute = inspector.classifier.network_input

        def held(images: Tensor) -> Tensor:
            loop.call_soon_threadsafe(started.set)
            asyncio.run_coroutine_threadsafe(released.wait(), loop).result(60)
            return compute(images)

        inspector.classifier.network_input = held
        view = asyncio.create_task(client.get(f"{path}/prediction"))
        await started.wait()
        inspector.classifier.network_input = compute
        answers = [await client.post("/v1/predict", files={"file": photo}) for _ in range(5)]
        assert not view.done()
        released.set()
        late = await view
    assert {answer.status_code for answer in (*answers, late)} == {200}
    assert probabilities(late) == pytest.approx(probabilities(answers[0]), abs=1e-6)


@pytest.mark.parametrize("view", ["occlusion.npy?window=1&stride=1", "integrated_gradients.npy?n_steps=256"])
async def test_evidence_of_many_passes_ends_when_nobody_waits_for_it(
    tiny_checkpoint: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    async with running(tiny_checkpoint, tmp_path) as (app, client):
        path = await store(client, photo)
        graph, loop = app.state.service.classifier.graph, asyncio.get_running_loop()
        run, passes = graph.run, itertools.count(1)
        has_begun, gate = asyncio.Event(), threading.Event()

        def held(*arguments: object) -> object:
            if next(passes) == 3:
                loop.call_soon_threadsafe(has_begun.set)
                assert gate.wait(60)
            return run(*arguments)

        monkeypatch.setattr(graph, "run", held)
        evidence = asyncio.create_task(client.get(f"{path}/attributions/{view}"))
        await has_begun.wait()
        evidence.cancel()
        await asyncio.wait([evidence])
        gate.set()
        answer = await client.get(f"{path}/occlusion?y=0&x=0")
    assert answer.status_code == 200
    assert next(passes) == 5  # the three that had begun, and the one of the square


async def test_what_was_looked_at_takes_bounded_memory(tiny_checkpoint: Path, tmp_path: Path, picture: Picture) -> None:
    async with running(tiny_checkpoint, tmp_path, view_cache_bytes=200_000) as (app, client):
        for seed in range(6):
            path = await store(client, picture(seed))
            for layer in ("conv1", "relu1", "conv2"):
                assert (await client.get(f"{path}/activations/{layer}.npy")).status_code == 200
        assert 0 < app.state.inspector.cache.bytes <= 200_000


async def test_old_uploads_are_removed_while_nobody_comes(tiny_checkpoint: Path, tmp_path: Path, photo: bytes) -> None:
    async with running(tiny_checkpoint, tmp_path, store_max_age_s=1) as (_, client):
        assert (await client.post("/v1/images", files={"file": photo})).status_code == 201
        async with asyncio.timeout(60):
            while list(tmp_path.iterdir()):
                await asyncio.sleep(0)


async def test_full_disk_is_a_507_that_says_so(
    tiny_checkpoint: Path, tmp_path: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    async with running(tiny_checkpoint, tmp_path) as (_, client):
        monkeypatch.setattr(Path, "replace", fail)
        refused = await client.post("/v1/images", files={"file": photo})
        answer = await client.post("/v1/predict", files={"file": photo})
    assert (refused.status_code, refused.json()["code"]) == (507, "store_full")
    assert "No space left on device" in refused.json()["detail"]
    assert str(tmp_path) not in refused.text
    assert answer.status_code == 200


@pytest.mark.slow
def test_memory_stays_where_it_is_over_a_thousand_calls(start_server: StartServer, picture: Picture) -> None:
    server = start_server(threads=1, view_cache_bytes=1_000_000, deadline_s=120)
    (worker,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        stored = [client.post("/v1/images", files={"file": picture(seed)}) for seed in range(3)]
        addresses = itertools.cycle(
            f"{one.headers['Location']}/{view}"
            for one in stored
            for view in (*VIEWS, "activations/conv2.png", "attributions/hires_cam.png")
        )

        def call(number: int) -> float:
            for address in itertools.islice(addresses, number):
                assert client.get(address).status_code == 200
            return read(int(worker), "worker").rss_mb

        before = call(800)  # what is kept for a while is full by then, and the allocator has grown in each thread
        after = call(1000)
    print(f"resident memory over 1000 calls: {before:.1f} MB before, {after:.1f} MB after")
    assert after < 1.01 * before
