"""``torchlight find-lr``."""

from pathlib import Path
from typing import Annotated

import typer

from torchlight.commands.options import TRAIN_OPTIONS, Device, Given, Source, run_options
from torchlight.commands.terminal import TrainingBar, show_progress, write_line

NAMES = (
    *("architecture", "pretrained", "image_size", "batch_size", "loss", "momentum", "weight_decay"),
    *("label_smoothing", "balance", "precision", "seed", "skip_unreadable"),
)


def find_lr(
    source: Source,
    given: Annotated[Given, {name: TRAIN_OPTIONS[name] for name in NAMES}],
    out: Annotated[Path, typer.Option(help="Folder for learning-rate.png.")] = Path("."),
    device: Device = "auto",
) -> None:
    """Find a learning rate for sgd: too low, right, too high, in a picture and as an option for train.

    Takes about 100 steps at rising rates. Muon, the default network's optimizer, needs no such test.
    """
    from torchlight.model.classifier import choose_device
    from torchlight.model.files.atomic import write_bytes
    from torchlight.training import lr_finder
    from torchlight.training.report.charts import to_png
    from torchlight.training.run_setup import Observer, set_up

    options = run_options(source, out, given)
    with show_progress() as progress:
        bar = TrainingBar(progress)
        setup = set_up(options, choose_device(device), Observer(on_image=bar.on_image, on_data=bar.on_data))
        bar.begin("raising the rate", lr_finder.STEPS)
        rates, losses = lr_finder.measure(setup, bar.on_step)
    advice = lr_finder.advise(rates, losses)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "learning-rate.png"
    write_bytes(path, to_png(lr_finder.draw(rates, losses, advice)))
    write_line(f"too low below {advice.low:.2g}, too high above {advice.high:.2g}")
    optimizer = "" if setup.config.optimizer == "sgd" else "--optimizer sgd "
    write_line(f"try: {optimizer}--learning-rate {advice.suggestion:.2g}")
    write_line(f"wrote {path}")
