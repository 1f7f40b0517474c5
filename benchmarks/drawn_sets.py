"""Sets of drawn pictures, by class. What counts in them is where things are, so frozen ImageNet features are weak.

``hands``: a hand shows one of ten signs; it is a right or a left one, and its mirror image is the same sign.
``dials``: a pointer shows one of eight readings on a round dial; the mirror image is another reading.
``rock-paper-scissors``: three of the hands' signs, which are easy to tell; docs/own_photos.md begins with them.

Size, place, tilt, colours, background, light, sharpness and noise differ from picture to picture. Every picture follows
from the seed, its set, its part, its class and its number, so that a larger set contains the smaller one.

    python -m benchmarks.drawn_sets [NAME...] [--folder runs/drawn] [--each 100] [--apart 300] [--seed 0]

writes ``runs/drawn/hands/photos/CLASS/*.jpg``, ``--each`` of each class, to train on, and about ``--apart`` others,
equally many of each class, into ``runs/drawn/hands/apart``; the same for the other sets.
"""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from rich.progress import track

Colour = tuple[int, int, int]
Point = tuple[float, float]

SIDES = (160, 360)  # of a picture, in pixels
FINE = 2  # figures are drawn at this many times the size and shrunk, for smooth edges

# Fingers from thumb to little finger, 1 if stretched.
HANDS: dict[str, tuple[int, int, int, int, int]] = {
    "fist": (0, 0, 0, 0, 0),
    "one": (0, 1, 0, 0, 0),
    "two": (0, 1, 1, 0, 0),
    "three": (0, 1, 1, 1, 0),
    "four": (0, 1, 1, 1, 1),
    "five": (1, 1, 1, 1, 1),
    "thumb": (1, 0, 0, 0, 0),
    "gun": (1, 1, 0, 0, 0),
    "horns": (0, 1, 0, 0, 1),
    "phone": (1, 0, 0, 0, 1),
}
# Direction in degrees from upright, length and distance from the palm's middle line, in palms.
FINGERS = ((-62, 0.95, -0.80), (-14, 1.35, -0.66), (-4, 1.55, -0.22), (7, 1.40, 0.22), (20, 1.10, 0.64))
READINGS = 8  # of a dial, 45 degrees apart, clockwise from the top
DIALS = {f"reading-{reading}": reading * 360 / READINGS for reading in range(READINGS)}
GAME = {"rock": HANDS["fist"], "paper": HANDS["five"], "scissors": HANDS["two"]}


class Name(StrEnum):
    """The sets."""

    HANDS = "hands"
    DIALS = "dials"
    GAME = "rock-paper-scissors"


def draw_picture(name: Name, class_name: str, rng: Generator) -> Image.Image:
    """Return one RGB picture of a class, its sides between ``SIDES``."""
    width, height = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, 2))
    ground = Image.fromarray(_draw_ground(width, height, rng))
    ground = ground.resize((width * FINE, height * FINE), Image.Resampling.BILINEAR)
    _clutter(ground, rng)
    if name == Name.DIALS:
        picture = _add_dial(ground, DIALS[class_name], rng)
    else:
        picture = _add_hand(ground, (HANDS | GAME)[class_name], rng)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.006) * min(width, height)))
    return Image.fromarray(_light(np.asarray(picture), rng))


def write_set(name: Name, folder: Path, each: int, apart: int, seed: int = 0) -> None:
    """Write ``each`` pictures of every class into ``photos`` and about ``apart`` in all into ``apart``, as JPEG."""
    classes = list({Name.HANDS: HANDS, Name.DIALS: DIALS, Name.GAME: GAME}[name])
    jobs = [
        (part, class_name, number)
        for part, count in (("photos", each), ("apart", round(apart / len(classes))))
        for class_name in classes
        for number in range(count)
    ]
    for part, class_name, number in track(jobs, f"drawing {name.value}"):
        place = (list(Name).index(name), ("photos", "apart").index(part), classes.index(class_name), number)
        rng = np.random.default_rng((seed, *place))
        path = folder / part / class_name / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(name, class_name, rng).save(path, quality=int(rng.integers(75, 95)))


