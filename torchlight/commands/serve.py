"""``torchlight serve``."""

from pathlib import Path
from typing import Annotated

import typer

from torchlight.commands.options import find_named


def serve(
    checkpoint: Annotated[
        Path | None, typer.Option(help="A file, or imagenet; default: TORCHLIGHT_CHECKPOINT, else the one that ships.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Default: TORCHLIGHT_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: TORCHLIGHT_PORT, else 8000.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; default: TORCHLIGHT_WORKERS, else 1.")] = None,
) -> None:
    """Answer over HTTP. Other settings come from TORCHLIGHT_* variables; the documentation lists them."""
    from torchlight.app.server.supervisor import run
    from torchlight.app.settings import read_settings

    given = {"checkpoint": checkpoint, "host": host, "port": port, "workers": workers}
    settings = read_settings(**{name: value for name, value in given.items() if value is not None})
    find_named(settings.checkpoint)  # made here if need be, once for all workers
    run(settings)
