"""Files that break decoders: every kind, made in code, with the answers that are right.

Shared by ``python -m stress.hostile``, which sends them all, and by the tests, which send a part.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

ANSWERED, TOO_LARGE, UNKNOWN, UNREADABLE = 200, 413, 415, 422
REFUSED = frozenset({UNKNOWN, UNREADABLE})
FORMATS = ("JPEG", "PNG", "WebP", "GIF", "TIFF", "BMP")
FRAMES = 10_000
LONG_SIDE = 60_000
ORIENTATION_TAG = 0x0112
BODY_BYTES = 19_000_000  # as much as the service lets in


@dataclass(frozen=True)
class HostileFile:
    """A file, and the statuses of which one has to come."""

    name: str
    content: bytes
    answers: frozenset[int]


def hostile_file(name: str, content: bytes, *answers: int) -> HostileFile:
    return HostileFile(name, content, frozenset(answers))


def draw_image(mode: str = "RGB", size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """Return a smooth picture with a little noise, so that each format has something to compress."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse).astype(np.int16) + rng.integers(-8, 9, (size[1], size[0], 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    if mode in ("I", "F"):
        return image.convert("L").convert(mode)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(size))
    return image.convert(mode)


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, rows: bytes | None = None) -> bytes:
    """Return an 8-bit grey PNG with more chunks before its pixels; all black unless ``rows`` says otherwise."""
    pixels = zlib.compress(bytes((width + 1) * height)) if rows is None else rows
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return head + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP file."""
    content = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"WEBP" + content


def tiff(*entries: tuple[int, int, int, int], tail: bytes = b"", next_ifd: int = 0) -> bytes:
    """Return a little-endian TIFF of one directory; entries are (tag, type, count, value)."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\x00" + struct.pack("<I", 8) + directory + struct.pack("<I", next_ifd) + tail


def modes() -> Iterator[HostileFile]:
    """Every format in every mode it has; what has no defined range is refused."""
    given = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "WebP": ("L", "RGB", "RGBA"),
        "GIF": ("1", "L", "P", "RGBA"),
        "BMP": ("1", "L", "P", "RGB"),
        "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"),
    }
    for image_format, names in given.items():
        for mode in names:
            yield hostile_file(f"{image_format} {mode}", encode(draw_image(mode), image_format), ANSWERED)
    yield hostile_file("JPEG progressive", encode(draw_image(), "JPEG", progressive=True), ANSWERED)
    yield hostile_file("WebP lossless", encode(draw_image("RGBA"), "WebP", lossless=True), ANSWERED)
    yield hostile_file("PNG palette with a hole", encode(draw_image("P"), "PNG", transparency=3), ANSWERED)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield hostile_file(f"TIFF {compression}", encode(draw_image(), "TIFF", compression=compression), ANSWERED)
    for mode in ("I", "F"):
        yield hostile_file(f"TIFF {mode}", encode(draw_image(mode), "TIFF"), UNREADABLE)


def orientations() -> Iterator[HostileFile]:
    """One picture stored in the eight ways that EXIF knows: all are the same upright."""
    upright = draw_image()
    undo = (None, 0, 3, 1, 5, 2, 6, 4)  # what is done to the stored picture so that the viewer's turn restores it
    for orientation, method in enumerate(undo, start=1):
        stored = upright if method is None else upright.transpose(Image.Transpose(method))
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        yield hostile_file(f"orientation {orientation}", encode(stored, "PNG", exif=exif), ANSWERED)


