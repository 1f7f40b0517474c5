"""The command, ``torchlight --help`` lists what it does. The only module that knows all packages."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from torchlight.model.errors import TorchlightError
from torchlight.training.config import Loss, Optimizer, Precision, Schedule, TrainingConfig

if TYPE_CHECKING:  # each command imports what it needs: torch takes seconds, and a service's parent has no use for it
    from torchlight.model.classifier import Classifier, Prediction
    from torchlight.training.data.loading import DataSet
    from torchlight.training.optimisation.loop import EpochResult, StepResult

cli = typer.Typer(
    help="An image classifier you can see inside.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of class folders, CSV of path,label, or cifar10, cifar100, mnist, fashion_mnist.",
        show_default=False,
    ),
]
CheckpointPath = Annotated[Path, typer.Argument(help="A .safetensors file that `torchlight train` wrote.")]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable files out.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Architecture = Annotated[str, typer.Option(help="torchlight, guide, lenet5, or a torchvision model such as resnet18.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Start from torchvision's published weights.")]
ImageSize = Annotated[int | None, typer.Option(min=8, max=1024, help="Side of the input; default: the network's own.")]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Images a step; default: 8 to 512, by their number.")]
LossChoice = Annotated[Loss | None, typer.Option(help="Default: cross_entropy.")]
Momentum = Annotated[float | None, typer.Option(min=0, max=0.999, help="Of sgd; default: 0.9.")]
WeightDecay = Annotated[float | None, typer.Option(min=0, help="Of sgd alone; default: 0.0005.")]
LabelSmoothing = Annotated[
    float | None, typer.Option(min=0, max=0.9, help="Share of the target spread over all classes; default: 0.1.")
]
Balance = Annotated[bool, typer.Option("--balance", help="Let rare classes count as much as common ones.")]
PrecisionChoice = Annotated[
    Precision | None, typer.Option(help="Default: bfloat16 where the processor is faster with it.")
]
Seed = Annotated[int, typer.Option(help="Of the split, the initial weights and the augmentation.")]


def main() -> None:
    """Run the command; what is wrong with the user's input or disk ends it with one line and exit code 1."""
    try:
        cli()
    except TorchlightError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(message: str) -> None:
    print(f"torchlight: {message}", file=sys.stderr)
    sys.exit(1)


