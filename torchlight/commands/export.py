"""``torchlight export``."""

from pathlib import Path
from typing import Annotated

import typer

from torchlight.commands.options import CheckpointPath, open_classifier
from torchlight.commands.terminal import write_line


def export(
    checkpoint_path: CheckpointPath,
    out: Annotated[Path, typer.Option(help="A file ending in .onnx (for ONNX) or .pt2 (for torch.export).")],
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch/--fixed-batch", help="Take any number of images at once, or exactly one.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a checkpoint as a program that runs without Torchlight.

    It takes resized images (N, 3, S, S) as uint8 RGB and gives probabilities (N, K).
    """
    from torchlight.model.engines.export_file import export_network

    classifier = open_classifier(checkpoint_path)
    difference = export_network(classifier, out, dynamic_batch=dynamic_batch, overwrite=force)
    batch = "N" if dynamic_batch else "1"
    size, classes = classifier.spec.size, len(classifier.class_names)
    write_line(f"images ({batch}, 3, {size}, {size}) uint8 RGB -> probabilities ({batch}, {classes}) float32")
    write_line(f"largest difference of a probability to this checkpoint's: {difference:.1e}")
    write_line(f"written: {out}")
