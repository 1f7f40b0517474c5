"""What k-fold cross-validation found: ways to learn, compared, and the answers of the chosen one.

Source: Stone: Cross-Validatory Choice and Assessment of Statistical Predictions, JRSS B 1974.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from torchlight.training.data.loading import LabelledImages
from torchlight.training.evaluation.calibration import Calibration
from torchlight.training.evaluation.classification_metrics import Metrics
from torchlight.training.evaluation.data_findings import DataFindings
from torchlight.training.evaluation.evaluate_checkpoint import summarise_metrics


@dataclass(frozen=True)
class CandidateResult:
    """One way to learn that was compared.

    Attributes:
        name: such as "EfficientNet-Lite0, last layer" or "from nothing: torchlight, 32 pixels".
        accuracy: cross-validated share of right answers, in [0, 1]; None if it was not tried.
        images: photos that were judged: all, or those of the folds before it fell behind or time ran out.
        loss: cross-validated negative log-likelihood, natural logarithm; None if it was not tried.
        seconds: spent on it; None if it was not tried.
        is_chosen: whether it, or a part of it, is in the final network.
        note: why it was not tried, or what it adds, as a sentence.
    """

    name: str
    accuracy: float | None
    images: int
    loss: float | None
    seconds: float | None
    is_chosen: bool
    note: str = ""


@dataclass(frozen=True)
class CrossValidation:
    """What the chosen way of learning answers to photos that it did not learn from.

    Attributes:
        num_folds: parts that the photos were divided into.
        photos: that were judged: all that the run learnt from, or those of the folds that there was time for.
        logits: (N, K) float32, each photo's from a network that saw neither it nor its near copies, divided by the
            cross-fitted temperature.
        calibration: cross-fitted; its temperature is 1 where none helped.
        candidates: best first.
        reason: why the winner won, one sentence.
        findings: what may be wrong with ``photos``, judged by ``logits``.
    """

    num_folds: int
    photos: LabelledImages
    logits: Tensor
    calibration: Calibration
    candidates: Sequence[CandidateResult]
    reason: str
    findings: DataFindings


def summarise_cross_validation(metrics: Metrics, num_folds: int) -> dict[str, Any]:
    """Return the figures that travel in the checkpoint as ``metrics["cross_validation"]``.

    Args:
        metrics: of the logits in :class:`CrossValidation`.
    """
    return summarise_metrics(metrics) | {"interval": list(metrics.accuracy_interval), "folds": num_folds}
