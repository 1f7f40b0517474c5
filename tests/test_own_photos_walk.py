"""Every command of docs/own_photos.md runs, in order, in an empty folder, and says what the page says."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.server_process import PATIENCE_S

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_photos.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith((".venv/bin/", "curl "))]
SERVED = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a checkout is after `make serve`: with the commands in ``.venv``."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """Nothing is cached, and lines are as long as they are."""
    return os.environ | {"HOME": str(folder / "home"), "PYTHONPATH": str(ROOT), "COLUMNS": "500"}


def run(command: str, folder: Path) -> str:
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def serving(command: str, folder: Path) -> Iterator[str]:
    """Run the command that serves, on a free port; yields its address."""
    started = [*shlex.split(command), "--port", "0"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(started, cwd=folder, env=environment(folder), **pipes) as process:
        greeting = process.stderr.readline()
        yield re.search(r"http://[^/\s]+", greeting)[0]
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def without_numbers(text: str) -> str:
    return re.sub(r"[\d.]+", "0", text)


@pytest.mark.slow
def test_every_command_of_the_walk_runs_and_training_says_what_the_page_says(folder: Path) -> None:
    serve = COMMANDS.index(".venv/bin/torchlight serve --checkpoint runs/hands/checkpoint.safetensors")
    said = {command: run(command, folder) for command in COMMANDS[:serve]}
    with serving(COMMANDS[serve], folder) as address:
        while_served = [command for command in COMMANDS[serve + 1 :] if SERVED in command]
        answers = [run(command.replace(SERVED, address), folder) for command in while_served]
    rest = [run(command, folder) for command in COMMANDS[serve + 1 :] if command not in while_served]

    (told,) = [block for _, block in BLOCKS if block.startswith("The network is right")]
    (training,) = [text for command, text in said.items() if "torchlight train" in command]
    assert without_numbers(told) in without_numbers(training)
    assert ['"label":"paper"' in answer for answer in answers] == [True]
    assert len(rest) == 1
    (example,) = [block for language, block in BLOCKS if language == "python"]
    assert "label='rock'" in run(shlex.join([".venv/bin/python", "-c", example]), folder)


def test_pictures_of_the_walk_are_told_in_words() -> None:
    told = re.findall(r"!\[(.*?)\]\((pictures/\S+)\)", PAGE)
    assert len(told) == 4
    assert [words for words, _ in told if len(words.split()) < 6] == []


def test_the_example_in_python_is_python() -> None:
    (example,) = [block for language, block in BLOCKS if language == "python"]
    ast.parse(example)
