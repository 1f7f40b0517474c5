"""A picture that misleads is worse than none: what is drawn is read back from the PNG and compared with the numbers."""

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from torchlight.model.drawing.colours import diverging, sequential
from torchlight.model.drawing.figures import (
    describe_attribution,
    draw_attribution,
    draw_filters,
    draw_images,
    draw_maps,
    draw_plain_filters,
    draw_plain_image,
    draw_seen,
)
from torchlight.model.drawing.rendering import INK, LINE, MARK, PAPER
from torchlight.model.errors import ChannelOutOfRange, ViewError
from torchlight.model.views.attribution import Attribution
from torchlight.model.views.facts import PER_PAGE, Facts, display_filters, display_maps, find_flags
from torchlight.model.views.receptive_field import Box, Grid, ReceptiveField, SeenPixels, SeenPosition

FACTS = Facts(layer="conv1", model="sha256:abc", image="ünïcode 猫")
NOT_A_NUMBER, INFINITE = float("nan"), float("inf")


def render_maps(maps: Tensor, **options: Any) -> bytes:
    return draw_maps(display_maps(maps, **options))


def render_filters(weights: Tensor, **options: Any) -> bytes:
    return draw_filters(display_filters(weights, **options))


def render_attribution(values: Tensor, image: Tensor, *, grid: Grid, method: str = "hires_cam") -> bytes:
    """Return the picture of a map for the second class, whose logit is 2.5."""
    found = Attribution(method=method, layer="conv1", target=1, target_vs=None, map=values, logit=2.5, law="none")
    return draw_attribution(found, image, grid, describe_attribution(found, ["cat", "dog"], Facts()))


def flag(values: Tensor) -> str:
    return find_flags(values.numpy()[None])[0]


def picture(content: bytes) -> np.ndarray:
    """Return (H, W, 3) of a PNG."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def chunks(content: bytes) -> Mapping[str, str]:
    """Return the text chunks of a PNG."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        return dict(image.text)


def run(marked: np.ndarray) -> int:
    """Return how many of the first values are true without a gap."""
    return int(np.argmin([*marked, False]))


def framed(content: bytes) -> list[tuple[np.ndarray, tuple[int, int, int]]]:
    """Return each tile inside its frame, in reading order, and the colour of the frame."""
    pixels = picture(content)
    frame = (pixels == LINE).all(2) | (pixels == MARK).all(2)
    corners = frame.copy()  # the upper left ones: nothing above, nothing to the left, a line to the right and down
    corners[1:] &= ~frame[:-1]
    corners[:, 1:] &= ~frame[:, :-1]
    found = []
    for y, x in np.argwhere(corners):
        width, height = run(frame[y, x:]), run(frame[y:, x])
        is_tile = int(min(width, height) > 8 and corners[y, x])
        found += [(pixels[y + 1 : y + height - 1, x + 1 : x + width - 1], tuple(map(int, pixels[y, x])))] * is_tile
        corners[y : y + height * is_tile, x : x + width * is_tile] = False  # marked values inside are no frames
    return found


def tiles(content: bytes) -> list[np.ndarray]:
    return [tile for tile, _ in framed(content)]


def read(tile: np.ndarray, side: int) -> np.ndarray:
    """Return one colour for each value of a map with that side, after checking that each fills a square block."""
    zoom = tile.shape[1] // side
    small = tile[::zoom, ::zoom]
    assert (small.repeat(zoom, 0).repeat(zoom, 1) == tile).all()
    return small


