"""How long the page takes, in a real browser: from dropping a 3 MB photo to its answer, and for one move of the torch.

python -m benchmarks.page [rounds]

Each round drops another photo, so that nothing was seen before. A move of the torch is timed from the event to the end
of all drawing that it causes, in the page itself. The limits: a second, and one of the 60
pictures that a screen shows in one.
"""

import base64
import io
import sys
from statistics import median

import numpy as np
from PIL import Image
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

from benchmarks.inspection import server
from stress.load.browser import chromium

ROUNDS = 5
PHOTO_BYTES = 3_000_000
LIMITS_MS = {"drop to answer": 1000.0, "torch, a move": 16.0}
LAYERS = ("conv1", "conv6", "relu1", "pool1")
DROP = """({bytes, name}) => new Promise(resolve => {
    const file = new File([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))], name);
    const data = new DataTransfer();
    data.items.add(file);
    const before = location.hash;
    const began = performance.now();
    const watch = new MutationObserver(() => {
        if (location.hash === before || !document.getElementById("answers")) return;
        watch.disconnect();
        requestAnimationFrame(() => resolve(performance.now() - began));
    });
    watch.observe(document.body, {childList: true, subtree: true});
    document.querySelector(".drop").dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
})"""
MOVE = """map => {
    const box = map.getBoundingClientRect();
    const taken = [];
    for (let step = 0; step < 200; step += 1) {
        const x = box.left + ((step * 37) % 100) / 100 * box.width;
        const y = box.top + ((step * 61) % 100) / 100 * box.height;
        const began = performance.now();
        map.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y, bubbles: true}));
        map.getContext("2d").getImageData(0, 0, 1, 1); // waits for what was drawn
        taken.push(performance.now() - began);
    }
    return taken;
}"""


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with server() as url, chromium() as browser:
        page = browser.new_page()
        page.goto(url)
        page.locator(".drop").wait_for()
        answers = [drop(page, seed) for seed in range(rounds + 1)][1:]  # the first one warms up
        moves = {layer: move(page, layer) for layer in LAYERS}
    table = Table("", "median ms", "slowest ms", "limit ms")
    row(table, f"drop to answer, {PHOTO_BYTES / 1e6:.0f} MB", answers, LIMITS_MS["drop to answer"])
    for layer, taken in moves.items():
        row(table, f"torch, a move over {layer}", taken, LIMITS_MS["torch, a move"])
    Console().print(table)


def drop(page: Page, seed: int) -> float:
    """Return the milliseconds from dropping a new photo to its answer on the page."""
    return float(page.evaluate(DROP, {"bytes": base64.b64encode(photo(seed)).decode(), "name": f"photo-{seed}.jpg"}))


def move(page: Page, layer: str) -> list[float]:
    """Return the milliseconds that moves over a layer's map took."""
    state = page.evaluate("location.hash").split("image=")[1].split("&")[0]
    address = page.url.split("#")[0]
    page.goto("about:blank")
    page.goto(f"{address}#/torch?image={state}&layer={layer}&channel=1")
    page.locator(".verdict.good").wait_for()
    return [float(one) for one in page.locator("#torch-map").evaluate(MOVE)]


def photo(seed: int) -> bytes:
    """Return a JPEG of some 3 MB: 12 megapixels, as phones take them, of smooth colours and grain."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = generator.integers(-14, 15, (3000, 4000, 1), dtype=np.int16)
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=82)
    return file.getvalue()


def row(table: Table, name: str, taken: list[float], limit: float) -> None:
    """Add the figures of one kind."""
    table.add_row(name, f"{median(taken):.1f}", f"{max(taken):.1f}", f"{limit:.0f}")


if __name__ == "__main__":
    main()
