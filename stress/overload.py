"""Latency and throughput with ten times the load that the service can answer, large photos, and a folder of files.

python -m stress.overload [overload liveness folder] [--seconds 60] [--rounds 3] [--markdown docs/overload.md]

Needs wrk, which measures the full speed before and after. All run on the same cores as the service.

overload: requests are due at ten times the full speed, whatever becomes of them. A request that is due goes out on a
kept connection that is free. There are CONNECTIONS of them, more than may wait in the queues of both workers. A request
that is due while all of them wait for answers is not sent, but counted: a service that refuses too slowly is spared a
part of the load. Latency is from the first byte sent to the last one received, the client's own delay included. One
process sends it all, by hand: wrk would be cheaper, but knows no latency by status.

liveness: a process of its own asks /livez, in turn on several connections, so that both workers are asked. A question's
time counts from the moment it is due, so that those which a slow answer held up count as slow as well.

folder: the time of `torchlight predict` without its start is from the creation of its file of answers (the change time
of the folder) to the last answer (the change time of the file). Between them the command decodes the first image and
writes the last answer. The ceiling is that of benchmarks.serving; its best way is found first, and measured in turn
with the command.
"""

import asyncio
import contextlib
import http.client
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from enum import StrEnum
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer
import uvloop
from rich.console import Console

from benchmarks.serving import FILES, WAYS, ceiling, draw_files, run_wrk
from stress.hostile_images import draw_image, encode
from stress.load.client import Client, Closed, form
from stress.load.report import Check, Report, Sheet, finish
from stress.load.service import ROOT, Service, running
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.defaults import PRETRAINED
from torchlight.model.engines.engine import choose_engine

WORKERS = 2
TIMES = 10
LEAST_TIMES = 9.0  # sent, or it was no such overload
CONNECTIONS = 900  # the most that one worker takes, if all of them come to it
FULL_SPEED_CONNECTIONS, FULL_SPEED_S = 32, 5
TICK_S = 0.002
DEADLINE_S = 10.0
REFUSED_P99_MS = 50.0
WARM_UP_S = 20  # machines that were idle are faster for a while: the speed before has to be one that lasts
RECOVERY_S, RECOVERED = 5, 0.9
MEMORY_GROWTH = 0.05  # of what it was before
UPLOADERS, UPLOADS_S = 64, 20
PROBE_EVERY_S, PROBE_CONNECTIONS, IDLE_S = 0.02, 8, 5
LIVE_P99_MS = 50.0
FOLDERS = {"small": 5_000, "photo": 600}
CEILING_S = 5
OF_CEILING = 0.9
PATIENCE_S = 120.0
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: \d", re.IGNORECASE)
CLOSING = re.compile(rb"\r\nconnection: close", re.IGNORECASE)

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Findings = tuple[list[Check], Sheet]


class Part(StrEnum):
    """What can be measured."""

    OVERLOAD, LIVENESS, FOLDER = "overload", "liveness", "folder"


@cli.command()
def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="Default: all.")] = None,
    seconds: Annotated[int, typer.Option(min=3, help="Of overload.")] = 60,
    rounds: Annotated[int, typer.Option(min=1, help="Of each folder.")] = 3,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables there.")] = None,
) -> None:
    """Measure one part after the other, and say whether the limits were kept."""
    console = Console(width=140)
    chosen = list(dict.fromkeys(parts or Part))
    measures: dict[Part, Callable[[], Findings]] = {
        Part.OVERLOAD: lambda: overload(seconds),
        Part.LIVENESS: liveness,
        Part.FOLDER: lambda: folder(rounds),
    }
    found = [measures[part]() for part in chosen]
    checks, sheets = [check for some, _ in found for check in some], [sheet for _, sheet in found]
    report = Report("Overload", f"{', '.join(chosen)}: {WORKERS} workers, {os.cpu_count()} cores.", sheets, checks)
    command = f"python -m stress.overload {' '.join(chosen)} --seconds {seconds} --rounds {rounds}"
    raise typer.Exit(finish(report, console, command, markdown))


