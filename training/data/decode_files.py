"""Items -> one uint8 array, in parallel, with what is known of each image once it is decoded.

Knows nothing of where the array is kept, nor of labels and splits.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from torchlight.model.errors import ImageError
from torchlight.model.images import Resizing
from torchlight.training.data import duplicates
from torchlight.training.data.sources import Item

CHUNK = 16  # images a thread takes at a time: enough to be cheap, few enough for a bar that moves


@dataclass(frozen=True)
class Decoded:
    """All images of a source, in its order.

    Attributes:
        images: (N, 3, S, S) uint8 RGB; zero where unreadable.
        digests: of each file's content; empty where unreadable.
        errors: why it is unreadable; empty where it is not.
        shorter_sides: of the originals, in pixels; 0 where unreadable.
        flat: whether all of it is one colour.
        groups: positions of the first near-identical image (:mod:`training.data.duplicates`); its own where unreadable.
        too_alike: see :class:`training.data.duplicates.Groups`.
    """

    images: NDArray[np.uint8]
    digests: list[str]
    errors: list[str]
    shorter_sides: list[int]
    flat: list[bool]
    groups: list[int]
    too_alike: bool


def decode_items(items: Sequence[Item], resizing: Resizing, on_image: Callable[[int, int], None]) -> Decoded:
    """Load every item once, in threads (the decoders release the interpreter), and group what is near-identical.

    Args:
        resizing: side S and rule.
        on_image: called in this thread after each image with how many are done and how many there are.
    """
    images = np.zeros((len(items), 3, resizing.size, resizing.size), np.uint8)

    def load(start: int) -> list[tuple[str, str, int, bool]]:
        facts = []
        for index, item in enumerate(items[start : start + CHUNK], start):
            try:
                picture = item.load(resizing)
            except ImageError as error:
                facts.append(("", str(error), 0, False))
            except OSError as error:
                facts.append(("", f"file cannot be read ({error.strerror or error})", 0, False))
            else:
                images[index] = pixels = picture.pixels.numpy()
                is_flat = bool((pixels == pixels[:, :1, :1]).all())
                facts.append((picture.digest, "", picture.shorter_side, is_flat))
        return facts

    facts: list[tuple[str, str, int, bool]] = []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for chunk in pool.map(load, range(0, len(items), CHUNK)):
            for one in chunk:
                facts.append(one)
                on_image(len(facts), len(items))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what is left
    digests, errors, shorter_sides, flat = zip(*facts, strict=True)
    groups, too_alike = _group(images, errors)
    return Decoded(images, list(digests), list(errors), list(shorter_sides), list(flat), groups, too_alike)


def _group(images: NDArray[np.uint8], errors: Sequence[str]) -> tuple[list[int], bool]:
    readable = torch.tensor([index for index, error in enumerate(errors) if not error], dtype=torch.int64)
    groups = torch.arange(len(images))
    if not len(readable):
        return groups.tolist(), False
    everything = torch.from_numpy(images)
    found = duplicates.group_alike(everything if len(readable) == len(images) else everything[readable])
    groups[readable] = readable[found.first]
    return groups.tolist(), found.too_alike
