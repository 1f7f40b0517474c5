"""A service with keys in a real browser: the page by the browser's own dialog, /docs by its Authorize box."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from stress.load.browser import PATIENCE_MS

KEY = "k3y" * 12


@pytest.fixture(scope="module")
def guarded(start_server: Callable[..., Any]) -> Any:
    return start_server(api_keys=f"alice={KEY}", deadline_s=120)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., tuple[Page, list[str]]]]:
    """Return a page in a window of its own, and the list of what its console is told."""
    contexts = []

    def start(**options: Any) -> tuple[Page, list[str]]:
        contexts.append(browser.new_context(viewport={"width": 1200, "height": 1000}, **options))
        page, messages = contexts[-1].new_page(), []

        def note(message: ConsoleMessage) -> None:
            messages.extend([message.text] if message.type in ("error", "warning") else [])

        page.set_default_timeout(PATIENCE_MS)
        page.on("console", note)
        page.on("pageerror", lambda error: messages.append(str(error)))
        return page, messages

    yield start
    for context in contexts:
        context.close()


def test_the_page_works_once_the_browsers_dialog_has_a_key(guarded: Any, open_page: Any, photo: bytes) -> None:
    page, messages = open_page(http_credentials={"username": "", "password": KEY})
    page.goto(guarded.url)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a file").click()
    chooser.value.set_files([{"name": "photo.png", "mimeType": "image/png", "buffer": photo}])
    expect(page.locator("#answers")).to_be_visible()
    assert messages == []


def test_without_a_key_the_page_is_not_there(guarded: Any, open_page: Any) -> None:
    page, _ = open_page(http_credentials={"username": "", "password": "wrong"})
    answer = page.goto(guarded.url)
    assert answer.status == 401
    expect(page.locator("body")).to_contain_text("an API key is needed")


def test_docs_ask_for_a_key_and_send_it(guarded: Any, open_page: Any) -> None:
    page, messages = open_page()
    page.goto(f"{guarded.url}/docs")
    page.locator(".auth-wrapper .authorize").click()
    box = page.locator(".auth-container", has_text="bearer")
    box.locator("input").fill(KEY)
    box.get_by_role("button", name="Apply credentials").click()
    page.locator(".btn-done").first.click()
    route = page.locator("#operations-model-model")
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    route.get_by_role("button", name="Execute").click()
    answer = route.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_have_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text('"classes"')
    assert messages == []
