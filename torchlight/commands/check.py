"""``torchlight check``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from torchlight.commands.options import Device, Source, find_named
from torchlight.commands.terminal import StageBar, catch_interrupts, console, show_progress, write_line

if TYPE_CHECKING:
    from torchlight.training.evaluation.data_findings import DataFindings

MOST_URGENT = 12  # photos in the terminal; the files have all of them


def check(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the page and the decisions; default: runs/, named like the source, -check."),
    ] = None,
    judge: Annotated[
        Path | None,
        typer.Option(
            "--with",
            callback=find_named,
            help="Judge by this checkpoint, or imagenet, as it is; default: by layers that are fitted to the photos.",
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Look for what is wrong with photos before a training: labels, copies, strangers, broken and poor pictures.

    Nothing of the photos is changed. check.html shows what was found, and takes decisions that `torchlight train`
    follows; or write right, change class or leave out into the column action of corrections.csv. Decisions in there
    are kept by the next check.
    """
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import choose_device
    from torchlight.training.run_check import read_earlier_decisions, run_check, run_check_by, write_check
    from torchlight.training.run_setup import Observer

    folder = out or Path("runs") / f"{Path(source).resolve().stem}-check"
    earlier = read_earlier_decisions(folder)
    with show_progress() as progress, catch_interrupts() as is_interrupted:
        bar = StageBar(progress, "reading images")
        observer = Observer(
            on_image=lambda done, total: bar.show("reading images", done, total),
            on_stage=bar.show,
            should_stop=is_interrupted,
        )
        chosen = choose_device(device)
        if judge is None:
            findings = run_check(source, chosen, observer)
        else:
            findings = run_check_by(load_checkpoint(judge), source, chosen, observer)
    written = write_check(folder, findings, source, earlier)
    _write_findings(findings)
    page, decided = (shlex.quote(str(path)) for path in (written.page, written.corrections))
    write_line(f"now: open {page}, or decide in {decided}")
    write_line(f"then: torchlight train {shlex.quote(source)} --corrections {decided}")


def _write_findings(findings: "DataFindings") -> None:
    """Write how many photos each kind has, and the most urgent ones."""
    from torchlight.training.evaluation.data_findings import TITLES

    source, names = findings.source, findings.source.class_names
    photos = len(source.photos)
    write_line(f"{photos} photos in {len(names)} {'class' if len(names) == 1 else 'classes'}", style="bold")
    counts = Table("", "photos", box=None)
    for kind, title in TITLES.items():
        counts.add_row(title, str(len(findings.of_kind(kind))))
    counts.add_row("Files that cannot be read", str(len(source.unreadable)))
    counts.add_row("Files that no command looks at", str(len(source.left_out)))
    console.print(counts)
    for pair in findings.confused:
        write_line(
            f"hard to tell apart: {names[pair.one]} and {names[pair.other]}, "
            f"{pair.mistakes} of {pair.photos} photos mistaken"
        )
    for note in findings.notes:
        write_line(f"note: {note}")
    by_photo = findings.by_photo()
    if by_photo:
        urgent = Table("photo", "why", box=None)
        for index, found in list(by_photo.items())[:MOST_URGENT]:
            urgent.add_row(escape(source.photos.names[index]), escape("; ".join(one.reason for one in found)))
        console.print(urgent)
    if len(by_photo) > MOST_URGENT:
        write_line(f"... and {len(by_photo) - MOST_URGENT} more")
    for broken in source.unreadable[:MOST_URGENT]:
        write_line(f"cannot be read: {broken.file}: {broken.reason}")
