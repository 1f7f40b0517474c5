"""An evaluation -> the mistakes to keep beside its checkpoint. Writes nothing."""

from pathlib import PurePath

import torch

from torchlight.model.views.kept_mistakes import MAX_BYTES, KeptMistakes, MistakesSource
from torchlight.training.evaluation.evaluate_checkpoint import Evaluation


def collect_mistakes(evaluation: Evaluation, source: str) -> KeptMistakes:
    """Return the mistakes of an evaluation on held-out images, as many photos of each cell as ``MAX_BYTES`` allows.

    Args:
        evaluation: on images that the network, or its like in cross-validation, did not learn from.
        source: name of the folder or the data set.
    """
    held_out, metrics, examples = evaluation.held_out, evaluation.metrics, evaluation.held_out.examples
    assert held_out.exposure in ("unseen", "chose_epoch", "cross_validated")
    chosen = metrics.cell_mistakes[: MAX_BYTES // examples.images[0].nbytes]
    cells = {
        (true, predicted): number
        for true, row in enumerate(metrics.confusion)
        for predicted, number in enumerate(row)
        if number and true != predicted
    }
    return KeptMistakes(
        checkpoint_digest=evaluation.checkpoint.digest,
        class_names=evaluation.checkpoint.header.class_names,
        source=MistakesSource(source, held_out.split, held_out.exposure),
        images=tuple(one.images for one in metrics.per_class),
        cells=cells,
        names=tuple(PurePath(examples.names[one.index]).name for one in chosen),
        photos=examples.images[torch.tensor([one.index for one in chosen], dtype=torch.int64)],
        classes=torch.tensor([(one.true, one.predicted) for one in chosen], dtype=torch.int32).view(-1, 2),
        probabilities=torch.tensor([(one.true_probability, one.probability) for one in chosen]).view(-1, 2),
    )