def indices(colours: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the position of each colour (..., 3) in the table, in which it must be."""
    known, wanted = (colour.astype(int) @ [1 << 16, 1 << 8, 1] for colour in (table, colours))
    order = known.argsort()
    found = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(table) - 1)]
    assert (known[found] == wanted).all()
    return found


def shows(content: bytes, text: str, size: int = 13) -> bool:
    """Return whether the picture has this text somewhere, in the legend's font or, with size 10, that of labels."""
    font = ImageFont.load_default(size)
    canvas = Image.new("RGB", (int(font.getlength(text)) + 4, 20), PAPER)
    ImageDraw.Draw(canvas).text((0, 0), text, INK, font)
    box = Image.eval(canvas, lambda value: 255 - value).getbbox()
    wanted = np.asarray(canvas.crop(box))
    height, width, _ = wanted.shape
    windows = np.lib.stride_tricks.sliding_window_view(picture(content), (height, width, 3))[:, :40, 0]
    return bool((windows == wanted).all((2, 3, 4)).any())


def ramp(low: float, high: float, side: int = 6) -> Tensor:
    return torch.linspace(low, high, side * side).view(1, side, side)


def test_map_without_negative_values_is_sequential_with_zero_at_the_bottom() -> None:
    maps = torch.zeros(1, 6, 6)
    maps[0, 2, 3] = 4.0
    (tile,) = tiles(render_maps(maps, channel=0, facts=FACTS))
    colours = read(tile, 6)
    assert (colours[2, 3] == sequential()[-1]).all()
    assert (np.delete(colours.reshape(36, 3), 2 * 6 + 3, axis=0) == sequential()[0]).all()


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (-3.0, 1.0)], ids=["mostly positive", "mostly negative"])
def test_map_with_negative_values_is_diverging_with_zero_in_the_middle(low: float, high: float) -> None:
    maps = torch.zeros(1, 6, 6)
    maps[0, 0, 0], maps[0, 5, 5] = low, high
    (tile,) = tiles(render_maps(maps, channel=0, facts=FACTS))
    colours = read(tile, 6)
    assert (colours[1:5] == diverging()[127]).all()
    expected = np.round(127 + 127 * np.array([low, high]) / 3).astype(int)
    assert indices(colours[[0, 5], [0, 5]], diverging()).tolist() == expected.tolist()


@pytest.mark.parametrize("peak", [1e-6, 0.7, 123.0, 3e30], ids=str)
def test_values_can_be_read_back_from_a_sequential_picture(peak: float) -> None:
    maps = ramp(0, peak)
    content = render_maps(maps, channel=0, facts=FACTS)
    limit = float(chunks(content)["limit"])
    values = indices(read(tiles(content)[0], 6), sequential()) / 255 * limit
    assert np.abs(values - maps[0].numpy()).max() <= peak / 255


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.2, 5.0), (-40.0, 0.0)], ids=["even", "up", "down"])
def test_values_can_be_read_back_from_a_diverging_picture(low: float, high: float) -> None:
    maps = ramp(low, high)
    content = render_maps(maps, channel=0, facts=FACTS)
    limit = float(chunks(content)["limit"])
    values = (indices(read(tiles(content)[0], 6), diverging()) - 127) / 127 * limit
    assert np.abs(values - maps[0].numpy()).max() <= 2 * limit / 255


@pytest.mark.parametrize("side", [1, 2, 7, 28, 33, 500])
@pytest.mark.parametrize("number", [1, 5], ids=["alone", "sheet"])
def test_enlargement_is_by_whole_numbers_without_smoothing(number: int, side: int) -> None:
    maps = torch.rand(number, side, side, generator=torch.Generator().manual_seed(0))
    shown = tiles(render_maps(maps, channel=None, facts=FACTS))
    assert len(shown) == number
    for tile, values in zip(shown, maps.numpy(), strict=True):
        expected = np.round(values / maps.max().item() * 255)
        assert np.abs(indices(read(tile, side), sequential()) - expected).max() <= 1


def test_map_that_is_not_square_keeps_its_shape() -> None:
    maps = torch.rand(3, 4, 9, generator=torch.Generator().manual_seed(0))
    zooms = {(tile.shape[0] / 4, tile.shape[1] / 9) for tile in tiles(render_maps(maps, channel=None, facts=FACTS))}
    assert zooms == {(8, 8)}


@pytest.mark.parametrize("number", [1, 2, 7, 64, PER_PAGE])
def test_sheet_shows_every_channel_in_order(number: int) -> None:
    maps = torch.arange(1.0, number + 1).view(-1, 1, 1).expand(-1, 3, 3).clone()
    maps[:, 0, 0] = 0  # so that no map is constant
    shown = tiles(render_maps(maps, channel=None, facts=FACTS))
    assert len(shown) == number
    strengths = [int(indices(tile[-1, -1], sequential())) for tile in shown]
    assert strengths == [round(255 * (k + 1) / number) for k in range(number)]


