"""A real service while the machine under it fails: each fault is real, and its effects are counted.

python -m stress.faults [kill] [disk] [clock] [checkpoint] [--markdown docs/faults.md]

kill        SIGKILL for one of two workers under load. It is stopped a moment before, so that it can be seen which
            connections it holds: only requests on these may fail.
disk        The store, and all else that the service writes, on a tmpfs of a few megabytes, until that is full. Needs
            root, to mount it.
clock       Under load the wall clock jumps, for the service alone: a library that is put before libc's (LD_PRELOAD)
            adds an offset to CLOCK_REALTIME. What the kernel writes, such as the age of a file, keeps the true time, so
            a jump makes stored images seem older, or not yet born. Needs a C compiler.
checkpoint  The file is cut short in its place, and removed, while the service runs, reloads, and loses a
            worker; then another file takes its place.
"""

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from stress.load import drawings
from stress.load.client import Answer, Client, Closed, build, form
from stress.load.report import Check, Report, Sheet, finish
from stress.load.service import PATIENCE_S, POLL_S, Service, is_alive, running
from stress.load.visitors import raw
from torchlight.model.defaults import PRETRAINED

CLIENTS = 8
BEFORE_S = 2.0  # of load, before something happens
LONGEST_GAP_S = 5.0
DISK_BYTES = 3_000_000
HOUR, DAY = 3600, 86_400
JUMPS = {"1 hour on": HOUR, "1 hour back": -HOUR, "30 days on": 30 * DAY, "30 days back": -30 * DAY, "right again": 0}
AFTER_JUMP_S = 3.0
OFFSET = "offset"  # the file that the library below reads: seconds, a long
RATE_LIMIT = "2000/second"  # never reached, but counted: a limiter may keep time by the wall clock
CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s;