@cli.command()
def train(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the checkpoint, the report and the figures; default: runs/, named like the source."
        ),
    ] = None,
    architecture: Architecture = "torchlight",
    pretrained: Pretrained = False,
    start_from: Annotated[
        Path | None, typer.Option(help="A checkpoint of the same classes to go on learning from.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in --out.")] = False,
    image_size: ImageSize = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the images; default: 10 to 60, by their number.")
    ] = None,
    batch_size: BatchSize = None,
    loss: LossChoice = None,
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="Default: muon for the default network, else sgd.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Peak of sgd, for a batch of 512; default: 0.1. See find-lr.")
    ] = None,
    muon_learning_rate: Annotated[
        float | None, typer.Option(min=0, help="Peak of muon; default: 0.1. A third of it suits --start-from.")
    ] = None,
    schedule: Annotated[
        Schedule | None, typer.Option(help="Default: linear, up for --warmup and down to 0; constant stays.")
    ] = None,
    warmup: Annotated[float | None, typer.Option(min=0, max=0.9, help="Share of the steps; default: 0.1.")] = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    label_smoothing: LabelSmoothing = None,
    balance: Balance = False,
    precision: PrecisionChoice = None,
    val_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Held out to choose the epoch, if there is no val folder.")
    ] = 0.1,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Held out for the final figure, if there is no test folder.")
    ] = 0.1,
    seed: Seed = 0,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Train a network on photos and keep its best epoch.

    The guide's own recipe is --optimizer sgd --momentum 0 --weight-decay 0 --schedule constant --warmup 0, with either
    --loss. Ctrl+C saves and stops.
    """
    from torchlight.model.classifier import choose_device
    from torchlight.training.optimisation.distributed import join
    from torchlight.training.optimisation.malloc_settings import keep_freed_memory
    from torchlight.training.run import train as run
    from torchlight.training.run_setup import Observer, RunOptions

    keep_freed_memory()
    given = {
        "epochs": epochs, "batch_size": batch_size, "loss": loss, "optimizer": optimizer,
        "learning_rate": learning_rate, "muon_learning_rate": muon_learning_rate, "schedule": schedule,
        "warmup": warmup, "momentum": momentum, "weight_decay": weight_decay, "label_smoothing": label_smoothing,
        "precision": precision,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    out = out or Path("runs") / Path(source).resolve().stem
    options = RunOptions(
        source=source,
        out=out,
        architecture=architecture,
        pretrained=pretrained,
        image_size=image_size,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        skip_unreadable=skip_unreadable,
        resume=resume,
        start_from=start_from,
        settings=settings | {"balance": balance, "seed": seed},
    )
    chosen = choose_device(device)
    with join(chosen) as processes:
        console.quiet = processes.rank > 0
        with _progress() as progress, _interrupts() as is_interrupted:
            bar = _TrainingBar(progress)
            observer = Observer(
                on_image=bar.on_image,
                on_data=bar.on_data,
                on_step=bar.on_step,
                on_epoch=bar.on_epoch,
                should_stop=is_interrupted,
            )
            result = run(options, processes.own(chosen), _command(), observer, processes)
    if result is None:  # the first process tells
        return
    note = "" if result.split == "test" else " (there is no test split: this one also chose the epoch)"
    console.print(
        f"best epoch {result.best_epoch}: [bold]{result.metrics.accuracy:.2%}[/] of "
        f"{result.metrics.images} {result.split} images right{note}"
    )
    console.print(f"{result.flops:.3g} floating-point operations in {result.seconds:.0f} s", highlight=False)
    console.print(f"now: torchlight serve --checkpoint {shlex.quote(str(result.checkpoint))}", soft_wrap=True)


@cli.command()
def find_lr(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for learning-rate.png.")] = Path("."),
    architecture: Architecture = "torchlight",
    pretrained: Pretrained = False,
    image_size: ImageSize = None,
    batch_size: BatchSize = None,
    loss: LossChoice = None,
    momentum: Momentum = None,
    weight_decay: WeightDecay = None,
    label_smoothing: LabelSmoothing = None,
    balance: Balance = False,
    precision: PrecisionChoice = None,
    seed: Seed = 0,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Find a learning rate for sgd: too low, right, too high, in a picture and as an option for train.

    Takes about 100 steps at rising rates. Muon, the default network's optimizer, needs no such test.
    """
    from torchlight.model.classifier import choose_device
    from torchlight.training import lr_finder
    from torchlight.training.report.learning_curves import to_png
    from torchlight.training.run_setup import Observer, RunOptions, set_up

    given = {
        "batch_size": batch_size, "loss": loss, "momentum": momentum, "weight_decay": weight_decay,
        "label_smoothing": label_smoothing, "precision": precision,
    }  # fmt: skip
    settings = {name: value for name, value in given.items() if value is not None}
    options = RunOptions(
        source=source,
        out=out,
        architecture=architecture,
        pretrained=pretrained,
        image_size=image_size,
        skip_unreadable=skip_unreadable,
        settings=settings | {"balance": balance, "seed": seed},
    )
    with _progress() as progress:
        bar = _TrainingBar(progress)
        setup = set_up(options, choose_device(device), Observer(on_image=bar.on_image, on_data=bar.on_data))
        bar.begin("raising the rate", lr_finder.STEPS)
        rates, losses = lr_finder.measure(setup, bar.on_step)
    advice = lr_finder.advise(rates, losses)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "learning-rate.png"
    path.write_bytes(to_png(lr_finder.draw(rates, losses, advice)))
    console.print(f"too low below {advice.low:.2g}, too high above {advice.high:.2g}", highlight=False)
    optimizer = "" if setup.config.optimizer == "sgd" else "--optimizer sgd "
    console.print(f"try: {optimizer}--learning-rate {advice.suggestion:.2g}", highlight=False)
    console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


@cli.command()
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
    with _progress() as progress:
        task = progress.add_task("reading images", total=None, figures="")
        found = load_held_out(
            loaded,
            source,
            skip_unreadable=skip_unreadable,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
        )
        evaluation = evaluate_checkpoint(loaded, found, choose_device(device))
    metrics = evaluation.metrics
    table = Table("class", "images", "precision", "recall", "", box=None)
    for one in metrics.per_class:
        table.add_row(escape(one.label), str(one.images), f"{one.precision:.1%}", f"{one.recall:.1%}", _bar(one.recall))
    console.print(table)
    console.print(
        f"accuracy {metrics.accuracy:.2%} of {metrics.images} images, loss {metrics.loss:.4f}, "
        f"calibration error {metrics.calibration_error:.2%}; split: {found}",
        soft_wrap=True,
    )
    if out is not None:
        write_report(out, make_report(evaluation, source=Path(source).name, command=_command()))
        console.print(f"now: open {shlex.quote(str(out / 'report.html'))}", soft_wrap=True)


