"""What commands write to the terminal: lines, bars and the progress of long work."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from torchlight.training.config import TrainingConfig

if TYPE_CHECKING:
    from torchlight.training.data.loading import DataSet
    from torchlight.training.optimisation.loop import EpochResult, StepResult

console = Console()


def write_line(text: str, style: str | None = None) -> None:
    """Write one line as it is: brackets are no markup, and a long line is not broken."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def draw_bar(share: float, width: int = 30) -> str:
    """Return a bar for a share in [0, 1]."""
    return "█" * round(share * width)


def command_line() -> str:
    """Return what the user typed."""
    return shlex.join(["torchlight", *sys.argv[1:]])


def show_progress() -> Progress:
    """Return progress bars, to be used in a ``with`` block; each task has a field ``figures``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
    )


def add_bar(progress: Progress, description: str, visible: bool = True) -> Callable[[int, int], None]:
    """Add a bar and return what moves it, given how much is done and the total; a hidden one appears then."""
    task = progress.add_task(description, total=None, figures="", visible=visible)
    return lambda done, total: progress.update(task, completed=done, total=total, visible=True)


@contextmanager
def catch_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether Ctrl+C was pressed or SIGTERM came; the second time, it interrupts at once."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_corrections(dataset: "DataSet") -> None:
    """Write how much a file of corrections has changed, if one was given."""
    from torchlight.training.data.corrections import describe_corrections

    if dataset.corrections:
        write_line(f"corrections: {describe_corrections(dataset.corrections) or 'no row has a decision'}")


class StageBar:
    """One bar that shows a stage after the other, by its name."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self._task = progress.add_task(name, total=None, figures="")

    def show(self, name: str, done: int, total: int) -> None:
        """Show how much of a stage is done; the time begins anew with each stage."""
        if name != self._name:
            self._progress.reset(self._task, description=name)
            self._name = name
        self._progress.update(self._task, completed=done, total=total)


class TrainingBar:
    """Draws a run's progress: a bar for reading images, one for each stage, and for epochs a line for each."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading images", total=None, figures="")

    def on_image(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def on_data(self, dataset: "DataSet", config: TrainingConfig | None) -> None:
        splits = {name: len(part) for name, part in dataset.splits.items() if config is not None or len(part)}
        sizes = ", ".join(f"{number} {name}" for name, number in splits.items())
        write_line(f"{len(dataset.class_names)} classes, images: {sizes}")
        write_corrections(dataset)
        for line in dataset.skipped:
            write_line(f"skipped {line}")
        for line in dataset.warnings:
            write_line(f"note: {line}")
        if config is not None:
            steps = len(dataset.splits["train"]) // config.batch_size
            self.begin("training", config.epochs * steps)

    def begin(self, description: str, steps: int) -> None:
        self._progress.reset(self._task, total=steps, description=description)

    def on_stage(self, name: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=name, completed=done, total=total, figures="")

    def on_step(self, result: "StepResult") -> None:
        figures = f"loss {result.loss:.3f}  accuracy {result.accuracy:.1%}"
        self._progress.update(self._task, completed=result.step, figures=figures)

    def on_epoch(self, result: "EpochResult") -> None:
        write_line(
            f"epoch {result.epoch:3d}  loss {result.train_loss:.4f}  accuracy {result.train_accuracy:.2%}  "
            f"validation loss {result.val_loss:.4f}  accuracy {result.val_accuracy:.2%}  {result.seconds:.0f} s"
        )
