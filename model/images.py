"""Image bytes -> upright RGB -> the uint8 tensor that both training and serving give to the network.

The only module that decodes images. Knows nothing of networks, files or HTTP. The decode policy is the
docstring of :func:`decode_image`; the resize policy that of :func:`to_tensor`.

torch is imported where a tensor is made: the decoder processes need none, and its import takes seconds.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from torchlight.model.defaults import MAX_PIXELS
from torchlight.model.errors import ImageTooLarge, UnknownImageFormat, UnreadableImage

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")
BACKGROUND = (255, 255, 255)  # transparent pixels show white, as on paper and in most viewers
REDUCED_DECODE_FACTOR = 8  # a JPEG is decoded small only if still 8x the network's input; at 4x values differ
MAX_SCANS = 32  # of a progressive JPEG; encoders write about 10, and decoding each passes over all pixels
MARKER = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]")  # of a JPEG: start of a segment, or end of the image
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
COMPOSITE_PIXELS = 1_000_000  # composited at a time, so that the copies stay small


@dataclass(frozen=True)
class ResizeRule:
    """Which part of an image the network sees, and the filter that shrinks it; both filters antialias.

    Attributes:
        margin: pixels that are cut off the centred square once it has S + margin pixels a side, half at each border.
        resampling: Pillow's filter, whose support grows with the reduction.
    """

    margin: int
    resampling: Image.Resampling


RESIZE_RULES = {
    "centre_square_bilinear_antialias": ResizeRule(margin=0, resampling=Image.Resampling.BILINEAR),
    # Google's evaluation of EfficientNet: 224 of 256 pixels.
    "centre_crop_bicubic_antialias": ResizeRule(margin=32, resampling=Image.Resampling.BICUBIC),
}


@dataclass(frozen=True)
class Resizing:
    """From an upright image of any size to S x S pixels; see :func:`to_tensor`.

    Attributes:
        size: side S in pixels.
        rule: a name in ``RESIZE_RULES``.
    """

    size: int
    rule: str = "centre_square_bilinear_antialias"

    def seen_square(self, width: int, height: int) -> tuple[float, float, float]:
        """Return left, top and side, in pixels, of the part of an upright image that the network sees."""
        side = min(width, height) * self.size / (self.size + RESIZE_RULES[self.rule].margin)
        return (width - side) / 2, (height - side) / 2, side


@dataclass(frozen=True)
class ImageSpec:
    """How an image becomes network input; stored in the checkpoint.

    Attributes:
        size: side S of the square input in pixels.
        mean, std: per-channel statistics, RGB in [0, 1], that :func:`normalise` applies.
        resize: a name in ``RESIZE_RULES``; a checkpoint with another one is refused.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: str = Resizing.rule

    @property
    def resizing(self) -> Resizing:
        """Size and rule, without the statistics."""
        return Resizing(self.size, self.resize)


@dataclass(frozen=True)
class DecodedImage:
    """An upright RGB image, and format and size of its file.

    ``width`` and ``height`` are of the upright original, also if ``pixels`` was decoded at reduced scale.
    """

    pixels: Image.Image
    format: str
    width: int
    height: int


