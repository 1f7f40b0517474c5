"""What /openapi.json promises; a client is generated from it."""

import json
from pathlib import Path
from typing import Any

import pytest

from torchlight.app.main import create_app
from torchlight.app.settings import Settings

FORM, PROBLEM = "multipart/form-data", "application/problem+json"
UPLOADS = {"/v1/predict": "file", "/v1/predict/batch": "files", "/v1/activations": "file", "/v1/images": "file"}


@pytest.fixture(scope="module")
def openapi(tiny_checkpoint: Path) -> dict[str, Any]:
    return create_app(Settings(checkpoint=tiny_checkpoint)).openapi()


def test_these_are_the_routes(openapi: dict[str, Any]) -> None:
    assert {(method, path) for path, methods in openapi["paths"].items() for method in methods} == {
        ("post", "/v1/predict"),
        ("post", "/v1/predict/batch"),
        ("post", "/v1/activations"),
        ("post", "/v1/images"),
        ("get", "/v1/images/{image_id}"),
        ("get", "/v1/images/{image_id}/prediction"),
        ("get", "/v1/images/{image_id}/input"),
        ("get", "/v1/images/{image_id}/activations/{layer}"),
        ("get", "/v1/images/{image_id}/activations/{layer}/{channel}"),
        ("get", "/v1/images/{image_id}/trace/{layer}/{channel}"),
        ("get", "/v1/images/{image_id}/trace/{layer}/{channel}/{y}/{x}"),
        ("get", "/v1/images/{image_id}/attributions/{method}"),
        ("get", "/v1/images/{image_id}/occlusion"),
        ("get", "/v1/images/{image_id}/reconstructions/{layer}/{channel}"),
        ("get", "/v1/images/{image_id}/neighbours"),
        ("get", "/v1/layers"),
        ("get", "/v1/layers/{layer}/receptive-field"),
        ("get", "/v1/model"),
        ("get", "/v1/model/mistakes"),
        ("get", "/v1/model/mistakes/{number}"),
        ("get", "/v1/layers/{layer}/filters"),
        ("get", "/v1/layers/{layer}/filters/{channel}"),
        ("get", "/v1/layers/{layer}/filmstrip"),
        ("get", "/v1/layers/{layer}/units"),
        ("get", "/v1/layers/{layer}/units/{channel}"),
        ("get", "/livez"),
        ("get", "/metrics"),
        ("get", "/readyz"),
    }


def test_every_route_is_described(openapi: dict[str, Any]) -> None:
    operations = [operation for methods in openapi["paths"].values() for operation in methods.values()]
    assert all(operation["description"] for operation in operations)


def test_every_refusal_is_a_problem(openapi: dict[str, Any]) -> None:
    refusals = [
        answer
        for methods in openapi["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]
    assert {tuple(answer["content"]) for answer in refusals} == {(PROBLEM,)}
    assert "HTTPValidationError" not in openapi["components"]["schemas"]


@pytest.mark.parametrize(("path", "field"), UPLOADS.items())
def test_uploads_are_declared_as_a_form_with_files(openapi: dict[str, Any], path: str, field: str) -> None:
    schema = openapi["paths"][path]["post"]["requestBody"]["content"][FORM]["schema"]
    assert schema["required"] == [field]
    assert "binary" in json.dumps(schema["properties"][field])


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/activations", "/v1/images"])
def test_single_images_are_also_declared_as_raw_bodies(openapi: dict[str, Any], path: str) -> None:
    types = openapi["paths"][path]["post"]["requestBody"]["content"].keys()
    assert {"image/jpeg", "image/png", "application/octet-stream"} <= types


def test_references_lead_somewhere(openapi: dict[str, Any]) -> None:
    schemas = openapi["components"]["schemas"].keys()
    used = {part.split('"')[0] for part in json.dumps(openapi).split("#/components/schemas/")[1:]}
    assert used <= schemas
