"""What the service says of the self-test of its checkpoint."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checks.self_test import Check, SelfTest, save_self_test, self_test_path
from torchlight.model.classifier import Classifier

CHECKS = (
    Check("C1", "a traced number is the network's own", "pass", 1e-7, 1e-5, "200 numbers"),
    Check("C4", "folded filters", "not applicable", None, None, "no batch norm"),
    Check("C7", "HiResCAM", "fail", 0.5, 1e-4, "2 images"),
)


def said(checkpoint: Path, folder: Path) -> Any:
    """Return what the service says in `GET /v1/model`."""
    with TestClient(create_app(Settings(checkpoint=checkpoint, device="cpu", store_dir=folder))) as client:
        return client.get("/v1/model").json()["self_test"]


@pytest.fixture
def path(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint with nothing beside it."""
    return Path(shutil.copy(tiny_checkpoint, tmp_path))


def test_checkpoint_that_was_not_checked_has_none(path: Path, tmp_path: Path) -> None:
    assert said(path, tmp_path / "store") is None


def test_result_beside_the_checkpoint_is_summed_up_and_given_in_full(
    path: Path, tmp_path: Path, classifier: Classifier
) -> None:
    save_self_test(self_test_path(path), SelfTest(classifier.digest, 8.4, CHECKS))
    body = said(path, tmp_path / "store")
    assert {name: body[name] for name in ("passed", "failed", "not_applicable", "seconds")} == {
        "passed": 1,
        "failed": 1,
        "not_applicable": 1,
        "seconds": 8.4,
    }
    assert body["checks"] == [vars(check) for check in CHECKS]


def test_result_of_another_checkpoint_says_nothing_of_this_one(path: Path, tmp_path: Path) -> None:
    save_self_test(self_test_path(path), SelfTest("sha256:other", 8.4, CHECKS))
    assert said(path, tmp_path / "store") is None


def test_broken_result_is_left_out_and_the_log_says_so(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    self_test_path(path).write_text("{")
    assert said(path, tmp_path / "store") is None
    assert "the result of the self-test is left out" in caplog.text