__attribute__((constructor)) static void map_offset(void) {
    int file = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    offset_s = mmap(NULL, sizeof *offset_s, PROT_READ, MAP_SHARED, file, 0);
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (offset_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset_s;
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return out ? (*out = now.tv_sec) : now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Fault(StrEnum):
    """What can be done to the service."""

    KILL, DISK, CLOCK, CHECKPOINT = "kill", "disk", "clock", "checkpoint"


@dataclass(frozen=True)
class Asked:
    """One request of the load.

    Attributes:
        port: the client's, of its connection.
        answer: the status, or what happened instead.
    """

    began: float
    ended: float
    port: int
    answer: str


@dataclass
class Load:
    """Requests as fast as a few clients get their answers."""

    asked: list[Asked] = field(default_factory=list)

    def since(self, moment: float) -> list[Asked]:
        """Return what ended after that moment."""
        return [one for one in self.asked if one.ended >= moment]

    @property
    def failed(self) -> list[Asked]:
        """What was not answered with 200."""
        return [one for one in self.asked if one.answer != "200"]

    def longest_gap(self, since: float) -> float:
        """Return the longest time after that moment in which nothing was answered."""
        good = [since, *sorted(one.ended for one in self.since(since) if one.answer == "200")]
        return max(later - earlier for earlier, later in itertools.pairwise(good))


Findings = tuple[list[Check], Sheet]


@cli.command()
def main(
    faults: Annotated[list[Fault] | None, typer.Argument(help="Default: all.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables there.")] = None,
) -> None:
    """Do one fault after the other, and say whether the service held."""
    console = Console()
    scenarios: dict[Fault, Callable[[], Findings]] = {
        Fault.KILL: kill_a_worker,
        Fault.DISK: fill_the_disk,
        Fault.CLOCK: turn_the_clock,
        Fault.CHECKPOINT: spoil_the_checkpoint,
    }
    chosen = list(dict.fromkeys(faults or scenarios))
    found = []
    for fault in chosen:
        with console.status(fault):
            found.append(scenarios[fault]())
    checks, sheets = [check for some, _ in found for check in some], [sheet for _, sheet in found]
    report = Report("Faults", f"Faults: {', '.join(chosen)}.", sheets, checks)
    raise typer.Exit(finish(report, console, f"python -m stress.faults {' '.join(chosen)}", markdown))


def kill_a_worker() -> Findings:
    """Kill one of two workers under load."""
    with running(2) as service:
        return uvloop.run(_kill_a_worker(service))


async def _kill_a_worker(service: Service) -> Findings:
    async with loading(service) as load:
        await asyncio.sleep(BEFORE_S)
        victim = min(service.workers())
        decoders = service.decoders(victim)
        os.kill(victim, signal.SIGSTOP)
        held = {port for port, owner in service.owners().items() if owner == victim}
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        back_s = await service.until_all_answer(2, without={victim})
        await asyncio.sleep(BEFORE_S)
    failed = load.failed
    strangers = [one for one in failed if one.port not in held]
    gap_s, left = load.longest_gap(killed), {pid for pid in decoders if is_alive(pid)}
    checks = [
        Check("kill: failed requests that the killed worker did not hold", str(len(strangers)), "0", not strangers),
        Check("kill: longest time without an answer", f"{gap_s:.2f} s", f"{LONGEST_GAP_S:g} s", gap_s <= LONGEST_GAP_S),
        Check("kill: until both workers answer", f"{back_s:.1f} s", f"{LONGEST_GAP_S:g} s", back_s <= LONGEST_GAP_S),
        Check("kill: processes that the killed worker leaves behind", str(len(left)), "0", not left),
    ]
    rows = [
        ("requests", f"{len(load.asked):,}"),
        ("connections that the killed worker held", str(len(held))),
        ("requests that failed", f"{len(failed)} ({_listed(Counter(one.answer for one in failed))})"),
        ("requests answered between the kill and the new worker's first answer", str(_between(load, killed, back_s))),
    ]
    return checks, Sheet("kill: SIGKILL for one of two workers", ("what", "measured"), rows)


def _between(load: Load, began: float, seconds: float) -> int:
    return sum(one.answer == "200" and one.ended <= began + seconds for one in load.since(began))


def fill_the_disk() -> Findings:
    """Let the service run out of room for all that it writes."""
    with tmpfs(DISK_BYTES) as disk, running(1, {"TMPDIR": str(disk)}, store_dir=disk / "store") as service:
        return uvloop.run(_fill_the_disk(service, disk / "store"))


async def _fill_the_disk(service: Service, store: Path) -> Findings:
    (photo,) = drawings.photos(1).values()
    variants = drawings.variants(photo)
    client = Client(service.host, service.port)
    steps: list[tuple[str, str, str]] = []

    async def step(what: str, request: bytes, *intended: int) -> Answer:
        answer = await client.ask(request)
        steps.append((what, str(answer.status), " or ".join(map(str, intended))))
        return answer

    def upload() -> bytes:
        return form("/v1/images", "file", next(variants))

    first = await step("store a photo", upload(), 201)
    count = 1
    while (await client.ask(upload())).status == 201:
        count += 1
    path = first.headers["location"]
    await step(f"store one more after {count}", upload(), 507)
    leftovers = len(list(store.glob("*.part")))
    for kind, request, intended in (
        ("classify", raw(photo), 200),
        ("look at a stored one", build("GET", f"{path}/activations/conv1.png"), 200),
        ("garbage", raw(b"garbage"), 415),  # the first of its kind: a new line in what is counted
        ("unknown layer", build("GET", "/v1/layers/conv99/filters"), 404),
        ("read /metrics", build("GET", "/metrics"), 200),
        ("be ready", build("GET", "/readyz"), 200),
    ):
        await step(f"full: {kind}", request, intended)
    next(iter(store.glob("?" * 64))).unlink()
    next(iter(store.glob("?" * 64))).unlink()
    await step("two files removed: store a photo", upload(), 201)
    client.close()
    wrong = [what for what, status, intended in steps if status != intended]
    errors = service.errors()
    checks = [
        Check("disk: answers that were not intended", ", ".join(wrong) or "0", "0", not wrong),
        Check("disk: half-written files", str(leftovers), "0", leftovers == 0),
        Check("disk: failures in the log", str(len(errors)), "0", not errors),
    ]
    return checks, Sheet(
        f"disk: {DISK_BYTES / 1e6:g} MB for all that is written", ("step", "answer", "intended"), steps
    )


def turn_the_clock() -> Findings:
    """Let the wall clock jump under load."""
    with tempfile.TemporaryDirectory(prefix="torchlight-clock-") as name:
        variables = fake_clock(Path(name))
        with running(1, variables, rate_limit=RATE_LIMIT) as service:
            return uvloop.run(_turn_the_clock(service, Path(name) / OFFSET))


def fake_clock(folder: Path) -> dict[str, str]:
    """Compile the library, and return the variables that put it before a process, with no offset yet."""
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    turn(folder / OFFSET, 0)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(folder / OFFSET)}


def turn(offset: Path, seconds: int) -> None:
    """Write, in place, what the library reads."""
    with offset.open("r+b" if offset.exists() else "wb") as file:
        file.write(struct.pack("l", seconds))


async def _turn_the_clock(service: Service, offset: Path) -> Findings:
    client = Client(service.host, service.port)
    (photo,) = drawings.photos(1).values()
    path = (await client.ask(form("/v1/images", "file", photo))).headers["location"]
    rows, checks = [], []
    async with loading(service) as load:
        await asyncio.sleep(BEFORE_S)
        for jump, seconds in JUMPS.items():
            jumped = time.monotonic()
            turn(offset, seconds)
            await asyncio.sleep(AFTER_JUMP_S)
            stored = (await client.ask(build("GET", f"{path}/prediction"))).status
            asked = load.since(jumped)
            slowest = max(one.ended - one.began for one in asked)
            answers = Counter(one.answer for one in asked)
            date = (await client.ask(build("GET", "/livez"))).headers["date"]
            rows.append((jump, date, _listed(answers), f"{1000 * slowest:.0f}", str(stored)))
            if jump in ("1 hour on", "30 days on"):
                intended = 200 if jump == "1 hour on" else 404
                checks.append(Check(f"clock, {jump}: the stored image", str(stored), str(intended), stored == intended))
    client.close()
    failed, errors = load.failed, service.errors()
    checks.append(Check("clock: failed requests", f"{len(failed)} of {len(load.asked):,}", "0", not failed))
    checks.append(Check("clock: failures in the log", str(len(errors)), "0", not errors))
    head = ("jump", "the service's Date", "answers", "slowest ms", "stored image")
    return checks, Sheet("clock: the wall clock jumps", head, rows)


def spoil_the_checkpoint() -> Findings:
    """Cut, remove and exchange the file of the network that is being served."""
    with tempfile.TemporaryDirectory(prefix="torchlight-checkpoint-") as name:
        path = Path(name) / PRETRAINED.name
        shutil.copy(PRETRAINED, path)
        with running(2, checkpoint=path) as service:
            return uvloop.run(_spoil_the_checkpoint(service, path))


async def _spoil_the_checkpoint(service: Service, path: Path) -> Findings:
    good = path.read_bytes()
    digest = await _digest(service)
    rows: list[tuple[str, str]] = []
    checks: list[Check] = []

    async def expect(what: str, expected: str, load: Load) -> None:
        found = await _digest(service)
        rows.append((what, f"{_short(found)}, {len(load.asked):,} requests, {len(load.failed)} failed"))
        checks.append(
            Check(f"checkpoint: {what}", _short(found), _short(expected), found == expected and not load.failed)
        )

    async with loading(service) as load:
        await asyncio.sleep(BEFORE_S)
        os.truncate(path, len(good) // 2)
        await asyncio.sleep(BEFORE_S)
        await expect("cut in half where it lies", digest, load)
        await _reload(service, "reload failed")
        await expect("told to reload it", digest, load)
        path.unlink()
        await asyncio.sleep(BEFORE_S)
        await expect("removed", digest, load)
        await _reload(service, "reload failed")
        await expect("told to reload what is not there", digest, load)
    async with loading(service) as load:
        victim = min(service.workers())
        os.kill(victim, signal.SIGKILL)
        await _until(lambda: service.logged("cannot start") > 0)
    in_flight = f"{len(load.failed)} of {len(load.asked):,} failed, at most {CLIENTS} were under way"
    rows.append(("one of two workers killed, and none can start", in_flight))
    checks.append(Check("checkpoint: a worker killed meanwhile", in_flight, "go on", len(load.failed) <= CLIENTS))
    path.write_bytes(good)
    back_s = await service.until_all_answer(2)
    rows.append(("put back", f"both workers answer after {back_s:.0f} s"))
    from torchlight.model.checkpoint import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(path)
    header = replace(loaded.header, metrics=dict(loaded.header.metrics) | {"note": {"exchanged": 1.0}})
    save_checkpoint(path, loaded.network, header)
    async with loading(service) as load:
        await _reload(service, "reloaded")
        await expect("another one in its place, told to reload it", load_checkpoint(path).digest, load)
    return checks, Sheet("checkpoint: its file", ("what", "then"), rows)


async def _reload(service: Service, says: str) -> None:
    """Tell the service to reload, and return when its log says so."""
    before = service.logged(says)
    service.process.send_signal(signal.SIGHUP)
    await _until(lambda: service.logged(says) > before)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(POLL_S)


async def _digest(service: Service) -> str:
    """Return which network answers, or that it is not always the same one."""
    digests = set()
    for _ in range(CLIENTS):
        client = Client(service.host, service.port)
        digests.add(str((await client.ask(build("GET", "/v1/model"))).json()["digest"]))
        client.close()
    return " and ".join(sorted(digests))


@contextlib.asynccontextmanager
async def loading(service: Service) -> AsyncIterator[Load]:
    """Keep CLIENTS clients asking, half of them on kept connections; wait for their last answers at the end."""
    load, is_over = Load(), asyncio.Event()
    request = raw(drawings.small_images()["jpeg 200x150"])

    async def ask(keeps: bool) -> None:
        client = Client(service.host, service.port, resends=False)
        while not is_over.is_set():
            began = time.monotonic()
            try:
                answer = str((await client.ask(request)).status)
            except (Closed, OSError) as error:
                answer = type(error).__name__.lower()
                await asyncio.sleep(POLL_S)
            load.asked.append(Asked(began, time.monotonic(), client.port, answer))
            if not keeps:
                client.close()
        client.close()

    tasks = [asyncio.create_task(ask(number % 2 == 0)) for number in range(CLIENTS)]
    try:
        yield load
    finally:
        is_over.set()
        await asyncio.gather(*tasks)


@contextlib.contextmanager
def tmpfs(size: int) -> Iterator[Path]:
    """Yield a folder on a disk of so many bytes, in memory."""
    with tempfile.TemporaryDirectory(prefix="torchlight-disk-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _short(digest: str) -> str:
    return digest if " and " in digest else digest[:19]


def _listed(answers: Counter[str]) -> str:
    return ", ".join(f"{answer}: {number:,}" for answer, number in sorted(answers.items())) or "none"


if __name__ == "__main__":
    cli()