def truncations(image_format: str) -> Iterator[HostileFile]:
    """A file cut off after each percent."""
    whole = encode(draw_image(), image_format)
    for percent in range(100):
        yield HostileFile(f"{percent}% of a {image_format}", whole[: len(whole) * percent // 100], REFUSED | {ANSWERED})


def bit_flips(number: int, seed: int = 0) -> Iterator[HostileFile]:
    """Files of all formats, each with 1 to 32 bits turned over, half of them in its first 256 bytes."""
    rng = np.random.default_rng(seed)
    wholes = [encode(draw_image(mode), name) for name in FORMATS for mode in ("RGB", "L")]
    for n in range(number):
        content = np.frombuffer(wholes[n % len(wholes)], np.uint8).copy()
        reach = min(len(content), 256) if n % 2 else len(content)
        places = rng.integers(0, reach, 2 ** rng.integers(0, 6))
        content[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
        yield HostileFile(f"flip {n}", content.tobytes(), REFUSED | {ANSWERED, TOO_LARGE})


def declared_bombs() -> Iterator[HostileFile]:
    """A few bytes that declare more pixels than are let in, in each format."""
    small = encode(draw_image(), "JPEG")
    frame = small.index(b"\xff\xc0") + 5
    yield hostile_file(
        "JPEG 65500x65500", small[:frame] + struct.pack(">HH", 65_500, 65_500) + small[frame + 4 :], TOO_LARGE
    )
    yield hostile_file("PNG 50000x50000", png(50_000, 50_000, rows=b""), TOO_LARGE)
    yield hostile_file("PNG 2147483647x2147483647", png(2**31 - 1, 2**31 - 1, rows=b""), TOO_LARGE, UNREADABLE)
    canvas = struct.pack("<I", 2) + (16_382).to_bytes(3, "little") * 2
    body = encode(draw_image(), "WebP", lossless=True)[12:]
    animation = (b"ANIM", bytes(6))
    part = (b"ANMF", bytes(6) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little") + bytes(4) + body)
    yield hostile_file("WebP 16383x16383", riff((b"VP8X", canvas), animation, part), TOO_LARGE)
    small = encode(draw_image(), "GIF")
    yield hostile_file("GIF 65535x65535", small[:6] + struct.pack("<HH", 65_535, 65_535) + small[10:], TOO_LARGE)
    yield hostile_file(
        "BMP 60000x60000",
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(20),
        TOO_LARGE,
    )
    size = ((256, 4, 1, 100_000), (257, 4, 1, 100_000))
    kind = ((258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 200), (277, 3, 1, 1), (279, 4, 1, 100))
    yield hostile_file("TIFF 100000x100000", tiff(*size, *kind, tail=bytes(200)), TOO_LARGE)


def translucent(image: Image.Image) -> Image.Image:
    """Return it with every opacity there is."""
    veiled = image.convert("RGBA")
    veiled.putalpha(Image.linear_gradient("L").resize(image.size))
    return veiled


def compressed_bombs() -> Iterator[HostileFile]:
    """Pictures of one colour, as large as is let in: a few kB become 40 million pixels, and an answer."""
    flat = Image.new("RGB", (6_300, 6_300), (30, 90, 200))
    yield hostile_file("PNG 40 MP", encode(flat, "PNG", compress_level=9), ANSWERED)
    yield hostile_file("PNG 40 MP with alpha", encode(translucent(flat), "PNG", compress_level=9), ANSWERED)
    yield hostile_file(
        "PNG 40 MP 16 bits", encode(Image.fromarray(np.full((6_300, 6_300), 999, np.uint16)), "PNG"), ANSWERED
    )
    yield hostile_file("JPEG 40 MP", encode(flat, "JPEG"), ANSWERED)
    yield hostile_file("JPEG 40 MP progressive", encode(flat, "JPEG", progressive=True), ANSWERED)
    yield hostile_file("WebP 39 MP", encode(flat.resize((16_383, 2_400)), "WebP", lossless=True, method=0), ANSWERED)
    yield hostile_file("GIF 40 MP", encode(flat.convert("P"), "GIF"), ANSWERED)
    yield hostile_file("TIFF 40 MP", encode(flat, "TIFF", compression="tiff_adobe_deflate"), ANSWERED)
    yield hostile_file("BMP 6 MP", encode(flat.resize((2_500, 2_500)), "BMP"), ANSWERED)


def metadata_bombs() -> Iterator[HostileFile]:
    """Small pictures in files of text, profiles, scans, comments and directories."""
    inflated = zlib.compress(bytes(100_000_000), 9)
    yield hostile_file("PNG zTXt of 100 MB", png(8, 8, chunk(b"zTXt", b"a\0\0" + inflated)), UNREADABLE)
    yield hostile_file("PNG iTXt of 100 MB", png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + inflated)), UNREADABLE)
    yield hostile_file(
        "PNG ICC profile of 100 MB", png(8, 8, chunk(b"iCCP", b"a\0\0" + inflated)), ANSWERED, UNREADABLE
    )
    megabyte = zlib.compress(bytes(1_000_000), 9)
    yield hostile_file("PNG 1,000 zTXt of 1 MB", png(8, 8, *[chunk(b"zTXt", b"a\0\0" + megabyte)] * 1_000), UNREADABLE)
    yield hostile_file("PNG pixels of 100 MB", png(8, 8, rows=inflated), ANSWERED, UNREADABLE)
    yield hostile_file(
        "PNG of 1.5 million chunks", png(8, 8, chunk(b"abCd", b"") * (BODY_BYTES // 12)), ANSWERED, UNREADABLE
    )
    whole = encode(draw_image(), "JPEG")
    profile = b"".join(
        b"\xff\xe2" + struct.pack(">H", 60_016) + b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(60_000) for n in range(255)
    )
    yield hostile_file("JPEG ICC profile of 15 MB", whole[:2] + profile + whole[2:], ANSWERED)
    comments = b"\xff\xfe\x00\x02" * (BODY_BYTES // 4)
    yield hostile_file("JPEG of 4.7 million comments", whole[:2] + comments + whole[2:], ANSWERED, UNREADABLE)
    yield hostile_file("JPEG 6 MP of 5,000 scans", many_scans(2_500, 5_000), UNREADABLE)
    yield hostile_file("JPEG 40 MP of 32 scans", many_scans(6_300, 32), ANSWERED)
    whole = encode(draw_image(), "GIF")
    start = 13 + 3 * 2 ** ((whole[10] & 7) + 1)
    comment = b"\x21\xfe" + (b"\xff" + b"a" * 255) * (BODY_BYTES // 256) + b"\0"
    yield hostile_file("GIF comment of 19 MB", whole[:start] + comment + whole[start:], ANSWERED, UNREADABLE)
    empty = b"\x21\xfe\x00" * (BODY_BYTES // 3)
    yield hostile_file("GIF of 6 million comments", whole[:start] + empty + whole[start:], ANSWERED, UNREADABLE)
    tags = [(700 + n, 1, 2**31, 8) for n in range(60_000)]
    yield hostile_file("TIFF of 60,000 tags of 2 GB", tiff(*tags), UNREADABLE)
    size = ((256, 4, 1, 2_000), (257, 4, 1, 2_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1))
    strips = ((273, 4, 2_000_000, 200), (278, 4, 1, 1), (279, 4, 2_000_000, 200))
    yield hostile_file("TIFF of 2 million strips", tiff(*size, *strips, tail=bytes(8_000_400)), ANSWERED, UNREADABLE)
    tail = encode(draw_image(), "TIFF")
    yield hostile_file(
        "TIFF directory in a circle", tail[:4] + struct.pack("<I", 8) + tiff(*size, next_ifd=8)[8:], UNREADABLE
    )
    exif = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + tiff(*[(n, 1, 2**31, 8) for n in range(5_000)])
    yield hostile_file(
        "JPEG EXIF of 5,000 tags of 2 GB",
        encode(draw_image(), "JPEG")[:2] + exif.ljust(65_002, b"\0") + encode(draw_image(), "JPEG")[2:],
        ANSWERED,
        UNREADABLE,
    )


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive grey JPEG with one of its scans repeated: each goes over all pixels again."""
    whole = encode(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    starts = [n for n in range(len(whole) - 1) if whole[n : n + 2] == b"\xff\xda"]
    return whole[: starts[-1]] + whole[starts[-1] : -2] * (scans - len(starts)) + whole[starts[-1] :]


def animations() -> Iterator[HostileFile]:
    """Ten thousand frames or pages: the first one is what is answered."""
    whole = encode(draw_image("P", (16, 12)), "GIF")
    start = whole.index(b"\x2c", 13 + 3 * 2 ** ((whole[10] & 7) + 1))
    yield hostile_file("GIF", whole[:start] + whole[start:-1] * FRAMES + b";", ANSWERED)
    pixels = zlib.compress(bytes(9 * 8))
    control = struct.pack(">IIIIHHBB", 8, 8, 0, 0, 1, 10, 0, 0)
    frames = b"".join(
        chunk(b"fcTL", struct.pack(">I", 2 * n + 1) + control) + chunk(b"fdAT", struct.pack(">I", 2 * n + 2) + pixels)
        for n in range(FRAMES)
    )
    first = chunk(b"acTL", struct.pack(">II", FRAMES + 1, 0)) + chunk(b"fcTL", struct.pack(">I", 0) + control)
    yield hostile_file("APNG", png(8, 8, first)[: -len(chunk(b"IEND", b""))] + frames + chunk(b"IEND", b""), ANSWERED)
    body = encode(Image.new("RGB", (8, 8), (9, 99, 9)), "WebP", lossless=True)[12:]
    part = (b"ANMF", bytes(6) + (7).to_bytes(3, "little") * 2 + (10).to_bytes(3, "little") + b"\0" + body)
    canvas = struct.pack("<I", 2) + (7).to_bytes(3, "little") * 2
    yield hostile_file("WebP", riff((b"VP8X", canvas), (b"ANIM", bytes(6)), *[part] * FRAMES), ANSWERED)
    fields = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    fields += [(277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)]
    length = 6 + 12 * len(fields)
    pages = b"".join(
        struct.pack("<H", len(fields))
        + b"".join(struct.pack("<HHII", *field) for field in fields)
        + struct.pack("<I", 72 + length * (n + 1) if n + 1 < FRAMES else 0)
        for n in range(FRAMES)
    )
    yield hostile_file("TIFF", b"II*\x00" + struct.pack("<I", 72) + bytes(64) + pages, ANSWERED)


def strips() -> Iterator[HostileFile]:
    """Pictures of one row or one column, as long as the format allows."""
    for image_format in FORMATS:
        side = 16_383 if image_format == "WebP" else LONG_SIDE
        for size in ((1, side), (side, 1)):
            yield hostile_file(
                f"{image_format} {size[0]}x{size[1]}",
                encode(Image.new("RGB", size, (9, 99, 9)), image_format),
                ANSWERED,
            )


def foreign() -> Iterator[HostileFile]:
    """Files of other kinds under an image's name."""
    starts = {
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "PSD": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3),
        "FITS": b"SIMPLE  =                    T".ljust(2_880),
        "SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        "PDF": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "ZIP": b"PK\3\4" + bytes(26),
        "ICO": b"\0\0\1\0\1\0" + bytes(16),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "HEIC": b"\0\0\0\x18ftypheic" + bytes(40),
        "AVIF": b"\0\0\0\x18ftypavif" + bytes(40),
        "XBM": b"#define a_width 9\n#define a_height 9\n",
        "a program": b"\x7fELF" + bytes(60),
        "pickle": b"\x80\4\x95" + bytes(20),
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "zeros": bytes(1_000),
    }
    for name, start in starts.items():
        yield hostile_file(name, start, UNKNOWN)
        yield hostile_file(f"{name}, then a PNG", start + encode(draw_image(), "PNG"), UNKNOWN)


def polyglots() -> Iterator[HostileFile]:
    """Images that are other files too: what they are as an image is answered, and nothing else of them runs."""
    archive, page = b"PK\3\4" + bytes(26) + b"PK\5\6" + bytes(18), b"<script>alert(1)</script><?php exit(); ?>"
    for image_format in FORMATS:
        whole = encode(draw_image(), image_format)
        yield hostile_file(f"{image_format} and ZIP", whole + archive, ANSWERED)
        yield hostile_file(f"{image_format} and a page", whole + page, ANSWERED)
    whole = encode(draw_image(), "JPEG")
    yield hostile_file("JPEG and PDF", whole[:2] + b"\xff\xfe\x00\x0b%PDF-1.7\n" + whole[2:], ANSWERED)
    yield hostile_file("GIF and JavaScript", b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)", UNREADABLE, ANSWERED)
    yield hostile_file("PNG's first bytes, then a JPEG", b"\x89PNG\r\n\x1a\n" + whole, UNREADABLE)
    yield hostile_file("JPEG's first bytes, then a PNG", b"\xff\xd8\xff" + encode(draw_image(), "PNG"), UNREADABLE)


def kinds(flips: int) -> dict[str, Iterator[HostileFile]]:
    """Return all samples by kind; they are made while they are sent."""
    cut = (one for image_format in FORMATS for one in truncations(image_format))
    return {
        "formats and modes": modes(),
        "EXIF orientations": orientations(),
        "cut off at each percent, six formats": cut,
        "bits turned over": bit_flips(flips),
        "bombs: declared size": declared_bombs(),
        "bombs: compressed pixels, up to the limit": compressed_bombs(),
        "bombs: text, profiles, scans, directories": metadata_bombs(),
        f"{FRAMES:,} frames or pages": animations(),
        "one row or one column": strips(),
        "other files under an image's name": foreign(),
        "polyglots": polyglots(),
    }
