"""A real service starts, stops and is replaced under load: every accepted request is answered.

python -m stress.lifecycle [--restarts 20] [--markdown docs/lifecycle.md]

Stop: SIGTERM while 50 requests are under way. To make sure of that, each upload lacks its last byte until all others
have been read, and the service reads these bytes before the signal is sent.

Rolling restart: SIGHUP again and again under a fixed rate of requests, which come when they are due, whether or not
earlier ones were answered; half of them on new connections, half on kept ones. A kept connection that turns out to be
closed is replaced, as every client does, and counted.

Metrics: what two workers counted is what was sent.
"""

import asyncio
import re
import signal
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import track

from stress.load.client import Client, Closed, Connection, build, form
from stress.load.drawings import photos, small_images
from stress.load.report import Check, Report, Sheet, finish
from stress.load.service import POLL_S, Service, running
from stress.load.visitors import raw

IN_FLIGHT = 50
PHOTOS_EACH = 8  # so that answers take longer than it takes to send the signal
RATE = 30.0
LONGEST_STOP_S = 30.0
METRIC = re.compile(r"^torchlight_requests_total\{(.*)\} (\S+)$", re.MULTILINE)
METRICS_PREDICTIONS, METRICS_REFUSED = 200, 50

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Load:
    """What became of the requests of a fixed rate.

    Attributes:
        answers: by status, or by what happened instead.
        resent: how often a kept connection was closed, and the request went out again on a new one.
        seconds: of each request, from when it was due.
    """

    answers: Counter[str] = field(default_factory=Counter)
    resent: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests without the answer that they asked for."""
        return self.answers.total() - self.answers["200"]


@dataclass(frozen=True)
class Stop:
    """What came of SIGTERM with requests under way."""

    in_flight: int
    answers: Counter[str]
    exit_code: int | None
    seconds: float


@cli.command()
def main(
    restarts: Annotated[int, typer.Option(min=1, help="Rolling restarts.")] = 20,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables there.")] = None,
) -> None:
    """Stop, restart and count, and say whether it held."""
    console = Console()
    stops = {workers: stop(workers) for workers in track((1, 2), "stopping", console=console)}
    with running(2) as service:
        load, taken = uvloop.run(restart(service, restarts, console))
        errors = service.errors()
    with running(2) as service:
        counted = uvloop.run(count(service))
    checks = [*_stop_checks(stops), *_restart_checks(load, taken, errors), _count_check(counted)]
    sheets = [_stop_sheet(stops), _restart_sheet(load, taken), _count_sheet(counted)]
    summary = f"Stops with {IN_FLIGHT} requests under way, {restarts} rolling restarts under {RATE:g} requests/s."
    command = f"python -m stress.lifecycle --restarts {restarts}"
    raise typer.Exit(finish(Report("Lifecycle", summary, sheets, checks), console, command, markdown))


def stop(workers: int) -> Stop:
    """Send SIGTERM to a service with IN_FLIGHT requests under way."""
    with running(workers, queue_size=IN_FLIGHT * PHOTOS_EACH, deadline_s=120) as service:
        return uvloop.run(_stop(service))


async def _stop(service: Service) -> Stop:
    request = form("/v1/predict/batch", "files", *photos(PHOTOS_EACH).values())
    connections = [await Connection.open(service.host, service.port) for _ in range(IN_FLIGHT)]
    answering = [asyncio.create_task(connection.answer()) for connection in connections]
    await asyncio.gather(*(connection.send(request[:-1]) for connection in connections))
    await _until_read(service, connections)
    await asyncio.gather(*(connection.send(request[-1:]) for connection in connections))
    await _until_read(service, connections)
    in_flight = sum(not one.done() for one in answering)
    started = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    answers = Counter(str(one.status) if not isinstance(one, BaseException) else type(one).__name__.lower()
                      for one in await asyncio.gather(*answering, return_exceptions=True))  # fmt: skip
    exit_code = await asyncio.to_thread(service.process.wait, LONGEST_STOP_S + 120)
    return Stop(in_flight, answers, exit_code, time.monotonic() - started)


async def _until_read(service: Service, connections: list[Connection]) -> None:
    """Return when the service has accepted all these connections and read all that was sent on them."""
    ports = {connection.port for connection in connections}
    while not ports <= service.owners().keys() or service.unread():
        await asyncio.sleep(POLL_S)


async def restart(service: Service, restarts: int, console: Console) -> tuple[Load, list[float]]:
    """Replace all workers again and again under load; return what became of it, and the seconds of each time."""
    load, taken = Load(), []
    loading = asyncio.create_task(keep_rate(service, load))
    for _ in track(range(restarts), "restarting", console=console):
        before, started = service.workers(), time.monotonic()
        service.process.send_signal(signal.SIGHUP)
        await service.until_all_answer(len(before), without=before)
        while before & service.workers():
            await asyncio.sleep(POLL_S)
        taken.append(time.monotonic() - started)
    loading.cancel()
    await asyncio.wait({loading})
    return load, taken


async def keep_rate(service: Service, load: Load) -> None:
    """Send RATE requests a second until cancelled, then wait for the last answers."""
    request = raw(small_images()["jpeg 200x150"])
    idle: deque[Client] = deque()
    pending: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    due, number = loop.time(), 0
    try:
        while True:
            number += 1
            keeps = number % 2 == 0
            client = idle.popleft() if keeps and idle else Client(service.host, service.port)
            task = asyncio.create_task(_one(client, request, load, due, idle if keeps else None))
            pending.add(task)
            task.add_done_callback(pending.discard)
            due += 1 / RATE
            await asyncio.sleep(due - loop.time())
    finally:
        await asyncio.gather(*pending)


async def _one(client: Client, request: bytes, load: Load, due: float, idle: deque[Client] | None) -> None:
    resent = client.resent
    try:
        load.answers[str((await client.ask(request)).status)] += 1
    except (Closed, OSError) as error:
        load.answers[type(error).__name__.lower()] += 1
    load.seconds.append(asyncio.get_running_loop().time() - due)
    load.resent += client.resent - resent
    if idle is None:
        client.close()
    else:
        idle.append(client)


async def count(service: Service) -> dict[str, tuple[int, int]]:
    """Return for each kind of request how many were sent, and how many /metrics counts; each worker gets some."""
    image, refused = raw(small_images()["png 32x32"]), build("GET", "/v1/layers/conv99/filters")
    sent = {"POST /v1/predict, 200": (image, METRICS_PREDICTIONS), "GET /v1/layers/{layer}/filters, 404":
            (refused, METRICS_REFUSED)}  # fmt: skip
    for request, number in sent.values():
        for start in range(0, number, 10):
            await asyncio.gather(*(_alone(service, request) for _ in range(min(10, number - start))))
    text = (await _alone(service, build("GET", "/metrics"))).decode()
    counted: Counter[str] = Counter()
    for labels, value in METRIC.findall(text):
        given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counted[f"{given['method']} {given['route']}, {given['status']}"] += int(float(value))
    return {kind: (number, counted[kind]) for kind, (_, number) in sent.items()}


async def _alone(service: Service, request: bytes) -> bytes:
    client = Client(service.host, service.port)
    try:
        return (await client.ask(request)).body
    finally:
        client.close()


def _stop_checks(stops: dict[int, Stop]) -> list[Check]:
    checks = []
    for workers, one in stops.items():
        with_workers = f"SIGTERM, {workers} {'worker' if workers == 1 else 'workers'}"
        is_all = one.in_flight == one.answers["200"] == IN_FLIGHT
        measured = f"{one.answers['200']} of {one.in_flight} under way"
        checks.append(Check(f"{with_workers}: answered", measured, f"{IN_FLIGHT} of {IN_FLIGHT}", is_all))
        checks.append(Check(f"{with_workers}: exit code", str(one.exit_code), "0", one.exit_code == 0))
    return checks


def _stop_sheet(stops: dict[int, Stop]) -> Sheet:
    rows = [
        (str(workers), str(one.in_flight), _listed(one.answers), str(one.exit_code), f"{one.seconds:.1f}")
        for workers, one in stops.items()
    ]
    return Sheet("SIGTERM", ("workers", "under way", "answers", "exit code", "seconds until gone"), rows)


def _restart_checks(load: Load, taken: list[float], errors: list[str]) -> list[Check]:
    total = load.answers.total()
    return [
        Check(f"{len(taken)} rolling restarts: failed", f"{load.failed} of {total:,}", "0", load.failed == 0),
        Check("failures in the service's log", str(len(errors)), "0", not errors),
    ]


def _restart_sheet(load: Load, taken: list[float]) -> Sheet:
    latencies = sorted(1000 * seconds for seconds in load.seconds)
    middle, late = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    rows = [
        ("answers", _listed(load.answers)),
        ("sent again, the kept connection was closed", str(load.resent)),
        ("milliseconds from when it was due: median, 99th percentile, slowest",
         f"{middle:.0f}, {late:.0f}, {latencies[-1]:.0f}"),
        ("seconds of a restart: fastest, slowest", f"{min(taken):.1f}, {max(taken):.1f}"),
    ]  # fmt: skip
    return Sheet("Rolling restart", ("what", "measured"), rows)


def _count_check(counted: dict[str, tuple[int, int]]) -> Check:
    reported, sent = sum(number for _, number in counted.values()), sum(number for number, _ in counted.values())
    is_same = all(one_sent == one_reported for one_sent, one_reported in counted.values())
    return Check("/metrics of two workers", f"{reported} counted", f"{sent} sent", is_same)


def _count_sheet(counted: dict[str, tuple[int, int]]) -> Sheet:
    rows = [(kind, str(sent), str(reported)) for kind, (sent, reported) in counted.items()]
    return Sheet("Metrics of two workers", ("requests", "sent", "/metrics says"), rows)


def _listed(answers: Counter[str]) -> str:
    return ", ".join(f"{answer}: {number:,}" for answer, number in sorted(answers.items()))


if __name__ == "__main__":
    cli()
