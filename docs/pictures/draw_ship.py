"""Draw ``ship.jpg``, the example of the README: our own picture, so that no foreign photo is needed.

python docs/pictures/draw_ship.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 480
HORIZON = 300


def draw() -> Image.Image:
    """Return a freighter at sea, RGB, with the soft light and grain of a photo."""
    generator = np.random.default_rng(7)
    image = Image.fromarray(_sky_and_sea(generator))
    painter = ImageDraw.Draw(image, "RGBA")
    _paint_ship(painter)
    for _ in range(420):  # crests, longer and rarer towards the viewer
        y = int(HORIZON + 6 + (SIZE - HORIZON) * generator.random() ** 1.4)
        x, length = generator.integers(0, SIZE), 4 + (y - HORIZON) // 5
        painter.line(
            (x, y, x + int(length), y), fill=(205, 222, 230, int(generator.integers(25, 95))), width=1 + y // 330
        )
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.6)), dtype=np.float32)
    grain = generator.normal(0, 3.5, soft.shape[:2])[..., None]
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def _sky_and_sea(generator: np.random.Generator) -> np.ndarray:
    rows = np.arange(SIZE, dtype=np.float32)[:, None, None]
    sky = np.array([96, 150, 205]) + (np.array([214, 226, 234]) - np.array([96, 150, 205])) * (rows / HORIZON)
    depth = (rows - HORIZON) / (SIZE - HORIZON)
    sea = np.array([84, 124, 146]) + (np.array([24, 54, 84]) - np.array([84, 124, 146])) * np.clip(depth, 0, 1)
    picture = np.where(rows < HORIZON, sky, sea).repeat(SIZE, axis=1)
    waves = generator.normal(0, 1, (SIZE, SIZE // 12)).repeat(12, axis=1)[:, :SIZE, None]
    picture += np.where(rows < HORIZON, 0, 9 * waves)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _paint_ship(painter: ImageDraw.ImageDraw) -> None:
    painter.polygon([(60, 262), (432, 252), (404, 330), (92, 332)], fill=(44, 48, 58))  # hull
    painter.polygon([(84, 314), (412, 309), (404, 332), (92, 334)], fill=(132, 44, 38))  # red below the waterline
    painter.line([(60, 262), (432, 252)], fill=(226, 226, 222), width=4)
    painter.rectangle((96, 176, 178, 262), fill=(232, 232, 228))  # bridge
    painter.rectangle((108, 150, 166, 178), fill=(214, 216, 216))
    for y in (190, 212, 234):
        for x in range(104, 172, 14):
            painter.rectangle((x, y, x + 7, y + 8), fill=(60, 74, 92))
    painter.rectangle((120, 112, 146, 152), fill=(176, 60, 44))  # funnel
    painter.rectangle((120, 120, 146, 128), fill=(236, 236, 230))
    colours = [(170, 74, 52), (60, 104, 138), (196, 150, 64), (92, 122, 92), (142, 60, 60)]
    for row in range(2):
        for column in range(5):
            x, y = 196 + column * 38, 232 - row * 26 - column
            painter.rectangle((x, y, x + 34, y + 24), fill=colours[(row * 2 + column) % 5])
    painter.line((404, 254, 404, 186), fill=(70, 70, 74), width=4)  # mast
    painter.line((404, 196, 300, 206), fill=(70, 70, 74), width=2)
    painter.polygon([(70, 331), (420, 328), (440, 340), (50, 342)], fill=(196, 214, 222, 140))  # bow wave


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("ship.jpg"), quality=88)
