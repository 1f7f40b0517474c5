"""Pictures to send, drawn here from a seed: nothing of the training data, and the same in every run."""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

SMALL_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SMALL_SIZES = ((32, 32), (96, 64), (200, 150))
PHOTO_SIZE = (1024, 768)  # some 100 kB with this grain
GRAIN = 9


def small_images() -> dict[str, bytes]:
    """Return files of a few kilobytes, by name: each format in each size."""
    kinds = itertools.product(SMALL_FORMATS, SMALL_SIZES)
    return {
        f"{image_format.lower()} {size[0]}x{size[1]}": _encode(_draw(seed, size, 0), image_format)
        for seed, (image_format, size) in enumerate(kinds)
    }


def tiny_image() -> bytes:
    """Return a file of some seventy bytes."""
    return _encode(Image.new("RGB", (8, 8), (200, 120, 40)), "PNG")


def photos(count: int = 8) -> dict[str, bytes]:
    """Return JPEG files of some 100 kB, by name."""
    return {f"photo {seed}": jpeg(1000 + seed, PHOTO_SIZE, GRAIN) for seed in range(count)}


def jpeg(seed: int, size: tuple[int, int], grain: int) -> bytes:
    """Return a JPEG file, the larger the more grain there is on it."""
    return _encode(_draw(seed, size, grain), "JPEG")


def variants(jpeg: bytes) -> Iterator[bytes]:
    """Yield files that differ in a comment alone: the same picture, but another hash."""
    for number in itertools.count():
        text = f"{number:016d}".encode()
        yield jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + jpeg[2:]


def too_many_pixels() -> bytes:
    """Return a PNG of a few bytes that claims 100,000 x 100,000 pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _draw(seed: int, size: tuple[int, int], grain: int) -> Image.Image:
    """Return smooth colours with as much grain."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    noise = generator.integers(-grain, grain + 1, (size[1], size[0], 1), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def _encode(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()
