"""Draw the examples that the page ships into ``app/page/examples``: our own pictures, soft and grainy as photos are.

python docs/pictures/draw_examples.py
"""

from collections.abc import Callable
from pathlib import Path

import draw_ship
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE, SHIPPED = 480, 192
FOLDER = Path(__file__).parents[2] / "app" / "page" / "examples"
Colour = tuple[int, int, int]
Painter = ImageDraw.ImageDraw


def ground(*stops: tuple[float, Colour], seed: int, grain: float) -> Image.Image:
    """Return a square whose rows run through colours, from share 0 at the top to 1, with streaks of grain."""
    rows = np.linspace(0, 1, SIZE)
    shares, colours = [share for share, _ in stops], np.array([colour for _, colour in stops], dtype=np.float32)
    picture = np.stack([np.interp(rows, shares, colours[:, channel]) for channel in range(3)], axis=1)
    noise = np.random.default_rng(seed).normal(0, grain, (SIZE, SIZE // 8)).repeat(8, axis=1)
    return Image.fromarray(np.clip(picture[:, None] + noise[..., None], 0, 255).astype(np.uint8))


def shade(image: Image.Image, seed: int) -> Image.Image:
    """Return the picture with the softness and the grain of a photo."""
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.8)), dtype=np.float32)
    grain = np.random.default_rng(seed).normal(0, 2.5, soft.shape[:2])[..., None]
    return Image.fromarray(np.clip(soft + grain, 0, 255).astype(np.uint8))


