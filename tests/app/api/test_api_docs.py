"""docs/api.md lists the routes there are, in the forms they have, and each once in an example."""

import re
from pathlib import Path
from typing import Any

import pytest

from torchlight.app.api.content_negotiation import MEDIA_TYPES
from torchlight.app.main import create_app
from torchlight.app.settings import Settings

TEXT = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
ROWS = re.findall(r"^\| `(GET|POST) (/\S*)` \|(?: ([a-z ]+) \|)?", TEXT, re.MULTILINE)
EXAMPLES = re.findall(r"^curl .*?\$URL(/[^\s\"?]*)", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def paths(tiny_checkpoint: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = create_app(Settings(checkpoint=tiny_checkpoint)).openapi()["paths"]
    return found


def pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", path))


def test_the_routes_listed_are_those_there_are(paths: dict[str, dict[str, Any]]) -> None:
    assert sorted((method.lower(), path) for method, path, _ in ROWS) == sorted(
        (method, path) for path, methods in paths.items() for method in methods
    )


@pytest.mark.parametrize(("method", "path", "forms"), [row for row in ROWS if row[2]])
def test_the_forms_listed_are_those_a_route_has(
    paths: dict[str, dict[str, Any]], method: str, path: str, forms: str
) -> None:
    answers = paths[path][method.lower()]["responses"]
    described = {media_type for status in ("200", "201") for media_type in answers.get(status, {}).get("content", {})}
    assert described == {MEDIA_TYPES[form] for form in forms.split()}


def test_every_route_has_an_example_and_every_example_a_route(paths: dict[str, dict[str, Any]]) -> None:
    plain = [re.sub(r"\.(png|json|npy)$", "", path) for path in EXAMPLES]
    assert [path for path in paths if not any(pattern(path).fullmatch(example) for example in plain)] == []
    assert [example for example in plain if not any(pattern(path).fullmatch(example) for path in paths)] == []


@pytest.mark.parametrize("name", ["stage", "scale", "limit", "page", "target", "target_vs", "n_steps", "window"])
def test_parameters_are_named(name: str) -> None:
    assert f"`{name}`" in TEXT
