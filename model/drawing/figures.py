"""Views -> PNG pictures that do not mislead: what stands on the sheet, and in which colours.

The invariants, each held by a test: zero keeps its place (the bottom of a sequential table, the neutral middle of a
symmetric diverging one); a sequential table only where no value is negative; whole-number enlargement without
smoothing; a legend with the range, the layer and the scale; maps that are all zero, constant or not finite are marked,
never stretched into life; no channel is left out; PNG, never JPEG, with the legend's facts in its text chunks too.

What ``describe_...`` returns is also in the JSON form of the view, for which nothing is drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.drawing.colours import GREYS, MARK, Pixels, colour_filters, colour_values, diverging, sequential
from torchlight.model.drawing.rendering import INK, LARGE, TILE, Bar, Tile, draw_sheet, encode_png, enlarge
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.views.attribution import Attribution
from torchlight.model.views.deconvnet import Reconstruction
from torchlight.model.views.facts import (
    DIVERGING,
    GREY_RGB,
    SEQUENTIAL,
    Display,
    Facts,
    describe_range,
    find_flags,
    find_limits,
    find_peaks,
)
from torchlight.model.views.image_index import ChannelExamples, Index, Neighbour, Peak
from torchlight.model.views.receptive_field import Box, Grid, SeenPosition, find_seen_pixels_if_placed

CAVEAT = "which pattern fired this unit, not why the class; shown to recover parts of any image"


def draw_maps(display: Display) -> bytes:
    """Return one PNG of activation maps; where each has its own limit, that is written below it."""
    pictures = colour_values(display.values, display.limits, is_signed=display.is_signed)  # (n, h, w, 3)
    flags = find_flags(display.values, display.almost_zero)
    labels, limits = map(str, display.channels), _own_limits(display)
    tiles = [Tile(*parts) for parts in zip(pictures, labels, flags, limits, strict=True)]
    return draw_sheet(tiles, display.facts, _bar(display.is_signed, display.shared_limit))


def draw_filters(display: Display) -> bytes:
    """Return one PNG of a convolution's filters.

    Filters over three input channels are colour pictures with zero at mid-grey, the three channels scaled together.
    Others are tiles in a diverging table, one for each input channel, up to 64 a row, labelled filter.input; filters of
    one input channel, as a depthwise convolution has, are a sheet like maps. Where each filter has its own limit, that
    is written below it.
    """
    inputs = display.values.shape[1]
    limits, bar = _own_limits(display), _bar(True, display.shared_limit)
    if inputs == 3:
        pictures = colour_filters(display.values, display.limits)  # (n, h, w, 3)
        flags, labels = find_flags(display.values, display.almost_zero), list(map(str, display.channels))
        bar = replace(bar, table=GREYS)
    else:
        planes = display.values.reshape(-1, *display.values.shape[2:])  # (n * C_in, h, w)
        pictures = colour_values(planes, display.limits.repeat(inputs), is_signed=True)
        flags = find_flags(planes, display.almost_zero)
        labels = [f"{k}.{c}" if inputs > 1 else str(k) for k in display.channels for c in range(inputs)]
        limits = [limit if c == 0 else "" for limit in limits for c in range(inputs)]  # below the filter's first tile
    tiles = [Tile(*parts) for parts in zip(pictures, labels, flags, limits, strict=True)]
    if inputs in (1, 3) or display.facts.channel != "all":
        return draw_sheet(tiles, display.facts, bar)
    return draw_sheet(tiles, display.facts, bar, columns=min(inputs, 64), room=TILE // 3)


def describe_attribution(found: Attribution, class_names: Sequence[str], facts: Facts) -> Facts:
    """Return the facts with the account of an attribution: how its cells add up to the logit."""
    values = found.map.numpy().astype(np.float32, copy=False)  # (h, w)
    versus = "" if found.target_vs is None else f" rather than {class_names[found.target_vs]}"
    (limit,) = find_limits(find_peaks(values[None]), has_own=True).tolist()
    account = [f"logit {found.logit:.6g}"]
    if found.bias is not None:
        account += [f"bias {found.bias:.6g}", f"sum {found.sum:.6g}", f"residual {found.residual:.6g}"]
    nothing = ["no positive evidence"] if found.is_signed and not (values > 0).any() else []
    return replace(
        describe_range(facts, values),
        layer=found.layer,
        view=found.method,
        target=class_names[found.target] + versus,
        law=found.law,
        logit=found.logit,
        bias=found.bias,
        sum=found.sum,
        residual=found.residual,
        scale="map",
        limit=limit,
        colormap=DIVERGING if found.is_signed else SEQUENTIAL,
        note="   ".join([*nothing, *account, f"law: {found.law}"]),
    )


def draw_attribution(found: Attribution, image: Tensor, grid: Grid, facts: Facts) -> bytes:
    """Return one PNG with the input, the map on its own grid, and the map over the input in grey.

    Over the input each cell covers the square around its centre; there is no smoothing and no scaling of the blend.

    Args:
        image: (3, S, S) uint8 RGB, what the network sees.
        grid: where the cells lie on it.
        facts: of :func:`describe_attribution`.
    """
    values = found.map.numpy().astype(np.float32, copy=False)  # (h, w)
    limits = find_limits(find_peaks(values[None]), has_own=True)  # (1,)
    (colours,) = colour_values(values[None], limits, is_signed=found.is_signed)  # (h, w, 3)
    (flag,) = find_flags(values[None])
    picture = image.permute(1, 2, 0).numpy()  # (S, S, 3)
    height, width = values.shape
    tiles = [
        Tile(picture, f"what the network sees, {picture.shape[1]}x{picture.shape[0]}"),
        Tile(colours, f"evidence, {width}x{height}", flag),
        Tile(_overlay(colours, picture, grid), "both", flag),
    ]
    limit = float(limits[0])
    bar = _bar(found.is_signed, limit)
    if found.is_signed:
        bar = replace(bar, low=f"{-limit:.4g} against", high=f"{limit:.4g} for")
    return draw_sheet(tiles, facts, bar, columns=3, room=LARGE)


def describe_reconstruction(found: Reconstruction, std: Sequence[float], facts: Facts) -> Facts:
    """Return the facts with what a reconstruction is of and the range of its colours."""
    colours = _reconstruction_colours(found, std)
    return replace(
        facts,
        layer=found.layer,
        view="reconstruction",
        channel=found.channel,
        position="y {}, x {}".format(*found.position),
        activation=found.value,
        vmin=colours.min().item(),
        vmax=colours.max().item(),
        scale="its own",
        limit=colours.abs().max().item(),
        colormap=GREY_RGB,
        note=_remark(found),
    )


def draw_reconstruction(classifier: Classifier, found: Reconstruction, image: Tensor, facts: Facts) -> bytes:
    """Draw a reconstruction, zero at mid-grey and its colours scaled together, beside the same part of the image.

    Args:
        image: (3, S, S) uint8 RGB.
        facts: of :func:`describe_reconstruction`.
    """
    colours = _reconstruction_colours(found, classifier.spec.std)
    limit = colours.abs().max().item()
    displayed = (127.5 + 127.5 * (colours / (limit or 1.0))).round().to(torch.uint8)
    frame = found.frame(find_seen_pixels_if_placed(classifier.graph, found.layer, *found.position))
    labels = [f"activation {found.value:.4g}", f"rows {frame.y0}-{frame.y1}, columns {frame.x0}-{frame.x1}"]
    return draw_images([frame.crop(displayed), frame.crop(image)], labels, facts=facts, columns=2, limit=limit)


def describe_seen(seen: SeenPosition, facts: Facts) -> Facts:
    """Return the facts with the position and its receptive field."""
    position = f"y {seen.y}, x {seen.x}"
    outside = ", less what is outside" if seen.box.clipped != seen.box.full else ""
    return replace(
        facts,
        view="receptive field",
        shape="x".join(map(str, seen.field.size)) + " pixels",
        position=position,
        note=f"seen by position {position}{outside}",
    )


def draw_seen(image: Tensor, seen: SeenPosition, facts: Facts) -> bytes:
    """Return one PNG of the input (3, S, S) uint8 RGB with the pixels darkened that the position does not see.

    Raises:
        ViewNotApplicable: it sees none.
    """
    box = seen.box.clipped
    if box is None:
        raise ViewNotApplicable(f"position y={seen.y}, x={seen.x} of layer {facts.layer!r} sees nothing but padding")
    label = f"rows {box.y0} to {box.y1}, columns {box.x0} to {box.x1}"
    return draw_images([light(image, box)], [label], facts=facts, columns=1)


def describe_neighbours(index: Index, facts: Facts) -> Facts:
    """Return the facts with where the neighbours come from."""
    return replace(facts, view="most alike", note=f"{index.source.split} images; cosine of last vectors")


def draw_neighbours(image: Tensor, found: Sequence[Neighbour], index: Index, facts: Facts) -> bytes:
    """Return one PNG of an image (3, S, S) uint8 RGB and its neighbours, most similar first."""
    labels = ["this image", *(f"{one.label} {one.similarity:.3f}" for one in found)]
    pictures = [image, *(index.thumbnails[one.image] for one in found)]
    return draw_images(pictures, labels, facts=facts, columns=5)


def describe_examples(index: Index, layer: str, channel: int, facts: Facts) -> Facts:
    """Return the facts with the channel and what the rows of its examples are."""
    dead = "; zero on all of them: dead" if index.is_dead(layer, channel) else ""
    rows = "rows of best, random and lowest; lit: what the position can see"
    return replace(
        facts,
        layer=layer,
        view="unit",
        channel=channel,
        note=f"{len(index)} {index.source.split} images: {rows}{dead}",
    )


def draw_examples(classifier: Classifier, index: Index, layer: str, rows: ChannelExamples, facts: Facts) -> bytes:
    """Return one PNG with a row each of the best, random and lowest images, darkened where the peak does not see."""
    peaks = [(name, peak) for name, row in vars(rows).items() for peak in row]
    labels = [f"{name} {peak.value:.3g}" for name, peak in peaks]
    pictures = [_light_peak(classifier, layer, peak, index.thumbnails[peak.image]) for _, peak in peaks]
    return draw_images(pictures, labels, facts=facts, columns=len(rows.best))


def draw_images(
    images: Sequence[Tensor], labels: Sequence[str], *, facts: Facts, columns: int, limit: float | None = None
) -> bytes:
    """Return one PNG of pictures side by side, each enlarged by the largest whole number that fits its place.

    Args:
        images: (3, h, w) uint8 RGB each.
        labels: what is written below each.
        limit: what full brightness stands for, in pictures of numbers with zero at mid-grey.
    """
    bar = None if limit is None else replace(_bar(True, limit), table=GREYS)
    tiles = [Tile(image.permute(1, 2, 0).numpy(), label) for image, label in zip(images, labels, strict=True)]
    return draw_sheet(tiles, facts, bar, columns=columns, room=LARGE if len(tiles) <= 4 else 2 * TILE)


def draw_plain_image(image: Tensor) -> bytes:
    """Return a PNG of exactly these pixels (3, h, w) uint8 RGB, for a page that enlarges it and says what it is."""
    return encode_png(image.permute(1, 2, 0).numpy(), Facts())


def draw_plain_filters(weights: Tensor, columns: int) -> bytes:
    """Return a PNG of colour filters with one pixel for each weight, for a page that enlarges it and has the legend.

    Each filter has its own range, with zero at mid-grey; one with a value that is not finite is painted over.

    Args:
        weights: (C, 3, kernel height, kernel width) floating point.
        columns: filters side by side, with a dark line of one pixel around each.
    """
    values = weights.numpy().astype(np.float32)
    pictures = colour_filters(values, find_limits(find_peaks(values), has_own=True))
    pictures[~np.isfinite(values).reshape(len(values), -1).all(axis=1)] = MARK
    number, height, width, _ = pictures.shape
    sheet = np.empty((math.ceil(number / columns) * (height + 1) + 1, columns * (width + 1) + 1, 3), np.uint8)
    sheet[:] = INK
    for index, picture in enumerate(pictures):
        y, x = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        sheet[y : y + height, x : x + width] = picture
    return encode_png(sheet, Facts())


def light(image: Tensor, box: Box) -> Tensor:
    """Return (3, h, w) uint8 RGB with all but the pixels of a box darkened."""
    lit = (image * 0.35).to(torch.uint8)
    box.crop(lit)[:] = box.crop(image)
    return lit


def _light_peak(classifier: Classifier, layer: str, peak: Peak, thumbnail: Tensor) -> Tensor:
    """Return the thumbnail with what the position cannot see darkened, where that is known."""
    seen = find_seen_pixels_if_placed(classifier.graph, layer, peak.y, peak.x)
    if seen is None or seen.clipped is None:
        return thumbnail
    share = thumbnail.shape[-1] / classifier.spec.size
    top, left = (math.floor(side * share) for side in (seen.clipped.y0, seen.clipped.x0))
    bottom, right = (math.ceil((side + 1) * share) - 1 for side in (seen.clipped.y1, seen.clipped.x1))
    return light(thumbnail, Box(top, left, bottom, right))


def _reconstruction_colours(found: Reconstruction, std: Sequence[float]) -> Tensor:
    """Return (3, S, S): RGB less the mean colour."""
    colours = found.pixels * torch.tensor(std).view(3, 1, 1)
    return colours.nan_to_num(posinf=0.0, neginf=0.0)


def _remark(found: Reconstruction) -> str:
    """Return what a reconstruction means, or why there is none."""
    if not (isfinite(found.value) and found.pixels.isfinite().all()):
        return "not finite: pixels that are no number are drawn as zero"
    if not found.value:
        return "the unit is zero here: it did not fire, so there is nothing to show"
    return CAVEAT if found.pixels.any() else "all zero: none of the unit's value reaches the pixels"


def _overlay(colours: Pixels, picture: Pixels, grid: Grid) -> Pixels:
    """Return the picture in grey, enlarged so that cells begin on whole pixels, with the cells' colours at 60%."""
    zoom = max(1, LARGE // max(picture.shape[:2]))
    base = enlarge(picture.mean(axis=2, keepdims=True).repeat(3, axis=2), zoom)
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


def _bar(is_signed: bool, limit: float | None) -> Bar:
    high = "+ own limit" if limit is None else f"{limit:.4g}"
    if is_signed:
        return Bar(diverging(), "- own limit" if limit is None else f"{-limit:.4g}", high, middle="0")
    return Bar(sequential(), "0", high)


def _own_limits(display: Display) -> list[str]:
    """Return what is written below each map or filter: its limit, unless all share one."""
    if display.shared_limit is not None:
        return [""] * len(display.limits)
    return [f"±{limit:.2g}" if display.is_signed else f"to {limit:.2g}" for limit in display.limits]