def test_pages_together_show_every_channel_in_order() -> None:
    maps = torch.arange(1.0, 301).view(-1, 1, 1).expand(-1, 3, 3).clone()
    maps[:, 0, 0] = 0
    contents = [render_maps(maps, channel=None, facts=FACTS, page=page) for page in (1, 2)]
    shown = [tile for content in contents for tile in tiles(content)]
    assert [chunks(content)["page"] for content in contents] == ["1 of 2", "2 of 2"]
    assert [int(indices(tile[-1, -1], sequential())) for tile in shown] == [round(255 * k / 300) for k in range(1, 301)]


@pytest.mark.parametrize("page", [-1, 0, 3])
def test_page_that_does_not_exist_says_how_many_there_are(page: int) -> None:
    with pytest.raises(ViewError, match=rf"page {page} does not exist: 300 maps make 2 pages of 256"):
        render_maps(torch.zeros(300, 2, 2), channel=None, facts=FACTS, page=page)
    with pytest.raises(ViewError, match=rf"page {page} does not exist: 3 filters make 1 page of 256"):
        render_filters(torch.zeros(3, 3, 2, 2), channel=None, facts=FACTS, page=page)
    with pytest.raises(ViewError, match=rf"page {page} does not exist: channel 7 is shown alone"):
        render_maps(torch.zeros(300, 2, 2), channel=7, facts=FACTS, page=page)


def test_scale_layer_gives_all_maps_one_range() -> None:
    maps = torch.cat([ramp(0, 1), ramp(0, 10)])
    content = render_maps(maps, channel=None, facts=FACTS, scale="layer")
    tops = [int(indices(tile[-1, -1], sequential())) for tile in tiles(content)]
    assert tops == [26, 255]
    assert (chunks(content)["scale"], chunks(content)["limit"]) == ("layer", "10")


def test_scale_map_gives_each_map_its_own() -> None:
    maps = torch.cat([ramp(0, 1), ramp(0, 10)])
    content = render_maps(maps, channel=None, facts=FACTS, scale="map")
    assert [int(indices(tile[-1, -1], sequential())) for tile in tiles(content)] == [255, 255]
    assert (chunks(content)["scale"], chunks(content)["limit"]) == ("map", "each its own")


@pytest.mark.parametrize(("peak", "text"), [(0.5, "to 0.5"), (12, "to 12"), (-0.5, "±0.5")], ids=str)
def test_limit_of_a_map_is_written_below_it_if_it_is_its_own(peak: float, text: str) -> None:
    maps = torch.cat([ramp(0, peak), ramp(0, 3)])
    assert shows(render_maps(maps, channel=None, facts=FACTS, scale="map"), text, size=10)
    assert not shows(render_maps(maps, channel=None, facts=FACTS, scale="layer"), text, size=10)
    assert not shows(render_maps(maps, channel=0, facts=FACTS, scale="map"), text, size=10)


@pytest.mark.parametrize("inputs", [1, 3, 5], ids=str)
def test_limit_of_a_filter_is_written_below_it_if_it_is_its_own(inputs: int) -> None:
    weights = torch.ones(2, inputs, 3, 3) * torch.tensor([0.25, 7.0]).view(2, 1, 1, 1)
    assert shows(render_filters(weights, channel=None, facts=FACTS), "±0.25", size=10)
    assert not shows(render_filters(weights, channel=None, facts=FACTS, scale="layer"), "±0.25", size=10)


@pytest.mark.parametrize("channel", [None, 1], ids=["sheet", "alone"])
def test_noise_a_millionth_as_strong_as_the_layer_is_drawn_as_zero_and_flagged(channel: int | None) -> None:
    maps = torch.cat([ramp(0, 1), ramp(0, 1e-30), ramp(0, 1e-5)])
    content = render_maps(maps, channel=channel, facts=FACTS, scale="map")
    shown = framed(content) if channel is None else [([], LINE), *framed(content), ([], LINE)]
    assert [frame for _, frame in shown] == [LINE, MARK, LINE]
    assert (read(shown[1][0], 6) == sequential()[0]).all()
    assert shows(content, "! almost zero: 1 of 3" if channel is None else "! almost zero: 1 of 1")
    assert not shows(render_maps(maps, channel=None, facts=FACTS, scale="layer"), "! almost zero: 1 of 3")


