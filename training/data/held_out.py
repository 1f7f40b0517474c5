"""Which images a trained network is measured on: of its own training data only those held out then."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from torchlight.model.checkpoint import Checkpoint
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet, LabelledImages, join_parts

# Of images, in the training of the network that they measure.
Exposure = Literal["unseen", "chose_epoch", "cross_validated", "learnt", "unknown"]
DESCRIPTIONS = {"cross_validated": " (cross-validated)", "learnt": " (it learnt from them)", "unknown": ""}


@dataclass(frozen=True)
class HeldOut:
    """Images to measure a network on.

    Attributes:
        split: ``test``, ``val``, ``all photos``, such as ``200 of 1,000 photos``, or ``all images``.
        exposure: what they had to do with the training: nothing (``unseen``); they decided which epoch was kept
            (``chose_epoch``); each is answered by a network that did not learn from it, while the one that is kept
            learnt from all (``cross_validated``); the network that answers learnt from them (``learnt``); or nobody
            knows (``unknown``).
        dataset: that they are part of.
    """

    split: str
    exposure: Exposure
    examples: LabelledImages
    dataset: DataSet

    def __str__(self) -> str:
        """Return the name to print."""
        return self.split + DESCRIPTIONS.get(self.exposure, " (held out of its training data)")


def select_held_out(dataset: DataSet, *, is_cross_validated: bool = False) -> HeldOut:
    """Return the images of a run's own data that its final figures are of.

    They are the test split; if that is empty, val, or all that a cross-validated run learns from.
    """
    if len(dataset.splits["test"]):
        return HeldOut("test", "unseen", dataset.splits["test"], dataset)
    if is_cross_validated:
        return HeldOut("all photos", "cross_validated", select_cross_validated(dataset), dataset)
    return HeldOut("val", "chose_epoch", dataset.splits["val"], dataset)


def select_cross_validated(dataset: DataSet) -> LabelledImages:
    """Return what a cross-validated run divides into folds, and finally learns from: train, then val."""
    return join_parts([dataset.splits["train"], dataset.splits["val"]])


def load_as_divided_in_training(
    trained: Checkpoint,
    source: str,
    *,
    skip_unreadable: bool = False,
    corrections: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[DataSet, bool]:
    """Read a source for a trained network.

    What the checkpoint was trained on is divided as it was then, and unreadable files are skipped if they were skipped
    then; corrections that it was trained with have to be given again. Any other source keeps its own ``val`` and
    ``test`` folders; all other images are ``train``.

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
        corrections=corrections,
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
    corrections: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> HeldOut:
    """Return what to evaluate a checkpoint on.

    If ``source`` is what it was trained on, only the images held out then; if none were, since it was cross-validated,
    what it learnt from, with the exposure ``learnt``. Of any other source its own test split, or all of its images.

    Raises:
        DataError: see :func:`training.data.loading.load_dataset`.
    """
    dataset, is_training_data = load_as_divided_in_training(
        trained, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
    )
    if is_training_data:
        found = select_held_out(dataset, is_cross_validated="cross_validation" in trained.header.metrics)
        return replace(found, exposure="learnt") if found.exposure == "cross_validated" else found
    if len(dataset.splits["test"]):
        return HeldOut("test", "unknown", dataset.splits["test"], dataset)
    return HeldOut("all images", "unknown", join_parts(list(dataset.splits.values())), dataset)
