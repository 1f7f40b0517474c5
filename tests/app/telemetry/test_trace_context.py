"""Trace context in and out, spans at a real collector, and what the log tells of a request and what it never tells."""

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from PIL import Image
from starlette.testclient import TestClient

from torchlight.app.errors import StartError
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.app.telemetry.logs import JsonFormatter
from torchlight.app.telemetry.trace_context import begin_span, parse_traceparent

ROOT = Path(__file__).parents[3]
PNG = {"Content-Type": "image/png"}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
MALFORMED = {
    "empty": "",
    "capital letters": SAMPLED.upper(),
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no span": f"00-{TRACE}-{'0' * 16}-01",
    "forbidden version": f"ff-{TRACE}-{PARENT}-01",
    "short": f"00-{TRACE[:-1]}-{PARENT}-01",
    "more than version 00 has": f"{SAMPLED}-00",
    "no flags": f"00-{TRACE}-{PARENT}",
    "line break": f"{SAMPLED}\n",
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED.keys())
def test_context_that_is_not_well_formed_is_left_out(value: str) -> None:
    assert parse_traceparent([value]) is None


def test_two_contexts_are_none() -> None:
    assert parse_traceparent([SAMPLED, SAMPLED]) is None


@pytest.mark.parametrize("value", [SAMPLED, f"01-{TRACE}-{PARENT}-03", f"01-{TRACE}-{PARENT}-01-later"])
def test_context_of_this_version_and_of_later_ones_is_read(value: str) -> None:
    context = parse_traceparent([value])
    assert context
    assert (context.trace_id, context.span_id, context.is_sampled) == (TRACE, PARENT, True)


def test_operation_in_a_trace_keeps_the_trace_and_its_sampling_with_an_id_of_its_own() -> None:
    unsampled = begin_span(parse_traceparent([f"00-{TRACE}-{PARENT}-00"]), is_sampled=True)
    assert (unsampled.trace_id, unsampled.is_sampled) == (TRACE, False)
    assert unsampled.span_id != PARENT
    assert parse_traceparent([str(begin_span(None, is_sampled=True))])  # what we make, others can read


@pytest.fixture(scope="module")
def client(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    store = tmp_path_factory.mktemp("store")
    settings = Settings(checkpoint=tiny_checkpoint, device="cpu", engine="pytorch", store_dir=store)
    with serving(create_app(settings)) as session:  # ready, so that no request shares a batch with the canary image
        yield session


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "torchlight")


