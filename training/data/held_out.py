"""Which images a trained network is measured on: of its own training data only those held out then."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from torchlight.model.checkpoint import Checkpoint
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet, LabelledImages

Exposure = Literal["unseen", "chose_epoch", "unknown"]  # of images, in the training of the network they measure


@dataclass(frozen=True)
class HeldOut:
    """Images to measure a network on.

    Attributes:
        split: ``test``, ``val`` or ``all images``.
        exposure: what they had to do with the training: nothing (``unseen``), they decided which epoch was kept
            (``chose_epoch``), or nobody knows (``unknown``).
        dataset: that they are part of.
    """

    split: str
    exposure: Exposure
    examples: LabelledImages
    dataset: DataSet

    def __str__(self) -> str:
        """Return the name to print."""
        return self.split if self.exposure == "unknown" else f"{self.split} (held out of its training data)"


def select_held_out(dataset: DataSet) -> HeldOut:
    """Return the images of a run's own data that its final figures are of: the test split, or val if test is empty."""
    split = "test" if len(dataset.splits["test"]) else "val"
    return HeldOut(split, "unseen" if split == "test" else "chose_epoch", dataset.splits[split], dataset)


def load_as_divided_in_training(
    trained: Checkpoint,
    source: str,
    *,
    skip_unreadable: bool = False,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[DataSet, bool]:
    """Read a source for a trained network.

    What the checkpoint was trained on is divided as it was then, and unreadable files are skipped if they were skipped
    then. Any other source keeps its own ``val`` and ``test`` folders; all other images are ``train``.

    Returns:
        The data, and whether the checkpoint was trained on it.

    Raises:
        DataError: see :func:`training.data.loading.load_dataset`.
    """
    known = trained.header.data
    load = partial(
        loading.load_dataset,
        source,
        trained.header.image_spec.resizing,
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
        return as_trained, True
    return load(val_fraction=0.0, test_fraction=0.0), False


def load_held_out(
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
        DataError: see :func:`training.data.loading.load_dataset`.
    """
    dataset, is_training_data = load_as_divided_in_training(
        trained, source, skip_unreadable=skip_unreadable, on_image=on_image
    )
    if is_training_data:
        return select_held_out(dataset)
    if len(dataset.splits["test"]):
        return HeldOut("test", "unknown", dataset.splits["test"], dataset)
    parts = dataset.splits.values()
    images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    names = tuple(name for part in parts for name in part.names)
    return HeldOut("all images", "unknown", LabelledImages(images, labels, names), dataset)