def decode_image(
    content: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    resizing: Resizing | None = None,
    before_pixels: Callable[[int], None] | None = None,
) -> DecodedImage:
    """Return the image in ``content``, upright, in RGB.

    Policy, each line held by a test:

    - JPEG, PNG, WebP, GIF, BMP and TIFF, recognised by their first bytes; file names and declared types are ignored.
    - The declared size is checked before any pixel is decoded, and so is the number of a JPEG's scans.
    - The EXIF orientation is applied; other metadata and colour profiles are ignored (pixels are taken as sRGB).
    - Animations and multi-page files give their first frame.
    - Palettes and grey become RGB; CMYK is converted with Pillow's plain formula; transparency is composited on white.
    - 16-bit grey is scaled to 8 bits, not clipped. 32-bit integer and float pixels have no defined range: refused.
    - With ``resizing``, a JPEG is decoded at 1/2, 1/4 or 1/8 scale if that divides both sides and the square that the
      network sees then still has at least ``REDUCED_DECODE_FACTOR * S`` pixels a side. See :func:`to_tensor` for the
      error.

    Args:
        content: the whole file.
        max_pixels: width x height above which the file is refused.
        resizing: what :func:`to_tensor` will do with it; None decodes at full scale.
        before_pixels: called with width x height before pixels are decoded; a caller may limit the time from here on.

    Raises:
        UnknownImageFormat: the first bytes belong to none of the formats.
        UnreadableImage: the file is empty, truncated, corrupt, its pixels have no defined range, or it is a JPEG of
            more than ``MAX_SCANS`` scans.
        ImageTooLarge: it declares more than ``max_pixels``.
    """
    name = _sniff(content)
    try:
        with Image.open(io.BytesIO(content), formats=[name.upper()]) as image:
            _check_pixels(image.width, image.height, max_pixels)
            width, height = image.size
            if before_pixels is not None:
                before_pixels(width * height)
            if name == "JPEG":
                _check_scans(content)
            if name == "JPEG" and resizing is not None:
                divisor = _reduction(width, height, resizing)
                image.draft(None, (width // divisor, height // divisor))
            image.load()
            swaps_sides = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: turned by 90 degrees
            ImageOps.exif_transpose(image, in_place=True)
            upright = _to_rgb(image)
    except (ImageTooLarge, UnreadableImage):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        declared = re.search(r"\((\d+) pixels\)", str(error))  # Pillow has it only in the text
        size = f"{int(declared[1]) / 1e6:.4g} MP" if declared else "too many pixels"
        raise ImageTooLarge(f"image has {size}; the limit is {max_pixels / 1e6:g} MP; send a smaller one") from error
    except Exception as error:  # Pillow's decoders raise some fifteen types for broken files
        raise UnreadableImage(f"{name} image cannot be read ({_reason(error)}); is the file complete?") from error
    if swaps_sides:
        width, height = height, width
    return DecodedImage(upright, name, width, height)


def to_tensor(image: Image.Image, resizing: Resizing) -> "Tensor":
    """Return the image as network input, before normalisation.

    Takes the largest centred square, or what the rule leaves of it, and resizes it to S x S with the rule's filter,
    whose support grows with the reduction, so that it antialiases. Enlarges images smaller than S.

    A JPEG decoded at reduced scale gives the same values within 2/255 (0.3/255 on average), as a test measures.

    Args:
        image: RGB, of any size.
        resizing: side S and rule.

    Returns:
        (3, S, S) uint8 RGB.
    """
    from torch import from_numpy

    return from_numpy(_resize(image, resizing))


def prepare_image(content: bytes, resizing: Resizing, *, max_pixels: int = MAX_PIXELS) -> "tuple[Tensor, DecodedImage]":
    """Decode and resize in one step, for all but serving, which uses :func:`prepare_array`.

    Returns:
        (3, S, S) uint8 RGB, and the facts about the file. Raises what :func:`decode_image` raises.
    """
    from torch import from_numpy

    pixels, image = prepare_array(content, resizing, max_pixels=max_pixels)
    return from_numpy(pixels), image


def prepare_array(
    content: bytes,
    resizing: Resizing,
    *,
    max_pixels: int = MAX_PIXELS,
    before_pixels: Callable[[int], None] | None = None,
) -> tuple[np.ndarray[tuple[int, int, int], np.dtype[np.uint8]], DecodedImage]:
    """Return the same as :func:`prepare_image`, the pixels as a (3, S, S) array: needs no torch."""
    image = decode_image(content, max_pixels=max_pixels, resizing=resizing, before_pixels=before_pixels)
    return _resize(image.pixels, resizing), image


def add_margin(image: "Tensor", resizing: Resizing) -> "Tensor":
    """Return an image that :func:`to_tensor` makes exactly ``image`` of: what the rule cuts off is mirrored pixels.

    Args:
        image: (3, S, S) uint8 RGB.

    Returns:
        (3, S + margin, S + margin) uint8 RGB; ``image`` itself if the rule cuts nothing off.
    """
    from torch import from_numpy

    width = RESIZE_RULES[resizing.rule].margin // 2
    return from_numpy(np.pad(image.numpy(), ((0, 0), (width, width), (width, width)), "symmetric"))


def normalise(images: "Tensor", spec: ImageSpec) -> "Tensor":
    """Return ``(images / 255 - mean) / std``.

    Args:
        images: (N, 3, S, S) uint8 RGB, on any device.

    Returns:
        (N, 3, S, S) float32, with zero mean and unit variance over the data that ``spec`` was computed on.
    """
    from torch import tensor

    mean = tensor(spec.mean, device=images.device).view(1, 3, 1, 1)
    std = tensor(spec.std, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std  # statistics broadcast over (N, 3, S, S)


def _sniff(content: bytes) -> str:
    """Return the member of FORMATS whose signature ``content`` begins with."""
    if not content:
        raise UnreadableImage("image is empty (0 bytes); send the file itself")
    signatures = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"GIF87a": "GIF",
        b"GIF89a": "GIF",
        b"BM": "BMP",
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
    }
    for signature, name in signatures.items():
        if content.startswith(signature):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP"
    kind = "a HEIC or AVIF image" if content[4:8] == b"ftyp" else "of an unknown format"
    raise UnknownImageFormat(f"file is {kind}; send one of {', '.join(FORMATS)}")


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"image is {width}x{height} pixels ({width * height / 1e6:.4g} MP); "
            f"the limit is {max_pixels / 1e6:g} MP; send a smaller one"
        )


def _check_scans(content: bytes) -> None:
    """Refuse a JPEG of too many scans: decoding passes over all pixels once a scan.

    Bytes after the image do not count: phones append videos to their photos.
    """
    values = np.frombuffer(content, np.uint8)
    after = values[1:][values[:-1] == START_OF_SCAN[0]]
    if np.count_nonzero(after == START_OF_SCAN[1]) <= MAX_SCANS:  # an upper bound, in a fifth of the time
        return
    scans, place = 0, 2
    while (found := MARKER.search(content, place)) and found[0] != END_OF_IMAGE:
        scans += found[0] == START_OF_SCAN
        if scans > MAX_SCANS:
            raise UnreadableImage(f"JPEG image has more than {MAX_SCANS} scans, the limit; save it again")
        place = found.end() + max(2, int.from_bytes(content[found.end() : found.end() + 2], "big"))


def _resize(image: Image.Image, resizing: Resizing) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return the (3, S, S) uint8 array of :func:`to_tensor`."""
    left, top, side = resizing.seen_square(image.width, image.height)
    box = (left, top, left + side, top + side)
    square = image.resize((resizing.size, resizing.size), RESIZE_RULES[resizing.rule].resampling, box=box)
    return np.asarray(square).transpose(2, 0, 1).copy()  # (S, S, 3) -> (3, S, S)


def _reduction(width: int, height: int, resizing: Resizing) -> int:
    """Return the factor by which a JPEG may be reduced while it is decoded: 1, 2, 4 or 8.

    It divides both sides: else the last pixel of a row would cover fewer pixels than the others, and the image would
    be shifted against the one decoded in full.
    """
    side = resizing.seen_square(width, height)[2]
    least = REDUCED_DECODE_FACTOR * resizing.size
    fitting = (n for n in (8, 4, 2) if width % n == 0 == height % n and side / n >= least)
    return next(fitting, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    """Return ``image`` in RGB by the policy in :func:`decode_image`."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey = _to_uint8(values)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = BACKGROUND[0]
        image = Image.fromarray(grey)
    if image.mode in ("I", "F"):
        raise UnreadableImage(f"pixels are 32-bit (mode {image.mode}) without a defined range; save as 8 or 16 bits")
    if image.has_transparency_data:
        return _composite(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_uint8(values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return values / 257, rounded: 65535 becomes 255. In integers: floats would take 16 bytes a pixel."""
    wide = values.astype(np.uint32)
    wide *= 255
    wide += 32_895  # with the shift: division by 257, rounded to nearest
    wide >>= 16
    return wide.astype(np.uint8)


def _composite(image: Image.Image) -> Image.Image:
    """Return ``image`` on the background, in RGB."""
    flat = Image.new("RGB", image.size, BACKGROUND)
    rows = max(1, COMPOSITE_PIXELS // image.width)
    for top in range(0, image.height, rows):
        layer = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        flat.paste(layer, (0, top), mask=layer)
    return flat


def _reason(error: Exception) -> str:
    """Return the first line of a decoder's error."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if "<_io" not in text else "not a complete image"
