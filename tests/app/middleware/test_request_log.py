"""Request ids, security headers, and the log: one line a request, nothing private in it, no line forged."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.app.telemetry import logs


@pytest.fixture(scope="module")
def client(tiny_checkpoint: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(checkpoint=tiny_checkpoint))) as session:
        yield session


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "torchlight")


@pytest.mark.parametrize("path", ["/livez", "/nothing", "/docs", "/docs/assets/favicon-32x32.png", "/"])
def test_every_answer_carries_an_id_and_the_security_header(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"X-Request-ID": "abc-1.2_Z"}, follow_redirects=False)
    assert answer.headers["X-Request-ID"] == "abc-1.2_Z"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "<script>", "é".encode(), 'x" status=200'])
def test_id_that_is_not_well_formed_is_replaced(client: TestClient, given: str | bytes) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] not in ("", given)
    assert len(answer.headers["X-Request-ID"]) == 32


def test_every_request_is_one_event_without_query_and_file_name(
    client: TestClient, caplog: pytest.LogCaptureFixture, photo: bytes
) -> None:
    answer = client.post("/v1/predict?top_k=1&key=hunter2", files={"file": ("my cat.png", photo)})
    (event,) = caplog.records
    facts = event.__dict__["facts"]
    times = {name: facts.pop(name) for name in ("ms", "decode_ms", "queue_ms", "inference_ms")}
    assert times["ms"] > times["decode_ms"] > 0
    assert facts == {
        "method": "POST",
        "path": "/v1/predict",
        "status": 200,
        "code": None,
        "request_id": answer.headers["X-Request-ID"],
        "trace_id": answer.headers["traceresponse"].split("-")[1],
        "model": answer.json()["model"]["digest"],
        "images": 1,
        "image": answer.json()["image"]["id"],
        "batch_size": 1,
    }


def test_refusal_is_logged_with_its_code(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    client.post("/v1/predict", content=b"hello", headers={"Content-Type": "image/png"})
    (event,) = caplog.records
    assert (event.__dict__["facts"]["status"], event.__dict__["facts"]["code"]) == (415, "unknown_image_format")


class Lines(logging.Handler):
    """Keeps what a formatter of ours makes of each event."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines(request: Any) -> Iterator[list[str]]:
    handler = Lines(request.param)
    logging.getLogger("torchlight").addHandler(handler)
    yield handler.lines
    logging.getLogger("torchlight").removeHandler(handler)


@pytest.mark.parametrize("lines", [logs.JsonFormatter()], indirect=True)
def test_json_lines_can_be_parsed(client: TestClient, lines: list[str]) -> None:
    client.get("/livez", headers={"X-Request-ID": "me"})
    event = json.loads(lines[0])
    about_the_request = {"method", "path", "status", "code", "ms", "request_id", "trace_id"}
    assert event.keys() == {"time", "level", "event"} | about_the_request
    assert (event["level"], event["event"], event["path"], event["request_id"]) == ("info", "request", "/livez", "me")


@pytest.mark.parametrize("lines", [logs.JsonFormatter(), logs.TextFormatter()], indirect=True, ids=["json", "text"])
def test_a_path_cannot_forge_a_line(client: TestClient, lines: list[str]) -> None:
    client.get('/a%0A2026-01-01T00:00:00.000Z info request path="/admin')
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert 'path="/admin' not in lines[0]
