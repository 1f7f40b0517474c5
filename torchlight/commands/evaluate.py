"""``torchlight evaluate``."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from torchlight.commands.options import CheckpointPath, Corrections, Device, SkipUnreadable, Source
from torchlight.commands.terminal import (
    add_bar,
    command_line,
    console,
    draw_bar,
    show_progress,
    write_corrections,
    write_line,
)
from torchlight.model.errors import DataError

if TYPE_CHECKING:
    from torchlight.training.evaluation.classification_metrics import Metrics


def evaluate(
    checkpoint_path: CheckpointPath,
    source: Source,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html; without it, only the table.")] = None,
    skip_unreadable: SkipUnreadable = False,
    corrections: Corrections = None,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on images; on its own training data, only on those held out then.

    If none were, since its figures are cross-validated, those are shown.
    """
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import choose_device
    from torchlight.training.data.corrections import describe_corrections
    from torchlight.training.data.held_out import load_held_out
    from torchlight.training.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from torchlight.training.report.report import make_report, write_report

    loaded = load_checkpoint(checkpoint_path)
    with show_progress() as progress:
        on_image = add_bar(progress, "reading images")
        found = load_held_out(
            loaded, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
        )
        if found.exposure != "learnt":
            evaluation = evaluate_checkpoint(loaded, found, choose_device(device))
    write_corrections(found.dataset)
    corrected = describe_corrections(loaded.header.data.get("corrections", {}))
    if corrections is None and corrected and found.exposure == "unknown":
        write_line(
            f"note: the network was trained with corrections ({corrected}); if it learnt from these photos, give the "
            "same --corrections, or they flatter it"
        )
    if found.exposure == "learnt":
        return _tell_what_was_measured(loaded.header.metrics["cross_validation"], source, out)
    metrics = evaluation.metrics
    console.print(_make_table(metrics))
    write_line(
        f"accuracy {metrics.accuracy:.2%} of {metrics.images} images, loss {metrics.loss:.4f}, "
        f"calibration error {metrics.calibration_error:.2%}; split: {found}"
    )
    if out is not None:
        write_report(out, make_report(evaluation, source=Path(source).name, command=command_line()))
        write_line(f"now: open {shlex.quote(str(out / 'report.html'))}")
    return None


def _tell_what_was_measured(figures: Mapping[str, Any], source: str, out: Path | None) -> None:
    """Write what a cross-validation found, in place of a network's answers to what it learnt from."""
    from torchlight.training.report.few_photos_text import describe_learnt

    if out is not None:
        raise DataError(
            f"the network learnt from every photo of {source}, so a report on them would flatter it; the report of its "
            "training has honest figures; give photos that it has not seen, or leave out --out"
        )
    for sentence in describe_learnt(source, figures):
        write_line(sentence)


def _make_table(metrics: "Metrics") -> Table:
    """Return a row for each class; one without images has no figures."""
    table = Table("class", "images", "precision", "recall", "", box=None)
    for one in metrics.per_class:
        figures = (f"{one.precision:.1%}", f"{one.recall:.1%}", draw_bar(one.recall)) if one.images else ("–", "–", "")
        table.add_row(escape(one.label), str(one.images), *figures)
    return table
