"""A real browser that makes no connections of its own, for benchmarks, tests and the pictures in the docs."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

PATIENCE_MS = 120_000
NAMES = ("chromium", "chromium-browser", "google-chrome")
# The last ones keep the browser from asking its maker's hosts for updates and the like.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium(*switches: str) -> Iterator[Browser]:
    """Run the system's browser, or else Playwright's own. Only one at a time in a process.

    Args:
        switches: further ones of its command line.
    """
    installed = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=[*SWITCHES, *switches])
        expect.set_options(timeout=PATIENCE_MS)
        yield browser
        browser.close()


def take_picture(page: Page, path: Path, **options: Any) -> None:
    """Write what a page shows as a PNG of 256 colours, a third of the size; ``options`` are Playwright's."""
    with Image.open(io.BytesIO(page.screenshot(**options))) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)
