"""Arrays -> PNG pictures that do not mislead. Knows nothing of networks.

The laws, each held by a test: zero keeps its place (the bottom of a sequential table, the neutral middle of a symmetric
diverging one); a sequential table only where no value is negative; whole-number enlargement without smoothing; a legend
with the range, the layer and the scale; maps that are all zero, constant or not finite are marked, never stretched into
life; no channel is left out; PNG, never JPEG, with the legend's facts in its text chunks too.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from model.colours import Table, diverging, sequential
from model.errors import ChannelOutOfRange

MapScale = Literal["map", "layer", "fixed"]
FilterScale = Literal["filter", "layer"]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TILE, LARGE = 72, 448  # pixels that a tile of a sheet, or a picture shown alone, may fill after enlargement
PER_PAGE = 256  # maps or colour filters
TILES_PER_PAGE = 2048  # of filters that need a tile for each input channel
PAPER, INK, LINE, MARK = (255, 255, 255), (40, 44, 52), (214, 217, 222), (200, 0, 160)
GREYS: Table = np.repeat(np.arange(255, dtype=np.uint8)[:, None], 3, axis=1)
MARGIN, GAP, LABEL, BAR = 12, 6, 12, 36


@dataclass(frozen=True)
class Grid:
    """Where the cells of a map lie on the input: centre of the first and distance to the next, in pixels, as (y, x).

    Pixel centres are whole numbers. A map as large as the input has start (0, 0) and step (1, 1).
    """

    start: tuple[float, float] = (0.0, 0.0)
    step: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class _Tile:
    """A picture (h, w, 3) before enlargement, what is written below it, and what is wrong with its values."""

    pixels: Pixels
    label: str = ""
    flag: str = ""


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
        scale: ``layer`` gives all maps one range, so that they compare; ``map`` gives each its own; ``fixed`` takes
            ``fixed_limit``, so that pictures of different images or networks compare.
        fixed_limit: the absolute value that gets the last colour; larger ones get it too.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange: the layer has fewer channels, or the sheet fewer pages.
    """
    values = maps.numpy().astype(np.float32)
    chosen, paging = _choose(len(values), channel, page, facts, "maps", PER_PAGE)
    signed = bool((values < 0).any())  # decided over the whole layer, so that one map looks as it does on the sheet
    limits = _limits(values, per_tile=scale == "map")
    if fixed_limit is not None:
        limits[:] = fixed_limit
    tiles = [_Tile(_colour(values[k], limits[k], signed), str(k), _flag(values[k])) for k in chosen]
    shared = None if channel is None and scale == "map" else float(limits[chosen].max())
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
        scale: ``filter`` gives each filter its own range, so that its shape is visible; ``layer`` gives all the same,
            so that strengths compare.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange: the layer has fewer filters, or the sheet fewer pages.
    """
    values = weights.numpy().astype(np.float32)
    inputs = values.shape[1]
    in_colour = inputs == 3
    per_page = PER_PAGE if in_colour else max(1, TILES_PER_PAGE // inputs)
    chosen, paging = _choose(len(values), channel, page, facts, "filters", per_page)
    limits = _limits(values, per_tile=scale == "filter")
    if in_colour:
        tiles = [_Tile(_colour_filter(values[k], limits[k]), str(k), _flag(values[k])) for k in chosen]
    else:
        tiles = [
            _Tile(_colour(values[k, c], limits[k], signed=True), f"{k}.{c}", _flag(values[k, c]))
            for k in chosen
            for c in range(inputs)
        ]
    shared = None if channel is None and scale == "filter" else float(limits[chosen].max())
    colormap = "rgb, zero at mid-grey" if in_colour else _name(signed=True)
    described = _describe(values[chosen], facts, scale, channel, shared) | paging | {"colormap": colormap}
    bar = replace(_bar(True, shared), table=GREYS) if in_colour else _bar(True, shared)
    if in_colour or channel is not None:
        return _sheet(tiles, described, bar)
    return _sheet(tiles, described, bar, columns=min(inputs, 64), room=TILE // 3)


def render_evidence(values: Tensor, image: Tensor, *, grid: Grid, facts: Mapping[str, str]) -> bytes:
    """Return one PNG with the input, the signed map on its own grid, and the map over the input in grey.

    Over the input each cell covers the square around its centre; there is no smoothing and no scaling of the blend.

    Args:
        values: (h, w) signed evidence: positive speaks for the class.
        image: (3, S, S) uint8 RGB, what the network sees.
        grid: where the cells lie on it.
        facts: as for :func:`render_maps`.
    """
    evidence = values.numpy().astype(np.float32)
    (limit,) = _limits(evidence[None], per_tile=True)
    flag = _flag(evidence)
    colours = _colour(evidence, limit, signed=True)
    picture = image.permute(1, 2, 0).numpy()
    height, width = evidence.shape
    tiles = [
        _Tile(picture, f"what the network sees, {picture.shape[1]}x{picture.shape[0]}"),
        _Tile(colours, f"evidence, {width}x{height}", flag),
        _Tile(_overlay(colours, picture, grid), "both", flag),
    ]
    described = _describe(evidence, facts, "map", None, float(limit)) | {"colormap": _name(signed=True)}
    del described["channel"]  # evidence is over all of them
    bar = replace(_bar(True, float(limit)), low=f"{-limit:.4g} against", high=f"{limit:.4g} for")
    return _sheet(tiles, described, bar, columns=3, room=LARGE)


def render_images(images: Sequence[Tensor], labels: Sequence[str], *, facts: Mapping[str, str], columns: int) -> bytes:
    """Return one PNG of pictures side by side, each enlarged by the same whole number.

    Args:
        images: (3, h, w) uint8 RGB each.
        labels: what is written below each.
    """
    tiles = [_Tile(image.permute(1, 2, 0).numpy(), label) for image, label in zip(images, labels, strict=True)]
    return _sheet(tiles, facts, None, columns=columns, room=LARGE if len(tiles) <= 4 else 2 * TILE)


def render_box(image: Tensor, box: tuple[int, int, int, int], *, facts: Mapping[str, str]) -> bytes:
    """Return one PNG of the input with a box drawn around some of its pixels, the rest darkened.

    Args:
        image: (3, S, S) uint8 RGB.
        box: top, left, bottom, right pixel, all inside the image and included.
    """
    picture = image.permute(1, 2, 0).numpy()
    top, left, bottom, right = box
    lit = (picture * 0.35).astype(np.uint8)
    lit[top : bottom + 1, left : right + 1] = picture[top : bottom + 1, left : right + 1]
    return _sheet([_Tile(lit, f"rows {top} to {bottom}, columns {left} to {right}")], facts, None, room=LARGE)


def flag(values: Tensor) -> str:
    """Return ``all zero``, ``constant`` or ``not finite`` for a map (H, W) that is, else an empty text."""
    return _flag(values.numpy())


def _choose(
    number: int, channel: int | None, page: int, facts: Mapping[str, str], what: str, per_page: int
) -> tuple[list[int], dict[str, str]]:
    """Return the channels to show, and for a sheet of several pages which one it is."""
    pages = math.ceil(number / per_page)
    if channel is not None:
        if not 0 <= channel < number:
            raise ChannelOutOfRange(
                f"channel {channel} does not exist: layer {facts.get('layer', '')!r} has {number} {what}, "
                f"0 to {number - 1}"
            )
        return [channel], {}
    if not 1 <= page <= pages:
        raise ChannelOutOfRange(f"page {page} does not exist: {number} {what} make {pages} pages of {per_page}")
    chosen = list(range((page - 1) * per_page, min(number, page * per_page)))
    return chosen, {"page": f"{page} of {pages}"} if pages > 1 else {}


def _limits(values: Floats, *, per_tile: bool) -> Floats:
    """Return for each of the n maps or filters the absolute value that gets the last colour; at least tiny."""
    finite = np.where(np.isfinite(values), np.abs(values), 0).reshape(len(values), -1)
    own: Floats = finite.max(axis=1) if per_tile else np.full(len(values), finite.max(), np.float32)
    return np.maximum(own, np.finfo(np.float32).tiny)


def _flag(values: Floats) -> str:
    """Return what is wrong with a map, in the word the legend uses; "" for a live one."""
    if not np.isfinite(values).all():
        return "not finite"
    if not values.any():
        return "all zero"
    return "constant" if values.size > 1 and (values == values.flat[0]).all() else ""


def _colour(values: Floats, limit: float, signed: bool) -> Pixels:
    """Return (h, w, 3) for (h, w): zero is the neutral middle if signed, else the bottom of the table."""
    share = np.clip(np.nan_to_num(values / limit, nan=0.0), -1, 1)
    index = np.round(127 + 127 * share if signed else 255 * share).astype(int)
    table = diverging() if signed else sequential()
    pixels: Pixels = np.asarray(table[index])
    pixels[~np.isfinite(values)] = MARK
    return pixels


def _colour_filter(values: Floats, limit: float) -> Pixels:
    """Return (h, w, 3) for (3, h, w): zero is mid-grey, the three channels share one limit."""
    share = np.clip(np.nan_to_num(values / limit, nan=0.0), -1, 1)
    pixels: Pixels = np.round(127.5 + 127.5 * share).astype(np.uint8)
    return pixels.transpose(1, 2, 0)


def _overlay(colours: Pixels, picture: Pixels, grid: Grid) -> Pixels:
    """Return the picture in grey, enlarged so that cells begin on whole pixels, with the cells' colours at 60%."""
    zoom = max(1, LARGE // max(picture.shape[:2]))
    base = _enlarge(picture, zoom).mean(axis=2, keepdims=True).repeat(3, axis=2)
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
    label = LABEL if width >= 20 and any(tile.label for tile in tiles) else 0
    title, legend = _title(facts), _legend(tiles, facts)
    font, small = ImageFont.load_default(13), ImageFont.load_default(10)
    top = MARGIN + 22
    bottom = top + math.ceil(len(tiles) / columns) * (height + GAP + label) + GAP
    text_width = max(int(font.getlength(line)) for line in (title, *legend))
    canvas_width = max(columns * (width + GAP) - GAP, text_width, len(GREYS)) + 2 * MARGIN
    canvas_height = bottom + (BAR if bar else 0) + 18 * len(legend) + MARGIN
    canvas = Image.new("RGB", (canvas_width, canvas_height), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), title, INK, font)
    for index, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        x = MARGIN + index % columns * (width + GAP)
        y = top + index // columns * (height + GAP + label)
        _draw_tile(canvas, draw, tile, picture, (x, y), small if label else None)
    if bar:
        _draw_bar(canvas, draw, bottom, bar, small)
    for position, line in enumerate(legend):
        draw.text((MARGIN, bottom + (BAR if bar else 0) + 18 * position), line, INK, font)
    return _encode(canvas, facts)


