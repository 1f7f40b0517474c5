"""Arrays -> PNG pictures that do not mislead. Knows nothing of networks.

The laws, each held by a test: zero keeps its place (the bottom of a sequential table, the neutral middle of a symmetric
diverging one); a sequential table only where no value is negative; whole-number enlargement without smoothing; a legend
with the range, the layer and the scale; maps that are all zero, constant or not finite are marked, never stretched into
life; no channel is left out; PNG, never JPEG, with the legend's facts in its text chunks too.
"""

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from torchlight.model.drawing.colours import Table, diverging, sequential
from torchlight.model.errors import ChannelOutOfRange, ViewError

MapScale = Literal["map", "layer", "fixed"]
FilterScale = Literal["filter", "layer"]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]

TILE, LARGE = 72, 448  # pixels that a tile of a sheet, or a picture shown alone, may fill after enlargement
PER_PAGE = 256  # maps or colour filters
TILES_PER_PAGE = 2048  # of filters that need a tile for each input channel
PAPER, INK, LINE, MARK = (255, 255, 255), (40, 44, 52), (214, 217, 222), (200, 0, 160)
GREYS: Table = np.repeat(np.arange(255, dtype=np.uint8)[:, None], 3, axis=1)
MARGIN, GAP, LABEL, BAR = 12, 6, 12, 36
SIZE, SMALL = 13, 10  # of the letters of the legend and of labels
TOP = MARGIN + 22  # where tiles begin, below the title
ALMOST_ZERO = 1e-6  # of the layer's largest value: what is smaller is a dead map's noise, to be drawn as zero
COMPRESSION = 3  # of zlib: 6 saves a fifth of the bytes and takes twice as long


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie on the input: centre of the first and distance to the next, in pixels, as (y, x).

    Pixel centres are whole numbers. A map as large as the input has start (0, 0) and step (1, 1).
    """

    start: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class _Tile:
    """A picture (h, w, 3) before enlargement, what is written below it, and what is wrong with its values.

    ``limit`` is a second line, where each tile has its own range.
    """

    pixels: Pixels
    label: str = ""
    flag: str = ""
    limit: str = ""


@dataclass(frozen=True)
class _Bar:
    """A colour table with what its lower end, its middle and its upper end stand for."""

    table: Table
    low: str
    high: str
    middle: str = ""


def render_maps(
    maps: Tensor,
    *,
    channel: int | None,
    facts: Mapping[str, str],
    scale: MapScale = "layer",
    fixed_limit: float | None = None,
    page: int = 1,
) -> bytes:
    """Return one PNG of a layer's activation maps, or of one.

    Args:
        maps: (C, H, W) floating point.
        channel: None for a sheet of all, ``PER_PAGE`` a page.
        facts: what the legend and the text chunks say beside the range, such as ``layer``, ``model`` and ``image``.
        scale: ``layer`` gives all maps one range, so that they compare; ``map`` gives each its own, written below it,
            but at least a millionth of the layer's; ``fixed`` takes ``fixed_limit``, so that pictures of different
            images or networks compare.
        fixed_limit: the absolute value that gets the last colour; larger ones get it too.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange: the layer has fewer channels.
        ViewError: the sheet has fewer pages, or a page of one map is asked for.
    """
    values = maps.numpy().astype(np.float32)
    chosen, paging = _choose(len(values), channel, page, facts, "maps", PER_PAGE)
    signed = bool((values < 0).any())  # decided over the whole layer, so that one map looks as it does on the sheet
    limits = _limits(values, per_tile=scale == "map")
    if fixed_limit is not None:
        limits[:] = fixed_limit
    flags = _flags(values[chosen], least=ALMOST_ZERO * _peaks(values).max() if scale == "map" else 0.0)
    shared = None if channel is None and scale == "map" else float(limits[chosen].max())
    own = [_own_limit(limit, signed) if shared is None else "" for limit in limits[chosen]]
    pictures = _colour(values[chosen], limits[chosen], signed)
    tiles = [_Tile(*parts) for parts in zip(pictures, map(str, chosen), flags, own, strict=True)]
    described = _describe(values[chosen], facts, scale, channel, shared) | paging | {"colormap": _name(signed)}
    return _sheet(tiles, described, _bar(signed, shared))


def render_filters(
    weights: Tensor, *, channel: int | None, facts: Mapping[str, str], scale: FilterScale = "filter", page: int = 1
) -> bytes:
    """Return one PNG of a convolution's filters, or of one.

    Filters over three input channels are colour pictures with zero at mid-grey, the three channels scaled together.
    Others are tiles in a diverging table, one for each input channel, up to 64 a row, labelled filter.input.

    Args:
        weights: (C_out, C_in, kernel height, kernel width) floating point.
        channel: output channel; None for a sheet of all, as many a page as make ``TILES_PER_PAGE`` tiles.
        facts: as for :func:`render_maps`.
        scale: ``filter`` gives each filter its own range, so that its shape is visible, written below it, but at least
            a millionth of the layer's; ``layer`` gives all the same, so that strengths compare.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange, ViewError: as for :func:`render_maps`.
    """
    values = weights.numpy().astype(np.float32)
    inputs = values.shape[1]
    in_colour = inputs == 3
    per_page = PER_PAGE if in_colour else max(1, TILES_PER_PAGE // inputs)
    chosen, paging = _choose(len(values), channel, page, facts, "filters", per_page)
    limits = _limits(values, per_tile=scale == "filter")
    least = ALMOST_ZERO * _peaks(values).max() if scale == "filter" else 0.0
    shared = None if channel is None and scale == "filter" else float(limits[chosen].max())
    own = [_own_limit(limit, signed=True) if shared is None else "" for limit in limits[chosen]]
    if in_colour:
        pictures, labels = _colour_filters(values[chosen], limits[chosen]), [str(k) for k in chosen]
        flags = _flags(values[chosen], least)
    else:
        planes = values[chosen].reshape(-1, *values.shape[2:])
        pictures, flags = _colour(planes, limits[chosen].repeat(inputs), signed=True), _flags(planes, least)
        labels = [f"{k}.{c}" for k in chosen for c in range(inputs)]
        own = [limit if c == 0 else "" for limit in own for c in range(inputs)]  # below the filter's first tile
    tiles = [_Tile(*parts) for parts in zip(pictures, labels, flags, own, strict=True)]
    colormap = "rgb, zero at mid-grey" if in_colour else _name(signed=True)
    described = _describe(values[chosen], facts, scale, channel, shared) | paging | {"colormap": colormap}
    bar = replace(_bar(True, shared), table=GREYS) if in_colour else _bar(True, shared)
    if in_colour or channel is not None:
        return _sheet(tiles, described, bar)
    return _sheet(tiles, described, bar, columns=min(inputs, 64), room=TILE // 3)


def render_evidence(
    values: Tensor, image: Tensor, *, grid: Grid, facts: Mapping[str, str], signed: bool = True
) -> bytes:
    """Return one PNG with the input, the map on its own grid, and the map over the input in grey.

    Over the input each cell covers the square around its centre; there is no smoothing and no scaling of the blend.

    Args:
        values: (h, w) evidence: positive speaks for the class; or, not signed, how much each cell matters.
        image: (3, S, S) uint8 RGB, what the network sees.
        grid: where the cells lie on it.
        facts: as for :func:`render_maps`.
        signed: whether the method tells for from against; if not, no value may be negative.
    """
    evidence = values.numpy().astype(np.float32)
    (limit,) = limits = _limits(evidence[None], per_tile=True)
    (flag,) = _flags(evidence[None])
    (colours,) = _colour(evidence[None], limits, signed)
    picture = image.permute(1, 2, 0).numpy()
    height, width = evidence.shape
    tiles = [
        _Tile(picture, f"what the network sees, {picture.shape[1]}x{picture.shape[0]}"),
        _Tile(colours, f"evidence, {width}x{height}", flag),
        _Tile(_overlay(colours, picture, grid), "both", flag),
    ]
    described = _describe(evidence, facts, "map", None, float(limit)) | {"colormap": _name(signed)}
    del described["channel"]  # evidence is over all of them
    if signed and not (evidence > 0).any():
        described["note"] = "   ".join(filter(None, ["no positive evidence", described.get("note", "")]))
    bar = _bar(signed, float(limit))
    if signed:
        bar = replace(bar, low=f"{-limit:.4g} against", high=f"{limit:.4g} for")
    return _sheet(tiles, described, bar, columns=3, room=LARGE)


def render_images(
    images: Sequence[Tensor],
    labels: Sequence[str],
    *,
    facts: Mapping[str, str],
    columns: int,
    limit: float | None = None,
) -> bytes:
    """Return one PNG of pictures side by side, each enlarged by the largest whole number that fits its place.

    Args:
        images: (3, h, w) uint8 RGB each.
        labels: what is written below each.
        limit: what full brightness stands for, in pictures of numbers with zero at mid-grey.
    """
    bar = None if limit is None else replace(_bar(True, limit), table=GREYS)
    tiles = [_Tile(image.permute(1, 2, 0).numpy(), label) for image, label in zip(images, labels, strict=True)]
    return _sheet(tiles, facts, bar, columns=columns, room=LARGE if len(tiles) <= 4 else 2 * TILE)


def render_box(image: Tensor, box: tuple[int, int, int, int], *, facts: Mapping[str, str]) -> bytes:
    """Return one PNG of the input with a box drawn around some of its pixels, the rest darkened.

    Args:
        image: (3, S, S) uint8 RGB.
        box: top, left, bottom, right pixel, all inside the image and included.
    """
    top, left, bottom, right = box
    lit = light(image, box).permute(1, 2, 0).numpy()
    return _sheet([_Tile(lit, f"rows {top} to {bottom}, columns {left} to {right}")], facts, None, room=LARGE)


def plain_image(image: Tensor) -> bytes:
    """Return a PNG of exactly these pixels (3, h, w) uint8 RGB, for a page that enlarges it and says what it is."""
    return _encode(image.permute(1, 2, 0).numpy(), {})


def plain_filters(weights: Tensor, columns: int) -> bytes:
    """Return a PNG of colour filters with one pixel for each weight, for a page that enlarges it and has the legend.

    Each filter has its own range, with zero at mid-grey; one with a value that is not finite is painted over.

    Args:
        weights: (C, 3, kernel height, kernel width) floating point.
        columns: filters side by side, with a dark line of one pixel around each.
    """
    values = weights.numpy().astype(np.float32)
    pictures = _colour_filters(values, _limits(values, per_tile=True))
    pictures[~np.isfinite(values).reshape(len(values), -1).all(axis=1)] = MARK
    number, height, width, _ = pictures.shape
    sheet = np.empty((math.ceil(number / columns) * (height + 1) + 1, columns * (width + 1) + 1, 3), np.uint8)
    sheet[:] = INK
    for index, picture in enumerate(pictures):
        y, x = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        sheet[y : y + height, x : x + width] = picture
    return _encode(sheet, {})


def light(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Return (3, h, w) uint8 RGB with all but the pixels of a box, as for :func:`render_box`, darkened."""
    top, left, bottom, right = box
    lit = (image * 0.35).to(torch.uint8)
    lit[:, top : bottom + 1, left : right + 1] = image[:, top : bottom + 1, left : right + 1]
    return lit


