"""What a view says beside its numbers, computed from the arrays without drawing. Knows nothing of networks.

The facts of a view are one value: the JSON form answers them, and a picture writes them into its legend and its text
chunks. How maps and filters are scaled is decided here too, since the facts tell it.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchlight.model.errors import ChannelOutOfRange, ViewError

MapScale = Literal["map", "layer", "fixed"]
FilterScale = Literal["filter", "layer"]
Floats = NDArray[np.float32]

PER_PAGE = 256  # maps or colour filters
TILES_PER_PAGE = 2048  # of filters that need a tile for each input channel
ALMOST_ZERO = 1e-6  # of the layer's largest value: what is smaller is a dead map's noise, to be drawn as zero
SEQUENTIAL, DIVERGING = "sequential violet-yellow, zero darkest", "diverging blue-grey-red, zero neutral"
GREY_RGB = "rgb, zero at mid-grey"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a view says of itself; each field is a text chunk, in this order, unless it is None.

    A chunk has the field's name; only ``x_explains`` is ``X-Explains``.

    Attributes:
        model: digest of the checkpoint.
        image: id of the stored image.
        view, target, law, logit, bias, sum, residual: which attribution or other view, and its account.
        shape: of what is shown, such as ``64x28x28``.
        vmin, vmax: smallest and largest finite value shown; not a number where none is finite.
        scale, limit: see :func:`display_maps`; the absolute value that gets the last colour, or ``each its own``.
        x_explains: of a service whose answers another network gives.
    """

    model: str | None = None
    image: str | None = None
    layer: str | None = None
    view: str | None = None
    target: str | None = None
    law: str | None = None
    logit: float | None = None
    bias: float | None = None
    sum: float | None = None
    residual: float | None = None
    stage: str | None = None
    space: str | None = None
    folded: bool | None = None
    channel: int | Literal["all"] | None = None
    position: str | None = None
    activation: float | None = None
    shape: str | None = None
    vmin: float | None = None
    vmax: float | None = None
    scale: str | None = None
    limit: float | str | None = None
    page: str | None = None
    colormap: str | None = None
    note: str | None = None
    x_explains: str | None = None

    def to_text(self) -> dict[str, str]:
        """Return name -> text of each fact that is known; numbers have six digits."""
        known = {name: _to_text(value) for name, value in vars(self).items() if value is not None}
        return {"X-Explains" if name == "x_explains" else name: text for name, text in known.items()}


@dataclass(frozen=True)
class Display:
    """Maps or filters that are shown, and on which scale.

    Attributes:
        values: (n, h, w) of maps, (n, C_in, h, w) of filters.
        channels: their numbers in the layer.
        limits: (n,) the absolute value that gets the last colour, for each.
        shared_limit: that of all; None where each has its own.
        almost_zero: a map or filter whose largest absolute value is below this is flagged; 0 flags none.
        is_signed: whether any value of the layer is negative.
    """

    facts: Facts
    values: Floats
    channels: range
    limits: Floats
    shared_limit: float | None
    almost_zero: float
    is_signed: bool


def display_maps(
    maps: Tensor,
    *,
    channel: int | None,
    facts: Facts,
    scale: MapScale = "layer",
    fixed_limit: float | None = None,
    page: int = 1,
) -> Display:
    """Decide how a layer's activation maps, or one of them, are shown.

    Args:
        maps: (C, H, W) floating point.
        channel: None for a sheet of all, ``PER_PAGE`` a page.
        facts: what is known beside the range, such as ``layer``, ``model`` and ``image``.
        scale: ``layer`` gives all maps one range, so that they compare; ``map`` gives each its own, but at least a
            millionth of the layer's; ``fixed`` takes ``fixed_limit``, so that pictures of different images or networks
            compare.
        fixed_limit: the absolute value that gets the last colour; larger ones get it too.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange: the layer has fewer channels.
        ViewError: the sheet has fewer pages, or a page of one map is asked for.
    """
    values = maps.numpy().astype(np.float32, copy=False)  # (C, H, W)
    channels, facts = _choose(len(values), channel, page, facts, ("maps", PER_PAGE))
    is_signed = bool((values < 0).any())  # decided over the whole layer, so that one map looks as it does on the sheet
    facts = replace(facts, scale=scale, colormap=DIVERGING if is_signed else SEQUENTIAL)
    peaks = find_peaks(values)  # (C,)
    limits = find_limits(peaks, has_own=scale == "map")
    if fixed_limit is not None:
        limits[:] = fixed_limit
    return _display(values, peaks, limits, channels, is_signed, facts)


