"""Arrays -> PNG pictures that do not mislead. Knows nothing of networks.

The laws, each held by a test: zero keeps its place (the bottom of a sequential table, the neutral middle of a symmetric
diverging one); a sequential table only where no value is negative; whole-number enlargement without smoothing; a legend
with the range, the layer and the scale; maps that are all zero, constant or not finite are marked, never stretched into
life; no channel is left out; PNG, never JPEG, with the legend's facts in its text chunks too.
"""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from model.colours import diverging, sequential
from model.errors import ChannelOutOfRange

MapScale = Literal["map", "layer"]
FilterScale = Literal["filter", "layer"]
Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

TILE = 72  # a tile's side is the largest whole multiple of the map's that fits, or the map's own
PAPER, INK, MARK = (255, 255, 255), (40, 44, 52), (200, 0, 160)
MARGIN, GAP, LABEL = 12, 6, 12


@dataclass(frozen=True)
class _Sheet:
    """Tiles ready to be laid out: pixels (n, h, w, 3), one label and one flag ("" if none) each."""

    tiles: Pixels
    labels: list[str]
    flags: list[str]
    columns: int


def render_maps(maps: Tensor, *, channel: int | None, facts: Mapping[str, str], scale: MapScale = "layer") -> bytes:
    """Return one PNG of all activation maps, or of one.

    Args:
        maps: (C, H, W) floating point.
        channel: None for the sheet of all.
        facts: what the legend and the text chunks say beside the range, such as ``layer``, ``model`` and ``image``.
        scale: ``layer`` gives all maps one range, so that they compare; ``map`` gives each its own.

    Raises:
        ChannelOutOfRange: the layer has fewer channels.
    """
    values = maps.numpy().astype(np.float32)
    _check_channel(channel, len(values), facts, "maps")
    signed = bool((values < 0).any())  # decided over the whole layer, so that one map looks as it does on the sheet
    limits = _limits(values, per_tile=scale == "map")
    chosen = list(range(len(values))) if channel is None else [channel]
    sheet = _Sheet(
        tiles=np.stack([_colour(values[k], limits[k], signed) for k in chosen]),
        labels=[str(k) for k in chosen],
        flags=[_flag(values[k]) for k in chosen],
        columns=_columns(len(chosen), values.shape[1:]),
    )
    shown = values[chosen]
    return _compose(sheet, _describe(shown, facts, scale, channel, signed, limits[chosen].max(), "map"), signed)


def render_filters(
    weights: Tensor, *, channel: int | None, facts: Mapping[str, str], scale: FilterScale = "filter"
) -> bytes:
    """Return one PNG of a convolution's filters, or of one.

    Filters over three input channels are colour pictures with zero at mid-grey, the three channels scaled together.
    Others are rows of tiles, one for each input channel, in a diverging table.

    Args:
        weights: (C_out, C_in, kernel height, kernel width) floating point.
        channel: output channel; None for all.
        facts: as for :func:`render_maps`.
        scale: ``filter`` gives each filter its own range, so that its shape is visible; ``layer`` gives all the same,
            so that strengths compare.

    Raises:
        ChannelOutOfRange: the layer has fewer filters.
    """
    values = weights.numpy().astype(np.float32)
    _check_channel(channel, len(values), facts, "filters")
    limits = _limits(values, per_tile=scale == "filter")
    chosen = list(range(len(values))) if channel is None else [channel]
    inputs = values.shape[1]
    if inputs == 3:
        sheet = _Sheet(
            tiles=np.stack([_colour_filter(values[k], limits[k]) for k in chosen]),
            labels=[str(k) for k in chosen],
            flags=[_flag(values[k]) for k in chosen],
            columns=_columns(len(chosen), values.shape[2:]),
        )
    else:
        sheet = _Sheet(
            tiles=np.stack([_colour(values[k, c], limits[k], signed=True) for k in chosen for c in range(inputs)]),
            labels=[f"{k}.{c}" for k in chosen for c in range(inputs)],
            flags=[_flag(values[k, c]) for k in chosen for c in range(inputs)],
            columns=inputs if len(chosen) > 1 else _columns(inputs, values.shape[2:]),
        )
    described = _describe(values[chosen], facts, scale, channel, True, limits[chosen].max(), "filter")
    if inputs == 3:
        described["colormap"] = "rgb, zero at mid-grey"
    return _compose(sheet, described, True)


def _check_channel(channel: int | None, number: int, facts: Mapping[str, str], what: str) -> None:
    if channel is not None and not 0 <= channel < number:
        raise ChannelOutOfRange(
            f"channel {channel} does not exist: layer {facts.get('layer', '')!r} has {number} {what}, 0 to {number - 1}"
        )


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