def test_filter_of_noise_is_drawn_as_zero_and_flagged() -> None:
    weights = torch.ones(2, 3, 5, 5) * torch.tensor([1.0, 1e-9]).view(2, 1, 1, 1)
    weights[:, :, 0, 0] = 0
    content = render_filters(weights, channel=None, facts=FACTS)
    assert [frame for _, frame in framed(content)] == [LINE, MARK]
    assert (tiles(content)[1] == 128).all()
    assert shows(content, "! almost zero: 1 of 2")


def test_scale_fixed_takes_the_given_limit_and_clips_above_it() -> None:
    maps = torch.cat([ramp(0, 1), ramp(0, 10)])
    content = render_maps(maps, channel=None, facts=FACTS, scale="fixed", fixed_limit=2.0)
    assert [int(indices(tile[-1, -1], sequential())) for tile in tiles(content)] == [128, 255]
    assert (chunks(content)["scale"], chunks(content)["limit"]) == ("fixed", "2")


@pytest.mark.parametrize("low", [0.0, -2.0], ids=["sequential", "diverging"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_map_alone_has_the_colours_it_has_on_the_sheet(channel: int, low: float) -> None:
    maps = torch.cat([ramp(0, 1), ramp(0, 4), ramp(low, 3)])
    alone = tiles(render_maps(maps, channel=channel, facts=FACTS))[0]
    on_sheet = tiles(render_maps(maps, channel=None, facts=FACTS))[channel]
    assert (read(alone, 6) == read(on_sheet, 6)).all()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        pytest.param(torch.zeros(4, 4), "all zero", id="all zero"),
        pytest.param(-torch.zeros(4, 4), "all zero", id="negative zero"),
        pytest.param(torch.full((4, 4), 0.5), "constant", id="constant"),
        pytest.param(torch.full((4, 4), NOT_A_NUMBER), "not finite", id="all not a number"),
        pytest.param(torch.full((4, 4), INFINITE), "not finite", id="all infinite"),
        pytest.param(torch.tensor([[1.0, NOT_A_NUMBER], [0, 0]]).repeat(2, 2), "not finite", id="some not a number"),
        pytest.param(torch.tensor([[1.0, -INFINITE], [0, 0]]).repeat(2, 2), "not finite", id="some infinite"),
    ],
)
def test_lifeless_map_is_flagged_and_live_ones_are_not(values: Tensor, word: str) -> None:
    live = torch.arange(16.0).view(4, 4)
    content = render_maps(torch.stack([live, values, live]), channel=None, facts=FACTS, scale="map")
    assert [frame for _, frame in framed(content)] == [LINE, MARK, LINE]
    assert shows(content, f"! {word}: 1 of 3")
    assert flag(values) == word
    assert flag(live) == ""


def test_legend_counts_each_kind_of_flag() -> None:
    maps = torch.zeros(4, 3, 3)
    maps[2], maps[3, 1, 1] = 1.0, NOT_A_NUMBER
    content = render_maps(maps, channel=None, facts=FACTS)
    assert shows(content, "! all zero: 2 of 4")
    assert shows(content, "! constant: 1 of 4")
    assert shows(content, "! not finite: 1 of 4")
    assert not shows(content, "! all zero: 1 of 4")


def test_single_value_is_not_called_constant() -> None:
    assert flag(torch.full((1, 1), 0.5)) == ""


@pytest.mark.parametrize("scale", ["map", "layer"])
def test_dead_map_has_only_the_colour_of_zero(scale: str) -> None:
    maps = torch.stack([torch.zeros(4, 4), torch.arange(16.0).view(4, 4)])
    dead, _ = tiles(render_maps(maps, channel=None, facts=FACTS, scale=scale))
    assert (dead == sequential()[0]).all()


def test_layer_of_dead_maps_has_only_the_colour_of_zero() -> None:
    content = render_maps(torch.zeros(3, 4, 4), channel=None, facts=FACTS)
    assert all((tile == sequential()[0]).all() for tile in tiles(content))
    assert (chunks(content)["vmin"], chunks(content)["vmax"]) == ("0", "0")