def display_filters(
    weights: Tensor, *, channel: int | None, facts: Facts, scale: FilterScale = "filter", page: int = 1
) -> Display:
    """Decide how a convolution's filters, or one of them, are shown.

    Args:
        weights: (C_out, C_in, kernel height, kernel width) floating point.
        channel: output channel; None for a sheet of all, as many a page as make ``TILES_PER_PAGE`` tiles.
        facts: as for :func:`display_maps`.
        scale: ``filter`` gives each filter its own range, so that its shape is visible, but at least a millionth of the
            layer's; ``layer`` gives all the same, so that strengths compare.
        page: of the sheet, from 1.

    Raises:
        ChannelOutOfRange, ViewError: as for :func:`display_maps`.
    """
    values = weights.numpy().astype(np.float32, copy=False)  # (C_out, C_in, h, w)
    in_colour = values.shape[1] == 3
    per_page = PER_PAGE if in_colour else max(1, TILES_PER_PAGE // values.shape[1])
    channels, facts = _choose(len(values), channel, page, facts, ("filters", per_page))
    facts = replace(facts, scale=scale, colormap=GREY_RGB if in_colour else DIVERGING)
    peaks = find_peaks(values)  # (C_out,)
    return _display(values, peaks, find_limits(peaks, has_own=scale == "filter"), channels, True, facts)


def describe_range(facts: Facts, values: Floats) -> Facts:
    """Return the facts with the shape of some values and the range of those that are finite."""
    is_finite = np.isfinite(values)
    finite = values if is_finite.all() else values[is_finite]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)
    return replace(facts, shape="x".join(map(str, values.shape)), vmin=low, vmax=high)


def find_peaks(values: Floats) -> Floats:
    """Return (n,): the largest finite absolute value of each of n maps or filters."""
    peaks: Floats = np.where(np.isfinite(values), np.abs(values), 0).reshape(len(values), -1).max(axis=1)
    return peaks


def find_limits(peaks: Floats, *, has_own: bool) -> Floats:
    """Return (n,): the absolute value that gets the last colour, its own or that of all n; at least tiny.

    Its own is not less than ``ALMOST_ZERO`` of the largest of all.
    """
    least = peaks.max() * (ALMOST_ZERO if has_own else 1)
    return np.maximum(peaks, max(least, np.finfo(np.float32).tiny))


def find_flags(values: Floats, least: float = 0.0) -> list[str]:
    """Return what is wrong with each of n maps or filters, in the word the legend uses; "" for a live one.

    Args:
        values: (n, ...)
        least: those whose largest absolute value is below this are almost zero; 0 makes none so.
    """
    flat = values.reshape(len(values), -1)  # (n, numbers)
    is_finite, is_even = np.isfinite(flat).all(axis=1), (flat == flat[:, :1]).all(axis=1)
    is_zero = is_even & (flat[:, 0] == 0)
    kinds = [~is_finite, is_zero, find_peaks(values) < least, is_even & (flat.shape[1] > 1)]
    words: list[str] = np.select(kinds, ["not finite", "all zero", "almost zero", "constant"], "").tolist()
    return words


def _display(values: Floats, peaks: Floats, limits: Floats, channels: range, is_signed: bool, facts: Facts) -> Display:
    """Return those of all values (C, ...) that are shown, and complete the facts."""
    shown = slice(channels.start, channels.stop)
    has_own = facts.scale in ("map", "filter")
    shared_limit = None if facts.channel == "all" and has_own else float(limits[shown].max())
    described = describe_range(facts, values[shown] if facts.channel == "all" else values[channels.start])
    described = replace(described, limit="each its own" if shared_limit is None else shared_limit)
    almost_zero = float(ALMOST_ZERO * peaks.max()) if has_own else 0.0
    return Display(described, values[shown], channels, limits[shown], shared_limit, almost_zero, is_signed)


def _choose(number: int, channel: int | None, page: int, facts: Facts, paging: tuple[str, int]) -> tuple[range, Facts]:
    """Return the channels to show, and the facts with these and, of a sheet of several pages, which one it is."""
    noun, per_page = paging
    pages = math.ceil(number / per_page)
    if channel is not None:
        if not 0 <= channel < number:
            raise ChannelOutOfRange(channel, facts.layer or "", number)
        if page != 1:
            raise ViewError(f"page {page} does not exist: channel {channel} is shown alone; leave out channel or page")
        return range(channel, channel + 1), replace(facts, channel=channel)
    if not 1 <= page <= pages:
        make = f"make {pages} pages" if pages > 1 else "make 1 page"
        raise ViewError(f"page {page} does not exist: {number} {noun} {make} of {per_page}")
    chosen = range((page - 1) * per_page, min(number, page * per_page))
    return chosen, replace(facts, channel="all", page=f"{page} of {pages}" if pages > 1 else None)


def _to_text(value: float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)