def _draw_tile(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, tile: _Tile, picture: Pixels, at: tuple[int, int], font: Font | None
) -> None:
    """Paste the enlarged picture with a frame, and below it, given a font, its label."""
    x, y = at
    canvas.paste(Image.fromarray(picture), at)
    draw.rectangle((x - 1, y - 1, x + picture.shape[1], y + picture.shape[0]), outline=MARK if tile.flag else LINE)
    if font is not None:
        text = tile.label + (" !" if tile.flag else "")
        draw.text((x, y + picture.shape[0]), text, MARK if tile.flag else INK, font)


def _title(facts: Mapping[str, str]) -> str:
    parts = [facts.get("view", ""), facts.get("layer", ""), facts.get("target", "")]
    if "channel" in facts:
        parts.append("all channels" if facts["channel"] == "all" else f"channel {facts['channel']}")
    parts += [facts.get("shape", ""), facts.get("stage", ""), facts.get("page", "") and f"page {facts['page']}"]
    return "  ·  ".join(part for part in parts if part)


def _legend(tiles: Sequence[_Tile], facts: Mapping[str, str]) -> list[str]:
    """Return the lines below the colour bar."""
    lines = [f"min {facts['vmin']}   max {facts['vmax']}   scale: {facts['scale']}"] if "vmin" in facts else []
    lines += [facts["note"]] if "note" in facts else []
    flags = [tile.flag for tile in tiles if tile.flag]
    return lines + [f"! {word}: {flags.count(word)} of {len(tiles)}" for word in sorted(set(flags))]


def _draw_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, y: int, bar: _Bar, font: Font) -> None:
    """Draw the colour table with its ends and its middle named."""
    canvas.paste(Image.fromarray(bar.table[None].repeat(12, axis=0)), (MARGIN, y))
    right, centre = MARGIN + len(bar.table), MARGIN + len(bar.table) / 2
    draw.text((MARGIN, y + 14), bar.low, INK, font)
    draw.text((right - font.getlength(bar.high), y + 14), bar.high, INK, font)
    draw.text((centre - font.getlength(bar.middle) / 2, y + 14), bar.middle, INK, font)


def _enlarge(pixels: Pixels, zoom: int) -> Pixels:
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _encode(canvas: Image.Image, facts: Mapping[str, str]) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    for name, value in facts.items():
        chunks.add_itxt(name, value)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()