def facts_of(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (event,) = caplog.records
    facts: dict[str, Any] = event.__dict__["facts"]
    return facts


def test_trace_of_the_caller_is_in_the_log_and_the_answer_names_our_part_of_it(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.get("/livez", headers={"traceparent": SAMPLED})
    context = parse_traceparent([answer.headers["traceresponse"]])
    assert context
    assert (context.trace_id, facts_of(caplog)["trace_id"]) == (TRACE, TRACE)
    assert context.span_id != PARENT


def test_without_a_trace_each_request_begins_one(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    contexts = [parse_traceparent([client.get("/livez").headers["traceresponse"]]) for _ in range(2)]
    logged = [event.__dict__["facts"]["trace_id"] for event in caplog.records]
    assert [context.trace_id for context in contexts if context] == logged
    assert len(set(logged)) == 2


def test_log_tells_the_stages_the_batch_the_image_and_the_model_of_an_answer(
    client: TestClient, caplog: pytest.LogCaptureFixture, photo: bytes
) -> None:
    answer = client.post("/v1/predict", content=photo, headers=PNG).json()
    facts = facts_of(caplog)
    stages = {stage: facts[f"{stage}_ms"] for stage in ("decode", "queue", "inference")}
    assert stages == answer["timing_ms"]
    assert (facts["images"], facts["batch_size"]) == (1, 1)
    assert (facts["image"], facts["model"]) == (answer["image"]["id"], answer["model"]["digest"])


def test_log_tells_the_longest_times_of_many_images(
    client: TestClient, caplog: pytest.LogCaptureFixture, photo: bytes
) -> None:
    client.post("/v1/predict/batch", files=[("files", photo)] * 3)
    facts = facts_of(caplog)
    assert facts["images"] == 3
    assert 1 <= facts["batch_size"] <= 3
    assert facts["decode_ms"] > 0
    assert "image" not in facts


def photo_with_place() -> bytes:
    """Return a JPEG whose EXIF says where and by whom it was taken."""
    exif = Image.Exif()
    exif[0x013B] = "PRIVATE-ARTIST"
    exif.get_ifd(0x8825).update({0x0001: "N", 0x0002: (48.0, 51.0, 29.6), 0x001D: "PRIVATE-GPS"})
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_nothing_private_is_in_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    photo = photo_with_place()
    assert b"PRIVATE-ARTIST" in photo
    assert b"PRIVATE-GPS" in photo
    secrets = {"Authorization": "Bearer PRIVATE-KEY", "X-API-Key": "PRIVATE-KEY", "Cookie": "id=PRIVATE-COOKIE"}
    for content in (photo, photo[: len(photo) // 2], b"PRIVATE-BYTES"):
        for path, field in (("/v1/predict", "file"), ("/v1/predict/batch", "files"), ("/v1/images", "file")):
            client.post(f"{path}?key=PRIVATE-QUERY", files={field: ("PRIVATE-NAME.jpg", content)}, headers=secrets)
    formatter = JsonFormatter()
    lines = [formatter.format(event) for event in caplog.records]
    assert len(lines) == 9
    assert "PRIVATE" not in "".join(lines)
    assert "48" not in {str(value) for line in lines for value in json.loads(line).values()}


class Collector(ThreadingHTTPServer):
    """An OpenTelemetry collector that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.paths: list[str] = []

    @property
    def spans(self) -> list[Any]:
        scopes = [scope for one in self.requests for part in one.resource_spans for scope in part.scope_spans]
        return [span for scope in scopes for span in scope.spans]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _uncompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_COMPRESSION", raising=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(collector: Collector, tiny_checkpoint: Path, tmp_path: Path) -> Settings:
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    return Settings(
        checkpoint=tiny_checkpoint, device="cpu", engine="pytorch", store_dir=tmp_path, otlp_endpoint=endpoint
    )


@contextmanager
def serving(app: FastAPI) -> Iterator[TestClient]:
    """Start the service, wait until it is ready, and stop it: then all spans have been sent."""
    with TestClient(app) as client:
        with_limit = time.monotonic() + 120
        while app.state.service.state != "ready":
            assert time.monotonic() < with_limit
            time.sleep(0.01)
        yield client


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    collector: Collector, settings: Settings, photo: bytes
) -> None:
    with serving(create_app(settings)) as client:
        answer = client.post("/v1/predict?key=hunter2", content=photo, headers={**PNG, "traceparent": SAMPLED})
        for probe in ("/livez", "/readyz", "/metrics"):
            client.get(probe)
    *stages, request = collector.spans
    ours = parse_traceparent([answer.headers["traceresponse"]])
    assert ours
    assert collector.paths == ["/v1/traces"]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert (request.name, request.span_id.hex(), request.parent_span_id.hex()) == (
        "POST /v1/predict",
        ours.span_id,
        PARENT,
    )
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "url.path": "/v1/predict",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "torchlight.request_id": answer.headers["X-Request-ID"],
    }
    assert [(stage.name, stage.parent_span_id.hex()) for stage in stages] == [
        ("decode", ours.span_id),
        ("queue", ours.span_id),
        ("inference", ours.span_id),
    ]
    assert attributes(stages[0]) == {"torchlight.image_id": answer.json()["image"]["id"], "torchlight.batch_size": 1}
    times = [moment for stage in stages for moment in (stage.start_time_unix_nano, stage.end_time_unix_nano)]
    assert times == sorted(times)
    assert request.start_time_unix_nano <= times[0]
    assert times[-1] <= request.end_time_unix_nano
    (resource,) = {part.resource.SerializeToString() for one in collector.requests for part in one.resource_spans}
    assert b"torchlight" in resource


def test_failure_is_a_span_with_its_exception_and_a_refusal_one_with_its_code(
    collector: Collector, settings: Settings
) -> None:
    app = create_app(settings)

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("secret")

    with serving(app) as client:
        assert client.get("/crash").status_code == 500
        assert client.get("/v1/layers/none/filters").status_code == 404
    failed, refused = collector.spans
    assert (failed.status.code, attributes(failed)["error.type"]) == (2, "internal_error")  # 2: ERROR
    (event,) = failed.events
    assert attributes(event)["exception.type"] == "RuntimeError"
    assert attributes(event)["exception.message"] == "secret"
    assert (refused.status.code, attributes(refused)["error.type"]) == (0, "unknown_layer")


def test_trace_that_its_caller_does_not_sample_is_not_sent(collector: Collector, settings: Settings) -> None:
    with serving(create_app(settings)) as client:
        client.get("/v1/model", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert collector.spans == []


def test_a_collector_without_the_exporter_stops_the_start(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchlight.app.telemetry.otlp", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    monkeypatch.delattr("torchlight.app.telemetry.otlp", raising=False)
    with pytest.raises(StartError, match="install the extra `otel`"):
        create_app(settings)


def test_libraries_that_are_not_needed_are_not_imported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from torchlight.app.main import create_app\n"
        "from torchlight.app.settings import Settings\n"
        "create_app(Settings(checkpoint=pathlib.Path(sys.argv[1]), store_dir=pathlib.Path(sys.argv[2])))\n"
        "parts = ('torchlight.app.telemetry.otlp', 'opentelemetry.sdk', 'opentelemetry.exporter', 'torchvision')\n"
        "print([name for name in sys.modules if name.startswith(parts)])"
    )
    command = [sys.executable, "-c", program, str(tiny_checkpoint), str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[]\n"
