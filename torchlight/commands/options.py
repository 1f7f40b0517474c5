"""Arguments and options that commands share. Types and defaults are those of the configuration that they fill."""

import functools
import inspect
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from torchlight.training.config import FEW_PHOTOS, RunOptions, TrainingConfig, default_batch_size, default_epochs

if TYPE_CHECKING:  # each command imports what it needs: torch takes seconds, and the help needs none of it
    from torchlight.model.classifier import Classifier

Given = dict[str, Any]  # values of those options of a table that were given; the others follow from network and data
MAX_BUDGET_S = 24 * 3600
MANY = 10**9  # images: enough for the other end of a default that follows from their number

Source = Annotated[
    str,
    typer.Argument(
        help="Folder of class folders, CSV of path,label, or cifar10, cifar100, mnist, fashion_mnist.",
        show_default=False,
    ),
]


def find_named(checkpoint_path: Path | None) -> Path | None:
    """Return the file of a checkpoint that may be given by its name; say so on standard error if it has to be made."""
    from torchlight.model.named_checkpoints import find_checkpoint

    def say(sentence: str) -> None:
        typer.echo(sentence, err=True)

    return None if checkpoint_path is None else find_checkpoint(checkpoint_path, say)


CheckpointPath = Annotated[
    Path, typer.Argument(help="A .safetensors file that `torchlight train` wrote, or imagenet.", callback=find_named)
]
SkipUnreadable = Annotated[bool, typer.Option("--skip-unreadable", help="Leave unreadable files out.")]
CORRECTIONS_HELP = "A CSV file of decisions about single photos, as `torchlight check` writes it. No file is changed."
Corrections = Annotated[Path | None, typer.Option(help=CORRECTIONS_HELP)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``10s``, ``2m``, ``1h`` or ``90``."""
    number, unit = text.strip().rstrip("smh"), text.strip()[-1:]
    try:
        seconds = float(number) * {"m": 60, "h": 3600}.get(unit, 1)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no duration; write 10s, 2m or 1h") from error
    if not 0 <= seconds <= MAX_BUDGET_S:
        raise typer.BadParameter(f"{text!r} is not between 0 and {MAX_BUDGET_S // 3600} hours")
    return seconds


# Fields of RunOptions and TrainingConfig, in the order of --help. Help that names no default gets the field's own.
TRAIN_OPTIONS: dict[str, Any] = {
    "out": typer.Option(
        help="Folder for the checkpoint, the report and the figures; default: runs/, named like the source."
    ),
    "budget_s": typer.Option(
        "--budget",
        parser=parse_duration,
        metavar="DURATION",
        help=f"How long to try ways to learn, such as 10s, 2m or 20m; default: 10s up to {FEW_PHOTOS} photos, else 2m.",
    ),
    "architecture": typer.Option(
        help="Train this network: torchlight, guide, lenet5, efficientnet_lite0, 1, 2, or a torchvision model such as "
        "resnet18; default: the photos choose."
    ),
    "pretrained": typer.Option("--pretrained", help="Start from published weights."),
    "from_scratch": typer.Option(
        "--from-scratch", help="Learn from nothing, with torchlight unless --architecture is given."
    ),
    "start_from": typer.Option(help="A checkpoint of the same classes to continue training from.", callback=find_named),
    "resume": typer.Option("--resume", help="Resume the run that is in --out."),
    "image_size": typer.Option(min=8, max=1024, help="Side of the input; default: the network's own."),
    "epochs": typer.Option(
        min=1, help=f"Passes over the images; default: {default_epochs(MANY)} to {default_epochs(1)}, by their number."
    ),
    "batch_size": typer.Option(
        min=2, help=f"Images a step; default: {default_batch_size(1)} to {default_batch_size(MANY)}, by their number."
    ),
    "loss": typer.Option(help="Loss function."),
    "optimizer": typer.Option(help="Default: muon for the default network, else sgd."),
    "learning_rate": typer.Option(min=0, help="Peak of sgd, for a batch of 512; see find-lr."),
    "muon_learning_rate": typer.Option(min=0, help="Peak of muon; a third of the default suits --start-from."),
    "schedule": typer.Option(help="linear goes up for --warmup and down to 0; constant stays."),
    "warmup": typer.Option(min=0, max=0.9, help="Share of the steps."),
    "momentum": typer.Option(min=0, max=0.999, help="Of sgd."),
    "weight_decay": typer.Option(min=0, help="Of sgd alone."),
    "label_smoothing": typer.Option(min=0, max=0.9, help="Share of the target spread over all classes."),
    "balance": typer.Option("--balance", help="Let rare classes count as much as common ones."),
    "precision": typer.Option(help="Default: bfloat16 where the processor is faster with it."),
    "val_fraction": typer.Option(min=0, max=0.9, help="Held out to choose the epoch, if there is no val folder."),
    "test_fraction": typer.Option(min=0, max=0.9, help="Held out for the final figure, if there is no test folder."),
    "seed": typer.Option(help="Of the split, the initial weights and the augmentation."),
    "skip_unreadable": typer.Option("--skip-unreadable", help="Leave unreadable files out."),
    "corrections": typer.Option(help=CORRECTIONS_HELP),
    "keep_mistakes": typer.Option(
        "--keep-mistakes",
        help="Keep held-out photos that were answered wrongly beside the checkpoint: all who use a service with it "
        "can look at them.",
    ),
}


def run_options(source: str, out: Path, given: Given) -> RunOptions:
    """Return what a run is asked for, with the options of ``TRAIN_OPTIONS`` that were given."""
    own = {name: value for name, value in given.items() if name in RunOptions.__annotations__}
    settings = {name: value for name, value in given.items() if name not in own}
    return RunOptions(source=source, out=out, settings=settings, **own)


def spread_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer reads it: a parameter that is annotated with a table becomes the options in it."""
    parameters, tables = [], {}
    for parameter in inspect.signature(command).parameters.values():
        table = getattr(parameter.annotation, "__metadata__", (None,))[0]
        if isinstance(table, dict):
            tables[parameter.name] = table
            parameters += [_parameter(name, option) for name, option in table.items()]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for name, table in tables.items():
            found = {option: values.pop(option) for option in table}
            values[name] = {option: value for option, value in found.items() if value is not None}
        command(**values)

    run.__dict__["__signature__"] = inspect.Signature(parameters)
    return run


def _parameter(name: str, option: Any) -> inspect.Parameter:
    """Return an option with the type of its field, None if it is not given, and the field's default in its help."""
    config = RunOptions if name in RunOptions.__annotations__ else TrainingConfig
    option, default = copy(option), getattr(config, name, None)
    if default is not None and default is not False and "efault: " not in option.help:
        option.help = f"{option.help} Default: {default}."
    kind = get_type_hints(config)[name] | None
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def open_classifier(checkpoint_path: Path, device: str = "cpu") -> "Classifier":
    """Return the network of a checkpoint with its labels, on a device."""
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.model.classifier import Classifier, choose_device

    return Classifier(load_checkpoint(checkpoint_path), choose_device(device))
