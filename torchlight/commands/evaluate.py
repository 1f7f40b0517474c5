"""``torchlight evaluate``."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from torchlight.commands.options import CheckpointPath, Device, SkipUnreadable, Source
from torchlight.commands.terminal import add_bar, command_line, console, draw_bar, show_progress, write_line


def evaluate(
    checkpoint_path: CheckpointPath,
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html; without it, only the table.")] = None,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on images; on its own training data, only on those held out then."""
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import choose_device
    from torchlight.training.data.held_out import load_held_out
    from torchlight.training.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from torchlight.training.report.report import make_report, write_report

    loaded = load_checkpoint(checkpoint_path)
    with show_progress() as progress:
        on_image = add_bar(progress, "reading images")
        found = load_held_out(loaded, source, skip_unreadable=skip_unreadable, on_image=on_image)
        evaluation = evaluate_checkpoint(loaded, found, choose_device(device))
    metrics = evaluation.metrics
    table = Table("class", "images", "precision", "recall", "", box=None)
    for one in metrics.per_class:
        bar = draw_bar(one.recall)
        table.add_row(escape(one.label), str(one.images), f"{one.precision:.1%}", f"{one.recall:.1%}", bar)
    console.print(table)
    write_line(
        f"accuracy {metrics.accuracy:.2%} of {metrics.images} images, loss {metrics.loss:.4f}, "
        f"calibration error {metrics.calibration_error:.2%}; split: {found}"
    )
    if out is not None:
        write_report(out, make_report(evaluation, source=Path(source).name, command=command_line()))
        write_line(f"now: open {shlex.quote(str(out / 'report.html'))}")
