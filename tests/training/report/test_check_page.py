"""The page of a check: what it shows, that it asks nobody, and that decisions made in a real browser are read again."""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from torchlight.training.data.corrections import Correction, read_corrections
from torchlight.training.data.loading import LabelledImages
from torchlight.training.data.source_photos import FileNote, SourcePhotos
from torchlight.training.evaluation.data_findings import DataFindings, Finding
from torchlight.training.report.check_page import EXPLANATIONS, MAX_OF_KIND, TITLES, render_check

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = 'a"><script>alert(1)</script>'
NAMES = ("cat/1.jpg", 'cat/2, "old".jpg', f"dog/{HOSTILE}.jpg", "dog/4.jpg")
FINDINGS = (
    Finding("label", 0, "labelled cat (3%), looks like dog (97%)", suggestion=1),
    Finding("label", 1, f"looks like {HOSTILE}", suggestion=2),
    Finding("unlike_all", 2, "unlike all other photos"),
    Finding("copy", 3, "near-identical to cat/1.jpg", like=0),
    Finding("copy", 0, "near-identical to dog/4.jpg", like=3),
)


def make_findings(findings: tuple[Finding, ...] = FINDINGS) -> DataFindings:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    photos = LabelledImages(images, torch.tensor([0, 0, 1, 1]), NAMES, NAMES, NAMES, (100,) * 4)
    source = SourcePhotos(
        class_names=("cat", "dog", HOSTILE),
        photos=photos,
        unreadable=(FileNote("cat/broken.jpg", "JPEG image cannot be read"),),
        left_out=(FileNote(".DS_Store", "hidden file"),),
    )
    return DataFindings(source, findings, None, [], ["labels of dog were not checked"])


def render(earlier: dict[str, Correction] | None = None) -> str:
    return render_check(make_findings(), "photos", earlier or {})


@contextmanager
def opened(browser: "Browser", folder: Path, html: str, width: int = 1200) -> "Iterator[Page]":
    """Show the page; that it asks nobody and complains of nothing is checked at the end."""
    (folder / "check.html").write_text(html, encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900})
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((folder / "check.html").as_uri())
    yield page
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []
    context.close()


def download(page: "Page", folder: Path) -> dict[str, tuple[str, str]]:
    """Return action and class of each file in the CSV file that the page gives."""
    with page.expect_download() as started:
        page.get_by_role("button", name="Download corrections.csv").click()
    assert started.value.suggested_filename == "corrections.csv"
    started.value.save_as(folder / "corrections.csv")
    return {file: (one.action, one.label) for file, one in read_corrections(folder / "corrections.csv").items()}


def test_every_kind_is_explained() -> None:
    assert EXPLANATIONS.keys() == TITLES.keys()


def test_each_photo_is_there_once_with_all_reasons() -> None:
    html = render()
    assert len(re.findall(r"<li data-file=", html)) == 5  # four photos, one unreadable file
    assert html.count("near-identical to dog/4.jpg</bdi>") == 1
    assert html.index("Labels that may be wrong</h2>") < html.index("Unlike all other photos</h2>")
    assert "4 of 4 photos of <bdi>photos</bdi> are worth a look" in html
    assert "Labels of dog were not checked." in html
    assert "hidden file" in html


def test_names_are_escaped_and_no_script_but_ours_may_run() -> None:
    html = render()
    assert HOSTILE not in html
    assert html.count("<script") == 1
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_equal_findings_give_equal_pages() -> None:
    assert render() == render()


def test_a_source_with_nothing_wrong_says_so() -> None:
    assert "Nothing is wrong with the 4 photos" in render_check(make_findings(()), "photos", {})


def test_of_a_kind_with_many_photos_only_some_are_shown() -> None:
    found = make_findings()
    photos, many = found.source.photos, MAX_OF_KIND + 5
    names = tuple(f"cat/{k}.jpg" for k in range(many))
    images = LabelledImages(photos.images[:1].expand(many, -1, -1, -1), torch.zeros(many, dtype=torch.int64), names)
    source = dataclasses.replace(found.source, photos=images, unreadable=())
    tiny = [Finding("tiny", k, "small") for k in range(many)]
    html = render_check(dataclasses.replace(found, source=source, findings=tiny), "photos", {})
    assert html.count("<li data-file=") == MAX_OF_KIND
    assert f"{MAX_OF_KIND} of {many} are shown" in html
    assert len(html) < 60_000 + 4_000 * MAX_OF_KIND


def test_decisions_are_made_by_clicks_and_downloaded(browser: "Browser", tmp_path: Path) -> None:
    with opened(browser, tmp_path, render()) as page:
        decide = {name: page.get_by_role("group", name=f"Decision about {name}", exact=True) for name in NAMES}
        decide[NAMES[0]].get_by_role("button", name="it is").click()
        decide[NAMES[1]].get_by_role("button", name="right").click()
        decide[NAMES[2]].get_by_role("button", name="it is").click()  # no class is suggested: the menu asks
        assert page.locator("#status").text_content() == "2 of 5 decided"
        decide[NAMES[2]].get_by_role("combobox").select_option(HOSTILE)
        decide[NAMES[3]].get_by_role("button", name="leave out").click()
        page.get_by_role("group", name="Decision about cat/broken.jpg").get_by_role("button").click()
        expected = {
            NAMES[0]: ("change class", "dog"),
            NAMES[1]: ("right", ""),
            NAMES[2]: ("change class", HOSTILE),
            NAMES[3]: ("leave out", ""),
            "cat/broken.jpg": ("leave out", ""),
        }
        assert download(page, tmp_path) == expected
        page.reload()
        assert page.locator("#status").text_content() == "5 of 5 decided"
        decide[NAMES[1]].get_by_role("button", name="right").click()  # once more takes it back
        del expected[NAMES[1]]
        assert download(page, tmp_path) == expected


def test_earlier_decisions_are_shown_and_go_along_even_of_photos_that_are_not(
    browser: "Browser", tmp_path: Path
) -> None:
    earlier = {
        "cat/1.jpg": Correction("cat/1.jpg", "change class", HOSTILE),
        "dog/9.jpg": Correction("dog/9.jpg", "leave out"),
    }
    with opened(browser, tmp_path, render(earlier)) as page:
        first = page.get_by_role("group", name="Decision about cat/1.jpg")
        assert first.get_by_role("button", pressed=True).text_content() == "it is"
        assert first.get_by_role("combobox").input_value() == HOSTILE
        assert download(page, tmp_path) == {
            "cat/1.jpg": ("change class", HOSTILE),
            "dog/9.jpg": ("leave out", ""),
        }


@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_scrolls_down_only_and_is_worked_by_keyboard(browser: "Browser", tmp_path: Path, width: int) -> None:
    with opened(browser, tmp_path, render(), width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.eval_on_selector_all("img", "images => images.every(image => image.naturalWidth > 0)")
        button = page.get_by_role("group", name="Decision about cat/1.jpg").get_by_role("button", name="right")
        button.focus()
        page.keyboard.press("Enter")
        assert button.get_attribute("aria-pressed") == "true"
        assert page.locator("img:not([alt]), button:not([type]), select:not([aria-label])").count() == 0
