"""A real ``torchlight serve`` for tests: started on a free port, ready when it is given, stopped at the end."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx2

ROOT = Path(__file__).parents[1]
PATIENCE_S = 120  # machines that run tests are busy


class Log:
    """The standard output of a process."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._text, self._changed = stream, "", threading.Condition()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        """Wait until the process closes its output."""
        self._thread.join()

    def wait_for(self, pattern: str, number: int = 1) -> list[re.Match[str]]:
        """Wait until the pattern occurs ``number`` times, and return all its matches."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._find_matches(pattern, number), PATIENCE_S)
            assert found, self._text
            return found

    def _find_matches(self, pattern: str, number: int) -> list[re.Match[str]]:
        found = list(re.finditer(pattern, self._text))
        return found if len(found) >= number else []

    def _follow(self) -> None:
        for line in self._stream:
            with self._changed:
                self._text += line
                self._changed.notify_all()


@dataclass(frozen=True)
class Server:
    """A running process; ``greeting`` is its first line on standard error, and ``url`` the address in it."""

    process: subprocess.Popen[str]
    greeting: str
    url: str
    log: Log


StartServer = Callable[..., Server]


@contextmanager
def running_server(stdin: int = subprocess.DEVNULL, **settings: object) -> Iterator[Server]:
    """Run ``torchlight serve`` until the end of the block.

    Args:
        stdin: standard input of the process.
        settings: by their names, in lower case without the prefix.

    Raises:
        AssertionError: it does not start; the message is its standard error.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLIGHT_")}
    environment |= {f"TORCHLIGHT_{name.upper()}": str(value) for name, value in ({"device": "cpu"} | settings).items()}
    command = [sys.executable, "-m", "torchlight", "serve", "--port", "0"]
    streams = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, env=environment, text=True, process_group=0, **streams)
        )
        assert process.stderr is not None
        assert process.stdout is not None
        log = Log(process.stdout)
        stack.callback(log.close)
        stack.callback(process.terminate)
        greeting = process.stderr.readline()
        found = re.search(r"(http://\S+)/$", greeting, re.MULTILINE)
        assert found, greeting + process.stderr.read()
        while httpx2.get(f"{found[1]}/readyz", timeout=PATIENCE_S).status_code != 200:
            assert process.poll() is None
        yield Server(process, greeting, found[1], log)
