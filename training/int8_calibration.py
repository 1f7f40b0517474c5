"""Training images -> the ranges of a network's layers; held-out images -> what int8 costs. Writes no file."""

from collections.abc import Callable
from pathlib import Path

import torch

from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import choose_engine, measure_ranges, openvino_engine
from torchlight.model.engines.int8_ranges import Accuracy, Quantisation
from torchlight.model.engines.parity import InferenceFunction
from torchlight.model.errors import DataError
from torchlight.training.data.held_out import load_held_out
from torchlight.training.data.loading import LabelledImages

CALIBRATION_IMAGES = 1_000  # the accuracy of the default network is float32's with them, see docs/log.md
BATCH_SIZE = 16  # images; larger ones gain nothing on a CPU
SEED = 0  # of the choice of images


def quantise(
    classifier: Classifier,
    source: str,
    *,
    skip_unreadable: bool = False,
    corrections: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Quantisation:
    """Return how to compute a checkpoint in int8, and its accuracy with that on images held out of its training.

    Where none were, since it is cross-validated, the accuracy is on those that it learnt from, as its ``split`` says:
    what int8 costs shows there too, how good the network is does not.

    Args:
        source: what the checkpoint was trained on, or other images with a train and a test split.
        corrections: decisions about single photos; those that the checkpoint was trained with have to be given again.
        on_image: called with how many images are read, and how many there are.

    Raises:
        DataError: the source cannot be read, or has no images apart from those that the ranges are measured on.
        EngineUnavailable: this network cannot be computed in int8 here.
    """
    found = load_held_out(
        classifier.checkpoint, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
    )
    train = found.dataset.splits["train"]
    if found.split == "all images" or not len(train):
        raise DataError(
            f"{source} is not what the checkpoint was trained on, and has no train and test folders; "
            "int8 needs images to measure ranges on, and others to measure the accuracy on"
        )
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:CALIBRATION_IMAGES]
    ranges = measure_ranges(classifier, train.images[chosen])
    unmeasured = Accuracy(str(found), len(found.examples), 0.0, 0.0)
    rounded = openvino_engine(classifier, Quantisation(classifier.digest, ranges, unmeasured, difference=1.0))
    measured = Accuracy(
        str(found),
        len(found.examples),
        float32=_accuracy(choose_engine(classifier, "auto").run, found.examples),
        int8=_accuracy(rounded.run, found.examples),
    )
    return Quantisation(classifier.digest, ranges, measured, rounded.difference)


def _accuracy(run: InferenceFunction, examples: LabelledImages) -> float:
    given = torch.cat([run(some).argmax(1) for some in torch.split(examples.images, BATCH_SIZE)])
    return (given == examples.labels).double().mean().item()