def flag(values: Tensor) -> str:
    """Return ``all zero``, ``constant`` or ``not finite`` for a map (H, W) that is, else an empty text."""
    return _flags(values.numpy()[None])[0]


def text_chunks(png: bytes) -> dict[str, str]:
    """Return the facts that a picture of ours carries, so that its JSON can say the very same."""
    facts, position = {}, 8
    while position < len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if kind == b"iTXt":
            name, _, rest = png[position + 8 : position + 8 + length].partition(b"\0")
            _, _, text = rest[2:].split(b"\0", 2)  # two flags of compression, then language and translated name
            facts[name.decode()] = text.decode()
        position += 12 + length
    return facts


def _choose(
    number: int, channel: int | None, page: int, facts: Mapping[str, str], what: str, per_page: int
) -> tuple[list[int], dict[str, str]]:
    """Return the channels to show, and for a sheet of several pages which one it is."""
    pages = math.ceil(number / per_page)
    if channel is not None:
        if not 0 <= channel < number:
            raise ChannelOutOfRange(channel, facts.get("layer", ""), number)
        if page != 1:
            raise ViewError(f"page {page} does not exist: channel {channel} is shown alone; leave out channel or page")
        return [channel], {}
    if not 1 <= page <= pages:
        make = f"make {pages} pages" if pages > 1 else "make 1 page"
        raise ViewError(f"page {page} does not exist: {number} {what} {make} of {per_page}")
    chosen = list(range((page - 1) * per_page, min(number, page * per_page)))
    return chosen, {"page": f"{page} of {pages}"} if pages > 1 else {}


