"""The colour tables against the CIE's lightness, computed here from the published formulas."""

from collections.abc import Callable

import numpy as np
import pytest

from torchlight.model.drawing.colours import diverging, sequential


def lightness(table: np.ndarray) -> np.ndarray:
    """Return CIE L* (0 black to 100 white) of sRGB colours (n, 3)."""
    encoded = table / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


def test_lightness_formula_gives_known_values() -> None:
    known = lightness(np.array([[0, 0, 0], [119, 119, 119], [255, 255, 255]]))
    assert known == pytest.approx([0, 50.0, 100], abs=0.1)


def test_sequential_table_gets_lighter_with_every_step() -> None:
    steps = np.diff(lightness(sequential()))
    assert sequential().shape == (256, 3)
    assert (steps > 0).all()


def test_sequential_table_is_even() -> None:
    """Over any sixteenth of the table, lightness grows by much the same: no false edge, no flat stretch."""
    growth = np.diff(lightness(sequential())[::16])
    assert growth.max() / growth.min() < 1.7


def test_sequential_table_spans_dark_to_light() -> None:
    ends = lightness(sequential())[[0, -1]]
    assert ends[0] < 10
    assert ends[1] > 90


def test_diverging_table_is_neutral_and_lightest_in_the_middle() -> None:
    middle = diverging()[127].astype(int)
    assert diverging().shape == (255, 3)
    assert middle.max() - middle.min() <= 1
    assert lightness(diverging()).argmax() == 127


def test_diverging_table_gets_darker_with_every_step_from_the_middle() -> None:
    steps = np.diff(lightness(diverging()))
    assert (steps[:127] > 0).all()
    assert (steps[127:] < 0).all()


def test_diverging_table_gives_equal_weight_to_both_signs() -> None:
    values = lightness(diverging())
    assert np.abs(values[:127] - values[:127:-1]).max() < 2.5  # of 100; equal in OKLab, which weighs hues differently


def test_diverging_table_is_even() -> None:
    drop = np.diff(lightness(diverging())[127::8])
    assert drop.min() / drop.max() < 1.5


def test_diverging_table_goes_from_blue_to_red() -> None:
    low, high = diverging()[[0, -1]].astype(int)
    assert low.argmax() == 2
    assert high.argmax() == 0


@pytest.mark.parametrize("table", [sequential, diverging], ids=["sequential", "diverging"])
def test_no_two_values_share_a_colour(table: Callable[[], np.ndarray]) -> None:
    assert len(np.unique(table(), axis=0)) == len(table())
