"""Values as a page shows them: shares, short names, pictures, and text without what no document may hold.

Knows nothing of networks.
"""

import base64
import re

import torch.nn.functional as F
from torch import Tensor

from torchlight.model.drawing.figures import draw_plain_image
from torchlight.model.drawing.rendering import encode_jpeg
from torchlight.training.evaluation.classification_metrics import Interval

MAX_PICTURE, MAX_THUMBNAIL = 224, 130  # pixels a side; a larger picture is shrunk by a whole number
MAX_EXACT = 64  # pixels a side; up to there a JPEG saves nothing, and shows its blocks
# Control characters and lone surrogates: no document may hold them, and file names may.
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def data_uri(png: bytes) -> str:
    """Return an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def photo_uri(image: Tensor) -> str:
    """Return an address that holds a picture (3, S, S) uint8 RGB, shrunk if it is large."""
    return data_uri(draw_plain_image(_shrink(image, MAX_PICTURE)))


def thumbnail_uri(image: Tensor) -> str:
    """Return an address that holds a picture (3, S, S) uint8 RGB so small, about 6 kB, that a page has hundreds."""
    small = _shrink(image, MAX_THUMBNAIL)
    return data_uri(draw_plain_image(small)) if small.shape[-1] <= MAX_EXACT else jpeg_uri(small)


def _shrink(image: Tensor, most: int) -> Tensor:
    """Return (3, S / n, S / n) with the smallest whole n that leaves at most so many pixels a side."""
    factor = -(-max(image.shape[1:]) // most)
    return image if factor == 1 else F.avg_pool2d(image.float(), factor).round().to(image.dtype)


def jpeg_uri(image: Tensor) -> str:
    """Return an address that holds a photo (3, S, S) uint8 RGB in full size, so small that a page has hundreds."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image.permute(1, 2, 0).numpy())).decode()


def clean(text: str) -> str:
    """Return the text with the replacement character for what no document may hold."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, limit: int = 20) -> str:
    """Return at most ``limit`` characters, the last an ellipsis if some are missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def percent(share: float) -> str:
    """Return a share of 0 to 1 as ``88.4%``; only 0 and 1 themselves are shown as 0% and 100%."""
    shown = f"{100 * share:.1f}%"
    return {"0.0%": "0%" if share == 0 else "<0.1%", "100.0%": "100%" if share == 1 else ">99.9%"}.get(shown, shown)


def name_interval(interval: Interval) -> str:
    """Return an interval of shares as ``89.6 to 95.9%``."""
    low, high = interval
    return f"{percent(low)} to {percent(high)}".replace("% to", " to")
