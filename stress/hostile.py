"""Hostile files and requests of every kind, sent to a real service: its answers, their time, and its memory.

python -m stress.hostile [--flips 5000] [--markdown docs/hostile.md]

The service runs with its defaults, but gives an upload 3 s for its next 100 kB in place of 10. After every kind a good
image has to get the answer that it got in the beginning.
"""

import argparse
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2
from rich.console import Console
from rich.table import Table

from stress import hostile_http, hostile_images
from stress.hostile_http import CLOSED, HANG, Exchange
from stress.hostile_images import HostileFile
from stress.load.service import Service, running

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "docs" / "pictures" / "ship.jpg"
FLIPS = 5_000
CLIENTS = 4
UPLOAD_TIMEOUT_S = 3
SAMPLE_S = 0.05
MAX_CONNECTIONS = 900  # the service's default
NAMES = {CLOSED: "closed", HANG: "hang"}
Given = TypeVar("Given", HostileFile, Exchange)
KNOWN = {"layer": "conv1", "channel": "0", "y": "0", "x": "0", "method": "hires_cam", "index": "0", "digest": "0"}


@dataclass
class Row:
    """What became of one kind."""

    kind: str
    answers: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    crashes: int = 0
    worst_s: float = 0.0
    worst: str = ""
    memory_mb: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def note(self, name: str, status: int, right: frozenset[int], seconds: float) -> None:
        """Count one answer."""
        self.answers[status] += 1
        if status not in right:
            self.wrong.append(f"{self.kind}: {name}: {NAMES.get(status, status)}, not {sorted(right)[:5]}")
        if seconds > self.worst_s:
            self.worst_s, self.worst = seconds, name


class Watch:
    """The peak of what a service's processes hold, looked at all along."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.peak_mb = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def memory_mb(self) -> float:
        """Return what the service and all its processes hold."""
        return sum(one.rss_mb for one in self._service.readings())

    def _look(self) -> None:
        while not self._is_over.wait(SAMPLE_S):
            self.peak_mb = max(self.peak_mb, self.memory_mb())


def main() -> None:
    """Send all, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=FLIPS, help="how many files with bits turned over")
    parser.add_argument("--markdown", type=Path, help="also write the table there")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the clients that all connect at once
    with running(1, upload_timeout_s=UPLOAD_TIMEOUT_S) as service:
        rows = list(send_all(service, options.flips))
        left, replaced = service.logged('"status": 499'), service.logged("a decoder ended")
    drawn = table(rows)
    notes = [
        f"{sum(row.answers.total() for row in rows):,} inputs; decoders that a file ended, replaced: {replaced}; "
        f"clients that left, in the log as 499: {left}.",
        *(line for row in rows for line in row.wrong),
    ]
    console = Console(width=170)
    console.print(drawn, *notes, sep="\n")
    if options.markdown:
        write_markdown(options.markdown, drawn, notes)
    sys.exit(any(row.wrong or row.crashes for row in rows))


def send_all(service: Service, flips: int) -> Iterator[Row]:
    """Yield a row for each kind, after making sure that the service answers as before."""
    photo = PHOTO.read_bytes()
    address = (service.host, service.port)

    def post(given: HostileFile) -> int:
        answer = client.post("/v1/predict", content=given.content, headers={"Content-Type": "image/png"})
        return answer.status_code

    def perform(given: Exchange) -> int:
        return hostile_http.perform(address, given)

    with _client(service) as client, Watch(service) as watch:
        predictions = _predictions(client, photo)
        answerers = service.workers()
        known = KNOWN | {"image_id": client.post("/v1/images", files={"file": photo}).json()["id"]}
        openapi = client.get("/openapi.json").json()
        for kind, act in {
            **{
                kind: _sender(post, samples, 1 if "bombs" in kind else CLIENTS)  # a bomb's own time is to be known
                for kind, samples in hostile_images.kinds(flips).items()
            },
            "body sizes and lengths": _sender(perform, hostile_http.lengths(photo)),
            "boundaries and parts": _sender(perform, hostile_http.forms(photo)),
            "file names": _sender(perform, hostile_http.filenames(photo)),
            "methods, and what is no HTTP": _sender(perform, hostile_http.methods()),
            "heads": _sender(perform, hostile_http.heads()),
            "numbers and Unicode in each parameter": _sender(perform, hostile_http.parameters(openapi, known)),
            "clients that leave": _sender(perform, hostile_http.departures(photo, 100)),
            **{
                f"{hostile_http.SLOW_CLIENTS} at once: {name}": _crowd(service, exchanges)
                for name, exchanges in hostile_http.slow(hostile_http.SLOW_CLIENTS, seconds=12).items()
            },
            "clients that do not read": _crowd(service, hostile_http.deaf(10)),
            f"{MAX_CONNECTIONS + 100} connections": _crowd(service, hostile_http.flood(MAX_CONNECTIONS + 100)),
        }.items():
            before = watch.peak_mb = watch.memory_mb()
            row = Row(kind)
            act(row)
            peak = watch.peak_mb
            assert _predictions(client, photo) == predictions, f"after {kind} a good image gets another answer"
            row.crashes, answerers = len(answerers - service.workers()), service.workers()
            row.memory_mb = (before, peak, watch.memory_mb())
            print(f"{kind}: {row.answers.total()} in {row.worst_s:.2f} s at most", file=sys.stderr)
            yield row


