"""Metrics: what is counted under which name, over all processes of a service, the killed ones too."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from starlette.types import Message

from torchlight.app.api.problems import CODES
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.app.telemetry.metrics import Metrics, Snapshot
from torchlight.app.telemetry.shared_counters import SharedCounters
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint
from torchlight.model.uncertainty.drift import LEAST, DriftFigures

PNG = {"Content-Type": "image/png"}
ROOT = Path(__file__).parents[3]


class Exposition:
    """A scrape that can be asked for its samples."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.types = {family.name: family.type for family in families}
        self.samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        return sum(one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())

    def by_labels(self, name: str) -> dict[tuple[str, ...], float]:
        """Values by the labels' values, in the order of the labels' names."""
        return {tuple(one.labels.values()): one.value for one in self.samples if one.name == name}

    def labels(self, name: str) -> list[dict[str, str]]:
        return [one.labels for one in self.samples if one.name == name]


def scrape(client: TestClient) -> Exposition:
    answer = client.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Exposition(answer.text)


def until_ready(client: TestClient) -> TestClient:
    with_limit = time.monotonic() + 120
    while client.app.state.service.state != "ready":
        assert time.monotonic() < with_limit
    return client


StartClient = Callable[..., TestClient]


@pytest.fixture
def start_client(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[StartClient]:
    """Start a service in this process; several may share a folder of metrics."""
    clients = []

    def start(metrics_dir: Path | None = None, **settings: object) -> TestClient:
        given = {"checkpoint": tiny_checkpoint, "device": "cpu", "engine": "pytorch", "store_dir": tmp_path / "store"}
        given |= {"deadline_s": 120} | settings  # machines that run tests are busy
        clients.append(TestClient(create_app(Settings(**given), metrics_dir)))
        return until_ready(clients[-1].__enter__())

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(start_client: StartClient) -> TestClient:
    return start_client()


def predict(client: TestClient, content: bytes, times: int = 1) -> None:
    for _ in range(times):
        client.post("/v1/predict", content=content, headers=PNG)


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient, photo: bytes) -> None:
    predict(client, photo, times=2)
    for path in ("/v1/layers/conv1/filters.png", "/v1/layers/nothing/filters", "/page/style.css", "/openapi.json"):
        client.get(path)
    for path in ("/nothing", "/nothing/else?key=1", "/v1/layers/conv1/filters.png/x"):
        client.get(path)
    client.delete("/v1/predict")
    client.request("BREW", "/livez")
    found = scrape(client)
    counted = found.by_labels("torchlight_requests_total")
    assert counted == {
        ("POST", "/v1/predict", "200"): 2,
        ("DELETE", "/v1/predict", "405"): 1,
        ("GET", "/v1/layers/{layer}/filters", "200"): 1,
        ("GET", "/v1/layers/{layer}/filters", "404"): 1,
        ("GET", "/page/{path}", "200"): 1,
        ("GET", "/openapi.json", "200"): 1,
        ("GET", "unmatched", "404"): 3,
        ("other", "/livez", "405"): 1,
    }
    assert found.sum("torchlight_request_duration_seconds_count", route="/v1/predict") == 3
    assert found.sum("torchlight_requests_in_progress") == 1  # the scrape itself


def test_each_image_is_counted_with_its_label_its_confidence_and_its_stages(client: TestClient, photo: bytes) -> None:
    answer = client.post("/v1/predict", content=photo, headers=PNG).json()
    client.post("/v1/predict/batch", files=[("files", photo), ("files", photo)])
    found = scrape(client)
    best = answer["predictions"][0]
    assert found.sum("torchlight_predictions_total", label=best["label"]) == 3
    assert found.sum("torchlight_predictions_total") == 3
    assert len(found.labels("torchlight_predictions_total")) == 3  # those that were never the answer are there with 0
    assert found.sum("torchlight_confidence_sum") == pytest.approx(3 * best["probability"], abs=1e-5)
    for stage in ("decode", "queue", "inference"):
        assert found.sum("torchlight_stage_duration_seconds_count", stage=stage) == 3
    assert found.sum("torchlight_stage_duration_seconds_sum", stage="decode") >= answer["timing_ms"]["decode"] / 1e3


def test_batches_are_counted_by_their_size(client: TestClient, photo: bytes) -> None:
    before = scrape(client)
    predict(client, photo, times=3)
    after = scrape(client)
    assert after.sum("torchlight_batch_size_count") - before.sum("torchlight_batch_size_count") == 3
    assert after.sum("torchlight_batch_size_sum") - before.sum("torchlight_batch_size_sum") == 3


def test_refusals_are_counted_by_their_code_in_a_batch_too(start_client: StartClient, photo: bytes) -> None:
    client = start_client(max_body_bytes=10_000)
    assert scrape(client).sum("torchlight_refusals_total") == 0
    predict(client, b"text")
    predict(client, bytes(10_001))
    client.post("/v1/predict/batch", files=[("files", photo), ("files", b"text")])
    client.get("/v1/layers/nothing/filters")
    found = scrape(client)
    counted = found.by_labels("torchlight_refusals_total")
    assert counted.keys() == {(code,) for code in CODES}
    assert {code: number for (code,), number in counted.items() if number} == {
        "unknown_image_format": 2,
        "body_too_large": 1,
        "unknown_layer": 1,
    }


