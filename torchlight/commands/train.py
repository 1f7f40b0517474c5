"""``torchlight train``."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from torchlight.commands import terminal
from torchlight.commands.options import TRAIN_OPTIONS, Device, Given, Source, run_options
from torchlight.training.config import RunOptions

if TYPE_CHECKING:
    import torch

    from torchlight.training.optimisation.distributed import Processes


def train(source: Source, given: Annotated[Given, TRAIN_OPTIONS], device: Device = "auto") -> None:
    """Learn to tell photos apart, and keep the best way to.

    Without options the photos choose: features of a published network with a last layer of their own, fine-tuning, or
    a network that learns from nothing, compared by cross-validation. Options of a training loop, such as --epochs, ask
    for one. The guide's own recipe is --from-scratch --optimizer sgd --momentum 0 --weight-decay 0 --schedule constant
    --warmup 0, with either --loss. Ctrl+C saves and stops.
    """
    began = time.monotonic()  # importing torch is part of the wait
    from torchlight.model.classifier import choose_device
    from torchlight.model.errors import WeightsNotInstalled
    from torchlight.training.data.sources import NAMED
    from torchlight.training.optimisation.distributed import join
    from torchlight.training.optimisation.malloc_settings import raise_malloc_thresholds

    raise_malloc_thresholds()
    out = given.pop("out", Path("runs") / Path(source).resolve().stem)
    options, chosen = run_options(source, out, given), choose_device(device)
    with join(chosen) as processes:
        terminal.console.quiet = processes.rank > 0
        if options.asks_for_loop or options.resume or source in NAMED or processes.number > 1:
            return _train_in_loop(options, processes.own_device(chosen), processes)
        try:
            return _let_photos_choose(options, chosen, began)
        except WeightsNotInstalled as error:
            if options.pretrained:
                raise
            terminal.write_line(f"note: {error}; learning from nothing instead")
            return _train_in_loop(options, chosen, processes)


def _let_photos_choose(options: RunOptions, device: "torch.device", began: float) -> None:
    from torchlight.training.run_setup import Observer
    from torchlight.training.run_transfer import transfer

    with terminal.show_progress() as progress, terminal.catch_interrupts() as is_interrupted:
        bar = terminal.TrainingBar(progress)
        observer = Observer(
            on_image=bar.on_image, on_data=bar.on_data, on_stage=bar.on_stage, should_stop=is_interrupted
        )
        result = transfer(options, device, terminal.command_line(), observer, began)
    for number, sentence in enumerate(result.summary):
        terminal.write_line(sentence, style="bold" if number == 0 else None)
    terminal.write_line(f"{result.seconds:.0f} s; the report: {shlex.quote(str(options.out / 'report.html'))}")
    terminal.write_line(f"now: torchlight serve --checkpoint {shlex.quote(str(result.checkpoint))}")


def _train_in_loop(options: RunOptions, device: "torch.device", processes: "Processes") -> None:
    from torchlight.training.run import train as run
    from torchlight.training.run_setup import Observer

    with terminal.show_progress() as progress, terminal.catch_interrupts() as is_interrupted:
        bar = terminal.TrainingBar(progress)
        observer = Observer(
            on_image=bar.on_image,
            on_data=bar.on_data,
            on_step=bar.on_step,
            on_epoch=bar.on_epoch,
            should_stop=is_interrupted,
        )
        result = run(options, device, terminal.command_line(), observer, processes)
    if result is None:  # the first process writes it
        return
    note = "" if result.split == "test" else " (there is no test split: this one also chose the epoch)"
    accuracy = f"{result.metrics.accuracy:.2%} of {result.metrics.images} {result.split} images right{note}"
    terminal.write_line(f"best epoch {result.best_epoch}: {accuracy}", style="bold")
    terminal.write_line(f"{result.flops:.3g} floating-point operations in {result.seconds:.0f} s")
    terminal.write_line(f"now: torchlight serve --checkpoint {shlex.quote(str(result.checkpoint))}")
