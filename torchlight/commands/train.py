"""``torchlight train``."""

import shlex
from pathlib import Path
from typing import Annotated

from torchlight.commands import terminal
from torchlight.commands.options import TRAIN_OPTIONS, Device, Given, Source, run_options


def train(source: Source, given: Annotated[Given, TRAIN_OPTIONS], device: Device = "auto") -> None:
    """Train a network on photos and keep its best epoch.

    The guide's own recipe is --optimizer sgd --momentum 0 --weight-decay 0 --schedule constant --warmup 0, with either
    --loss. Ctrl+C saves and stops.
    """
    from torchlight.model.classifier import choose_device
    from torchlight.training.optimisation.distributed import join
    from torchlight.training.optimisation.malloc_settings import raise_malloc_thresholds
    from torchlight.training.run import train as run
    from torchlight.training.run_setup import Observer

    raise_malloc_thresholds()
    out = given.pop("out", Path("runs") / Path(source).resolve().stem)
    options, chosen = run_options(source, out, given), choose_device(device)
    with join(chosen) as processes:
        terminal.console.quiet = processes.rank > 0
        with terminal.show_progress() as progress, terminal.catch_interrupts() as is_interrupted:
            bar = terminal.TrainingBar(progress)
            observer = Observer(
                on_image=bar.on_image,
                on_data=bar.on_data,
                on_step=bar.on_step,
                on_epoch=bar.on_epoch,
                should_stop=is_interrupted,
            )
            result = run(options, processes.own_device(chosen), terminal.command_line(), observer, processes)
    if result is None:  # the first process writes it
        return
    note = "" if result.split == "test" else " (there is no test split: this one also chose the epoch)"
    accuracy = f"{result.metrics.accuracy:.2%} of {result.metrics.images} {result.split} images right{note}"
    terminal.write_line(f"best epoch {result.best_epoch}: {accuracy}", style="bold")
    terminal.write_line(f"{result.flops:.3g} floating-point operations in {result.seconds:.0f} s")
    terminal.write_line(f"now: torchlight serve --checkpoint {shlex.quote(str(result.checkpoint))}")
