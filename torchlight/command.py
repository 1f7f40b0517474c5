"""The command: ``torchlight --help`` lists what it does. Each command is a module of :mod:`torchlight.commands`."""

import errno
import sys
from pathlib import Path

import typer

from torchlight.commands.calibrate import calibrate
from torchlight.commands.check import check
from torchlight.commands.evaluate import evaluate
from torchlight.commands.export import export
from torchlight.commands.find_lr import find_lr
from torchlight.commands.index import index
from torchlight.commands.options import spread_options
from torchlight.commands.predict import predict
from torchlight.commands.quantise import quantise
from torchlight.commands.selftest import selftest
from torchlight.commands.serve import serve
from torchlight.commands.train import train
from torchlight.model.errors import TorchlightError

COMMANDS = (
    check,
    train,
    find_lr,
    evaluate,
    predict,
    index,
    selftest,
    quantise,
    calibrate,
    export,
    serve,
)  # in the order of --help
PACKAGE = Path(__file__).parent
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)


def make_cli() -> typer.Typer:
    """Return the command line with all commands."""
    cli = typer.Typer(
        help="An image classifier you can see inside.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in COMMANDS:
        cli.command()(spread_options(command))
    return cli


def main() -> None:
    """Run the command; what is wrong with the user's input or disk ends it with one line and exit code 1."""
    try:
        make_cli()()
    except TorchlightError as error:
        _fail(str(error))
    except OSError as error:
        _fail(describe_os_error(error))


def describe_os_error(error: OSError) -> str:
    """Return which file failed and why, in one line, with a way out where it is certain."""
    if error.filename is None:
        return str(error)
    reason = f"{error.filename}: {error.strerror}"
    if error.errno in DISK_IS_FULL:
        return f"{reason}; make room and repeat the command"
    if isinstance(error, FileNotFoundError) and PACKAGE in Path(str(error.filename)).parents:
        return f"{reason}; it is a part of Torchlight: install Torchlight again"
    return reason


def _fail(message: str) -> None:
    print(f"torchlight: {message}", file=sys.stderr)
    sys.exit(1)