def _columns(number: int, shape: tuple[int, ...]) -> int:
    """Return how many tiles a row holds for a sheet a bit wider than high."""
    height, width = shape
    return max(1, min(number, math.ceil(math.sqrt(number * 1.6 * (height + LABEL) / width))))


def _describe(
    values: Floats, facts: Mapping[str, str], scale: str, channel: int | None, signed: bool, limit: float, what: str
) -> dict[str, str]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    return {
        **facts,
        "channel": "all" if channel is None else str(channel),
        "shape": "x".join(map(str, values.shape if channel is None else values.shape[1:])),
        "vmin": f"{low:.6g}",
        "vmax": f"{high:.6g}",
        "scale": scale,
        "limit": f"{limit:.6g}" if channel is not None or scale == "layer" else f"each {what}'s own",
        "colormap": "diverging blue-grey-red, zero neutral" if signed else "sequential violet-yellow, zero darkest",
    }


def _compose(sheet: _Sheet, facts: Mapping[str, str], signed: bool) -> bytes:
    """Lay out title, tiles and legend, and encode the PNG."""
    number, height, width, _ = sheet.tiles.shape
    zoom = max(1, (TILE if number > 1 else 6 * TILE) // max(height, width))
    with_labels = any(sheet.labels) and number > 1
    cell_width, cell_height = (
        width * zoom + GAP,
        height * zoom + GAP + (LABEL if with_labels and width * zoom >= 20 else 0),
    )
    rows = math.ceil(number / sheet.columns)
    font, small = ImageFont.load_default(13), ImageFont.load_default(10)
    lines = _legend_lines(sheet, facts)
    text_width = max(int(font.getlength(line)) for line in lines)
    canvas_width = max(sheet.columns * cell_width - GAP, text_width, 260) + 2 * MARGIN
    top = MARGIN + 22
    bottom = top + rows * cell_height + 6
    canvas = Image.new("RGB", (canvas_width, bottom + 40 + 18 * (len(lines) - 1) + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN), lines[0], INK, font)
    for index in range(number):
        x = MARGIN + index % sheet.columns * cell_width
        y = top + index // sheet.columns * cell_height
        tile = sheet.tiles[index].repeat(zoom, axis=0).repeat(zoom, axis=1)
        canvas.paste(Image.fromarray(tile), (x, y))
        right, low = x + width * zoom, y + height * zoom
        draw.rectangle((x - 1, y - 1, right, low), outline=MARK if sheet.flags[index] else (214, 217, 222))
        if cell_height > height * zoom + GAP:
            colour = MARK if sheet.flags[index] else INK
            draw.text((x, low), sheet.labels[index] + (" !" if sheet.flags[index] else ""), colour, small)
    _draw_bar(canvas, draw, bottom, facts, signed, small)
    for position, line in enumerate(lines[1:]):
        draw.text((MARGIN, bottom + 40 + 18 * position), line, INK, font)
    return _encode(canvas, facts)


def _legend_lines(sheet: _Sheet, facts: Mapping[str, str]) -> list[str]:
    """Return the title and the lines below the colour bar."""
    title = f"{facts.get('layer', '')}  ·  channel {facts['channel']}  ·  {facts['shape']}"
    lines = [title, f"min {facts['vmin']}   max {facts['vmax']}   scale: {facts['scale']}"]
    for word in sorted({flag for flag in sheet.flags if flag}):
        lines.append(f"! {word}: {sheet.flags.count(word)} of {len(sheet.flags)}")
    return lines


def _draw_bar(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    y: int,
    facts: Mapping[str, str],
    signed: bool,
    font: Font,
) -> None:
    """Draw the colour table with its ends and zero named."""
    if facts["colormap"].startswith("rgb"):
        table = np.repeat(np.arange(255, dtype=np.uint8)[:, None], 3, axis=1)
    else:
        table = diverging() if signed else sequential()
    canvas.paste(Image.fromarray(table[None].repeat(12, axis=0)), (MARGIN, y))
    end = facts["limit"]
    low = ("-" + end if end[0].isdigit() else "- limit") if signed else "0"
    high = end if end[0].isdigit() else "limit"
    draw.text((MARGIN, y + 14), low, INK, font)
    right = MARGIN + len(table)
    draw.text((right - font.getlength(high), y + 14), high, INK, font)
    if signed:
        draw.text((MARGIN + 127 - 3, y + 14), "0", INK, font)


def _encode(canvas: Image.Image, facts: Mapping[str, str]) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    for name, value in facts.items():
        chunks.add_itxt(name, value)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()
