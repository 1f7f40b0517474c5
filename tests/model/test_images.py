"""The decode and resize policy: every line of it, and every kind of file that could break it."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from torchlight.model.errors import ImageError, ImageTooLarge, UnknownImageFormat, UnreadableImage
from torchlight.model.images import (
    FORMATS,
    RESIZE_RULES,
    ImageSpec,
    Resizing,
    add_margin,
    decode_image,
    normalise,
    prepare_image,
    to_tensor,
)

CROPPED = Resizing(224, "centre_crop_bicubic_antialias")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> np.ndarray:
    """Return (H, W, 3) uint8 of the decoded picture."""
    return np.asarray(decode_image(content).pixels)


def grey_row(values: list[int], mode: str = "L") -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def palette_picture() -> Image.Image:
    """Return one row of the palette's red, green and blue."""
    image = grey_row([0, 1, 2], "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_declares(width: int, height: int) -> bytes:
    """Return a PNG of a few dozen bytes; its pixels are not there, so whoever decodes them fails otherwise."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_told_by_its_first_bytes(name: str) -> None:
    image = decode_image(encode(Image.new("RGB", (6, 4), RED), name.upper()))
    assert (image.format, image.width, image.height) == (name, 6, 4)
    assert image.pixels.mode == "RGB"


@pytest.mark.parametrize(
    ("format_", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})],
    ids=["PNG", "BMP", "TIFF", "WebP lossless"],
)
def test_lossless_formats_give_the_drawn_pixels(format_: str, options: dict[str, object]) -> None:
    drawn = noise(7, 5)
    assert (pixels(encode(drawn, format_, **options)) == np.asarray(drawn)).all()


def test_big_endian_tiff_is_read() -> None:
    header = b"MM\x00*" + struct.pack(">I", 8)
    entries = [(256, 4, 1), (257, 4, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (278, 4, 1), (279, 4, 1)]
    values = {3: lambda value: struct.pack(">HH", value, 0), 4: lambda value: struct.pack(">I", value)}
    fields = b"".join(struct.pack(">HHI", tag, kind, 1) + values[kind](value) for tag, kind, value in entries)
    content = header + struct.pack(">H", len(entries)) + fields + b"\x00" * 4
    assert pixels(content.ljust(200, b"\x00") + b"\x64").tolist() == [[[100, 100, 100]]]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"hello, this is text", "unknown format"),
        (b"%PDF-1.7 and more", "unknown format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unknown format"),
        (b"8BPS\x00\x01" + bytes(30), "unknown format"),
        (b"SIMPLE  =                    T", "unknown format"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "unknown format"),
        (b"\x00", "unknown format"),
        (b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1", "AVIF"),
    ],
    ids=["text", "PDF", "EPS", "PSD", "FITS", "WAVE", "one byte", "HEIC", "AVIF"],
)
def test_other_formats_are_refused_by_name_with_the_formats_that_work(content: bytes, expected: str) -> None:
    with pytest.raises(UnknownImageFormat, match=expected) as caught:
        decode_image(content)
    assert all(name in str(caught.value) for name in FORMATS)


@pytest.mark.parametrize("format_", ["PPM", "TGA", "ICO", "PCX", "JPEG2000"])
def test_formats_that_pillow_reads_but_we_do_not_are_refused(format_: str) -> None:
    with pytest.raises(UnknownImageFormat):
        decode_image(encode(Image.new("RGB", (16, 16), RED), format_))


def test_content_of_one_format_behind_the_signature_of_another_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="PNG"):
        decode_image(b"\x89PNG\r\n\x1a\n" + encode(noise(8, 8), "JPEG"))


def test_empty_file_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="0 bytes"):
        decode_image(b"")


# How the rows and columns of an upright picture are stored, by the EXIF specification's table for tag 0x0112.
STORED = {
    1: lambda upright: upright,  # row 0 is the top, column 0 the left side
    2: lambda upright: upright[:, ::-1],  # top, right
    3: lambda upright: upright[::-1, ::-1],  # bottom, right
    4: lambda upright: upright[::-1],  # bottom, left
    5: lambda upright: upright.swapaxes(0, 1),  # row 0 is the left side, column 0 the top
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),  # right side, top
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),  # right side, bottom
    8: lambda upright: upright[::-1].swapaxes(0, 1),  # left side, bottom
}


def stored(upright: np.ndarray, orientation: int, format_: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    return encode(image, format_, exif=exif.tobytes(), **options)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_gives_the_same_tensor(orientation: int, format_: str) -> None:
    upright = np.asarray(noise(9, 6))
    tensor, image = prepare_image(stored(upright, orientation, format_), Resizing(6))
    assert torch.equal(tensor, to_tensor(Image.fromarray(upright), Resizing(6)))
    assert (image.width, image.height) == (9, 6)


@pytest.mark.parametrize("orientation", STORED)
def test_facts_are_those_of_the_upright_original_even_if_decoded_at_reduced_scale(orientation: int) -> None:
    content = stored(np.full((480, 640, 3), 90, np.uint8), orientation, "JPEG")
    image = decode_image(content, resizing=Resizing(8))
    assert (image.width, image.height) == (640, 480)
    assert image.pixels.size == (160, 120)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    drawn = noise(5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert (pixels(encode(drawn, "PNG", exif=exif.tobytes())) == np.asarray(drawn)).all()


HALF_RED = (255, 0, 0, 51)  # alpha 51 of 255 is one fifth: 4/5 of white shows through


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encode(grey_row([0, 1], "1"), "PNG"), [BLACK, WHITE], id="1"),
        pytest.param(encode(grey_row([0, 100, 255]), "PNG"), [BLACK, (100, 100, 100), WHITE], id="L"),
        pytest.param(
            encode(Image.frombytes("LA", (3, 1), bytes([0, 0, 0, 51, 100, 255])), "PNG"),
            [WHITE, (204,) * 3, (100,) * 3],
            id="LA",
        ),
        pytest.param(encode(palette_picture(), "PNG"), [RED, GREEN, BLUE], id="P"),
        pytest.param(encode(palette_picture(), "PNG", transparency=1), [RED, WHITE, BLUE], id="P transparent index"),
        pytest.param(
            encode(palette_picture(), "PNG", transparency=bytes([255, 0, 51])),
            [RED, WHITE, (204, 204, 255)],
            id="P transparent table",
        ),
        pytest.param(encode(palette_picture(), "GIF", transparency=1), [RED, WHITE, BLUE], id="GIF transparent index"),
        pytest.param(
            encode(Image.frombytes("RGB", (2, 1), bytes([*RED, *BLUE])), "PNG", transparency=RED),
            [WHITE, BLUE],
            id="RGB tRNS",
        ),
        pytest.param(encode(grey_row([7, 100]), "PNG", transparency=7), [WHITE, (100,) * 3], id="L tRNS"),
        pytest.param(
            encode(grey_row([257 * 7, 257 * 100], "I;16"), "PNG", transparency=257 * 7),
            [WHITE, (100,) * 3],
            id="16-bit grey tRNS",
        ),
        pytest.param(encode(Image.new("RGBA", (1, 1), (255, 0, 0, 0)), "PNG"), [WHITE], id="RGBA hidden colour"),
        pytest.param(encode(Image.new("RGBA", (1, 1), HALF_RED), "PNG"), [(255, 204, 204)], id="RGBA one fifth"),
        pytest.param(encode(Image.new("RGBA", (1, 1), (10, 20, 30, 255)), "PNG"), [(10, 20, 30)], id="RGBA opaque"),
        pytest.param(
            encode(Image.new("RGBA", (1, 1), HALF_RED), "WEBP", lossless=True, exact=True),
            [(255, 204, 204)],
            id="WebP RGBA",
        ),
        pytest.param(encode(Image.new("RGBA", (1, 1), HALF_RED), "TIFF"), [(255, 204, 204)], id="TIFF RGBA"),
        pytest.param(encode(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), [(0, 255, 255)], id="TIFF CMYK"),
        pytest.param(
            encode(grey_row([0, 257, 300, 32768, 65535], "I;16"), "PNG"),
            [(v,) * 3 for v in (0, 1, 1, 128, 255)],
            id="16-bit grey PNG",
        ),
        pytest.param(
            encode(grey_row([0, 257, 300, 32768, 65535], "I;16"), "TIFF"),
            [(v,) * 3 for v in (0, 1, 1, 128, 255)],
            id="16-bit grey TIFF",
        ),
    ],
)
def test_every_colour_mode_becomes_these_pixels(content: bytes, expected: list[tuple[int, int, int]]) -> None:
    assert pixels(content)[0].tolist() == [list(colour) for colour in expected]


@pytest.mark.parametrize(
    ("ink", "expected"),
    [
        ((0, 0, 0, 0), WHITE),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 255, 255, 0), RED),
        ((0, 0, 0, 255), BLACK),
        ((0, 0, 0, 55), (200, 200, 200)),
    ],
    ids=["paper", "cyan", "magenta and yellow", "black", "grey"],
)
def test_cmyk_jpeg_is_ink_on_paper(ink: tuple[int, int, int, int], expected: tuple[int, int, int]) -> None:
    values = pixels(encode(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100))
    assert np.abs(values.astype(int) - expected).max() <= 1


def test_grey_jpeg_becomes_rgb() -> None:
    assert pixels(encode(Image.new("L", (8, 8), 120), "JPEG"))[0, 0].tolist() == [120, 120, 120]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_defined_range_are_refused(mode: str) -> None:
    with pytest.raises(UnreadableImage, match=rf"32-bit \(mode {mode}\)"):
        decode_image(encode(Image.new(mode, (4, 4), 70_000), "TIFF"))


def test_colour_profile_is_ignored() -> None:
    drawn = noise(4, 4)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert (pixels(encode(drawn, "PNG", icc_profile=profile)) == np.asarray(drawn)).all()


@pytest.mark.parametrize(
    ("format_", "options"),
    [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})],
    ids=["GIF", "WebP", "APNG", "TIFF pages"],
)
def test_first_frame_is_taken(format_: str, options: dict[str, object]) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE, GREEN)]
    content = encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as file:
        assert file.n_frames == 3
    assert (pixels(content) == RED).all()


CUT_OFF = {name: encode(noise(40, 40), name.upper()) for name in FORMATS}


@pytest.mark.parametrize("percent", range(5, 95, 5))
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_truncated_file_is_unreadable(name: str, percent: int) -> None:
    content = CUT_OFF[name]
    with pytest.raises(UnreadableImage, match=name):
        decode_image(content[: len(content) * percent // 100])


@pytest.mark.parametrize("percent", [10, 50, 90])
@pytest.mark.parametrize("name", ["WebP", "GIF", "BMP", "TIFF"])
def test_truncated_file_of_another_format_is_unreadable(name: str, percent: int) -> None:
    content = CUT_OFF[name]
    with pytest.raises(UnreadableImage, match=name):
        decode_image(content[: len(content) * percent // 100])


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("length", [1, 2])
def test_a_few_bytes_are_of_no_format(name: str, length: int) -> None:
    with pytest.raises(UnknownImageFormat):
        decode_image(CUT_OFF[name][:length])


def test_truncated_jpeg_is_unreadable_at_reduced_scale_too() -> None:
    content = encode(noise(400, 400), "JPEG")
    with pytest.raises(UnreadableImage):
        decode_image(content[: len(content) // 2], resizing=Resizing(8))


@pytest.mark.parametrize("name", FORMATS)
def test_message_about_a_broken_file_is_one_line_without_addresses(name: str) -> None:
    content = CUT_OFF[name]
    with pytest.raises(UnreadableImage) as caught:
        decode_image(content[:30])
    assert "\n" not in str(caught.value)
    assert " at 0x" not in str(caught.value)


SIGNATURES = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"RIFF\x40\0\0\0WEBP",
]


@pytest.mark.filterwarnings("ignore")  # Pillow warns before it fails; the service does not turn that into an error
@given(signature=st.sampled_from(SIGNATURES), rest=st.binary(max_size=200))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_behind_any_signature_raise_only_image_errors(signature: bytes, rest: bytes) -> None:
    with suppress(ImageError):
        decode_image(signature + rest)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_to_a_good_file_raises_only_image_errors(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(CUT_OFF[name])
        for place in random.integers(0, min(len(damaged), 400), 3):  # the headers are where the branches are
            damaged[place] = random.integers(256)
        with suppress(ImageError):
            prepare_image(bytes(damaged), Resizing(8), max_pixels=10_000)


@pytest.mark.parametrize(
    ("width", "height", "declared"),
    [(8000, 6000, "8000x6000 pixels (48 MP)"), (12000, 9000, "108 MP"), (50000, 50000, "2500 MP")],
    ids=["above ours", "above Pillow's warning", "above Pillow's error"],
)
@pytest.mark.filterwarnings("ignore")
def test_declared_size_is_checked_before_any_pixel_is_decoded(width: int, height: int, declared: str) -> None:
    with pytest.raises(ImageTooLarge) as caught:
        decode_image(png_that_declares(width, height))
    message = str(caught.value)
    assert declared in message
    assert "40 MP" in message


def test_size_check_holds_where_pillows_warning_is_an_error() -> None:
    with pytest.raises(ImageTooLarge):
        decode_image(png_that_declares(12000, 9000))


def test_jpeg_of_too_many_scans_is_refused() -> None:
    whole = encode(Image.new("L", (64, 64), 90), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    repeated = whole[:last] + whole[last:-2] * 32 + whole[last:]
    with pytest.raises(UnreadableImage, match="more than 32 scans"):
        decode_image(repeated)


def test_what_a_phone_appends_to_a_photo_does_not_count_as_scans() -> None:
    photo = encode(noise(64, 64), "JPEG", progressive=True)
    assert (pixels(photo + b"\xff\xda\x00\x02" * 1_000) == pixels(photo)).all()


def test_scans_of_a_thumbnail_do_not_count() -> None:
    photo = encode(noise(64, 64), "JPEG")
    comment = b"\xff\xfe" + struct.pack(">H", 40_002) + b"\xff\xda\x00\x02" * 10_000
    assert (pixels(photo[:2] + comment + photo[2:]) == pixels(photo)).all()


def test_limit_is_inclusive_and_counts_pixels() -> None:
    content = encode(Image.new("L", (20, 10)), "PNG")
    assert decode_image(content, max_pixels=200).width == 20
    with pytest.raises(ImageTooLarge, match="20x10"):
        decode_image(content, max_pixels=199)


@pytest.mark.parametrize("name", FORMATS)
def test_limit_holds_for_every_format(name: str) -> None:
    with pytest.raises(ImageTooLarge, match="40x40"):
        decode_image(CUT_OFF[name], max_pixels=1599)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)], ids=["no width", "no height"])
def test_picture_without_pixels_is_unreadable(width: int, height: int) -> None:
    with pytest.raises(UnreadableImage):
        decode_image(png_that_declares(width, height))


@pytest.mark.parametrize("rule", RESIZE_RULES)
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1)], ids=["one pixel", "tall", "wide"])
def test_thin_pictures_become_tensors(width: int, height: int, rule: str) -> None:
    tensor, _ = prepare_image(encode(Image.new("RGB", (width, height), (10, 20, 30)), "PNG"), Resizing(8, rule))
    assert (tensor == torch.tensor([10, 20, 30]).view(3, 1, 1)).all()
    assert tensor.shape == (3, 8, 8)


@pytest.mark.parametrize("turn", [lambda rows: rows, lambda rows: rows.swapaxes(0, 1)], ids=["rows", "columns"])
def test_reduction_antialiases_stripes(turn: Callable[[np.ndarray], np.ndarray]) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[1::2] = 255
    values = to_tensor(Image.fromarray(turn(stripes)), Resizing(8)).float()
    assert abs(values.mean() - 127.5) <= 2
    assert (values - 127.5).abs().max() <= 6  # at the border half of the filter is cut off


def test_reduction_antialiases_a_checkerboard() -> None:
    board = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    values = to_tensor(Image.fromarray(board).convert("RGB"), Resizing(8)).float()
    assert (values - 127.5).abs().max() <= 2


def test_tensor_is_planar_rgb() -> None:
    image = Image.new("RGB", (10, 10), (1, 2, 3))
    tensor = to_tensor(image, Resizing(4))
    assert (tensor.dtype, tensor.shape) == (torch.uint8, (3, 4, 4))
    assert tensor[:, 0, 0].tolist() == [1, 2, 3]
    assert tensor.is_contiguous()


@pytest.mark.parametrize(
    ("size", "box"),
    [((12, 8), (slice(None), slice(2, 10))), ((8, 12), (slice(2, 10), slice(None)))],
    ids=["wide", "tall"],
)
def test_largest_centred_square_is_taken(size: tuple[int, int], box: tuple[slice, slice]) -> None:
    drawn = noise(*size)
    tensor = to_tensor(drawn, Resizing(8))
    assert (tensor.permute(1, 2, 0).numpy() == np.asarray(drawn)[box]).all()


@pytest.mark.parametrize("turn", [False, True], ids=["wide", "tall"])
def test_cropping_rule_takes_the_middle_seven_eighths_of_the_square_at_224_pixels(turn: bool) -> None:
    drawn = noise(256, 300) if turn else noise(300, 256)
    cropped = to_tensor(drawn, CROPPED)  # without a change of size, since 224 of 256 pixels are kept
    left, top = (drawn.width - 224) // 2, (drawn.height - 224) // 2
    assert (cropped.permute(1, 2, 0).numpy() == np.asarray(drawn)[top : top + 224, left : left + 224]).all()
    assert CROPPED.seen_square(*drawn.size) == (left, top, 224)


def test_cropping_rule_is_bicubic() -> None:
    step = np.zeros((256, 256, 3), np.uint8)
    step[:, 128:] = 100
    row = to_tensor(Image.fromarray(step).resize((128, 128), Image.Resampling.NEAREST), CROPPED)[0, 0]
    assert row.max() > 100  # it overshoots at an edge, as a bilinear filter never does
    assert to_tensor(Image.fromarray(step), Resizing(224)).max() == 100


def test_picture_of_the_right_size_is_unchanged() -> None:
    drawn = noise(32, 32)
    assert (to_tensor(drawn, Resizing(32)).permute(1, 2, 0).numpy() == np.asarray(drawn)).all()


@pytest.mark.parametrize("rule", sorted(RESIZE_RULES))
@pytest.mark.parametrize("size", [8, 260])
def test_an_image_with_its_margin_is_seen_as_it_was_without(size: int, rule: str) -> None:
    image = to_tensor(noise(size, size), Resizing(size))
    framed = add_margin(image, Resizing(size, rule))
    assert framed.shape == (3, *[size + RESIZE_RULES[rule].margin] * 2)
    seen = to_tensor(Image.fromarray(framed.permute(1, 2, 0).numpy()), Resizing(size, rule))
    assert (seen == image).all()


def test_halving_weighs_neighbours_like_a_tent() -> None:
    ramp = np.zeros((4, 4, 3), np.uint8)
    ramp[:, 3] = 160
    row = to_tensor(Image.fromarray(ramp), Resizing(2))[0, 0].tolist()
    # Output 1 sits at 2.5 with a tent of half-width 2: weights 1/8, 3/8, 3/8 of columns 1 to 3 over their sum 7/8.
    # Output 0 reaches columns 0 to 2 only.
    assert row == [0, round(160 * 3 / 7)]


@cache
def photo() -> Image.Image:
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as file:
        return file.convert("RGB")


@cache
def enlarged_photo(width: int) -> Image.Image:
    original = photo()
    height = width * original.height // original.width
    return original.resize((width, height), Image.Resampling.LANCZOS)


@cache
def texture(side: int, exponent: float) -> Image.Image:
    """Return noise whose amplitude falls with frequency to this power, as that of photographs does (about 1)."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        plane = np.fft.irfft2(np.fft.rfft2(random.standard_normal((side, side))) / frequency**exponent, (side, side))
        planes.append(128 + 50 * plane / plane.std())
    return Image.fromarray(np.clip(np.stack(planes, 2), 0, 255).astype(np.uint8))


def gradient(side: int) -> Image.Image:
    y, x = np.mgrid[0:side, 0:side] / side
    return Image.fromarray(np.stack([255 * x, 255 * y, 255 * x * y], 2).astype(np.uint8))


@pytest.mark.parametrize("rule", RESIZE_RULES)
@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize(
    "draw",
    [
        photo,
        lambda: enlarged_photo(1025),
        lambda: enlarged_photo(1500),
        lambda: enlarged_photo(2049),
        lambda: enlarged_photo(3000),
        lambda: texture(1025, 1.0),
        lambda: texture(1500, 1.0),
        lambda: gradient(1500),
    ],
    ids=[
        "photo 512",
        "photo 1025, no multiple of 2",
        "photo 1500",
        "photo 2049, no multiple of 4",
        "photo 3000",
        "texture 1025, no multiple of 2",
        "texture 1500",
        "gradient 1500",
    ],
)
def test_jpeg_decoded_at_reduced_scale_stays_inside_the_documented_bound(
    draw: Callable[[], Image.Image], quality: int, rule: str
) -> None:
    content, resizing = encode(draw(), "JPEG", quality=quality), Resizing(32, rule)
    reduced, _ = prepare_image(content, resizing)
    difference = (reduced.int() - to_tensor(decode_image(content).pixels, resizing).int()).abs()
    assert difference.max().item() <= 2  # as the docstring of to_tensor says
    assert difference.float().mean().item() <= 0.3


def test_jpeg_is_decoded_at_reduced_scale_only_where_that_leaves_enough_pixels() -> None:
    content = encode(Image.new("RGB", (1024, 1024), RED), "JPEG")
    assert decode_image(content, resizing=Resizing(32)).pixels.width >= 4 * 32
    assert decode_image(content, resizing=Resizing(32)).pixels.width < 1024
    assert decode_image(content, resizing=Resizing(512)).pixels.width == 1024
    cropped = Resizing(32, "centre_crop_bicubic_antialias")  # sees half of each side
    assert (
        decode_image(content, resizing=cropped).pixels.width
        == 2 * decode_image(content, resizing=Resizing(32)).pixels.width
    )
    assert decode_image(content).pixels.width == 1024


def test_normalise_centres_and_scales_each_channel() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    spec = ImageSpec(1, (0.5, 0.2, 0.0), (0.5, 0.1, 2.0))
    values = normalise(images, spec)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.flatten(), torch.tensor([-1.0, 0.0, 0.5]), atol=1e-6, rtol=0)
