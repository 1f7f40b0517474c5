"""Take the pictures of the page that README.md shows, from a real server with the checkpoint that ships.

python docs/pictures/shoot_page.py

Needs a font with Chinese characters on this machine, for the button that changes the language.
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, expect

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # benchmarks are not installed

from benchmarks.inspection import server  # noqa: E402
from stress.load.browser import chromium, take_picture  # noqa: E402


def main() -> None:
    """Write ``page.png`` and ``page-torch.png``."""
    with server() as url, chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        page.goto(url)
        page.locator("#file").set_input_files(HERE / "ship.jpg")
        expect(page.locator("#answers")).to_be_visible()
        image = page.url.split("image=")[1].split("&")[0]
        show(page, f"{url}/#/network?image={image}")
        page.locator(".column").nth(3).locator("a.tile").nth(2).hover()
        expect(page.locator(".sources a")).to_have_count(5)
        take(page, "page.png", height=1150)
        show(page, f"{url}/#/torch?image={image}&layer=conv1&channel=5")
        expect(page.locator("#verdict")).to_have_class("verdict good")
        take(page, "page-torch.png", height=1090)


def show(page: Page, address: str) -> None:
    """Open a view and wait until all of it is there."""
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("main h1")).to_be_visible()
    expect(page.locator(".waiting")).to_have_count(0)


def take(page: Page, name: str, height: int) -> None:
    """Write the upper part of the page."""
    take_picture(page, HERE / name, clip={"x": 0, "y": 0, "width": 1440, "height": height}, full_page=True)
    print(f"{name}: {(HERE / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
