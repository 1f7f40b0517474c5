"""The service does what its own OpenAPI says: statuses, types and bodies, for requests that are drawn from it."""

from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.app.conftest import PATIENCE_S

EXAMPLES = 6  # of each operation, good and bad, with an image that is there and with any
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
GOOD, BAD = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def operations(client: httpx2.Client) -> list[Any]:
    """Every operation, as the running service describes it."""
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    return [result.ok() for result in schema.get_all_operations()]


@pytest.fixture(scope="module")
def known(stored: str) -> dict[str, object]:
    """Path parameters of what is there."""
    return {"image_id": stored.rpartition("/")[2], "layer": "conv1", "channel": 0, "method": "hires_cam"}


def check(client: httpx2.Client, case: Any, *more: Any) -> int:
    """Send a request, hold the answer against its description, and return its status."""
    response = case.call(base_url=str(client.base_url), timeout=PATIENCE_S)
    case.validate_response(response, checks=[*CHECKS, *more])
    return int(response.status_code)


def check_drawn(client: httpx2.Client, strategy: Any, *more: Any) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def ask(case: Any) -> None:
        check(client, case, *more)

    ask()


def in_path(operation: Any, known: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}


def test_requests_as_described_are_answered_as_described(operations: list[Any], client: httpx2.Client) -> None:
    for operation in operations:
        check_drawn(client, operation.as_strategy(generation_mode=GOOD))


def test_views_of_what_is_there_are_answered_as_described(
    operations: list[Any], client: httpx2.Client, known: dict[str, object]
) -> None:
    views = [operation for operation in operations if in_path(operation, known)]
    assert len(views) > 10
    for operation in views:
        check_drawn(client, operation.as_strategy(generation_mode=GOOD, path_parameters=in_path(operation, known)))


def test_requests_other_than_described_are_refused_as_described(
    operations: list[Any], client: httpx2.Client, known: dict[str, object]
) -> None:
    refusing = [operation for operation in operations if list(operation.query) or list(operation.body)]
    assert len(refusing) > 10
    for operation in refusing:
        drawn = operation.as_strategy(generation_mode=BAD, path_parameters=in_path(operation, known) or None)
        check_drawn(client, drawn, negative_data_rejection)


def test_answers_to_an_image_are_as_described(operations: list[Any], client: httpx2.Client, photo: bytes) -> None:
    uploads = {operation.path: operation for operation in operations if operation.method == "post"}
    batch = uploads.pop("/v1/predict/batch")
    statuses = {
        path: check(client, one.Case(body=photo, media_type="image/png", method="POST"))
        for path, one in uploads.items()
    }
    assert statuses == {"/v1/predict": 200, "/v1/activations": 200, "/v1/images": 201}
    files = {"files": [photo, b"no image"]}
    assert check(client, batch.Case(body=files, media_type="multipart/form-data", method="POST")) == 200
