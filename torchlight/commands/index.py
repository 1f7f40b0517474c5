"""``torchlight index``."""

from typing import Annotated

import typer

from torchlight.commands.options import CheckpointPath, Corrections, Device, SkipUnreadable, Source, open_classifier
from torchlight.commands.terminal import add_bar, show_progress, write_line


def index(
    checkpoint_path: CheckpointPath,
    source: Source,
    split: Annotated[str, typer.Option(help="Which images: train, val or test.")] = "train",
    limit: Annotated[int, typer.Option(min=1, help="Most images; of more, a random part.")] = 50_000,
    skip_unreadable: SkipUnreadable = False,
    corrections: Corrections = None,
    device: Device = "auto",
) -> None:
    """Index images: what each channel responds to most, and which images the network finds alike."""
    from torchlight.model.views import image_index
    from torchlight.training import index_images

    classifier = open_classifier(checkpoint_path, device)
    with show_progress() as progress:
        made = index_images.build_index(
            classifier,
            source,
            split,
            limit=limit,
            skip_unreadable=skip_unreadable,
            corrections=corrections,
            on_image=add_bar(progress, "reading images"),
            on_batch=add_bar(progress, "indexing", visible=False),
        )
    path = image_index.index_path(checkpoint_path)
    image_index.save_index(path, made)
    dead = {layer: made.dead_channels(layer) for layer in made.layers}
    channel_count, silent = sum(len(one.dead) for one in made.layers.values()), sum(map(len, dead.values()))
    images = f"{len(made)} of {made.source.split_images} {split} images"
    write_line(f"{images}, {channel_count} channels of {len(dead)} layers; dead on all images: {silent}")
    for layer, channels in dead.items():
        if channels:
            write_line(f"  {layer}: {', '.join(map(str, channels))}")
    write_line(f"wrote {path}; a service that runs must be restarted to see it")
