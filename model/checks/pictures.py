"""Checks of pictures: values read back from the colours, and views drawn twice."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from torch import Tensor

from torchlight.model.checks.subject import Finding, Subject
from torchlight.model.drawing.colours import diverging, sequential
from torchlight.model.drawing.figures import describe_attribution, draw_attribution, draw_maps
from torchlight.model.drawing.rendering import LARGE, MARGIN, TOP, text_chunks
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.images import decode_image
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.attribution import saliency
from torchlight.model.views.facts import Facts, display_maps
from torchlight.model.views.receptive_field import Grid


def pictures_read_back(subject: Subject) -> Finding:
    """Read the values of maps back from the colours of their pictures."""
    worst = max(_read_back(maps, channel).error for maps, channel in _maps_to_draw(subject))
    return Finding(worst, "share of the range that the colours span")


def zero_blocks_and_legend(subject: Subject) -> Finding:
    """Count pictures with uneven blocks, another colour for zero, or a legend with other figures than the map."""
    readings = [_read_back(maps, channel) for maps, channel in _maps_to_draw(subject)]
    return Finding(sum(not reading.is_correct for reading in readings), f"of {len(readings)} pictures")


def same_view_twice(subject: Subject) -> Finding:
    """Draw views twice and compare the bytes."""
    changed = sum(draw() != draw() for draw in _pictures(subject))
    return Finding(changed, "pictures of maps and evidence that differ")


class _Reading(NamedTuple):
    """A map compared with what its picture shows.

    Attributes:
        error: largest difference between a value and its colour's, as a share of the range of the colours.
        is_correct: blocks are of one colour, zeros have the colour of zero, and the legend has the map's figures.
    """

    error: float
    is_correct: bool


def _read_back(maps: Tensor, channel: int) -> _Reading:
    """Draw one map of a layer alone, and read it back from the PNG.

    Args:
        maps: (C, H, W).
    """
    png = draw_maps(display_maps(maps, channel=channel, facts=Facts()))
    legend, is_signed = text_chunks(png), bool((maps < 0).any())
    values = maps[channel].double().numpy()  # (H, W)
    height, width = values.shape
    zoom = max(1, LARGE // max(height, width))
    pixels = np.asarray(decode_image(png).pixels)[TOP : TOP + height * zoom, MARGIN : MARGIN + width * zoom]
    colours = pixels[::zoom, ::zoom]  # (H, W, 3), one pixel of each block
    matches = (colours[:, :, None] == (diverging() if is_signed else sequential())).all(3)  # (H, W, 256)
    positions = np.where(matches.any(2), matches.argmax(2), 10**6)  # in the table; far off for a colour not in it
    limit, zero = float(legend["limit"]), 127 if is_signed else 0
    shown = limit * (positions - zero) / (127 if is_signed else 255)
    error = float(np.abs(shown - values).max() / (2 * limit if is_signed else limit))
    is_even = bool((colours.repeat(zoom, 0).repeat(zoom, 1) == pixels).all())
    figures = [float(f"{value:.6g}") for value in (values.min(), values.max())]
    has_figures = figures == [float(legend[name]) for name in ("vmin", "vmax")]
    return _Reading(error, is_even and bool((positions[values == 0] == zero).all()) and has_figures)


def _maps_to_draw(subject: Subject) -> Iterator[tuple[Tensor, int]]:
    """Yield maps with a channel: of layers before and after the middle, the first, a middle and the last channel."""
    names = [name for name, layer in subject.graph.layers.items() if layer.has_maps]
    if not names:
        raise ViewNotApplicable("no layer of this network gives maps")
    for name in dict.fromkeys([names[0], *names[2 :: max(1, len(names) // 4)]]):
        maps = activation_maps(subject.classifier, subject.image, name)
        yield from ((maps, channel) for channel in sorted({0, len(maps) // 2, len(maps) - 1}))


def _pictures(subject: Subject) -> Iterator[Callable[[], bytes]]:
    def sheet(name: str) -> bytes:
        maps = activation_maps(subject.classifier, subject.image, name)
        return draw_maps(display_maps(maps, channel=None, facts=Facts(layer=name)))

    def attribution() -> bytes:
        found = saliency(subject.classifier, subject.image, subject.targets[0])
        facts = describe_attribution(found, subject.classifier.class_names, Facts())
        return draw_attribution(found, subject.image, Grid(), facts)

    first = next((name for name, layer in subject.graph.layers.items() if layer.has_maps), None)
    yield from [partial(sheet, first)] if first else []
    yield attribution