def test_client_who_left_is_counted(client: TestClient) -> None:
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"begin", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"image/png"), (b"host", b"x")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "query_string": b"", "headers": headers}
    asyncio.run(client.app(scope, receive, send))
    found = scrape(client)
    assert found.sum("torchlight_abandoned_requests_total") == 1
    assert found.sum("torchlight_requests_total", route="/v1/predict", status="499") == 1


def test_the_model_and_the_process_are_described(client: TestClient) -> None:
    found, model = scrape(client), client.get("/v1/model").json()
    assert found.labels("torchlight_model_info") == [
        {"name": "tiny", "digest": model["digest"], "architecture": "guide", "classes": "3"}
    ]
    assert found.sum("torchlight_processes") == 1
    assert found.sum("process_resident_memory_bytes") > 1e6
    assert found.sum("process_cpu_seconds_total") > 0
    assert found.sum("process_start_time_seconds") > 1e9


def test_names_and_types_are_as_prometheus_wants_them(client: TestClient, photo: bytes) -> None:
    predict(client, photo)
    predict(client, b"text")
    assert scrape(client).types == {
        "torchlight_requests": "counter",
        "torchlight_request_duration_seconds": "histogram",
        "torchlight_requests_in_progress": "gauge",
        "torchlight_refusals": "counter",
        "torchlight_abandoned_requests": "counter",
        "torchlight_stage_duration_seconds": "histogram",
        "torchlight_batch_size": "histogram",
        "torchlight_queue_length": "gauge",
        "torchlight_predictions": "counter",
        "torchlight_unknown_images": "counter",
        "torchlight_confidence": "histogram",
        "torchlight_model_info": "gauge",
        "torchlight_ready_processes": "gauge",
        "torchlight_processes": "gauge",
        "torchlight_drift": "gauge",
        "torchlight_drift_distance": "gauge",
        "torchlight_drift_unknown_share": "gauge",
        "torchlight_drift_label_distance": "gauge",
        "process_cpu_seconds": "counter",
        "process_resident_memory_bytes": "gauge",
        "process_virtual_memory_bytes": "gauge",
        "process_open_fds": "gauge",
        "process_max_fds": "gauge",
        "process_start_time_seconds": "gauge",
    }


def test_buckets_are_cumulative_and_end_with_all() -> None:
    metrics = Metrics()
    for probability in (0.1, 0.15, 0.95, 1.0):
        metrics.count_image("cat", probability, {"decode": 100.0})
    found = Exposition(metrics.exposition().decode())
    buckets = [one.value for one in found.samples if one.name == "torchlight_confidence_bucket"]
    assert buckets == [1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 4, 4]
    slow = [one.value for one in found.samples if one.name == "torchlight_stage_duration_seconds_bucket"]
    assert (set(slow[:-1]), slow[-1]) == ({0}, 4)


def test_two_services_in_one_process_count_apart(start_client: StartClient, photo: bytes) -> None:
    one, other = start_client(), start_client()
    predict(one, photo)
    assert scrape(one).sum("torchlight_requests_total", route="/v1/predict") == 1
    assert scrape(other).sum("torchlight_requests_total", route="/v1/predict") == 0


def test_each_of_two_that_share_a_folder_tells_the_sum(start_client: StartClient, photo: bytes, tmp_path: Path) -> None:
    (folder := tmp_path / "metrics").mkdir()
    one, other = start_client(folder), start_client(folder)
    predict(one, photo, times=3)
    predict(other, photo, times=4)
    for client in (one, other):
        found = scrape(client)
        assert found.sum("torchlight_requests_total", route="/v1/predict") == 7
        assert found.sum("torchlight_stage_duration_seconds_count", stage="queue") == 7
        assert found.sum("torchlight_processes") == 2
        assert [one["digest"] for one in found.labels("torchlight_model_info")] == [
            client.app.state.service.classifier.digest
        ]