@cli.command()
def predict(
    checkpoint_path: CheckpointPath,
    paths: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    top_k: Annotated[int, typer.Option(min=1, help="Labels for each image.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="A .jsonl file for the answers; if it exists, what is in it is not asked again.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Classify image files, in the terminal or into a file. Exit code 1 if one of them cannot be read."""
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import Classifier, choose_device
    from torchlight.model.engines.folder_predictions import classify_files, find_image_files

    classifier = Classifier(load_checkpoint(checkpoint_path), choose_device(device))
    found = find_image_files(paths)
    if out is not None:
        raise typer.Exit(1 if _predict_into(out, classifier, found, top_k) else 0)
    failures = 0
    for outcome in classify_files(classifier, classifier.probabilities, found, top_k):
        console.print(f"[bold]{escape(str(outcome.path))}[/]", highlight=False, soft_wrap=True)
        if outcome.error is None:
            _print_predictions(outcome.predictions)
        else:
            failures += 1
            console.print(f"  [red]{escape(outcome.error)}[/]", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if failures else 0)


def _predict_into(out: Path, classifier: "Classifier", paths: list[Path], top_k: int) -> int:
    """Write the answers that are not in ``out`` yet, and return how many of the images cannot be read."""
    from torchlight.model.engines import folder_predictions
    from torchlight.model.engines.engine import choose_engine
    from torchlight.model.engines.folder_predictions import AnswerFile, classify_files

    run = choose_engine(classifier, "auto").run  # for a few files it would take longer to start than they do
    failures: list[folder_predictions.Outcome] = []
    with closing(AnswerFile(out, classifier.digest)) as answers, _progress() as progress:
        left = [path for path in paths if not answers.has(path)]
        task = progress.add_task("classifying", total=len(paths), completed=len(paths) - len(left), figures="")
        for outcome in answers.add(classify_files(classifier, run, left, top_k)):
            progress.advance(task)
            failures += [outcome] if outcome.error is not None else []
    told = f"{len(left)} of {len(paths)} images classified now"
    console.print(
        f"{told}, {len(failures)} of them not readable; answers: {escape(str(out))}", highlight=False, soft_wrap=True
    )
    for outcome in failures[:10]:
        console.print(
            f"  [red]{escape(str(outcome.path))}: {escape(str(outcome.error))}[/]", highlight=False, soft_wrap=True
        )
    return len(failures)


@cli.command()
def index(
    checkpoint_path: CheckpointPath,
    source: Source,
    split: Annotated[str, typer.Option(help="Which images: train, val or test.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Most images; of more, a random part.")] = 50_000,
    skip_unreadable: SkipUnreadable = False,
    device: Device = "auto",
) -> None:
    """Index images: what each unit fires for, and which images the network finds alike."""
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import Classifier, choose_device
    from torchlight.model.views import image_index as files
    from torchlight.training import index_images

    classifier = Classifier(load_checkpoint(checkpoint_path), choose_device(device))
    with _progress() as progress:
        reading = progress.add_task("reading images", total=None, figures="")
        indexing_task = progress.add_task("indexing", total=None, figures="", visible=False)
        made = index_images.build_index(
            classifier,
            source,
            split,
            limit=limit,
            skip_unreadable=skip_unreadable,
            on_image=lambda done, total: progress.update(reading, completed=done, total=total),
            on_batch=lambda done, total: progress.update(indexing_task, completed=done, total=total, visible=True),
        )
    path = files.path_beside(checkpoint_path)
    files.save(path, made)
    dead = {layer: made.dead_units(layer) for layer in made.units}
    units, silent = sum(len(one.dead) for one in made.units.values()), sum(map(len, dead.values()))
    images = f"{len(made)} of {made.source.split_images} {split} images"
    console.print(f"{images}, {units} units of {len(dead)} layers; dead on all images: {silent}", highlight=False)
    for layer, channels in dead.items():
        if channels:
            console.print(f"  {layer}: {', '.join(map(str, channels))}", highlight=False, soft_wrap=True)
    console.print(f"wrote {path}; a service that runs must be restarted to see it", highlight=False, soft_wrap=True)


@cli.command()
def selftest(checkpoint_path: CheckpointPath) -> None:
    """Check on this very checkpoint that what the views say is so, and write the result beside it."""
    import torch

    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.checks.self_test import run_self_test, save_self_test, self_test_path
    from torchlight.model.classifier import Classifier, choose_device
    from torchlight.model.errors import IndexMismatch, IndexNotFound
    from torchlight.model.views import image_index as indexes

    torch.set_num_threads(1)  # single images: sharing them among busy cores takes many times as long
    classifier = Classifier(load_checkpoint(checkpoint_path), choose_device("cpu"))
    try:
        found = indexes.load(indexes.path_beside(checkpoint_path), classifier.digest)
    except (IndexNotFound, IndexMismatch):
        found = None
    with _progress() as progress:
        task = progress.add_task("checking", total=None, figures="")
        result = run_self_test(
            classifier, found, lambda done, total: progress.update(task, completed=done, total=total)
        )
    path = self_test_path(checkpoint_path)
    save_self_test(path, result)
    table = Table("", "law", "", "worst", "bound", "of what, or why not", box=None)
    colours = {"pass": "green", "fail": "bold red", "not applicable": "dim"}
    for one in result.checks:
        measured, bound = ("" if figure is None else f"{figure:.2g}" for figure in (one.measured, one.bound))
        outcome = f"[{colours[one.outcome]}]{one.outcome}[/]"
        table.add_row(one.id, escape(one.title), outcome, measured, bound, escape(one.note))
    console.print(table)
    console.print(f"{len(result.failed)} failed, {result.seconds} s; wrote {path}", highlight=False, soft_wrap=True)
    raise typer.Exit(1 if result.failed else 0)


@cli.command()
def quantise(checkpoint_path: CheckpointPath, source: Source, skip_unreadable: SkipUnreadable = False) -> None:
    """Prepare a checkpoint to be served in 8 bits, and measure what that costs; the checkpoint stays as it is.

    The images are those that it was trained on, or others with a train and a test folder. Serve it with
    TORCHLIGHT_PRECISION=int8.
    """
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import Classifier, choose_device
    from torchlight.model.engines.int8_ranges import quantisation_path, save_quantisation
    from torchlight.training import int8_calibration

    classifier = Classifier(load_checkpoint(checkpoint_path), choose_device("cpu"))
    with _progress() as progress:
        task = progress.add_task("reading images", total=None, figures="")
        made = int8_calibration.quantise(
            classifier,
            source,
            skip_unreadable=skip_unreadable,
            on_image=lambda done, total: progress.update(task, completed=done, total=total),
        )
    path, accuracy = quantisation_path(checkpoint_path), made.accuracy
    save_quantisation(path, made)
    lost = 100 * (accuracy.float32 - accuracy.int8)
    console.print(
        f"accuracy in float32 {accuracy.float32:.2%}, in int8 {accuracy.int8:.2%} ({lost:+.2f} points lost) of "
        f"{accuracy.images} images; split: {escape(accuracy.split)}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"wrote {path}; serve it with TORCHLIGHT_PRECISION=int8", highlight=False, soft_wrap=True)


@cli.command()
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
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import Classifier, choose_device
    from torchlight.model.engines.export_file import export_network

    classifier = Classifier(load_checkpoint(checkpoint_path), choose_device("cpu"))
    difference = export_network(classifier, out, dynamic_batch=dynamic_batch, overwrite=force)
    batch = "N" if dynamic_batch else "1"
    size, classes = classifier.spec.size, len(classifier.class_names)
    console.print(
        f"images ({batch}, 3, {size}, {size}) uint8 RGB -> probabilities ({batch}, {classes}) float32", highlight=False
    )
    console.print(f"largest difference of a probability to this checkpoint's: {difference:.1e}", highlight=False)
    console.print(f"written: {out}", highlight=False, markup=False, soft_wrap=True)


@cli.command()
def serve(
    checkpoint_path: Annotated[
        Path | None, typer.Option("--checkpoint", help="Default: TORCHLIGHT_CHECKPOINT, else the one that ships.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default: TORCHLIGHT_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: TORCHLIGHT_PORT, else 8000.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; default: TORCHLIGHT_WORKERS, else 1.")] = None,
) -> None:
    """Answer over HTTP. Other settings come from TORCHLIGHT_* variables; the README lists them."""
    from torchlight.app.server.supervisor import run
    from torchlight.app.settings import read_settings

    given = {"checkpoint": checkpoint_path, "host": host, "port": port, "workers": workers}
    run(read_settings(**{name: value for name, value in given.items() if value is not None}))


def _command() -> str:
    """Return what the user typed."""
    return shlex.join(["torchlight", *sys.argv[1:]])


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
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


class _TrainingBar:
    """Draws a run's progress: a bar while images are read, then one for the epochs with a line for each."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("reading images", total=None, figures="")

    def on_image(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def on_data(self, dataset: "DataSet", config: TrainingConfig) -> None:
        sizes = ", ".join(f"{len(examples)} {name}" for name, examples in dataset.splits.items())
        self._progress.console.print(f"{len(dataset.class_names)} classes, images: {sizes}", highlight=False)
        for line in dataset.skipped:
            self._progress.console.print(f"skipped {line}", highlight=False, markup=False, soft_wrap=True)
        for line in dataset.warnings:
            self._progress.console.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True)
        steps = len(dataset.splits["train"]) // config.batch_size
        self.begin("training", config.epochs * steps)

    def begin(self, description: str, steps: int) -> None:
        self._progress.reset(self._task, total=steps, description=description)

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


def _print_predictions(predictions: "Sequence[Prediction]") -> None:
    width = max(len(one.label) for one in predictions)
    for one in predictions:
        console.print(
            f"  {one.label:{width}} {one.probability:7.2%} {_bar(one.probability)}", highlight=False, markup=False
        )


def _bar(share: float, width: int = 30) -> str:
    return "█" * round(share * width)


if __name__ == "__main__":
    main()
