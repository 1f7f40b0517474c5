"""``torchlight calibrate``."""

from pathlib import Path
from typing import Annotated

import typer

from torchlight.commands.options import CheckpointPath, Corrections, SkipUnreadable, Source
from torchlight.commands.terminal import add_bar, show_progress, write_line


def calibrate(
    checkpoint_path: CheckpointPath,
    source: Source,
    out: Annotated[Path, typer.Option(help="The new checkpoint; the old one stays.")],
    skip_unreadable: SkipUnreadable = False,
    corrections: Corrections = None,
) -> None:
    """Give a checkpoint of an older program answer sets, and what tells the unknown; its weights stay as they are.

    The images are those that it was trained on: what was held out then is what it knows.
    """
    from torchlight.model.checkpoint import load_checkpoint
    from torchlight.training.run_calibrate import calibrate_checkpoint

    with show_progress() as progress:
        novelty = calibrate_checkpoint(
            load_checkpoint(checkpoint_path),
            source,
            out,
            skip_unreadable=skip_unreadable,
            corrections=corrections,
            on_image=add_bar(progress, "reading images"),
        )
    known = f"{novelty.images} known images ({novelty.measured_on})"
    tells = "tells unknown images" if novelty.can_tell else "cannot tell unknown images yet, which takes 19 known ones"
    write_line(f"wrote {out}: it has answer sets and {tells}, by {known}")
