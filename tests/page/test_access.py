"""By keyboard alone, on a phone and on a projector, with less motion, and as an accessibility checker sees it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.page.conftest import Service, Visit, watched

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = {
    "answer": {},
    "network": {},
    "unit": {"layer": "relu1", "channel": 3},
    "torch": {"layer": "conv1", "channel": 3, "y": 2, "x": 2},
    "evidence": {},
    "training": {},
}
TITLES = dict(zip(VIEWS, ("Image", "Network", "Unit", "Torch", "Why", "Training"), strict=True))
STILL = [("torch", {"layer": "fc", "channel": 1}), ("torch", {"layer": "softmax", "channel": 1})]
AUDIT = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def tab_to(page: Page, name: str) -> None:
    """Press Tab until an element of that id or text has the focus, once around the page at most."""
    seen: list[str] = []
    while not seen or seen[-1] != name:
        assert len(seen) < 150, seen
        page.keyboard.press("Tab")
        seen.append(focused(page))


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, browser: Browser, service: Service) -> Iterator[Visit]:
    yield from watched(browser, service, color_scheme=request.param, reduced_motion="reduce")


@pytest.fixture(params=[360, 1920])
def sized(request: pytest.FixtureRequest, browser: Browser, service: Service) -> Iterator[Visit]:
    yield from watched(browser, service, viewport={"width": request.param, "height": 800})


def test_axe_finds_nothing_serious_on_any_view(themed: Visit, stored: str) -> None:
    assert AXE.is_file(), f"{AXE} is missing; `make test` installs it with npm, which must be on this machine"
    script = AXE.read_text()
    for view, state in [*VIEWS.items(), *STILL]:
        themed.open(view, image=stored, **state)
        themed.page.evaluate(script)
        found = themed.page.evaluate(AUDIT)
        serious = [
            (one["id"], node["html"][:160], node["failureSummary"])
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
        assert (view, serious) == (view, [])


def test_axe_finds_nothing_serious_before_there_is_a_picture(themed: Visit) -> None:
    themed.open("answer")
    themed.page.evaluate(AXE.read_text())
    assert [one["id"] for one in themed.page.evaluate(AUDIT) if one["impact"] in ("serious", "critical")] == []


def test_no_view_is_wider_than_its_window(sized: Visit, stored: str) -> None:
    for view, state in [*VIEWS.items(), *STILL]:
        sized.go(view, image=stored, **state)
        expect(sized.page.locator("nav [aria-current=page]")).to_contain_text(TITLES[view])
        expect(sized.page.locator(f".view-{view} h1")).to_be_visible()
        wide, window = sized.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert (view, wide) == (view, window)


def test_the_whole_walk_can_be_done_by_keyboard(visit: Visit, photo: Path) -> None:
    visit.page.goto(visit.service.url)
    expect(visit.page.locator(".drop")).to_be_visible()
    tab_to(visit.page, "Choose a file")
    with visit.page.expect_file_chooser() as chooser:
        visit.page.keyboard.press("Enter")
    chooser.value.set_files(photo)
    expect(visit.page.locator("#answers")).to_be_visible()
    tab_to(visit.page, "See what the layers made of it →")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".column a.tile").first).to_be_visible()
    tile = "document.activeElement.matches('.column a.tile')"
    for _ in range(60):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate(tile):
            break
    expect(visit.page.locator(".sources")).to_be_visible()  # focus shows where the map comes from, as pointing does
    visit.page.keyboard.press("Enter")
    visit.settled()
    expect(visit.page.locator("h1")).to_be_focused()
    tab_to(visit.page, "How is one of these numbers computed? →")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    tab_to(visit.page, "torch-map")
    visit.page.keyboard.press("Home")
    visit.page.keyboard.press("ArrowRight")
    expect(visit.page.locator("#x")).to_have_value("1")
    expect(visit.page.locator("#live")).to_have_text(re.compile(r"row \d+, column 1: −?\d"))
    visit.page.locator("nav").get_by_role("link", name="Why").focus()
    visit.page.keyboard.press("Enter")
    visit.settled()
    tab_to(visit.page, "hide-canvas")
    visit.page.keyboard.press("ArrowDown")
    expect(visit.page.locator("#hide-place")).to_contain_text("hidden at row")


def test_a_press_of_tab_offers_to_skip_the_header(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    expect(visit.page.locator("h1")).to_be_visible()
    visit.page.keyboard.press("Tab")
    expect(visit.page.locator("#skip")).to_be_focused()
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#content")).to_be_focused()


def test_the_answer_is_spoken(visit: Visit, photo: Path) -> None:
    image = visit.upload(photo)
    best = visit.service.get(f"/v1/images/{image}/prediction")["predictions"][0]
    expect(visit.page.locator("#live")).to_contain_text(f"{best['label']}, ")


def test_every_picture_has_words(visit: Visit, stored: str) -> None:
    for view, state in VIEWS.items():
        visit.open(view, image=stored, **state)
        silent = visit.page.locator("main canvas:not([aria-label]):not([aria-hidden]), main img:not([alt])")
        expect(silent).to_have_count(0)


def test_nothing_moves_for_those_who_want_less_motion(browser: Browser, service: Service, stored: str) -> None:
    for visit in watched(browser, service, reduced_motion="reduce"):
        visit.open("torch", image=stored, layer="fc", channel=1)
        duration = visit.page.locator(".grow").first.evaluate("one => getComputedStyle(one).animationDuration")
        assert float(duration.removesuffix("s")) < 0.001