COUNT_UNTIL_KILLED = """
import os, pathlib, signal, sys
from torchlight.app.telemetry.metrics import Metrics

metrics = Metrics(pathlib.Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    metrics.end_request("/x", "GET", 200, 0.1, None)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_drift_is_the_most_of_all_processes_and_the_rest_their_mean(tmp_path: Path) -> None:
    processes = [Metrics(tmp_path) for _ in range(3)]
    each = (DriftFigures(0.2, 1.0, 0.05, 0.0), DriftFigures(1.6, None, 0.15, 0.5), None)  # one has seen too few images
    for metrics, drift in zip(processes, each, strict=True):
        metrics.publish(Snapshot(0, True, "photos", "sha256:0", "guide", ("cat", "dog"), drift))
    found = Exposition(processes[0].exposition().decode())
    names = ("", "_distance", "_unknown_share", "_label_distance")
    assert [found.sum(f"torchlight_drift{name}") for name in names] == pytest.approx([1.6, 1.0, 0.1, 0.25])
    for metrics in processes:
        metrics.close()


def test_without_drift_there_is_no_number_in_its_place(
    start_client: StartClient, tiny_checkpoint: Path, photo: bytes, tmp_path: Path
) -> None:
    known = load_checkpoint(tiny_checkpoint)
    save_checkpoint(tmp_path / "cannot tell.safetensors", known.network, known.header)
    client = start_client(checkpoint=tmp_path / "cannot tell.safetensors")
    client.post("/v1/predict/batch", files=[("files", photo)] * LEAST)
    found = scrape(client)
    assert found.sum("torchlight_predictions_total") == LEAST
    assert "torchlight_drift" in found.types
    assert [one.name for one in found.samples if one.name.startswith("torchlight_drift")] == []


def test_counts_of_a_killed_process_are_kept_and_its_successor_goes_on_from_them(tmp_path: Path) -> None:
    (folder := tmp_path / "metrics").mkdir()
    survivor = Metrics(folder)
    survivor.end_request("/x", "GET", 200, 0.1, None)
    for number in (5, 7):
        command = [sys.executable, "-c", COUNT_UNTIL_KILLED, str(folder), str(number)]
        assert subprocess.run(command, cwd=ROOT, timeout=120, check=False).returncode == -signal.SIGKILL
    found = Exposition(survivor.exposition().decode())
    survivor.close()
    assert found.sum("torchlight_requests_total", route="/x") == 13
    assert found.sum("torchlight_request_duration_seconds_sum") == pytest.approx(1.3)
    assert sorted(os.listdir(folder)) == ["counts-0", "counts-1", "gauges-0", "gauges-1", "hold-0", "hold-1"]


def test_gauges_of_a_process_that_is_gone_do_not_count(tmp_path: Path) -> None:
    one, other = SharedCounters(tmp_path), SharedCounters(tmp_path)
    one.set(("queue",), 2)
    other.set(("queue",), 3)
    both = one.gauges()
    other.close()
    alone = one.gauges()
    third = SharedCounters(tmp_path)
    assert both == [{("queue",): 2}, {("queue",): 3}]
    assert alone == [{("queue",): 2}]
    assert one.gauges() == [{("queue",): 2}, {}]
    one.close()
    third.close()


@pytest.mark.parametrize("lost", [1, 10, 17, 30])
def test_number_whose_writing_was_cut_off_is_dropped_and_the_rest_kept(tmp_path: Path, lost: int) -> None:
    first = SharedCounters(tmp_path)
    first.add(("a",), 1)
    first.add(("b" * 20,), 2)
    first.close()
    path = tmp_path / "counts-0"
    os.truncate(path, path.stat().st_size - lost)
    second = SharedCounters(tmp_path)
    second.add(("c",), 3)
    second.close()
    third = SharedCounters(tmp_path)
    assert third.counts() == {("a",): 1, ("c",): 3}
    third.close()


def test_full_disk_costs_the_sharing_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counters = SharedCounters(tmp_path)

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    for _ in range(3):
        counters.add(("a",))
    assert counters.counts() == {("a",): 3}
    (message,) = caplog.messages
    assert message == "metrics are no longer shared with the other processes: [Errno 28] No space left on device"
    counters.close()


@pytest.mark.slow
def test_two_real_processes_tell_the_sum_of_what_was_sent_also_after_one_was_killed(
    start_server: Callable[..., Any], photo: bytes
) -> None:
    server = start_server(workers=2, threads=1, deadline_s=120, log_format="json")

    def found() -> Exposition:
        return Exposition(httpx2.get(f"{server.url}/metrics", timeout=120).text)

    def send(number: int) -> None:
        for _ in range(number):  # each on a connection of its own, so that both processes get some
            answer = httpx2.post(f"{server.url}/v1/predict", content=photo, headers=PNG, timeout=120)
            assert answer.status_code == 200

    send(30)
    before = found()
    assert before.sum("torchlight_requests_total", route="/v1/predict") == 30
    assert before.sum("torchlight_stage_duration_seconds_count", stage="inference") == 30
    (victim, _) = workers_of(server.process.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(workers_of(server.process.pid)) - {victim}) == 2)
    until(lambda: found().sum("torchlight_ready_processes") == 2)
    send(10)
    assert found().sum("torchlight_requests_total", route="/v1/predict") == 40
    assert found().sum("torchlight_processes") == 2
    assert found().sum("process_cpu_seconds_total") > before.sum("process_cpu_seconds_total")


def workers_of(pid: int) -> list[int]:
    """Return the processes of a service that answer: the children of its parent that hold a file of metrics."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if any("hold-" in name for name in open_files(int(child)))]


def open_files(pid: int) -> list[str]:
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            links.append(os.readlink(path))
    return links


def until(is_so: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.05)
