"""The documentation page in a real browser that may speak to nobody but the server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from stress.load.browser import PATIENCE_MS


@pytest.fixture(scope="module")
def visit(browser: Browser, server: Any) -> Iterator[tuple[Page, list[str]]]:
    """Open /docs; yield the page and the addresses elsewhere that it asked for."""
    host, elsewhere = urlsplit(server.url).netloc, []

    def watch(route: Route) -> None:
        is_ours = urlsplit(route.request.url).netloc == host
        elsewhere.extend([] if is_ours else [route.request.url])
        (route.continue_ if is_ours else route.abort)()

    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    page.set_default_timeout(PATIENCE_MS)
    page.route("**/*", watch)
    page.goto(f"{server.url}/docs")
    yield page, elsewhere
    page.close()


def test_the_documentation_is_of_this_service(visit: tuple[Page, list[str]]) -> None:
    page, _ = visit
    expect(page.locator(".swagger-ui .info .title")).to_contain_text("Torchlight")


def test_an_image_is_classified_from_the_documentation(
    visit: tuple[Page, list[str]], photo: bytes, tmp_path: Path
) -> None:
    page, _ = visit
    (tmp_path / "photo.png").write_bytes(photo)
    route = page.locator("#operations-prediction-predict")
    route.locator(".opblock-summary-control").click()
    route.get_by_role("button", name="Try it out").click()
    route.locator("input[type=file]").set_input_files(tmp_path / "photo.png")
    route.get_by_role("button", name="Execute").click()
    answer = route.locator(".live-responses-table .response")
    expect(answer.locator(".response-col_status")).to_have_text("200")
    expect(answer.locator(".response-col_description")).to_contain_text('"predictions"')
    expect(answer.locator(".response-col_description")).to_contain_text('"label"')


def test_the_image_itself_may_be_chosen_as_the_body(visit: tuple[Page, list[str]]) -> None:
    page, _ = visit
    types = page.locator("#operations-prediction-predict .body-param-content-type option")
    assert {"multipart/form-data", "image/jpeg", "application/octet-stream"} <= set(types.all_text_contents())


def test_the_favicon_is_ours(visit: tuple[Page, list[str]], server: Any) -> None:
    page, _ = visit
    icon = page.request.get(str(page.locator("link[rel~=icon]").evaluate("link => link.href")))
    assert icon.url.startswith(server.url)
    assert (icon.status, icon.headers["content-type"]) == (200, "image/png")


def test_the_page_asked_nobody_else(visit: tuple[Page, list[str]]) -> None:
    page, elsewhere = visit
    page.reload(wait_until="networkidle")
    assert elsewhere == []
