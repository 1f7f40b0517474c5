"""The order of the files, the threads of the tests' own process, and the browser.

The tests run in two processes at once, a file always in one of them, so every fixture is made once for each process.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:  # so that a test without a browser needs no Playwright
    from playwright.sync_api import Browser

# The files that take longest, longest first: else one process would still be busy with one of them at the end.
LONGEST_FIRST = (
    "app/server/test_supervisor.py",
    "command/test_command.py",
    "page/test_walk.py",
    "page/test_access.py",
    "training/optimisation/test_distributed.py",
    "model/checks/test_self_test_of_checkpoint.py",
    "training/optimisation/test_loop.py",
    "model/engines/test_export_file.py",
    "page/test_other_network.py",
    "app/api/test_schemathesis.py",
    "app/inspection/test_inspection_concurrency.py",
    "training/report/test_report.py",
    "page/test_state.py",
    "page/test_garbage.py",
    "model/engines/test_engine.py",
    "model/views/test_trace.py",
    "model/views/test_attribution.py",
    "app/api/test_every_network.py",
    "training/test_run.py",
)
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first; the order of tests within a file stays."""
    folder = Path(__file__).parent
    rank = {folder / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Compute with one thread: networks and images are small, and another process of tests has the other core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real browser with a camera that shows drawn pictures. While it runs, ``asyncio.run`` does not work here."""
    from stress.load.browser import chromium

    with chromium(*CAMERA) as running:
        yield running