def _sender(act: Callable[[Given], int], inputs: Iterable[Given], clients: int = CLIENTS) -> Callable[[Row], None]:
    """Return what sends inputs, a few at a time; ``act`` sends one and returns the status of its answer."""

    def send(row: Row) -> None:
        def one(given: Given) -> tuple[Given, int, float]:
            started = time.perf_counter()
            status = act(given)
            return given, status, time.perf_counter() - started

        with ThreadPoolExecutor(clients) as pool:
            for given, status, seconds in pool.map(one, inputs):
                row.note(given.name, status, given.answers, seconds)

    return send


def _crowd(service: Service, exchanges: list[Exchange]) -> Callable[[Row], None]:
    """Return what connects many clients at once; the time of the row is that of good requests meanwhile."""

    def send(row: Row) -> None:
        photo = PHOTO.read_bytes()
        with (
            _client(service) as client,
            ThreadPoolExecutor() as pool,
        ):
            _predictions(client, photo)  # connected before the crowd comes
            crowd = pool.submit(hostile_http.perform_together, (service.host, service.port), exchanges)
            while not crowd.done():
                started = time.perf_counter()
                _predictions(client, photo)
                row.worst_s = max(row.worst_s, time.perf_counter() - started)
                time.sleep(0.1)
            for given, status in zip(exchanges, crowd.result(), strict=True):
                row.note(given.name, status, given.answers, 0)

    return send


def _client(service: Service) -> httpx2.Client:
    return httpx2.Client(base_url=f"http://{service.host}:{service.port}", timeout=hostile_http.PATIENCE_S)


def _predictions(client: httpx2.Client, photo: bytes) -> object:
    answer = client.post("/v1/predict", files={"file": photo})
    assert answer.status_code == 200, answer.text
    return answer.json()["predictions"]


def table(rows: list[Row]) -> Table:
    """Return one line for each kind, and one for all."""
    names = ("kind", "tried", "answers", "wrong", "5xx", "hangs", "crashes", "worst s", "MB before", "peak", "after")
    drawn = Table(*names, box=None)
    for row in rows:
        drawn.add_row(*_cells(row))
    answers = sum((row.answers for row in rows), Counter())
    total = Row("all", answers, [line for row in rows for line in row.wrong], sum(row.crashes for row in rows))
    total.worst_s, total.worst = max((row.worst_s, row.worst) for row in rows)
    total.memory_mb = (rows[0].memory_mb[0], max(row.memory_mb[1] for row in rows), rows[-1].memory_mb[2])
    drawn.add_row(*_cells(total))
    return drawn


def _cells(row: Row) -> list[str]:
    answers = ", ".join(f"{NAMES.get(status, status)}: {number:,}" for status, number in sorted(row.answers.items()))
    failures = sum(number for status, number in row.answers.items() if status >= 500 and status != 503)
    figures = (row.answers.total(), answers, len(row.wrong), failures, row.answers[HANG], row.crashes)
    worst = f"{row.worst_s:.2f} {row.worst if row.worst_s >= 1 else ''}".rstrip()
    return [row.kind, *map(str, figures), worst, *(f"{value:.0f}" for value in row.memory_mb)]


def write_markdown(path: Path, drawn: Table, notes: list[str]) -> None:
    """Write the table after the text that says how to read it."""
    lines = [list(column.cells) for column in drawn.columns]
    cells = [
        [str(column.header) for column in drawn.columns],
        ["---"] * len(lines),
        *map(list, zip(*lines, strict=True)),
    ]
    rows = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    text = path.read_text().partition("\n| kind")[0] if path.exists() else "# Hostile input\n"
    path.write_text(f"{text.rstrip()}\n\n{rows}\n\n" + "\n\n".join(notes) + "\n")


if __name__ == "__main__":
    main()
