"""What is not a picture the network can read: a sentence that says what to do, and the page goes on."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.page.conftest import Visit

DROP = """({name, type, bytes}) => {
    const data = new DataTransfer();
    if (bytes) data.items.add(new File([new Uint8Array(bytes)], name, {type}));
    const event = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
    document.querySelector(".drop").dispatchEvent(event);
}"""


def encoded(image_format: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, 90).save(file, image_format, **options)
    return file.getvalue()


def animation() -> bytes:
    frames = [Image.new("L", (40, 30), shade) for shade in (20, 200)]
    return encoded("GIF", save_all=True, append_images=frames, duration=100)


@pytest.fixture
def drop(visit: Visit) -> Callable[[str, bytes | None], None]:
    """Drop a file of that name on the open page; None drops something without a file."""
    visit.page.goto(visit.service.url)
    expect(visit.page.locator(".drop")).to_be_visible()

    def let_go(name: str, content: bytes | None) -> None:
        given = {"name": name, "type": "", "bytes": None if content is None else list(content)}
        visit.page.evaluate(DROP, given)

    return let_go


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt", lambda: b"Dear diary, " * 20, "notes.txt is not a picture. Take a JPEG, PNG"),
        ("nothing.jpg", lambda: b"", "nothing.jpg is empty (0 bytes). Choose the file again"),
        ("phone.heic", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64), "Export it as JPEG"),
        ("wall.png", lambda: encoded("PNG", size=(8000, 5200)), "wall.png has too many pixels. Make it smaller"),
        ("half.jpg", lambda: encoded("JPEG", size=(400, 300))[:700], "it is damaged or not complete"),
        ("link", lambda: None, "There was no file in what you dropped. Save the picture first"),
    ],
)
def test_a_sentence_says_what_to_do(
    visit: Visit,
    drop: Callable[[str, bytes | None], None],
    photo: Path,
    name: str,
    content: Callable[[], bytes | None],
    sentence: str,
) -> None:
    drop(name, content())
    expect(visit.page.locator(".status.wrong")).to_contain_text(sentence)
    drop("photo.png", photo.read_bytes())
    expect(visit.page.locator("#answers")).to_be_visible()


def test_too_large_a_file_is_refused_with_the_way_out(visit: Visit, drop: Callable[[str, bytes | None], None]) -> None:
    visit.page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(21e6)], "huge.tif"));
            document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        }"""
    )
    expect(visit.page.locator(".status.wrong")).to_contain_text("huge.tif is too large a file")


def test_of_an_animation_the_first_frame_counts(visit: Visit, drop: Callable[[str, bytes | None], None]) -> None:
    drop("moving.gif", animation())
    expect(visit.page.locator(".preview")).to_contain_text("Of an animation the first frame counts.")


def test_what_browsers_cannot_show_is_read_all_the_same(
    visit: Visit, drop: Callable[[str, bytes | None], None]
) -> None:
    drop("scan.tif", encoded("TIFF"))
    expect(visit.page.locator(".drop")).to_contain_text("Browsers cannot show this TIFF file")
    expect(visit.page.locator("#answers")).to_be_visible()
