"""Lays out a picture: tiles, title, colour bar and legend on one sheet, as a PNG. Knows nothing of what it shows.

Tiles are enlarged by whole numbers without smoothing, those with a flag are marked, and the text chunks of the PNG hold
the facts that the legend shows.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from torchlight.model.drawing.colours import MARK, Pixels, Table
from torchlight.model.views.facts import Facts

TILE, LARGE = 72, 448  # pixels that a tile of a sheet, or a picture shown alone, may fill after enlargement
PAPER, INK, LINE = (255, 255, 255), (40, 44, 52), (214, 217, 222)
BAR_LENGTH = 255  # pixels, one for each colour
MARGIN, GAP, LABEL, BAR = 12, 6, 12, 36
SIZE, SMALL = 13, 10  # of the letters of the legend and of labels
TOP = MARGIN + 22  # where tiles begin, below the title
PHOTO_QUALITY = 80  # of JPEG: no blocks are seen at 260 pixels, 15 kB each
COMPRESSION = 1  # of zlib: 6 saves a tenth of the bytes and takes three times as long


@dataclass(frozen=True)
class Tile:
    """A picture (h, w, 3) before enlargement, what is written below it, and what is wrong with its values.

    ``limit`` is a second line, where each tile has its own range.
    """

    pixels: Pixels
    label: str = ""
    flag: str = ""
    limit: str = ""


@dataclass(frozen=True)
class Bar:
    """A colour table with what its lower end, its middle and its upper end stand for."""

    table: Table
    low: str
    high: str
    middle: str = ""


def draw_sheet(
    tiles: Sequence[Tile], facts: Facts, bar: Bar | None, *, columns: int | None = None, room: int = TILE
) -> bytes:
    """Return the PNG of a title, tiles, a colour bar and a legend.

    Args:
        bar: None for pictures that need none.
        columns: None for a sheet a bit wider than high.
        room: pixels that the longer side of a tile may fill after enlargement by a whole number.
    """
    room = LARGE if len(tiles) == 1 else room
    pictures = [enlarge(tile.pixels, max(1, room // max(tile.pixels.shape[:2]))) for tile in tiles]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = columns or max(1, min(len(tiles), math.ceil(math.sqrt(len(tiles) * 1.6 * (height + LABEL) / width))))
    lines = 1 + any(tile.limit for tile in tiles) if any(tile.label for tile in tiles) else 0
    label = LABEL * lines if width >= 20 else 0
    title, legend = _title_of(facts), _legend_of(tiles, facts)
    bottom = TOP + math.ceil(len(tiles) / columns) * (height + GAP + label) + GAP
    text_width = max(_render_text(line, SIZE).shape[1] for line in (title, *legend))
    canvas_width = max(columns * (width + GAP) - GAP, text_width, BAR_LENGTH) + 2 * MARGIN
    canvas_height = bottom + (BAR if bar else 0) + 18 * len(legend) + MARGIN
    canvas = np.full((canvas_height, canvas_width, 3), PAPER[0], np.uint8)
    _draw_text(canvas, (MARGIN, MARGIN), _render_text(title, SIZE))
    for index, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        corner = MARGIN + index % columns * (width + GAP), TOP + index // columns * (height + GAP + label)
        _draw_tile(canvas, corner, tile, picture, has_label=label > 0)
    if bar:
        _draw_bar(canvas, bottom, bar)
    for position, line in enumerate(legend):
        _draw_text(canvas, (MARGIN, bottom + (BAR if bar else 0) + 18 * position), _render_text(line, SIZE))
    return encode_png(canvas, facts)


def _draw_tile(canvas: Pixels, corner: tuple[int, int], tile: Tile, picture: Pixels, *, has_label: bool) -> None:
    """Put the enlarged picture of a tile on the canvas, with a frame around it and its label below."""
    (x, y), (height, width, _) = corner, picture.shape
    frame = canvas[y - 1 : y + height + 1, x - 1 : x + width + 1]
    frame[[0, -1]] = frame[:, [0, -1]] = MARK if tile.flag else LINE
    frame[1:-1, 1:-1] = picture
    if has_label:
        text, colour = (f"{tile.label} !", MARK) if tile.flag else (tile.label, INK)
        _draw_text(canvas, (x, y + height), _render_label(text, colour))
        _draw_text(canvas, (x, y + height + LABEL), _render_label(tile.limit, INK))


def _draw_text(canvas: Pixels, corner: tuple[int, int], text: Pixels) -> None:
    """Put dark text from :func:`_render_text` on a light place."""
    x, y = corner
    room = canvas[y : y + text.shape[0], x : x + text.shape[1]]
    np.minimum(room, text[: room.shape[0], : room.shape[1]], out=room)


def _render_text(text: str, size: int, colour: tuple[int, int, int] = INK) -> Pixels:
    """Return (h, w, 3) of a line of text on white."""
    font = ImageFont.load_default(size)
    picture = Image.new("RGB", (max(1, math.ceil(font.getlength(text))), size * 3 // 2), PAPER)
    ImageDraw.Draw(picture).text((0, 0), text, colour, font)
    return np.asarray(picture)


@lru_cache(maxsize=4096)  # a few MB; sheets have the same labels again and again
def _render_label(text: str, colour: tuple[int, int, int]) -> Pixels:
    return _render_text(text, SMALL, colour)


def _title_of(facts: Facts) -> str:
    parts = [facts.view, facts.layer, facts.target]
    if facts.channel is not None:
        parts.append("all channels" if facts.channel == "all" else f"channel {facts.channel}")
    parts += [facts.shape, facts.position, facts.stage, facts.page and f"page {facts.page}"]
    parts += ["on RGB from 0 to 1" if facts.space == "pixel" else None]
    parts += ["batch norm folded in" if facts.folded else None]
    return "  ·  ".join(part for part in parts if part)


def _legend_of(tiles: Sequence[Tile], facts: Facts) -> list[str]:
    """Return the lines below the colour bar."""
    text = facts.to_text()
    lines = [f"min {text['vmin']}   max {text['vmax']}   scale: {text['scale']}"] if "vmin" in text else []
    lines += [facts.note] if facts.note is not None else []
    flags = [tile.flag for tile in tiles if tile.flag]
    return lines + [f"! {word}: {flags.count(word)} of {len(tiles)}" for word in sorted(set(flags))]


def _draw_bar(canvas: Pixels, y: int, bar: Bar) -> None:
    """Draw the colour table with its ends and its middle named."""
    length = len(bar.table)
    canvas[y : y + 12, MARGIN : MARGIN + length] = bar.table
    low, middle, high = (_render_text(text, SMALL) for text in (bar.low, bar.middle, bar.high))
    for text, x in ((low, 0), (middle, (length - middle.shape[1]) // 2), (high, length - high.shape[1])):
        _draw_text(canvas, (MARGIN + x, y + 14), text)


def enlarge(pixels: Pixels, zoom: int) -> Pixels:
    """Return (H * zoom, W * zoom, 3) of (H, W, 3), each pixel a square."""
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def encode_png(pixels: Pixels, facts: Facts) -> bytes:
    """Return the PNG of (H, W, 3) uint8 RGB with the facts as text chunks."""
    chunks = PngImagePlugin.PngInfo()
    for name, text in facts.to_text().items():
        chunks.add_itxt(name, text)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", pnginfo=chunks, compress_level=COMPRESSION)
    return file.getvalue()


def encode_jpeg(pixels: Pixels) -> bytes:
    """Return a JPEG of a photo (H, W, 3) uint8 RGB, a tenth of a PNG in bytes; never for a view, which is exact."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=PHOTO_QUALITY, optimize=True)
    return file.getvalue()


def text_chunks(png: bytes) -> dict[str, str]:
    """Return the facts that a picture carries, read back from the file."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return {str(name): str(text) for name, text in image.info.items()}
