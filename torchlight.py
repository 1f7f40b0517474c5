"""The command: ``torchlight train | evaluate | predict | serve``. The only module that knows all packages."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from model import checkpoint, images
from model.classifier import Classifier, Prediction, choose_device
from model.errors import ImageError, TorchlightError

if TYPE_CHECKING:
    from training.config import TrainingConfig
    from training.data import DataSet
    from training.loop import EpochResult, StepResult

cli = typer.Typer(
    help="An image classifier you can see inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Source = Annotated[
    str, typer.Argument(help="Folder of class folders, or cifar10, cifar100, mnist, fashion_mnist.", show_default=False)
]
CheckpointPath = Annotated[Path, typer.Argument(help="A .safetensors file that `torchlight train` wrote.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable files out.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def main() -> None:
    """Run the command; what is wrong with the user's input ends it with one line and exit code 1."""
    try:
        cli()
    except TorchlightError as error:
        print(f"torchlight: {error}", file=sys.stderr)
        sys.exit(1)


@cli.command()
def train(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, the figures and metrics.jsonl.")],
    architecture: Annotated[
        str, typer.Option(help="torchlight, guide, lenet5, or a torchvision model such as resnet18.")
    ] = "torchlight",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from torchvision's published weights.")
    ] = False,
    image_size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Side of the input; default: the network's own.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images; default: 10 to 60, by their number.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=2, help="Images a step; default: 8 to 512, by their number.")
    ] = None,
    learning_rate: Annotated[float, typer.Option(min=0, help="Peak of gradient descent, for a batch of 512.")] = 0.1,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Held out to choose the epoch, if there is no val folder.")
    ] = 0.1,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Held out for the final figure, if there is no test folder.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split, the initial weights and the augmentation.")] = 0,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Train a network on a folder of photos and keep its best epoch."""
    from training.run import Observer, RunOptions  # matplotlib and the data sets are not needed to serve
    from training.run import train as run

    options = RunOptions(
        source, out, architecture, pretrained, image_size, epochs, batch_size, learning_rate,
        val_fraction, test_fraction, seed, skip_unreadable,
    )  # fmt: skip
    with _progress() as progress:
        bar = _TrainingBar(progress)
        observer = Observer(bar.on_image, bar.on_data, bar.on_step, bar.on_epoch)
        result = run(options, choose_device(device), shlex.join(["torchlight", *sys.argv[1:]]), observer)
    note = "" if result.split == "test" else " (there is no test split: this one also chose the epoch)"
    console.print(
        f"best epoch {result.best_epoch}: [bold]{result.metrics.accuracy:.2%}[/] of "
        f"{result.metrics.images} {result.split} images right{note}"
    )
    console.print(f"now: torchlight serve --checkpoint {shlex.quote(str(result.checkpoint))}", soft_wrap=True)


@cli.command()
def evaluate(
    checkpoint_path: CheckpointPath,
    source: Source,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Measure a checkpoint on images; on its own training data, only on those held out then."""
    from training import evaluation
    from training.run import held_out

    loaded = checkpoint.load(checkpoint_path)
    with _progress() as progress:
        task = progress.add_task("reading images", total=None, figures="")
        split, examples = held_out(
            loaded,
            source,
            skip_unreadable=skip_unreadable,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
        )
        classifier = Classifier(loaded, choose_device(device))
        logits = evaluation.infer(classifier.network, examples.images, classifier.spec)
    metrics = evaluation.evaluate(logits, examples.labels, classifier.class_names)
    table = Table("class", "images", "precision", "recall", "", box=None)
    for one in metrics.per_class:
        table.add_row(one.label, str(one.images), f"{one.precision:.1%}", f"{one.recall:.1%}", _bar(one.recall))
    console.print(table)
    console.print(
        f"accuracy {metrics.accuracy:.2%} of {metrics.images} images, loss {metrics.loss:.4f}; split: {split}"
    )


@cli.command()
def predict(
    checkpoint_path: CheckpointPath,
    files: Annotated[list[Path], typer.Argument(help="Image files.")],
    top_k: Annotated[int, typer.Option(min=1, help="Labels to show for each file.")] = 3,
    device: Device = "auto",
) -> None:
    """Classify image files."""
    classifier = Classifier(checkpoint.load(checkpoint_path), choose_device(device))
    failures = 0
    for path in files:
        console.print(f"[bold]{path}[/]", highlight=False)
        try:
            tensor, _ = images.prepare(path.read_bytes(), classifier.spec.size)
        except (ImageError, OSError) as error:
            failures += 1
            console.print(f"  [red]{error}[/]", highlight=False)
            continue
        _print_predictions(classifier.top_k(classifier.probabilities(tensor[None])[0], top_k))
    raise typer.Exit(1 if failures else 0)


@cli.command()
def serve(
    checkpoint_path: Annotated[
        Path | None, typer.Option("--checkpoint", help="Default: TORCHLIGHT_CHECKPOINT, else the one that ships.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default: TORCHLIGHT_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: TORCHLIGHT_PORT, else 8000.")] = None,
) -> None:
    """Answer over HTTP. Other settings come from TORCHLIGHT_* variables; the README lists them."""
    from app.main import run
    from app.settings import read_settings

    given = {"checkpoint": checkpoint_path, "host": host, "port": port}
    run(read_settings(**{name: value for name, value in given.items() if value is not None}))


class _TrainingBar:
    """Draws a run's progress: a bar while images are read, then one for the epochs with a line for each."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading images", total=None, figures="")

    def on_image(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def on_data(self, dataset: "DataSet", config: "TrainingConfig") -> None:
        sizes = ", ".join(f"{len(examples)} {name}" for name, examples in dataset.splits.items())
        self._progress.console.print(f"{len(dataset.class_names)} classes, images: {sizes}", highlight=False)
        for line in dataset.skipped:
            self._progress.console.print(f"skipped {line}", highlight=False, soft_wrap=True)
        steps = len(dataset.splits["train"]) // config.batch_size
        self._progress.reset(self._task, total=config.epochs * steps, description="training")

    def on_step(self, result: "StepResult") -> None:
        figures = f"loss {result.loss:.3f}  accuracy {result.accuracy:.1%}"
        self._progress.update(self._task, completed=result.step, figures=figures)

    def on_epoch(self, result: "EpochResult") -> None:
        self._progress.console.print(
            f"epoch {result.epoch:3d}  loss {result.train_loss:.4f}  accuracy {result.train_accuracy:.2%}  "
            f"validation loss {result.val_loss:.4f}  accuracy {result.val_accuracy:.2%}  {result.seconds:.0f} s",
            highlight=False,
        )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"), console=console,
    )  # fmt: skip


def _print_predictions(predictions: list[Prediction]) -> None:
    width = max(len(one.label) for one in predictions)
    for one in predictions:
        console.print(
            f"  {one.label:{width}} {one.probability:7.2%} {_bar(one.probability)}", highlight=False, markup=False
        )


def _bar(share: float, width: int = 30) -> str:
    return "█" * round(share * width)


if __name__ == "__main__":
    main()
