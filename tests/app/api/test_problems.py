"""The error table, and the catch-all: what nobody foresaw leaks nothing."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import HTTPException
from starlette.testclient import TestClient

from torchlight.app import errors as app_errors
from torchlight.app.api import problems
from torchlight.app.errors import StartError
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model import errors as model_errors
from torchlight.model.errors import CheckpointError, ImageError, TorchlightError, UnreadableImage, ViewError

# What a request can cause: every error of serving but those of a start, and the model's errors of images and views.
CAUSED_BY_REQUESTS = {
    one
    for module in (app_errors, model_errors)
    for one in vars(module).values()
    if isinstance(one, type)
    and issubclass(one, TorchlightError)
    and (issubclass(one, ImageError | ViewError) or one.__module__ == app_errors.__name__)
    and not issubclass(one, StartError)
}


@pytest.mark.parametrize("kind", sorted(CAUSED_BY_REQUESTS, key=repr))
def test_every_error_that_a_request_can_cause_has_a_status_and_a_code(kind: type[TorchlightError]) -> None:
    status, code = problems.find_problem(kind.__new__(kind)) or (500, "")
    assert 400 <= status <= 507
    assert status != 500
    assert code


def test_codes_are_distinct() -> None:
    codes = [code for _, code in problems.TABLE.values()]
    assert len(codes) == len(set(codes))


def test_new_subclass_is_answered_like_its_parent() -> None:
    class UnreadableHologram(UnreadableImage):
        pass

    assert problems.find_problem(UnreadableHologram()) == problems.TABLE[UnreadableImage]


def test_error_of_ours_is_not_in_the_table() -> None:
    assert problems.find_problem(CheckpointError("/secret/path")) is None
    assert problems.find_problem(RuntimeError()) is None


@pytest.fixture(scope="module")
def failing(tiny_checkpoint: Path) -> Iterator[TestClient]:
    """The service with routes that fail."""
    app = create_app(Settings(checkpoint=tiny_checkpoint))
    failures = {
        "/crash": RuntimeError("secret"),
        "/checkpoint": CheckpointError("/secret/path"),
        "/teapot": HTTPException(418, "short and stout", {"X-Pot": "tea"}),
    }

    def add(path: str, error: Exception) -> None:
        @app.get(path)
        async def fail() -> None:
            raise error

    for path, error in failures.items():
        add(path, error)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("path", ["/crash", "/checkpoint"])
def test_unforeseen_error_is_a_500_that_leaks_nothing_and_is_found_in_the_log(
    failing: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    answer = failing.get(path, headers={"X-Request-ID": "me-42"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["request_id"]) == ("internal_error", "me-42")
    assert "secret" not in answer.text
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "secret" in (record.exc_text or "")
    assert record.__dict__["facts"] == {"request_id": "me-42"}


def test_exception_of_the_framework_is_a_problem_and_keeps_its_headers(failing: TestClient) -> None:
    answer = failing.get("/teapot")
    assert (answer.status_code, answer.json()["detail"], answer.headers["X-Pot"]) == (418, "short and stout", "tea")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_service_is_not_ready_before_its_first_batch_and_when_told_to_stop_but_always_alive(
    tiny_checkpoint: Path,
) -> None:
    app = create_app(Settings(checkpoint=tiny_checkpoint))
    before = TestClient(app).get("/readyz")
    assert (before.status_code, before.json()["code"]) == (503, "not_ready")
    assert before.json()["detail"] == "the service is warming up"
    assert before.headers["Retry-After"] == "1"
    app.state.service.drain()
    assert TestClient(app).get("/readyz").json()["detail"] == "the service is stopping"
    assert TestClient(app).get("/livez").status_code == 200