def test_values_that_are_not_finite_have_their_own_colour_and_leave_the_scale_alone() -> None:
    maps = torch.tensor([[[0.0, 1.0, 2.0], [NOT_A_NUMBER, INFINITE, -INFINITE], [4.0, 2.0, 0.0]]])
    content = render_maps(maps.clamp(min=-INFINITE), channel=0, facts=FACTS)
    colours = read(tiles(content)[0], 3)
    assert (colours[1] == MARK).all()
    assert (colours[[0, 2]] != MARK).any(-1).all()
    assert (chunks(content)["vmin"], chunks(content)["vmax"], chunks(content)["limit"]) == ("0", "4", "4")


def test_infinity_of_the_other_sign_keeps_zero_in_the_middle() -> None:
    maps = torch.tensor([[[-INFINITE, 0.0], [1.0, 2.0]]])
    colours = read(tiles(render_maps(maps, channel=0, facts=FACTS))[0], 2)
    assert (colours[0, 1] == diverging()[127]).all()


@pytest.mark.parametrize(
    ("low", "channel", "expected"),
    [
        (0.0, None, {"channel": "all", "vmin": "0", "vmax": "8", "limit": "8", "shape": "3x6x6"}),
        (0.0, 1, {"channel": "1", "vmin": "0.5", "vmax": "2", "limit": "8", "shape": "6x6"}),
        (-1.5, None, {"channel": "all", "vmin": "-1.5", "vmax": "8", "limit": "8", "shape": "3x6x6"}),
        (-1.5, 0, {"channel": "0", "vmin": "-1.5", "vmax": "1", "limit": "8", "shape": "6x6"}),
    ],
    ids=["sheet", "one map", "signed sheet", "signed map"],
)
def test_text_chunks_say_what_the_picture_shows(low: float, channel: int | None, expected: dict[str, str]) -> None:
    maps = torch.cat([ramp(low, 1), ramp(0.5, 2), ramp(0, 8)])
    content = render_maps(maps, channel=channel, facts=FACTS)
    colormap = "diverging blue-grey-red, zero neutral" if low < 0 else "sequential violet-yellow, zero darkest"
    assert chunks(content) == {**FACTS.to_text(), **expected, "scale": "layer", "colormap": colormap}


def test_text_chunks_are_the_facts_whatever_their_text() -> None:
    facts = Facts(layer="blöck.conv", view="", note="a\nb, 1 < 2", folded=True, logit=1 / 3, x_explains="float32")
    display = display_maps(ramp(0, 1), channel=None, facts=facts)
    assert chunks(draw_maps(display)) == display.facts.to_text()
    said = {"view": "", "folded": "true", "logit": "0.333333", "X-Explains": "float32", "vmax": "1"}
    assert display.facts.to_text().items() >= said.items()


def test_legend_says_layer_channel_range_and_scale() -> None:
    content = render_maps(torch.cat([ramp(0, 1), ramp(-2, 3)]), channel=1, facts=FACTS, scale="map")
    assert shows(content, "conv1  ·  channel 1  ·  6x6")
    assert shows(content, "min -2   max 3   scale: map")
    assert not shows(content, "min -2   max 4   scale: map")


@pytest.mark.parametrize("low", [0.0, -3.0], ids=["sequential", "diverging"])
def test_whole_colour_table_is_in_the_legend(low: float) -> None:
    table = {0.0: sequential(), -3.0: diverging()}[low]
    pixels = picture(render_maps(ramp(low, 3), channel=None, facts=FACTS))
    rows = np.lib.stride_tricks.sliding_window_view(pixels, (1, len(table), 3))
    assert (rows[:, :20, 0] == table).all((2, 3, 4)).any()


@pytest.mark.parametrize("channel", [-1, 3, 400])
@pytest.mark.parametrize(
    ("render", "shape"), [(render_maps, (3, 4, 4)), (render_filters, (3, 2, 4, 4))], ids=["maps", "filters"]
)
def test_channel_out_of_range_names_layer_number_and_range(
    render: Callable[..., bytes], shape: tuple[int, ...], channel: int
) -> None:
    with pytest.raises(ChannelOutOfRange) as caught:
        render(torch.zeros(shape), channel=channel, facts=FACTS)
    assert str(caught.value) == f"channel {channel} does not exist: layer 'conv1' has channels 0 to 2"


