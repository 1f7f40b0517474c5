"""The parts of FastAPI, Starlette and OpenTelemetry that are not documented, and that the service needs as they are.

Each test fails with a sentence that names the part and the code that uses it, when another version changes it.
"""

import asyncio
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from prometheus_client import ProcessCollector
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from torchlight.app.telemetry.metrics import CPU_SECONDS, PROCESS_GAUGES

FORM = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhello\r\n--xx--\r\n'


class KeepScope:
    """Middleware that keeps the scope of the last request, as routing leaves it."""

    scope: Scope

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        KeepScope.scope = scope
        await self._app(scope, receive, send)


@pytest.fixture(scope="module")
def client() -> TestClient:
    app, router = FastAPI(), APIRouter(prefix="/v1")

    @router.get("/layers/{layer}")
    async def layer(layer: str) -> str:
        return layer

    async def asset(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    app.include_router(router)
    app.mount("/page", asset)
    app.add_middleware(KeepScope)
    return TestClient(app)


def test_fastapi_puts_the_route_with_the_template_of_its_path_into_the_scope(client: TestClient) -> None:
    client.get("/v1/layers/conv1")
    path = getattr(KeepScope.scope.get("route"), "path", None)
    assert path == "/v1/layers/{layer}", (
        f"FastAPI's scope['route'].path is {path!r}, not the template: app/middleware/request_log.py labels requests "
        "with it, app/api/view_response.py makes ETags of it"
    )


def test_starlette_tells_a_mounted_folder_by_root_path_and_app_root_path(client: TestClient) -> None:
    client.get("/page/style.css")
    found = KeepScope.scope.get("root_path"), KeepScope.scope.get("app_root_path")
    assert found == ("/page", ""), (
        f"Starlette's Mount leaves root_path and app_root_path as {found}: app/middleware/request_log.py takes the "
        "mounted folder's path from their difference"
    )


def test_starlette_names_the_endpoint_and_the_parameters_of_a_literal_path(client: TestClient) -> None:
    client.get("/openapi.json")
    assert "endpoint" in KeepScope.scope, "no scope['endpoint']: app/middleware/request_log.py looks for a match by it"
    assert KeepScope.scope.get("path_params") == {}, (
        "scope['path_params'] is not an empty dictionary: app/middleware/request_log.py tells literal paths by it"
    )
    client.get("/nothing")
    assert "endpoint" not in KeepScope.scope, (
        "scope['endpoint'] is there without a match: app/middleware/request_log.py would take the path for a label"
    )


def parse(content: bytes, parser: type[MultiPartParser]) -> Any:
    async def stream() -> Any:
        yield content

    headers = Headers({"content-type": "multipart/form-data; boundary=xx"})
    return asyncio.run(parser(headers, stream(), max_files=1, max_fields=1).parse())


def test_form_parser_of_starlette_keeps_files_in_memory_up_to_spool_max_size() -> None:
    class Spooling(MultiPartParser):
        spool_max_size = 1

    for kind, is_on_disk in ((Spooling, True), (MultiPartParser, False)):
        file = parse(FORM, kind)["file"]
        assert isinstance(file, UploadFile)
        assert getattr(file.file, "_rolled", None) is is_on_disk, (
            "MultiPartParser.spool_max_size no longer says when a file goes to the disk: app/api/uploads.py keeps "
            "files in memory by it"
        )
        file.file.close()


def test_form_parser_of_starlette_says_what_is_wrong_in_an_exception_with_a_message() -> None:
    with pytest.raises(MultiPartException) as caught:
        parse(b"--yy\r\n\r\n--yy--", MultiPartParser)
    assert caught.value.message, "MultiPartException has no message: app/api/uploads.py tells the client by it"


def test_static_files_of_starlette_make_each_answer_by_file_response() -> None:
    parameters = list(inspect.signature(StaticFiles.file_response).parameters)
    assert parameters[:4] == ["self", "full_path", "stat_result", "scope"], (
        f"StaticFiles.file_response takes {parameters}: app/api/routes/page.py overrides it to set Cache-Control"
    )


def test_page_of_swagger_has_one_inline_script() -> None:
    html = bytes(get_swagger_ui_html(openapi_url="openapi.json", title="x").body).decode()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1, (
        f"FastAPI's page of Swagger UI has {len(scripts)} inline scripts: app/api/routes/docs.py allows one by hash"
    )


def test_process_collector_of_prometheus_client_has_the_names_that_are_passed_on() -> None:
    samples = {one.name for family in ProcessCollector(registry=None).collect() for one in family.samples}
    missing = {*PROCESS_GAUGES, f"{CPU_SECONDS.name}_total"} - samples
    assert not missing, f"ProcessCollector has no {missing}: app/telemetry/metrics.py passes them on"


class NumberedIds(RandomIdGenerator):
    """Gives 1, 2, 3 ... as ids of spans."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = iter(range(1, 10))

    def generate_span_id(self) -> int:
        return next(self._numbers)


def test_tracer_of_opentelemetry_asks_its_id_generator_once_a_span() -> None:
    tracer = TracerProvider(id_generator=NumberedIds(), shutdown_on_exit=False).get_tracer("test")
    ids = [tracer.start_span("one").get_span_context().span_id for _ in range(3)]
    assert ids == [1, 2, 3], (
        f"the tracer gave spans the ids {ids}, not one of its generator each: app/telemetry/otlp.py gives "
        "a request's span the id that its answer has named"
    )
