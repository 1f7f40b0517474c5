"""Every state is an address: it can be sent to someone, Back goes back, a reload shows the same. And the words."""

import re
from pathlib import Path

import numpy as np
from playwright.sync_api import expect

from tests.page.conftest import Visit
from tests.server_process import ROOT
from torchlight.model.drawing.colours import diverging, sequential

FOLDER = ROOT / "app" / "page"
CHINESE = re.compile("[\u4e00-\u9fff]")


def test_a_reload_shows_the_same(visit: Visit, photo: Path) -> None:
    visit.upload(photo)
    preview = visit.page.locator(".preview img").get_attribute("src")
    visit.page.reload()
    assert visit.page.locator(".preview img").get_attribute("src") == preview


def test_a_position_is_an_address(visit: Visit, stored: str) -> None:
    visit.open("torch", image=stored, layer="conv2", channel=3, y=4, x=5)
    visit.page.locator("#torch-map").press("ArrowDown")
    expect(visit.page).to_have_url(re.compile("y=5&x=5"))
    visit.page.reload()
    visit.settled()
    for name, value in {"layer": "conv2", "channel": "3", "y": "5", "x": "5"}.items():
        expect(visit.page.locator(f"#{name}")).to_have_value(value)


def test_back_and_forward_go_through_what_was_seen(visit: Visit, stored: str) -> None:
    visit.open("network", image=stored)
    visit.page.locator(".column").nth(1).locator("a.tile").nth(2).click()
    visit.settled()
    unit = visit.page.url
    visit.page.get_by_role("link", name="How is one of these numbers computed?").click()
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    torch = visit.page.url
    visit.page.locator("#torch-map").press("ArrowUp")  # moving adds nothing to the history
    visit.page.go_back()
    visit.settled()
    expect(visit.page.locator("h1")).to_have_text("One unit")
    assert visit.page.url == unit
    visit.page.go_back()
    visit.settled()
    expect(visit.page.locator("h1")).to_have_text("What each layer made of it")
    visit.page.go_forward()
    visit.page.go_forward()
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    assert visit.page.url.split("?")[0] == torch.split("?")[0]


def test_two_classes_and_the_square_are_in_the_address(visit: Visit, stored: str) -> None:
    names = visit.service.get("/v1/model")["classes"]
    visit.open("evidence", image=stored, target=names[1], versus=names[2], y=3, x=4, window=6)
    expect(visit.page.locator("#why")).to_have_value(names[1])
    expect(visit.page.locator("#versus")).to_have_value(names[2])
    expect(visit.page.locator("#hide-place")).to_contain_text("6 × 6 pixels hidden at row 3, column 4")


def test_an_address_with_nonsense_shows_what_there_is(visit: Visit, stored: str) -> None:
    visit.open("torch", image=stored, layer="nonsense", channel=99999, y=-4, x="abc", target="unicorn")
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    expect(visit.page.locator("main")).to_contain_text("This network has no class unicorn")
    visit.page.goto(f"{visit.service.url}/#/nonsense")
    expect(visit.page.locator("h1")).to_have_text("A picture becomes an answer")


def test_a_picture_that_is_gone_is_said_to_be(visit: Visit) -> None:
    visit.page.goto(f"{visit.service.url}/#/torch?image=sha256:{'0' * 64}")
    expect(visit.page.locator(".notice")).to_contain_text("no longer keeps this picture")


def test_the_page_comes_with_its_policy(visit: Visit) -> None:
    answer = visit.service.api.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; img-src 'self' blob: data:;")
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_the_page_is_small(visit: Visit) -> None:
    names = ["", *(f"page/{path.relative_to(FOLDER)}" for path in FOLDER.rglob("*") if path.is_file())]
    answers = [visit.service.api.get(f"/{name}") for name in names]
    assert {answer.status_code for answer in answers} == {200}
    assert sum(answer.num_bytes_downloaded for answer in answers) < 100_000
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 215_000


def test_the_page_has_no_foreign_address() -> None:
    text = "".join(path.read_text() for path in FOLDER.glob("*.*"))
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_colours_are_those_of_the_pictures(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    drawn = visit.page.evaluate(
        "import('/page/drawing.js').then(found => [found.SEQUENTIAL, found.DIVERGING].map(one => Array.from(one)))"
    )
    for colours, table in zip(drawn, (sequential(), diverging()), strict=True):
        assert np.array_equal(np.array(colours).reshape(-1, 3), table)


def test_both_languages_say_everything(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    words = visit.page.evaluate("import('/page/words.js').then(words => words.LANGUAGES)")
    assert words["en"].keys() == words["zh"].keys()
    marks = {name: {lang: sorted(re.findall(r"\{\w+\}", words[lang][name])) for lang in words} for name in words["en"]}
    assert [name for name, used in marks.items() if used["en"] != used["zh"]] == []
    terms = {name: {lang: sorted(re.findall(r"\]\((\w+)\)", words[lang][name])) for lang in words} for name in marks}
    assert [name for name, used in terms.items() if set(used["en"]) != set(used["zh"])] == []


def test_the_language_can_be_changed_and_is_remembered(visit: Visit, stored: str) -> None:
    visit.open("torch", image=stored, layer="conv1", channel=1)
    visit.page.locator("#language").click()
    expect(visit.page.locator("html")).to_have_attribute("lang", "zh-Hans")
    visit.settled()
    assert CHINESE.search(visit.page.locator(".guide").inner_text())
    expect(visit.page.locator("#language")).to_have_text("English")
    visit.page.reload()
    visit.settled()
    assert CHINESE.search(visit.page.locator("h1").inner_text())


def test_the_colours_of_the_page_can_be_changed_and_are_remembered(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = visit.page.evaluate(ground)
    visit.page.locator("#theme").select_option("dark")
    dark = visit.page.evaluate(ground)
    assert light != dark
    visit.page.reload()
    assert visit.page.evaluate(ground) == dark


def test_a_term_explains_itself(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    term = visit.page.locator(".term").first
    note = visit.page.locator(f"#{term.get_attribute('aria-describedby')}")
    expect(note).to_be_hidden()
    term.hover()
    expect(note).to_be_visible()
    visit.page.mouse.move(0, 0)
    expect(note).to_be_hidden()
    term.focus()
    expect(note).to_be_visible()
    visit.page.keyboard.press("Escape")
    expect(note).to_be_hidden()