class Crowd:
    """Offers requests at a rate on kept connections, and keeps what became of them.

    Attributes:
        answers: the seconds each took, by status.
        unsent: due while every connection waited for an answer.
        broken: connections that were lost before an answer, or could not be made.
    """

    def __init__(self, service: Service, requests: Sequence[bytes]) -> None:
        self.answers: dict[int, list[float]] = defaultdict(list)
        self.sent = self.unsent = self.broken = self.without_retry_after = 0
        self.free: deque[Line] = deque()
        self.busy = 0
        self._service = service
        self._requests = cycle(requests)
        self._opening: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    async def connect(self) -> None:
        """Open one connection, which is free then."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: Line(self), self._service.host, self._service.port)
        except OSError:
            self.broken += 1

    def reconnect(self) -> None:
        """Open another connection in place of one that was closed."""
        if not self._is_leaving:
            task = asyncio.create_task(self.connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def offer(self, rate: float, seconds: float) -> None:
        """Send ``rate`` requests a second, as far as connections are free."""
        began, due = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds:
            for _ in range(due, due := round(rate * passed)):
                if self.free:
                    self.sent += 1
                    self.free.popleft().send(next(self._requests))
                else:
                    self.unsent += 1
            await asyncio.sleep(TICK_S)

    async def leave(self) -> None:
        """Wait for the last answers, and close the connections."""
        self._is_leaving = True
        async with asyncio.timeout(PATIENCE_S):
            while self.busy or self._opening:
                await asyncio.sleep(TICK_S)
        for line in self.free:
            line.transport.close()


class Line(asyncio.Protocol):
    """One connection of a crowd."""

    transport: asyncio.Transport

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._received = b""
        self._sent_at: float | None = None  # while it waits for an answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._crowd.free.append(self)

    def send(self, request: bytes) -> None:
        self._crowd.busy += 1
        self._sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]) or self._sent_at is None:
            return
        status = int(head[9:12])
        self._crowd.answers[status].append(time.perf_counter() - self._sent_at)
        self._crowd.without_retry_after += status == 503 and not RETRY_AFTER.search(head)
        self._crowd.busy -= 1
        self._sent_at, self._received = None, b""
        if not CLOSING.search(head):
            self._crowd.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sent_at is not None:
            self._crowd.busy -= 1
            self._crowd.broken += 1
        with contextlib.suppress(ValueError):
            self._crowd.free.remove(self)
        self._crowd.reconnect()


def overload(seconds: int) -> Findings:
    """Offer TIMES the full speed."""
    with tempfile.TemporaryDirectory() as name, running(WORKERS, deadline_s=DEADLINE_S) as service:
        files = draw_files(Path(name), "small")

        def speed(seconds: int) -> float:
            return run_wrk(service.port, files, FULL_SPEED_CONNECTIONS, seconds).requests_per_s

        speed(WARM_UP_S)
        before = speed(FULL_SPEED_S)
        print(f"overload: full speed {before:.0f} requests/s, {TIMES} times that for {seconds} s", flush=True)
        requests = [form("/v1/predict", "file", file.read_bytes()) for file in files]
        memory = [_memory_mb(service)]
        crowd = Crowd(service, requests)
        cpu_s, took_s, drain_s = uvloop.run(_overload(crowd, TIMES * before, seconds, service, memory))
        after = speed(max(1, math.floor(RECOVERY_S - drain_s)))
        memory_after = _memory_mb(service)
        errors = service.errors()
    refused, accepted = (crowd.answers.pop(status, [math.inf]) for status in (503, 200))
    others = {"lost connections": crowd.broken} | {str(one): len(times) for one, times in crowd.answers.items()}
    wrong = sum(others.values())
    refused_ms, accepted_s = 1000 * _percentile(refused, 99), _percentile(accepted, 99)
    sent, limit_mb, recovered = crowd.sent / seconds, (1 + MEMORY_GROWTH) * memory[0], after / before
    checks = [
        Check("sent, times the full speed", f"{sent / before:.1f}", f"{LEAST_TIMES:g}", sent >= LEAST_TIMES * before),
        Check("refused, p99", f"{refused_ms:.0f} ms", f"{REFUSED_P99_MS:g} ms", refused_ms <= REFUSED_P99_MS),
        Check("accepted, p99", f"{accepted_s:.2f} s", f"{DEADLINE_S:g} s", accepted_s <= DEADLINE_S),
        Check("503 without Retry-After", str(crowd.without_retry_after), "0", not crowd.without_retry_after),
        Check("other answers and failures", str(wrong), "0", not wrong),
        Check("failures in the service's log", str(len(errors)), "0", not errors),
        Check("memory after it", f"{memory_after:.0f} MB", f"{limit_mb:.0f} MB", memory_after <= limit_mb),
        Check(f"speed within {RECOVERY_S} s", f"{recovered:.2f}", f"{RECOVERED:g}", recovered >= RECOVERED),
    ]
    accepted_rate = len(accepted) / took_s
    rows = [
        ("full speed before, requests/s", f"{before:.0f}"),
        ("due, requests/s", f"{(crowd.sent + crowd.unsent) / seconds:.0f}"),
        ("sent, requests/s", f"{sent:.0f}"),
        ("answered with 200, requests/s", f"{accepted_rate:.0f}, {accepted_rate / before:.0%} of the full speed"),
        ("refused with 503, requests/s", f"{len(refused) / took_s:.0f}"),
        ("other answers", ", ".join(f"{kind}: {number}" for kind, number in others.items())),
        ("200: p50, p99", f"{median(accepted):.2f} s, {accepted_s:.2f} s"),
        ("503: p50, p99", f"{1000 * median(refused):.1f} ms, {refused_ms:.1f} ms"),
        ("memory before, most, after", f"{memory[0]:.0f} MB, {max(memory):.0f} MB, {memory_after:.0f} MB"),
        ("from the last request sent to the last answer", f"{drain_s:.2f} s"),
        ("full speed after, requests/s", f"{after:.0f}"),
        ("the client's part of all CPU time", f"{cpu_s / took_s / (os.cpu_count() or 1):.0%}"),
    ]
    return _named(Part.OVERLOAD, checks), Sheet(f"overload: {seconds} s of it", ("what", "measured"), rows)


async def _overload(
    crowd: Crowd, rate: float, seconds: int, service: Service, memory: list[float]
) -> tuple[float, float, float]:
    """Return the client's CPU seconds, the seconds in all, and those of them after the last request was sent."""
    await asyncio.gather(*(crowd.connect() for _ in range(CONNECTIONS)))
    cpu_s, began = time.process_time(), time.perf_counter()

    async def watch() -> None:
        while True:
            await asyncio.sleep(1)
            memory.append(_memory_mb(service))

    watching = asyncio.create_task(watch())
    await crowd.offer(rate, seconds)
    ended = time.perf_counter()
    watching.cancel()
    await crowd.leave()
    return time.process_time() - cpu_s, time.perf_counter() - began, time.perf_counter() - ended


