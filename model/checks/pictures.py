"""Checks of pictures: read back from the colours, and drawn twice."""

from collections.abc import Callable, Iterator
from functools import cached_property, partial

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
    worst = max(_Reading(maps, channel).error for maps, channel in _maps_to_draw(subject))
    return Finding(worst, "share of the range that the colours span")


def pictures_keep_the_laws(subject: Subject) -> Finding:
    """Count maps with smoothed blocks, a zero off its place, or a legend with other figures than the numbers."""
    readings = [_Reading(maps, channel) for maps, channel in _maps_to_draw(subject)]
    return Finding(sum(not reading.is_lawful for reading in readings), f"of {len(readings)} pictures")


def same_view_twice(subject: Subject) -> Finding:
    """Draw views twice and compare the bytes."""
    changed = sum(draw() != draw() for draw in _pictures(subject))
    return Finding(changed, "pictures of maps and evidence that differ")


class _Reading:
    """One map of a layer, drawn alone, read back from the picture."""

    def __init__(self, maps: Tensor, channel: int) -> None:
        png = draw_maps(display_maps(maps, channel=channel, facts=Facts()))
        self._facts = text_chunks(png)
        self._values = maps[channel].double().numpy()
        height, width = self._values.shape
        zoom = max(1, LARGE // max(height, width))
        pixels = np.asarray(decode_image(png).pixels)[TOP : TOP + height * zoom, MARGIN : MARGIN + width * zoom]
        self._colours = pixels[::zoom, ::zoom]
        self._is_even = bool((self._colours.repeat(zoom, 0).repeat(zoom, 1) == pixels).all())
        self._is_signed = bool((maps < 0).any())

    @property
    def error(self) -> float:
        """The largest difference between a value and its colour's, as a share of the range of the colours."""
        limit = float(self._facts["limit"])
        read = limit * ((self._positions - 127) / 127 if self._is_signed else self._positions / 255)
        spread = 2 * limit if self._is_signed else limit
        return float(np.abs(read - self._values).max() / spread)

    @property
    def is_lawful(self) -> bool:
        """Whether blocks are even, zeros have the colour of zero, and the legend has the figures of the numbers."""
        zeros = self._positions[self._values == 0]
        says = [float(self._facts[name]) for name in ("vmin", "vmax")]
        has = [float(f"{value:.6g}") for value in (self._values.min(), self._values.max())]
        return self._is_even and bool((zeros == (127 if self._is_signed else 0)).all()) and says == has

    @cached_property
    def _positions(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        """Where in the colour table each colour is; a colour that is not in it is nowhere near."""
        table = diverging() if self._is_signed else sequential()
        matches = (self._colours[:, :, None] == table).all(3)
        return np.where(matches.any(2), matches.argmax(2), 10**6)


def _maps_to_draw(subject: Subject) -> Iterator[tuple[Tensor, int]]:
    """Yield maps with a channel: of layers before and after the middle, the first, a middle and the last channel."""
    names = [name for name, layer in subject.graph.layers.items() if len(layer.out_shape) == 3]
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

    first = next((name for name, layer in subject.graph.layers.items() if len(layer.out_shape) == 3), None)
    yield from [partial(sheet, first)] if first else []
    yield attribution
