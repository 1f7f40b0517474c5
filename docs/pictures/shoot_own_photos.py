"""Take the pictures of docs/own_photos.md: draw the hands, learn from them, and show report and page.

python docs/pictures/shoot_own_photos.py

Needs a font with Chinese characters on this machine, for the button that changes the language.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # benchmarks are not installed

from draw_views import COMMAND, served  # noqa: E402

from benchmarks.drawn_sets import GAME, Name, write_set  # noqa: E402
from stress.load.browser import chromium, take_picture  # noqa: E402

EACH, APART = 40, 30  # as the page says
TILE, COLUMNS = 150, 4  # of the picture of the folder
WIDTH = 1100


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(Name.GAME, folder, EACH, APART)
        subprocess.run([*COMMAND, "train", folder / "photos", "--out", folder / "run"], check=True)
        show_folder(folder / "photos").save(HERE / "own-photos-folder.jpg", quality=85)
        with served(folder / "run" / "checkpoint.safetensors", folder / "store") as url, chromium() as browser:
            shoot_report(browser, folder / "run" / "report.html")
            shoot_page(browser, url, folder / "apart" / "paper" / "0000.jpg")


def show_folder(photos: Path) -> Image.Image:
    """Return a row of pictures for each class, the middle square of each."""
    sheet = Image.new("RGB", (COLUMNS * TILE, len(GAME) * TILE))
    for row, name in enumerate(GAME):
        for column, path in enumerate(sorted((photos / name).iterdir())[:COLUMNS]):
            with Image.open(path) as picture:
                side = min(picture.size)
                left, top = (picture.width - side) // 2, (picture.height - side) // 2
                square = picture.crop((left, top, left + side, top + side)).resize((TILE, TILE))
            sheet.paste(square, (column * TILE, row * TILE))
    return sheet


def shoot_report(browser: Browser, report: Path) -> None:
    """Take the upper part of the report."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 850}, color_scheme="light")
    page.goto(report.as_uri())
    take_picture(page, HERE / "own-photos-report.png")


def shoot_page(browser: Browser, url: str, photo: Path) -> None:
    """Take the answer to a photo, and why."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 700}, color_scheme="light")
    page.goto(url)
    page.locator("#file").set_input_files(photo)
    expect(page.locator("#answers")).to_be_visible()
    take_picture(page, HERE / "own-photos-answer.png")
    page.get_by_role("link", name="Why").click()
    expect(page.locator(".methods")).to_be_visible()
    expect(page.locator(".waiting")).to_have_count(0)
    take_picture(page, HERE / "own-photos-why.png")


if __name__ == "__main__":
    main()