def liveness() -> Findings:
    """Ask whether it lives, first of an idle service, then while it has photos of 12 megapixels to decode."""
    photo = encode(draw_image(size=(4000, 3000)), "JPEG", quality=85)
    fork = multiprocessing.get_context("fork")  # while there is no event loop yet; spawn would import torch again
    with running(WORKERS) as service, ProcessPoolExecutor(1, fork) as pool:
        idle = pool.submit(probe, service.host, service.port, IDLE_S).result(PATIENCE_S)
        print(f"liveness: {UPLOADERS} photos of {len(photo) / 1e6:.1f} MB at a time for {UPLOADS_S} s", flush=True)
        answers, busy = uvloop.run(_photos(service, pool, form("/v1/predict", "file", photo)))
        errors = service.errors()
    p99 = _percentile(busy, 99)
    odd = sum(number for answer, number in answers.items() if answer not in ("200", "503"))
    checks = [
        Check("/livez, p99", f"{1000 * p99:.0f} ms", f"{LIVE_P99_MS:g} ms", 1000 * p99 <= LIVE_P99_MS),
        Check("photos with other answers than 200 and 503", str(odd), "0", not odd),
        Check("failures in the service's log", str(len(errors)), "0", not errors),
    ]
    rows = [
        (what, str(len(one)), *(f"{1000 * value:.1f}" for value in (median(one), _percentile(one, 99), max(one))))
        for what, one in (("idle", idle), ("photos", busy))
    ]
    counts = ", ".join(f"{answer}: {number}" for answer, number in sorted(answers.items()))
    title = f"liveness: {UPLOADERS} photos of 12 megapixels at a time for {UPLOADS_S} s: {counts}"
    return _named(Part.LIVENESS, checks), Sheet(title, ("service", "asked", "p50 ms", "p99 ms", "slowest ms"), rows)