def test_rendering_leaves_the_values_alone() -> None:
    maps = torch.tensor([[[0.0, NOT_A_NUMBER], [-1.0, 2.0]]])
    before = maps.clone()
    render_maps(maps, channel=None, facts=FACTS)
    assert torch.equal(maps.nan_to_num(7), before.nan_to_num(7))


def test_same_values_give_the_same_bytes() -> None:
    maps = ramp(-1, 2)
    assert render_maps(maps, channel=None, facts=FACTS) == render_maps(maps, channel=None, facts=FACTS)


def test_colour_filter_has_zero_at_mid_grey_and_one_scale_for_the_three_colours() -> None:
    weights = torch.zeros(1, 3, 2, 2)
    weights[0, :, 0, 0] = torch.tensor([1.0, 0.5, -1.0])
    weights[0, :, 0, 1] = torch.tensor([-0.25, 0.0, 0.25])
    colours = read(tiles(render_filters(weights, channel=0, facts=FACTS))[0], 2)
    assert colours[1].tolist() == [[128] * 3] * 2
    assert colours[0].tolist() == [[255, 191, 0], [96, 128, 159]]


def test_filter_of_zeros_is_mid_grey_and_flagged() -> None:
    content = render_filters(torch.zeros(2, 3, 5, 5), channel=None, facts=FACTS)
    assert all((tile == 128).all() and frame == MARK for tile, frame in framed(content))
    assert shows(content, "! all zero: 2 of 2")


@pytest.mark.parametrize(
    ("scale", "peaks", "limit"), [("filter", [255, 255], "each its own"), ("layer", [159, 255], "4")]
)
def test_filter_scale_is_own_or_shared(scale: str, peaks: list[int], limit: str) -> None:
    weights = torch.zeros(2, 3, 2, 2)
    weights[0, 0, 0, 0], weights[1, 0, 0, 0] = 1.0, 4.0
    content = render_filters(weights, channel=None, facts=FACTS, scale=scale)
    assert [int(tile[0, 0, 0]) for tile in tiles(content)] == peaks
    assert chunks(content)["limit"] == limit
    assert chunks(content)["colormap"] == "rgb, zero at mid-grey"


@pytest.mark.parametrize("inputs", [1, 2, 5], ids=str)
def test_filters_over_other_inputs_have_a_diverging_tile_for_each(inputs: int) -> None:
    weights = torch.zeros(4, inputs, 3, 3)
    strengths = torch.linspace(-1, 1, 4 * inputs).view(4, inputs)
    weights[:, :, 1, 1] = strengths
    shown = tiles(render_filters(weights, channel=None, facts=FACTS, scale="layer"))
    assert len(shown) == 4 * inputs
    centres = [int(indices(read(tile, 3)[1, 1], diverging())) for tile in shown]
    assert centres == (127 + 127 * strengths).round().int().flatten().tolist()
    assert all((read(tile, 3)[0] == diverging()[127]).all() for tile in shown)


def test_depthwise_filters_are_a_sheet_about_as_wide_as_high() -> None:
    content = render_filters(torch.randn(96, 1, 5, 5), channel=None, facts=FACTS)
    height, width, _ = np.asarray(Image.open(io.BytesIO(content))).shape
    assert len(tiles(content)) == 96
    assert 0.5 < height / width < 2


def test_one_filter_alone_shows_all_its_inputs() -> None:
    weights = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    content = render_filters(weights, channel=2, facts=FACTS)
    assert len(tiles(content)) == 6
    assert chunks(content)["channel"] == "2"
    assert chunks(content)["vmax"] == f"{weights[2].max():.6g}"


def test_evidence_shows_the_input_the_map_and_both_on_one_grid() -> None:
    image = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    evidence = torch.zeros(4, 4)
    evidence[1, 2], evidence[3, 0] = 2.0, -1.0
    content = render_attribution(evidence, image, grid=Grid((0.5, 0.5), (2.0, 2.0)))
    seen, signed, both = tiles(content)
    assert (seen == 100).all()
    assert (read(signed, 4)[1, 2] == diverging()[-1]).all()
    assert (read(signed, 4)[0] == diverging()[127]).all()
    cell = len(both) // 4  # cell (1, 2) covers rows 2 and 3, columns 4 and 5 of the image
    expected = np.round(0.4 * 100 + 0.6 * diverging()[-1])
    assert (both[cell : 2 * cell, 2 * cell : 3 * cell] == expected).all()
    assert (both[:cell] == np.round(0.4 * 100 + 0.6 * diverging()[127])).all()


