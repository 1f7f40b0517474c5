"""A real service at saturation, for long enough to see a leak, with clients of every kind at once.

python -m stress.soak [--minutes 20] [--workers 2] [--markdown docs/soak.md] [--picture docs/pictures/soak.png]

Good clients, each with one request at a time, keep the service as busy as it can be; beside them come bad ones, slow
ones, those that vanish, and now and then a crowd that is larger than the queue. Every answer is checked, and what Linux
says of the service's processes is written down all along.

The first quarter of the requests is warm-up: caches fill, the store reaches its bound, the allocator finds its level.
That takes some 10,000 requests for each worker, most of them for the 64 MB of views that it keeps, so a run of fewer
than 40,000 for each may break the limit of memory without a leak. A line is fitted to what follows: resident memory of
all processes together over the requests made so far. Descriptors and threads are compared as medians of the first and
the last third of it. The exit code is 1 if a limit is broken.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stress.load import visitors
from stress.load.report import Check, Report, Sheet, finish
from stress.load.samples import Sample, after_warm_up, draw_chart, growth, memory_slope, processes
from stress.load.service import Service, running
from stress.load.world import REFUSALS, Tally, World

MAX_MB_PER_1000 = 1.0
MAX_DESCRIPTORS_MORE = 8  # their number goes up and down with the connections of the moment
MAX_THREADS_MORE = 2  # the framework's own threads for files come and go
MAX_REFUSED = 0.05  # of the good clients' requests: while a crowd fills the queue, others are refused too
BESIDE: dict[visitors.Visit, int] = {visitors.bad: 2, visitors.slow: 8, visitors.vanishing: 3}
SAMPLES = 240
SHORTEST_INTERVAL_S = 0.5
SETTLING_S = 8.0  # longer than a kept connection may idle

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Show = Callable[[Sequence[Sample], Tally], None]


@dataclass(frozen=True)
class Run:
    """What a soak has seen.

    Attributes:
        samples: the first one before any request, the others under load.
        settled: when all clients had left.
        errors: lines of the service's log about unexpected failures.
    """

    samples: Sequence[Sample]
    settled: Sample
    tally: Tally
    errors: Sequence[str]


@cli.command()
def main(
    minutes: Annotated[float, typer.Option(min=0.05, help="How long.")] = 20.0,
    workers: Annotated[int, typer.Option(min=1, help="Of the service.")] = 2,
    clients: Annotated[int, typer.Option(min=1, help="Good ones, each with one request at a time.")] = 24,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables there.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw memory, descriptors and threads there (PNG).")] = None,
) -> None:
    """Soak a service, and say whether it held."""
    console = Console()
    with running(workers, **visitors.SETTINGS) as service:
        run = uvloop.run(soak(service, console, minutes=minutes, workers=workers, clients=clients))
    report = judge(run, f"{minutes:g} minutes, {workers} workers, {clients} good clients at a time")
    command = f"python -m stress.soak --minutes {minutes:g} --workers {workers} --clients {clients}"
    if picture is not None:
        draw_chart(run.samples).savefig(picture, dpi=100)
    raise typer.Exit(finish(report, console, command, markdown, picture))


async def soak(service: Service, console: Console, *, minutes: float, workers: int, clients: int) -> Run:
    """Send everybody at the service, and watch it until they have left."""
    world = World(service.host, service.port)
    visits = [visitors.good] * clients + [one for one, count in BESIDE.items() for _ in range(count)]
    visits.append(partial(visitors.crowd, workers=workers))
    started, samples = time.monotonic(), list[Sample]()

    def take() -> Sample:
        return Sample(time.monotonic() - started, world.tally.requests, service.readings())

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60 * minutes), asyncio.TaskGroup() as group:
            for seed, visit in enumerate(visits):
                group.create_task(visitors.keep_coming(world, visit, seed))
            with _progress(console, 60 * minutes) as show:
                while True:
                    samples.append(take())
                    show(samples, world.tally)
                    await asyncio.sleep(max(60 * minutes / SAMPLES, SHORTEST_INTERVAL_S))
    await asyncio.sleep(SETTLING_S)
    return Run(samples, take(), world.tally, service.errors())


def judge(run: Run, summary: str) -> Report:
    """Return the tables, and which limits were kept."""
    last = run.samples[-1]
    rate = last.requests / last.seconds
    summary = f"{summary}: {last.requests:,} requests, {rate:.0f} a second."
    sheets = [_answers(run.tally), _processes(run), _course(run.samples)]
    if run.tally.mistakes or run.errors:
        lines = [*run.tally.mistakes, *run.errors[:20]]
        sheets.insert(0, Sheet("What was not intended", ("first cases",), [(line[:300],) for line in lines]))
    return Report("Soak", summary, sheets, list(_checks(run)))


def _checks(run: Run) -> Iterator[Check]:
    warm = after_warm_up(run.samples)
    unintended, good = run.tally.unintended.total(), _of_the_good(run.tally)
    yield Check("answers that were not intended", f"{unintended} of {run.tally.requests:,}", "0", unintended == 0)
    yield Check("failures in the service's log", str(len(run.errors)), "0", not run.errors)
    refused = sum(count for answer, count in good if answer in map(str, REFUSALS))
    share = refused / max(1, sum(count for _, count in good))
    measured = f"{refused} ({share:.2%}), and {run.tally.files_refused} files of batches"
    yield Check("good requests refused", measured, f"{MAX_REFUSED:.0%}", share <= MAX_REFUSED)
    slope = memory_slope(warm)
    yield Check(
        f"memory, from {warm[0].requests:,} to {warm[-1].requests:,} requests",
        f"{slope.mb_per_1000:+.3f} ± {2 * slope.error:.3f} MB for 1,000",
        f"{MAX_MB_PER_1000:g} MB",
        slope.mb_per_1000 < MAX_MB_PER_1000,
    )
    for name, more in (("descriptors", MAX_DESCRIPTORS_MORE), ("threads", MAX_THREADS_MORE)):
        before, after = growth(warm, name)
        yield Check(f"{name}, first and last third", f"{before:g}, {after:g}", f"{more} more", after <= before + more)


def _of_the_good(tally: Tally) -> list[tuple[str, int]]:
    others = ("bad:", "slow:", "vanishing:", "crowd")
    return [(answer, count) for (kind, answer), count in tally.answers.items() if not kind.startswith(others)]


def _answers(tally: Tally) -> Sheet:
    rows = []
    for kind in sorted({kind for kind, _ in tally.answers}):
        answers = {answer: count for (one, answer), count in sorted(tally.answers.items()) if one == kind}
        unintended = sum(count for (one, _), count in tally.unintended.items() if one == kind)
        taken = [1000 * seconds for seconds in tally.seconds.get(kind, [])]
        times = (f"{median(taken):.0f}", f"{max(taken):.0f}") if taken else ("", "")
        listed = ", ".join(f"{answer}: {count:,}" for answer, count in answers.items())
        rows.append((kind, listed, str(unintended), *times))
    return Sheet("Answers", ("kind", "answers", "not intended", "median ms", "slowest ms"), rows)


def _processes(run: Run) -> Sheet:
    """Return what each process held before any request, after warm-up, at the end, and when all had left."""
    moments = [run.samples[0], after_warm_up(run.samples)[0], run.samples[-1], run.settled]
    rows = []
    for pid, role in processes(moments).items():
        found = [next((one for one in sample.readings if one.pid == pid), None) for sample in moments]
        cells = ["gone" if one is None else f"{one.rss_mb:.0f} / {one.descriptors} / {one.threads}" for one in found]
        rows.append((f"{role} {pid}", *cells))
    rows.append(("all", *(f"{one.rss_mb:.0f} / {one.descriptors} / {one.threads}" for one in moments)))
    head = ("process", "before", "after warm-up", "at the end", "when all had left")
    return Sheet("Processes: resident MB / descriptors / threads", head, rows)


def _course(samples: Sequence[Sample], rows: int = 12) -> Sheet:
    chosen = [samples[round(index * (len(samples) - 1) / (rows - 1))] for index in range(rows)]
    cells = [
        (f"{one.seconds:.0f}", f"{one.requests:,}", f"{one.rss_mb:.1f}", str(one.descriptors), str(one.threads))
        for one in dict.fromkeys(chosen)
    ]
    return Sheet("Course", ("seconds", "requests", "MB", "descriptors", "threads"), cells)


@contextlib.contextmanager
def _progress(console: Console, seconds: float) -> Iterator[Show]:
    columns = (BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=seconds)

        def show(samples: Sequence[Sample], tally: Tally) -> None:
            last = samples[-1]
            words = f"{last.requests:,} requests  {last.rss_mb:.0f} MB  {tally.unintended.total()} not intended"
            progress.update(task, completed=last.seconds, description=words)

        yield show


if __name__ == "__main__":
    cli()