async def _photos(service: Service, pool: Executor, request: bytes) -> tuple[Counter[str], list[float]]:
    answers: Counter[str] = Counter()
    is_over = asyncio.Event()

    async def upload() -> None:
        client = Client(service.host, service.port)
        while not is_over.is_set():
            try:
                answers[str((await client.ask(request)).status)] += 1
            except (Closed, OSError) as error:
                answers[type(error).__name__] += 1
        client.close()

    uploads = [asyncio.create_task(upload()) for _ in range(UPLOADERS)]
    await asyncio.sleep(2)  # until all of them wait
    loop = asyncio.get_running_loop()
    asked = await loop.run_in_executor(pool, probe, service.host, service.port, UPLOADS_S)
    is_over.set()
    await asyncio.gather(*uploads)
    return answers, asked


def probe(host: str, port: int, seconds: float) -> list[float]:
    """Ask every PROBE_EVERY_S, and return how long after the moment it was due each answer came, in seconds."""
    connections = [http.client.HTTPConnection(host, port, timeout=PATIENCE_S) for _ in range(PROBE_CONNECTIONS)]
    with contextlib.ExitStack() as stack:
        for connection in connections:
            stack.callback(connection.close)
            connection.connect()
        began, asked = time.monotonic(), []
        for number in range(round(seconds / PROBE_EVERY_S)):
            due = began + number * PROBE_EVERY_S
            time.sleep(max(0.0, due - time.monotonic()))
            connection = connections[number % PROBE_CONNECTIONS]
            connection.request("GET", "/livez")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            asked.append(time.monotonic() - due)
    return asked


def folder(rounds: int) -> Findings:
    """Classify folders by the command, in turn with the ceiling."""
    classifier = Classifier(load_checkpoint(PRETRAINED), torch.device("cpu"))
    run = choose_engine(classifier, "auto").run
    checks, rows = [], []
    with tempfile.TemporaryDirectory() as name:
        for kind, number in FOLDERS.items():
            drawn = Path(name) / kind
            drawn.mkdir()
            files = draw_files(drawn, kind, number)
            measured = partial(ceiling, classifier, run, files[:FILES])
            way = max(WAYS, key=lambda way: measured(*way))
            ceilings, rates, whole_s = [], [], []
            for turn in range(rounds):
                ceilings.append(measured(*way, seconds=CEILING_S))
                began = time.perf_counter()
                rates.append(number / _predict(drawn, Path(name) / f"{kind} {turn}", number))
                whole_s.append(time.perf_counter() - began)
                print(f"folder: {number} {kind}: {rates[-1]:.0f} images/s of {ceilings[-1]:.0f}", flush=True)
            shares = [rate / top for rate, top in zip(rates, ceilings, strict=True)]
            share = median(shares)
            checks.append(Check(f"{number:,} {kind}", f"{share:.2f}", f"{OF_CEILING:g}", share >= OF_CEILING))
            each = ", ".join(f"{one:.2f}" for one in shares)
            cells = (f"{median(rates):.0f}", f"{median(ceilings):.0f}", f"{share:.2f}", each, f"{median(whole_s):.1f}")
            rows.append((f"{number:,} {kind}", *cells))
    head = ("files", "images/s", "ceiling", "of the ceiling", "in each round", "s with its start")
    return _named(Part.FOLDER, checks), Sheet(f"folder: torchlight predict, medians of {rounds} rounds", head, rows)


def _predict(folder: Path, beside: Path, number: int) -> float:
    """Return the seconds between the making of the file of answers and the last one in it."""
    beside.mkdir()
    out = beside / "answers.jsonl"
    given = map(str, (PRETRAINED, folder, "--out", out, "--device", "cpu"))
    subprocess.run(
        [sys.executable, "-m", "torchlight", "predict", *given],
        cwd=ROOT,
        check=True,
        timeout=PATIENCE_S,
        stdout=subprocess.DEVNULL,
    )
    assert len(out.read_text().splitlines()) == number
    return (out.stat().st_mtime_ns - beside.stat().st_mtime_ns) / 1e9


def _named(part: Part, checks: Sequence[Check]) -> list[Check]:
    return [replace(check, what=f"{part}: {check.what}") for check in checks]


def _memory_mb(service: Service) -> float:
    return sum(one.rss_mb for one in service.readings())


def _percentile(values: Sequence[float], percent: float) -> float:
    return sorted(values)[min(len(values) - 1, round(percent / 100 * len(values)))]


if __name__ == "__main__":
    cli()