def airplane() -> Image.Image:
    """Return an airliner seen from the side, in a hazy sky."""
    image = ground((0, (92, 142, 206)), (0.7, (168, 198, 228)), (1, (206, 220, 232)), seed=1, grain=1.2)
    clouds = Image.new("RGBA", image.size, (255, 255, 255, 0))
    puff = ImageDraw.Draw(clouds)
    for x, y, width in ((20, 380, 150), (110, 400, 190), (300, 60, 130), (360, 78, 110), (330, 410, 160)):
        puff.ellipse((x, y, x + width, y + width // 3), fill=(255, 255, 255, 150))
    image.paste(clouds.filter(ImageFilter.GaussianBlur(14)), (0, 0), clouds.filter(ImageFilter.GaussianBlur(14)))
    paint = ImageDraw.Draw(image)
    paint.polygon([(232, 232), (300, 226), (196, 148), (176, 150)], fill=(178, 186, 196))  # far wing
    paint.polygon([(62, 236), (46, 146), (78, 146), (128, 228)], fill=(38, 74, 132))  # fin
    paint.polygon(
        [(52, 240), (150, 218), (360, 212), (412, 226), (436, 244), (410, 262), (160, 268)], fill=(238, 240, 243)
    )
    paint.polygon([(52, 240), (160, 268), (410, 262), (430, 250), (160, 254)], fill=(196, 202, 212))  # shadow below
    for x in range(130, 380, 16):
        paint.rectangle((x, 230, x + 7, 238), fill=(74, 88, 108))
    paint.polygon([(404, 226), (420, 232), (398, 236), (392, 230)], fill=(48, 58, 74))  # cockpit
    paint.polygon([(300, 254), (212, 256), (120, 356), (150, 358)], fill=(206, 212, 220))  # near wing
    paint.ellipse((204, 282, 262, 308), fill=(150, 158, 170))
    paint.ellipse((246, 285, 264, 306), fill=(52, 58, 68))  # engine
    paint.polygon([(54, 240), (104, 238), (46, 276), (26, 276)], fill=(206, 212, 220))
    return image


def truck() -> Image.Image:
    """Return a lorry on a road, seen from the side."""
    image = ground(
        (0, (150, 184, 214)), (0.42, (206, 216, 220)), (0.43, (104, 124, 88)), (0.62, (120, 136, 96)),
        (0.63, (112, 112, 114)), (1, (84, 84, 88)), seed=2, grain=4,
    )  # fmt: skip
    paint = ImageDraw.Draw(image)
    paint.polygon([(30, 386), (452, 386), (470, 404), (14, 404)], fill=(58, 58, 62))  # shadow
    paint.rectangle((34, 128, 312, 346), fill=(222, 226, 228))
    paint.rectangle((34, 128, 312, 150), fill=(240, 242, 242))
    paint.rectangle((34, 318, 312, 346), fill=(176, 182, 188))
    paint.rectangle((60, 208, 286, 262), fill=(196, 66, 44))  # a stripe on the box
    paint.polygon([(322, 190), (398, 190), (434, 266), (448, 272), (448, 352), (322, 352)], fill=(188, 52, 40))
    paint.polygon([(346, 206), (392, 206), (420, 264), (346, 264)], fill=(58, 78, 98))  # window
    paint.polygon([(352, 210), (374, 210), (362, 262), (352, 262)], fill=(112, 140, 162))
    paint.rectangle((428, 300, 450, 320), fill=(244, 232, 180))
    paint.rectangle((30, 346, 452, 368), fill=(46, 48, 54))
    for x in (96, 182, 392):
        paint.ellipse((x - 40, 322, x + 40, 402), fill=(26, 26, 30))
        paint.ellipse((x - 19, 343, x + 19, 381), fill=(150, 152, 158))
    return image


def frog() -> Image.Image:
    """Return a green frog on the bank of a pond."""
    image = ground((0, (70, 84, 52)), (0.5, (96, 98, 62)), (1, (128, 112, 82)), seed=3, grain=9)
    paint = ImageDraw.Draw(image)
    paint.ellipse((70, 352, 430, 432), fill=(74, 68, 48))  # shadow
    _limbs(paint)
    paint.ellipse((98, 176, 392, 398), fill=(104, 148, 52))  # body
    paint.ellipse((142, 262, 350, 400), fill=(186, 194, 128))  # belly
    paint.ellipse((112, 132, 378, 310), fill=(120, 166, 60))  # head
    paint.chord((134, 190, 356, 304), 10, 170, fill=(176, 190, 112))
    paint.arc((134, 190, 356, 300), 12, 168, fill=(58, 78, 32), width=6)  # mouth
    for x in (158, 332):
        paint.ellipse((x - 46, 92, x + 46, 184), fill=(112, 156, 54))
        paint.ellipse((x - 30, 106, x + 30, 166), fill=(214, 172, 58))
        paint.ellipse((x - 20, 122, x + 20, 150), fill=(22, 20, 16))
        paint.ellipse((x + 2, 122, x + 11, 131), fill=(244, 244, 236))
    generator = np.random.default_rng(4)
    for _ in range(26):
        x, y = generator.integers(130, 360), generator.integers(170, 250)
        paint.ellipse((x, y, x + 14, y + 9), fill=(84, 124, 42))
    return image


def _limbs(paint: Painter) -> None:
    for mirror in (1, -1):
        at = lambda x, mirror=mirror: 245 + mirror * x  # noqa: E731
        box = [sorted((at(70), at(190))), (262, 400)]
        paint.ellipse((box[0][0], box[1][0], box[0][1], box[1][1]), fill=(92, 134, 46))  # thigh
        paint.polygon([(at(60), 330), (at(96), 330), (at(88), 420), (at(58), 420)], fill=(110, 152, 56))
        for spread in (-26, 0, 26):
            paint.line((at(74), 408, at(80 + spread), 438), fill=(116, 158, 60), width=11)
            paint.line((at(160), 390, at(172 + spread), 424), fill=(98, 140, 48), width=11)


DRAWINGS: dict[str, Callable[[], Image.Image]] = {"airplane": airplane, "frog": frog, "truck": truck}


if __name__ == "__main__":
    pictures = {name: shade(draw(), seed=7) for name, draw in DRAWINGS.items()} | {"ship": draw_ship.draw()}
    for name, picture in pictures.items():
        small = picture.resize((SHIPPED, SHIPPED), Image.Resampling.LANCZOS)
        small.save(FOLDER / f"{name}.webp", quality=50, method=6)