@pytest.mark.parametrize("space", ["normalised", "pixel"])
@pytest.mark.parametrize("folded", [False, True])
def test_title_says_what_was_done_to_the_filters(space: str, folded: bool) -> None:
    content = render_filters(torch.ones(2, 3, 5, 5), channel=None, facts=replace(FACTS, space=space, folded=folded))
    said = ["on RGB from 0 to 1"] * (space == "pixel") + ["batch norm folded in"] * folded
    title = "  ·  ".join(["conv1", "all channels", "2x3x5x5", *said])
    assert shows(content, title)
    assert not shows(content, f"{title}  ·")


@pytest.mark.parametrize(
    ("strongest", "method", "note"),
    [
        (-0.5, "hires_cam", "no positive evidence   logit 2.5   law: none"),
        (0.0, "hires_cam", "no positive evidence   logit 2.5   law: none"),
        (0.1, "hires_cam", "logit 2.5   law: none"),
        (0.0, "saliency", "logit 2.5   law: none"),
    ],
)
def test_evidence_with_nothing_for_the_class_says_so(strongest: float, method: str, note: str) -> None:
    evidence = torch.zeros(4, 4) if method == "saliency" else torch.full((4, 4), -1.0)
    evidence[1, 2] = strongest
    content = render_attribution(evidence, torch.zeros(3, 8, 8, dtype=torch.uint8), grid=Grid(), method=method)
    assert chunks(content)["note"] == note
    assert shows(content, note)


def test_evidence_without_any_is_flagged() -> None:
    grid = Grid((0.5, 0.5), (2, 2))
    content = render_attribution(torch.zeros(4, 4), torch.zeros(3, 8, 8, dtype=torch.uint8), grid=grid)
    assert [frame for _, frame in framed(content)] == [LINE, MARK, MARK]
    assert shows(content, "! all zero: 2 of 3")


def test_images_side_by_side_are_enlarged_whole_and_in_order() -> None:
    images = [torch.full((3, 5, 5), value, dtype=torch.uint8) for value in (10, 20, 30)]
    shown = tiles(draw_images(images, ["a", "b", "c"], facts=Facts(view="top images"), columns=3))
    assert [int(tile[0, 0, 0]) for tile in shown] == [10, 20, 30]
    assert {tile.shape[0] % 5 for tile in shown} == {0}


def test_box_keeps_its_pixels_and_darkens_the_rest() -> None:
    image = torch.full((3, 8, 8), 200, dtype=torch.uint8)
    box = Box(2, 1, 4, 3)
    seen = SeenPosition(0, 0, ReceptiveField((3, 3), (1, 1), (3.0, 2.0)), SeenPixels(box, box))
    (tile,) = tiles(draw_seen(image, seen, Facts(view="receptive field")))
    lit = read(tile, 8)[..., 0]
    expected = np.full((8, 8), 70)
    expected[2:5, 1:4] = 200
    assert (lit == expected).all()


def test_a_plain_image_is_its_pixels() -> None:
    image = torch.randint(0, 256, (3, 5, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (picture(draw_plain_image(image)) == image.permute(1, 2, 0).numpy()).all()


def test_plain_filters_lie_in_rows_with_zero_at_mid_grey_each_on_its_own_scale() -> None:
    weights = torch.stack([torch.full((3, 2, 2), value) for value in (0.0, 0.5, -3.0, NOT_A_NUMBER)])
    pixels = picture(draw_plain_filters(weights, columns=3))
    assert pixels.shape == (7, 10, 3)
    assert [tuple(pixels[1, x]) for x in (1, 4, 7)] == [(128,) * 3, (255,) * 3, (0,) * 3]
    assert (pixels[4:6, 1:3] == MARK).all()
    assert (pixels[::3] == INK).all()
    assert (pixels[:, ::3] == INK).all()
    assert (pixels[4:, 4:] == INK).all()
