"""Numbers -> colours, by tables that are even to the eye: equal steps in value are equal steps in lightness.

Built in OKLab, where distance follows perception. Lightness alone orders every table (half of it, for the diverging
one), so they read the same in grey and with any colour blindness.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.uint8]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
MARK = (200, 0, 160)  # of numbers that are not finite, and around every tile with a flag
GREYS: Table = np.repeat(np.arange(255, dtype=np.uint8)[:, None], 3, axis=1)


@cache
def sequential() -> Table:
    """Return (256, 3) uint8 RGB from near-black violet (0) over teal to light yellow (the maximum)."""
    position = np.linspace(0, 1, 256)
    hue = np.interp(position, [0, 0.5, 1], [295, 200, 105])
    chroma = np.interp(position, [0, 0.25, 0.6, 0.85, 1], [0.05, 0.11, 0.10, 0.14, 0.11])
    return _to_srgb(0.16 + 0.80 * position, chroma, hue)


@cache
def diverging() -> Table:
    """Return (255, 3) uint8 RGB from blue (the negative limit) over neutral light grey (0, index 127) to red."""
    distance = np.abs(np.arange(255) - 127) / 127
    hue = np.where(np.arange(255) < 127, 258, 32)
    return _to_srgb(0.96 - 0.52 * distance, 0.17 * distance, hue)


def _to_srgb(lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]) -> Table:
    """Return sRGB of OKLab colours in polar form (hue in degrees); what sRGB cannot show is clipped.

    Source: Ottosson: A perceptual color space for image processing, 2020 (the two matrices); sRGB: IEC 61966-2-1.
    """
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        axis=1,
    )
    matrix = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(cones**3 @ matrix.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Table = np.round(255 * encoded).astype(np.uint8)
    return table


def colour_values(values: Floats, limits: Floats, *, is_signed: bool) -> Pixels:
    """Return (n, h, w, 3) for n maps (n, h, w): zero is the neutral middle if signed, else the bottom of the table.

    Args:
        limits: (n,) the absolute value that gets the last colour, for each.
    """
    limit = limits[:, None, None]
    share = np.nan_to_num(np.clip(values, -limit, limit) / limit, nan=0.0)  # in this order a small limit is no overflow
    index = np.round(127 + 127 * share if is_signed else 255 * share).astype(int)
    pixels: Pixels = np.asarray((diverging() if is_signed else sequential())[index])
    pixels[~np.isfinite(values)] = MARK
    return pixels


def colour_filters(values: Floats, limits: Floats) -> Pixels:
    """Return (n, h, w, 3) for n filters (n, 3, h, w): zero is mid-grey, the three channels share one limit."""
    share = np.clip(np.nan_to_num(values / limits[:, None, None, None], nan=0.0), -1, 1)
    pixels: Pixels = np.round(127.5 + 127.5 * share).astype(np.uint8)
    return pixels.transpose(0, 2, 3, 1)
