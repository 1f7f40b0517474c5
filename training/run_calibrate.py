"""A checkpoint made by an older program, and its data -> the same one, with answer sets and what tells the unknown.

Weights stay as they are.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torchlight.model.checkpoint import Checkpoint, save_checkpoint
from torchlight.model.errors import DataError
from torchlight.model.uncertainty.novelty import Novelty
from torchlight.training.data.held_out import load_as_divided_in_training
from torchlight.training.evaluation.evaluate_checkpoint import measure_uncertainty


def calibrate_checkpoint(
    trained: Checkpoint,
    source: str,
    out: Path,
    *,
    skip_unreadable: bool = False,
    corrections: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Novelty:
    """Measure a network on images that were held out of its training, and write it with that.

    Args:
        trained: on the CPU.
        source: what it was trained on, or other photos of the same classes with a ``val`` folder.
        out: the new file; it has another digest, so what is beside the old one does not fit it.
        corrections: those that it was trained with.
        on_image: called with how many images are read, and how many there are.

    Raises:
        DataError: there is such a file, or the source leaves nothing to measure on.
        OSError: it cannot be written.
    """
    if out.exists():
        raise DataError(f"{out} exists; choose another name")
    dataset, is_training_data = load_as_divided_in_training(
        trained, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
    )
    val = dataset.splits["val"]
    is_learnt = is_training_data or Path(source).name == trained.header.data.get("source")
    if is_learnt and "cross_validation" in trained.header.metrics:
        raise DataError(
            f"the network learnt from every photo of {source}, so nothing can be measured on them; train again"
        )
    if not len(val) or not len(dataset.splits["train"]):
        raise DataError(f"{source} has no validation images beside training images; give what it was trained on")
    sets, novelty = measure_uncertainty(trained.network, trained.header, dataset)
    header = dataclasses.replace(trained.header, answer_sets=sets)
    save_checkpoint(out, trained.network, header, trained.filmstrip, novelty)
    return novelty
