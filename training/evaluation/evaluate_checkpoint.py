"""A trained network and its data -> its temperature, its logits and its figures. Writes nothing."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torchlight.model.canary import add_canary_distance
from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.images import ImageSpec
from torchlight.model.network import embedding_size
from torchlight.model.uncertainty.answer_sets import AnswerSets, SetFigures, measure_answer_sets, measure_set_figures
from torchlight.model.uncertainty.novelty import Novelty
from torchlight.training.data.held_out import HeldOut
from torchlight.training.data.loading import DataSet
from torchlight.training.evaluation.calibration import (
    Calibration,
    divide_crosswise,
    divide_logits,
    fit_temperature,
    measure_calibration,
)
from torchlight.training.evaluation.classification_metrics import (
    Metrics,
    compute_metrics,
    infer,
    infer_with_embeddings,
)
from torchlight.training.evaluation.fit_novelty import (
    MAX_LEARNT,
    KnownImages,
    choose_entropy_weight,
    distances_apart,
    fit_novelty,
    spread_evenly,
)


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint measured on images; ``held_out.exposure`` says what those had to do with its training.

    Attributes:
        calibration: of its probabilities as they are, so with temperature 1; at the end of a run what :func:`calibrate`
            returned.
        set_figures: of its answer sets on these images; None if it has none, or if the images fixed them.
    """

    checkpoint: Checkpoint
    held_out: HeldOut
    metrics: Metrics
    calibration: Calibration
    set_figures: SetFigures | None = None


def evaluate_checkpoint(checkpoint: Checkpoint, held_out: HeldOut, device: torch.device) -> Evaluation:
    """Run a checkpoint's network, which is left on ``device``, over held-out images and measure its answers."""
    examples, header = held_out.examples, checkpoint.header
    logits = infer(checkpoint.network.to(device), examples.images, header.image_spec)  # (N, K)
    set_figures = None
    if header.answer_sets is not None and held_out.exposure != "chose_epoch":
        set_figures = measure_set_figures(header.answer_sets, logits, examples.labels, header.class_names)
    return Evaluation(
        checkpoint,
        held_out,
        compute_metrics(logits, examples.labels, header.class_names),
        measure_calibration(logits, logits, examples.labels, 1.0),
        set_figures,
    )


def calibrate(
    network: nn.Module, spec: ImageSpec, dataset: DataSet, known_temperature: float | None = None
) -> Calibration:
    """Divide the network's logits, in place, by the temperature that fits the validation images.

    Args:
        known_temperature: the temperature that an earlier call has put into the weights; then nothing is fitted and
            nothing divided, only measured.

    Returns:
        What the temperature changes on the test images; without any, on the validation images, each half of them with
        the temperature of the other.
    """
    val, test = dataset.splits["val"], dataset.splits["test"]
    divided_by = known_temperature or 1.0
    logits = infer(network, val.images, spec) * divided_by  # (N, K), as the network was trained
    temperature = known_temperature or fit_temperature(logits, val.labels)
    if len(test):
        unseen = infer(network, test.images, spec) * divided_by
        measured = measure_calibration(unseen, unseen / temperature, test.labels, temperature)
    else:
        measured = measure_calibration(logits, divide_crosswise(logits, val.labels), val.labels, temperature)
    divide_logits(network, temperature / divided_by)
    return measured


def measure_uncertainty(network: nn.Module, header: Header, dataset: DataSet) -> tuple[AnswerSets, Novelty]:
    """Return what fixes answer sets and tells known from unknown, by validation images, of which none was learnt from.

    Args:
        network: calibrated, in evaluation mode; on the CPU afterwards.
    """
    train, val, spec = dataset.splits["train"], dataset.splits["val"], header.image_spec
    size = embedding_size(network, header.network.architecture)
    some = train.select(spread_evenly(torch.ones(len(train), dtype=torch.bool), MAX_LEARNT))
    _, embeddings = infer_with_embeddings(network, some.images, spec, size)
    logits, known = infer_with_embeddings(network, val.images, spec, size)
    distances = distances_apart(embeddings, some.labels, known, logits.shape[1])
    weight = choose_entropy_weight(header.training)
    novelty = fit_novelty(
        embeddings, some.labels, KnownImages(distances, val.labels, logits, "val", are_references=False), weight
    )
    sets = measure_answer_sets(logits, val.labels, header.class_names)
    return sets, add_canary_distance(novelty, network.cpu(), spec)


def summarise_metrics(metrics: Metrics) -> dict[str, Any]:
    """Return the figures that travel in the checkpoint; of recall those of classes that were seen."""
    return {
        "images": metrics.images,
        "accuracy": metrics.accuracy,
        "loss": metrics.loss,
        "calibration_error": metrics.calibration_error,
        "recall": {one.label: one.recall for one in metrics.per_class if one.images},
    }
