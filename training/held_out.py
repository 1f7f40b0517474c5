"""Which images a trained network may be measured on: none that it learnt from."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from torchlight.model.checkpoint import Checkpoint
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet, LabelledImages
from torchlight.training.report.report_text import Exposure
from torchlight.training.run import held_out_split


@dataclass(frozen=True)
class HeldOut:
    """Images to measure a network on.

    Attributes:
        split: ``test``, ``val`` or ``all images``.
        exposure: what they had to do with the training.
        dataset: that they are part of.
    """

    split: str
    exposure: Exposure
    examples: LabelledImages
    dataset: DataSet

    def __str__(self) -> str:
        """Return the name to print."""
        return self.split if self.exposure == "unknown" else f"{self.split} (held out of its training data)"


def held_out(
    trained: Checkpoint,
    source: str,
    *,
    skip_unreadable: bool = False,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> HeldOut:
    """Return what to evaluate a checkpoint on.

    If ``source`` is what it was trained on, only the images held out then; else the source's own test split, or all
    of its images.

    Raises:
        DataError: see :func:`training.data.loading.load`.
    """
    known = trained.header.data
    load = partial(
        loading.load,
        source,
        trained.header.image_spec.size,
        class_names=trained.header.class_names,
        skip_unreadable=skip_unreadable or bool(known.get("skipped")),
        on_image=on_image,
    )
    as_trained = load(
        val_fraction=known.get("val_fraction", 0.0),
        test_fraction=known.get("test_fraction", 0.0),
        seed=trained.header.training.get("seed", 0),
    )
    if as_trained.fingerprint == known.get("fingerprint"):
        split = held_out_split(as_trained)
        return HeldOut(split, "unseen" if split == "test" else "chose_epoch", as_trained.splits[split], as_trained)
    other = load(val_fraction=0.0, test_fraction=0.0)
    if len(other.splits["test"]):
        return HeldOut("test", "unknown", other.splits["test"], other)
    images = torch.cat([part.images for part in other.splits.values()])
    labels = torch.cat([part.labels for part in other.splits.values()])
    names = tuple(name for part in other.splits.values() for name in part.names)
    return HeldOut("all images", "unknown", LabelledImages(images, labels, names), other)