def _limits(values: Floats, *, per_tile: bool) -> Floats:
    """Return for each of the n maps or filters the absolute value that gets the last colour; at least tiny.

    Its own is not less than ``ALMOST_ZERO`` of the largest of all.
    """
    peaks = _peaks(values)
    least = peaks.max() * (ALMOST_ZERO if per_tile else 1)
    return np.maximum(peaks, max(least, np.finfo(np.float32).tiny))


def _peaks(values: Floats) -> Floats:
    """Return the largest finite absolute value of each of n maps or filters."""
    peaks: Floats = np.where(np.isfinite(values), np.abs(values), 0).reshape(len(values), -1).max(axis=1)
    return peaks


def _flags(values: Floats, least: float = 0.0) -> list[str]:
    """Return what is wrong with each of n maps or filters, in the word the legend uses; "" for a live one.

    Args:
        least: what has no value as large is almost zero.
    """
    flat = values.reshape(len(values), -1)
    is_finite, is_even = np.isfinite(flat).all(axis=1), (flat == flat[:, :1]).all(axis=1)
    is_zero = is_even & (flat[:, 0] == 0)
    kinds = [~is_finite, is_zero, _peaks(values) < least, is_even & (flat.shape[1] > 1)]
    words: list[str] = np.select(kinds, ["not finite", "all zero", "almost zero", "constant"], "").tolist()
    return words