def _draw_ground(width: int, height: int, rng: Generator) -> NDArray[np.uint8]:
    """Return (H, W, 3) soft blotches of one colour's neighbourhood, as a wall, a table or leaves out of focus."""
    blotches = int(rng.integers(2, 9))
    coarse = rng.uniform(30, 225, 3) + rng.normal(0, rng.uniform(5, 45), (blotches, blotches, 3))
    soft = Image.fromarray(np.clip(coarse, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(soft)


def _clutter(picture: Image.Image, rng: Generator) -> None:
    """Draw things into the background: bars and ellipses."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        colour = _random_colour(rng)
        if rng.random() < 0.5:
            end = (rng.uniform(0, width), rng.uniform(0, height))
            draw.line([(x, y), end], fill=colour, width=int(rng.uniform(0.01, 0.08) * width))
        else:
            size = rng.uniform(0.05, 0.3, 2) * min(width, height)
            draw.ellipse([x - size[0], y - size[1], x + size[0], y + size[1]], fill=colour)


def _add_hand(ground: Image.Image, stretched: tuple[int, ...], rng: Generator) -> Image.Image:
    """Return the ground with a hand in front of it, its arm from the lower edge."""
    side = min(ground.size)
    palm = side * rng.uniform(0.13, 0.19)
    turn, mirror = math.radians(rng.normal(0, 14)), rng.choice((-1, 1))
    centre = (
        ground.width / 2 + side * rng.uniform(-0.14, 0.14),
        ground.height / 2 + side * rng.uniform(0.02, 0.2),
    )
    tone = rng.uniform(0.35, 1.0)
    skin = _scale_colour((236, 188, 160), tone, rng)
    line, shade = _scale_colour(skin, 0.6, rng), _scale_colour(skin, 0.85, rng)

    def place(x: float, y: float) -> Point:
        """Return where a point of the upright right hand is, in palms from its middle, y upwards."""
        x, y = mirror * x, -y
        return (
            centre[0] + palm * (x * math.cos(turn) - y * math.sin(turn)),
            centre[1] + palm * (x * math.sin(turn) + y * math.cos(turn)),
        )

    picture = ground.copy()
    draw = ImageDraw.Draw(picture)
    edge = max(2, int(palm * 0.05))
    sleeve = _random_colour(rng)
    _capsule(draw, place(0, -0.6), place(rng.normal(0, 0.3), -5), palm * 1.15, skin, line, edge)
    _capsule(draw, place(0, -2.2 - rng.random()), place(rng.normal(0, 0.3), -7), palm * 1.5, sleeve, line, edge)
    for (direction, length, start), is_stretched in zip(FINGERS, stretched, strict=True):
        angle = math.radians(direction + rng.normal(0, 4))
        base = (start, 0.75 if direction > -60 else -0.1)
        reach = length * rng.normal(1, 0.07) if is_stretched else 0.18
        tip = (base[0] + reach * math.sin(angle), base[1] + reach * math.cos(angle))
        _capsule(draw, place(*base), place(*tip), palm * rng.uniform(0.36, 0.42), skin, line, edge)
    corners = [place(x, y) for x, y in ((-0.85, 0.8), (0.8, 0.75), (0.75, -0.6), (-0.5, -0.9), (-0.9, -0.2))]
    draw.polygon(corners, fill=skin)
    for corner in corners:
        _disc(draw, corner, palm * 0.2, skin)
    for (direction, _, start), is_stretched in zip(FINGERS, stretched, strict=True):
        if not is_stretched:  # folded over the palm
            fold = (start * 0.9, 0.3) if direction > -60 else (-0.2, 0.0)
            _capsule(draw, place(start * 0.95, 0.8), place(*fold), palm * 0.4, shade, line, edge)
    return picture


def _add_dial(ground: Image.Image, reading: float, rng: Generator) -> Image.Image:
    """Return the ground with a dial on it, seen a little from the side."""
    side = min(ground.size)
    radius = side * rng.uniform(0.24, 0.42)
    room = side / 2 - radius
    centre = (
        ground.width / 2 + rng.uniform(-1, 1) * room,
        ground.height / 2 + rng.uniform(-1, 1) * room,
    )
    narrow, turn = rng.uniform(0.8, 1), math.radians(rng.normal(0, 4))
    face = _random_colour(rng)
    ink = _contrast(face, rng)

    def place(angle: float, distance: float) -> Point:
        """Return the point in that direction, clockwise from the top in degrees, at a distance in radii."""
        x, y = distance * math.sin(math.radians(angle)) * narrow, -distance * math.cos(math.radians(angle))
        return (
            centre[0] + radius * (x * math.cos(turn) - y * math.sin(turn)),
            centre[1] + radius * (x * math.sin(turn) + y * math.cos(turn)),
        )

    picture = ground.copy()
    draw = ImageDraw.Draw(picture)
    circle = [angle * 6.0 for angle in range(60)]
    draw.polygon([place(angle, 1) for angle in circle], fill=_random_colour(rng))
    draw.polygon([place(angle, rng.uniform(0.86, 0.87)) for angle in circle], fill=face)
    ticks, first = int(rng.integers(8, 41)), rng.uniform(0, 360)
    for tick in range(ticks):
        angle = first + tick * 300 / ticks
        draw.line([place(angle, 0.7), place(angle, 0.82)], fill=ink, width=max(1, int(radius * 0.02)))
    for _ in range(int(rng.integers(0, 4))):  # a label, a screw, a second scale
        spot, size = place(rng.uniform(0, 360), rng.uniform(0.2, 0.6)), radius * rng.uniform(0.04, 0.16)
        draw.ellipse([spot[0] - size, spot[1] - size / 2, spot[0] + size, spot[1] + size / 2], fill=_random_colour(rng))
    needle = _contrast(face, rng)
    angle = reading + rng.uniform(-15, 15)
    length, tail, width = rng.uniform(0.55, 0.8), rng.uniform(0.0, 0.3), radius * rng.uniform(0.05, 0.12)
    _capsule(draw, place(angle, length), place(angle + 180, tail), width, needle, needle, 0)
    _disc(draw, centre, radius * rng.uniform(0.07, 0.14), _contrast(face, rng))
    return picture


def _capsule(
    draw: ImageDraw.ImageDraw, start: Point, end: Point, width: float, fill: Colour, outline: Colour, edge: int
) -> None:
    """Draw a thick line with round ends."""
    for grow, colour in ((edge, outline), (0, fill)):
        draw.line([start, end], fill=colour, width=int(width + 2 * grow))
        for point in (start, end):
            _disc(draw, point, width / 2 + grow, colour)


def _disc(draw: ImageDraw.ImageDraw, centre: Point, radius: float, fill: Colour) -> None:
    draw.ellipse([centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius], fill=fill)


def _light(picture: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Return the picture under light that falls off to one side, with a camera's contrast and noise."""
    height, width, _ = picture.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    direction = rng.uniform(0, 2 * math.pi)
    slope = rng.uniform(0, 0.35) * (x * math.cos(direction) + y * math.sin(direction))
    lit = picture * (rng.uniform(0.6, 1.15) * (1 + slope))[..., None] * rng.normal(1, 0.05, 3)
    noise = rng.normal(0, rng.uniform(1, 10), picture.shape)
    return np.clip(lit + noise, 0, 255).astype(np.uint8)


def _random_colour(rng: Generator) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _contrast(colour: Colour, rng: Generator) -> Colour:
    """Return a colour that can be told from the given one: dark on light or light on dark."""
    low, high = (0, 70) if sum(colour) > 3 * 128 else (185, 256)
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def _scale_colour(colour: Colour, factor: float, rng: Generator) -> Colour:
    """Return a colour times a factor, a little off."""
    red, green, blue = (int(min(255, max(0, value * factor + rng.normal(0, 5)))) for value in colour)
    return red, green, blue


def main(
    names: Annotated[list[Name] | None, typer.Argument(help="Sets to draw; default: all.", show_default=False)] = None,
    folder: Annotated[Path, typer.Option(help="Each set becomes a folder of its name in it.")] = Path("runs/drawn"),
    each: Annotated[int, typer.Option(min=1, help="Pictures of each class to train on.")] = 100,
    apart: Annotated[int, typer.Option(min=0, help="Pictures in all to measure with.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other pictures.")] = 0,
) -> None:
    """Draw the sets."""
    for name in names or Name:
        write_set(name, folder / name, each, apart, seed)


if __name__ == "__main__":
    typer.run(main)
