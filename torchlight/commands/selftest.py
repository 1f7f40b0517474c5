"""``torchlight selftest``."""

import typer
from rich.markup import escape
from rich.table import Table

from torchlight.commands.options import CheckpointPath, open_classifier
from torchlight.commands.terminal import add_bar, console, show_progress, write_line

COLOURS = {"pass": "green", "fail": "bold red", "not applicable": "dim"}


def selftest(checkpoint_path: CheckpointPath) -> None:
    """Check on this very checkpoint that the views show what the network computes; the result is written beside it."""
    import torch

    from torchlight.model.checks.self_test import run_self_test, save_self_test, self_test_path
    from torchlight.model.errors import IndexMismatch, IndexNotFound
    from torchlight.model.views import image_index

    torch.set_num_threads(1)  # single images: sharing them among busy cores takes many times as long
    classifier = open_classifier(checkpoint_path)
    try:
        found = image_index.load_index(image_index.index_path(checkpoint_path), classifier.digest)
    except (IndexNotFound, IndexMismatch):
        found = None
    with show_progress() as progress:
        result = run_self_test(classifier, found, add_bar(progress, "checking"))
    path = self_test_path(checkpoint_path)
    save_self_test(path, result)
    table = Table("", "check", "", "worst", "bound", "of what, or why not", box=None)
    for one in result.checks:
        measured, bound = ("" if figure is None else f"{figure:.2g}" for figure in (one.measured, one.bound))
        outcome = f"[{COLOURS[one.outcome]}]{one.outcome}[/]"
        table.add_row(one.id, escape(one.title), outcome, measured, bound, escape(one.note))
    console.print(table)
    write_line(f"{len(result.failed)} failed, {result.seconds} s; wrote {path}")
    raise typer.Exit(1 if result.failed else 0)