def _colour(values: Floats, limits: Floats, signed: bool) -> Pixels:
    """Return (n, h, w, 3) for n maps (h, w): zero is the neutral middle if signed, else the bottom of the table."""
    limit = limits[:, None, None]
    share = np.nan_to_num(np.clip(values, -limit, limit) / limit, nan=0.0)  # in this order a small limit is no overflow
    index = np.round(127 + 127 * share if signed else 255 * share).astype(int)
    table = diverging() if signed else sequential()
    pixels: Pixels = np.asarray(table[index])
    pixels[~np.isfinite(values)] = MARK
    return pixels


def _colour_filters(values: Floats, limits: Floats) -> Pixels:
    """Return (n, h, w, 3) for n filters (3, h, w): zero is mid-grey, the three channels share one limit."""
    share = np.clip(np.nan_to_num(values / limits[:, None, None, None], nan=0.0), -1, 1)
    pixels: Pixels = np.round(127.5 + 127.5 * share).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)


def _overlay(colours: Pixels, picture: Pixels, grid: Grid) -> Pixels:
    """Return the picture in grey, enlarged so that cells begin on whole pixels, with the cells' colours at 60%."""
    zoom = max(1, LARGE // max(picture.shape[:2]))
    base = _enlarge(picture.mean(axis=2, keepdims=True).repeat(3, axis=2), zoom)
    cells = []
    for axis in (0, 1):
        position = (np.arange(base.shape[axis]) + 0.5) / zoom - 0.5  # in input pixels
        cells.append(np.floor((position - grid.start[axis]) / grid.step[axis] + 0.5).astype(int))
    rows, columns = cells
    inside = np.outer((rows >= 0) & (rows < colours.shape[0]), (columns >= 0) & (columns < colours.shape[1]))
    painted = colours[np.clip(rows, 0, colours.shape[0] - 1)][:, np.clip(columns, 0, colours.shape[1] - 1)]
    blended: Pixels = np.round(0.4 * base + 0.6 * painted).astype(np.uint8)
    blended[~inside] = base[~inside]
    return blended


def _describe(
    values: Floats, facts: Mapping[str, str], scale: str, channel: int | None, limit: float | None
) -> dict[str, str]:
    """Return the facts with the range of the values shown; ``limit`` is None where each tile has its own."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    return {
        **facts,
        "channel": "all" if channel is None else str(channel),
        "shape": "x".join(map(str, values.shape if channel is None else values.shape[1:])),
        "vmin": f"{low:.6g}",
        "vmax": f"{high:.6g}",
        "scale": scale,
        "limit": "each its own" if limit is None else f"{limit:.6g}",
    }


def _name(signed: bool) -> str:
    return "diverging blue-grey-red, zero neutral" if signed else "sequential violet-yellow, zero darkest"


def _bar(signed: bool, limit: float | None) -> _Bar:
    high = "+ own limit" if limit is None else f"{limit:.4g}"
    if signed:
        return _Bar(diverging(), "- own limit" if limit is None else f"{-limit:.4g}", high, middle="0")
    return _Bar(sequential(), "0", high)


def _own_limit(limit: float, signed: bool) -> str:
    return f"±{limit:.2g}" if signed else f"to {limit:.2g}"


def _sheet(
    tiles: Sequence[_Tile], facts: Mapping[str, str], bar: _Bar | None, *, columns: int | None = None, room: int = TILE
) -> bytes:
    """Lay out title, tiles, colour bar and legend, and encode the PNG.

    Args:
        columns: None for a sheet a bit wider than high.
        room: pixels that the longer side of a tile may fill after enlargement by a whole number.
    """
    room = LARGE if len(tiles) == 1 else room
    pictures = [_enlarge(tile.pixels, max(1, room // max(tile.pixels.shape[:2]))) for tile in tiles]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    columns = columns or max(1, min(len(tiles), math.ceil(math.sqrt(len(tiles) * 1.6 * (height + LABEL) / width))))
    lines = 1 + any(tile.limit for tile in tiles) if any(tile.label for tile in tiles) else 0
    label = LABEL * lines if width >= 20 else 0
    title, legend = _title(facts), _legend(tiles, facts)
    bottom = TOP + math.ceil(len(tiles) / columns) * (height + GAP + label) + GAP
    text_width = max(_text(line, SIZE).shape[1] for line in (title, *legend))
    canvas_width = max(columns * (width + GAP) - GAP, text_width, len(GREYS)) + 2 * MARGIN
    canvas_height = bottom + (BAR if bar else 0) + 18 * len(legend) + MARGIN
    canvas = np.full((canvas_height, canvas_width, 3), PAPER[0], np.uint8)
    _write(canvas, (MARGIN, MARGIN), _text(title, SIZE))
    for index, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        corner = MARGIN + index % columns * (width + GAP), TOP + index // columns * (height + GAP + label)
        _place(canvas, corner, tile, picture, has_label=label > 0)
    if bar:
        _draw_bar(canvas, bottom, bar)
    for position, line in enumerate(legend):
        _write(canvas, (MARGIN, bottom + (BAR if bar else 0) + 18 * position), _text(line, SIZE))
    return _encode(canvas, facts)


def _place(canvas: Pixels, corner: tuple[int, int], tile: _Tile, picture: Pixels, *, has_label: bool) -> None:
    """Put the enlarged picture of a tile on the canvas, with a frame around it and its label below."""
    (x, y), (height, width, _) = corner, picture.shape
    frame = canvas[y - 1 : y + height + 1, x - 1 : x + width + 1]
    frame[[0, -1]] = frame[:, [0, -1]] = MARK if tile.flag else LINE
    frame[1:-1, 1:-1] = picture
    if has_label:
        text, colour = (f"{tile.label} !", MARK) if tile.flag else (tile.label, INK)
        _write(canvas, (x, y + height), _label(text, colour))
        _write(canvas, (x, y + height + LABEL), _label(tile.limit, INK))


def _write(canvas: Pixels, corner: tuple[int, int], text: Pixels) -> None:
    """Put dark text from :func:`_text` on a light place."""
    x, y = corner
    room = canvas[y : y + text.shape[0], x : x + text.shape[1]]
    np.minimum(room, text[: room.shape[0], : room.shape[1]], out=room)


def _text(text: str, size: int, colour: tuple[int, int, int] = INK) -> Pixels:
    """Return (h, w, 3) of a line of text on white."""
    font = ImageFont.load_default(size)
    picture = Image.new("RGB", (max(1, math.ceil(font.getlength(text))), size * 3 // 2), PAPER)
    ImageDraw.Draw(picture).text((0, 0), text, colour, font)
    return np.asarray(picture)


@lru_cache(maxsize=4096)  # a few MB; sheets have the same labels again and again
def _label(text: str, colour: tuple[int, int, int]) -> Pixels:
    return _text(text, SMALL, colour)


def _title(facts: Mapping[str, str]) -> str:
    parts = [facts.get("view", ""), facts.get("layer", ""), facts.get("target", "")]
    if "channel" in facts:
        parts.append("all channels" if facts["channel"] == "all" else f"channel {facts['channel']}")
    parts += [facts.get(name, "") for name in ("shape", "position", "stage")]
    parts += [facts.get("page", "") and f"page {facts['page']}"]
    parts += ["on RGB from 0 to 1"] if facts.get("space") == "pixel" else []
    parts += ["batch norm folded in"] if facts.get("folded") == "true" else []
    return "  ·  ".join(part for part in parts if part)


def _legend(tiles: Sequence[_Tile], facts: Mapping[str, str]) -> list[str]:
    """Return the lines below the colour bar."""
    lines = [f"min {facts['vmin']}   max {facts['vmax']}   scale: {facts['scale']}"] if "vmin" in facts else []
    lines += [facts["note"]] if "note" in facts else []
    flags = [tile.flag for tile in tiles if tile.flag]
    return lines + [f"! {word}: {flags.count(word)} of {len(tiles)}" for word in sorted(set(flags))]


def _draw_bar(canvas: Pixels, y: int, bar: _Bar) -> None:
    """Draw the colour table with its ends and its middle named."""
    length = len(bar.table)
    canvas[y : y + 12, MARGIN : MARGIN + length] = bar.table
    low, middle, high = (_text(text, SMALL) for text in (bar.low, bar.middle, bar.high))
    for text, x in ((low, 0), (middle, (length - middle.shape[1]) // 2), (high, length - high.shape[1])):
        _write(canvas, (MARGIN + x, y + 14), text)


def _enlarge(pixels: Pixels, zoom: int) -> Pixels:
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _encode(pixels: Pixels, facts: Mapping[str, str]) -> bytes:
    """Return the PNG of (H, W, 3) with the facts as text chunks.

    Written here because it takes a third of the time that a general encoder does: each row is kept as its difference
    from the one above (filter 2), which is zero within an enlarged map.
    """
    height, width, _ = pixels.shape
    rows = pixels.reshape(height, -1)
    filtered = np.empty((height, 1 + 3 * width), np.uint8)
    filtered[:, 0] = 2
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))]
    chunks += [(b"iTXt", name.encode() + b"\0\0\0\0\0" + value.encode()) for name, value in facts.items()]
    chunks += [(b"IDAT", zlib.compress(filtered.data, COMPRESSION)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
