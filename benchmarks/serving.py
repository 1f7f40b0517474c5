"""Our service beside the ones that a user would otherwise write, on this machine, in one run; all as ratios.

make peers
python -m benchmarks.serving [--rounds 3] [--seconds 5] [--connections 1 8 32 128] [--only ours LitServe]
    [--also before=../torchlight-of-last-week] [--checkpoint FILE | --random resnet18]
    [--markdown docs/serving.md] [--picture docs/pictures/serving.png]

Needs wrk (`apt-get install wrk`), which shares the cores with what it measures: its share of the CPU time is reported.
All contestants are started, and each answers every file once for comparison. Then, for each number of connections, one
after the other is warmed up and measured while the others are stopped (SIGSTOP), and all of that again in each round:
the speed of a machine changes within minutes, so what is compared has to be measured within one.

`--also NAME=DIR` adds another checkout of Torchlight as a contestant. It runs in DIR on this interpreter, with the
settings of "ours". A table shows ours divided by it, as the median of the ratios of the rounds.

The ceiling is what the machine could do without HTTP: decode and classify in one process, at the batch size, and on one
decoding thread or one for each core, whose median over the rounds is the best; the best of each round would be luck.
The best peer is the one that answers most over 32 connections.
"""

import argparse
import itertools
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median

import httpx2
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from stress.load import drawings
from stress.load.report import Check, Report, Sheet, finish
from stress.load.service import ROOT
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.defaults import PRETRAINED
from torchlight.model.engines.engine import choose_engine
from torchlight.model.engines.int8_ranges import quantisation_path
from torchlight.model.engines.parity import InferenceFunction
from torchlight.model.images import ImageSpec, prepare_image
from torchlight.model.named_checkpoints import find_checkpoint
from torchlight.model.network import NetworkConfig, build_network

PEERS = ROOT / ".venv" / "peers" / "bin"
SCRIPT = ROOT / "benchmarks" / "post.lua"
CONNECTIONS = (1, 8, 32, 128)
SHARES = {"32x32 JPEG": 0.6, "photo": 0.8}  # of the ceiling, at least: small files are mostly HTTP
ALONE, BUSY = 1, 32  # connections that the limits are about
WAYS = tuple(itertools.product((1, 4, 16, 32), {1, os.cpu_count() or 1}))  # batch sizes, threads that decode
FILES = 16
PATIENCE_S = 120
WARM_UP_S = 1
SETTLE_S = 0.5  # for what wrk did not wait for: timers run on while a process is stopped
TOLERANCE = 0.02  # in a probability: a peer's resize of a photo rounds otherwise than ours
QUIET = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "LITSERVE_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Contestant:
    """A service.

    Attributes:
        command: with PORT in place of a port.
        environment: added to ours.
        tolerance: how far a probability may be from that in float32.
        folder: where the command runs and its modules are imported from.
    """

    name: str
    settings: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    folder: Path = ROOT


@dataclass(frozen=True)
class Result:
    """One run of wrk. ``client_share`` is its part of all CPU time there was."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    client_share: float


@dataclass(frozen=True)
class Measured:
    """One kind of files: images/s of the ceiling, and the results of each round by contestant and connections."""

    kind: str
    kilobytes: float
    ceiling: float
    rounds: Mapping[tuple[str, int], Sequence[Result]]

    @cached_property
    def results(self) -> Mapping[tuple[str, int], Result]:
        """The medians of the rounds."""
        return {key: _median_of(results) for key, results in self.rounds.items()}

    def best_peer(self) -> str | None:
        """Return the peer that answers most over BUSY connections, if any was measured."""
        rates = {
            peer.name: one.requests_per_s for peer in PEER_SERVICES if (one := self.results.get((peer.name, BUSY)))
        }
        return max(rates, key=rates.__getitem__, default=None)


_SERVE = (sys.executable, "-m", "torchlight", "serve", "--port", "PORT")
OURS = (
    Contestant("ours", "2 workers", (*_SERVE, "--workers", "2")),
    Contestant("ours, 1 worker", "2 threads", _SERVE),
)
INT8 = Contestant("ours, int8", "2 workers", (*_SERVE, "--workers", "2"), {"TORCHLIGHT_PRECISION": "int8"}, 0.2)
_UVICORN = (str(PEERS / "python"), "-m", "uvicorn", "--port", "PORT", "--no-access-log")
_LITSERVE = (str(PEERS / "python"), "-m", "benchmarks.peers.lit", "--port", "PORT", "--workers", "2", "--batch")
_BENTOML = (str(PEERS / "bentoml"), "serve", "--host", "127.0.0.1", "--port", "PORT", "benchmarks.peers.bento:Peer")
PEER_SERVICES = (
    Contestant("FastAPI, tutorial", "1 process", (*_UVICORN, "benchmarks.peers.tutorial:app")),
    Contestant("FastAPI, tuned", "2 processes, 1 thread", (*_UVICORN, "--workers", "2", "benchmarks.peers.tuned:app")),
    Contestant("LitServe", "2 workers, 1 thread, batches of 16", (*_LITSERVE, "16")),
    Contestant("LitServe, no batches", "2 workers, 1 thread", (*_LITSERVE, "1")),
    Contestant("BentoML", "2 workers, 1 thread", _BENTOML),
    Contestant(
        "Ray Serve",
        "2 replicas, 1 thread, batches of 16",
        (str(PEERS / "python"), "-m", "benchmarks.peers.rayserve", "PORT"),
    ),
)


def main() -> int:
    """Measure, print, and return the exit code."""
    arguments = _read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind, stopped
    if shutil.which("wrk") is None:
        sys.exit("benchmarks.serving: wrk is not installed; apt-get install wrk")
    contestants = [one for one in (*OURS, INT8, *PEER_SERVICES) if one.name in arguments.only] + arguments.also
    if not PEERS.exists() and any(one in PEER_SERVICES for one in contestants):
        sys.exit(f"benchmarks.serving: {PEERS} does not exist; make peers")
    console = Console(width=140)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.random is not None:
            arguments.checkpoint = _save_random(arguments.random, Path(folder))
        classifier = Classifier(load_checkpoint(arguments.checkpoint), torch.device("cpu"))
        run = choose_engine(classifier, "auto").run
        if not quantisation_path(arguments.checkpoint).exists():
            contestants = [one for one in contestants if one is not INT8]
        for name, kind in (("32x32 JPEG", "small"), ("photo", "photo")):
            files = draw_files(Path(folder), kind)
            measured.append(_measure(name, files, contestants, classifier, run, arguments))
    summary = (
        f"Medians of {arguments.rounds} rounds of {arguments.seconds} s, {os.cpu_count()} cores, checkpoint "
        f'{arguments.checkpoint.stem}; {classifier.spec.size} pixels. All but "int8" compute in float32.'
    )
    sheets = [_sheet(one, contestants) for one in measured]
    sheets += [_ratio_sheet(one, arguments.also) for one in measured if arguments.also and OURS[0] in contestants]
    report = Report("Serving", summary, sheets, [check for one in measured for check in _checks(one)])
    if arguments.picture is not None:
        _chart(measured, contestants).savefig(arguments.picture, dpi=110)
    command = shlex.join(["python", "-m", "benchmarks.serving", *sys.argv[1:]])
    return finish(report, console, command, arguments.markdown, arguments.picture)


def _measure(
    kind: str,
    files: Sequence[Path],
    contestants: Sequence[Contestant],
    classifier: Classifier,
    run: InferenceFunction,
    arguments: argparse.Namespace,
) -> Measured:
    expected = [run(prepare_image(file.read_bytes(), classifier.spec.resizing)[0][None])[0] for file in files]
    answers = {file: float(one.max()) for file, one in zip(files, expected, strict=True)}
    ceilings: dict[tuple[int, int], list[float]] = defaultdict(list)
    found: dict[tuple[str, int], list[Result]] = defaultdict(list)
    with ExitStack() as stack:
        services = {}
        for contestant in contestants:
            print(f"{kind}: {contestant.name} starts", flush=True)
            services[contestant.name] = stack.enter_context(_running(contestant, arguments.checkpoint, answers))
        for number, connections in itertools.product(range(arguments.rounds), arguments.connections):
            print(f"{kind}, round {number + 1}: {connections} connections", flush=True)
            if connections == arguments.connections[-1]:
                for way in WAYS:
                    ceilings[way].append(ceiling(classifier, run, files, *way, arguments.seconds))
            for name, service in services.items():
                with service.awake():
                    run_wrk(service.port, files, connections, WARM_UP_S)
                    found[name, connections].append(run_wrk(service.port, files, connections, arguments.seconds))
    kilobytes = median(file.stat().st_size for file in files) / 1000
    return Measured(kind, kilobytes, max(map(median, ceilings.values())), found)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    names = [one.name for one in (*OURS, INT8, *PEER_SERVICES)]
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument("--also", action="append", type=_other_checkout, default=[], metavar="NAME=DIR")
    parser.add_argument("--connections", nargs="+", type=int, default=CONNECTIONS)
    network = parser.add_mutually_exclusive_group()
    network.add_argument("--checkpoint", type=lambda text: find_checkpoint(Path(text)), default=PRETRAINED)
    network.add_argument("--random", metavar="ARCHITECTURE", help="random weights, 10 classes, 224 pixels")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


def _other_checkout(named: str) -> Contestant:
    """Return the contestant for ``NAME=DIR``.

    Raises:
        argparse.ArgumentTypeError: there is no Torchlight in DIR.
    """
    name, _, folder = named.partition("=")
    path = Path(folder).resolve()
    if not folder or not any((path / module).exists() for module in ("torchlight", "torchlight.py")):
        raise argparse.ArgumentTypeError(f"{named!r} is not NAME=DIR with a checkout of Torchlight in DIR")
    return replace(OURS[0], name=name, folder=path)


def _save_random(architecture: str, folder: Path) -> Path:
    """Save a network of torchvision with random weights, whose answers are as good as any for their time."""
    torch.manual_seed(0)
    config = NetworkConfig(architecture, 10)
    header = Header(
        network=config,
        class_names=tuple(f"class {number}" for number in range(10)),
        image_spec=ImageSpec(224, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        metrics={},
        training={},
        data={},
        versions={},
    )
    path = folder / f"random-{architecture}.safetensors"
    save_checkpoint(path, build_network(config), header)
    return path


def draw_files(folder: Path, kind: str, number: int = FILES) -> list[Path]:
    """Draw the files: 32x32 of 1 kB, or photos of 900x600 pixels and about 100 kB, as a camera's noise makes them."""
    size, grain = ((32, 32), 0) if kind == "small" else ((900, 600), 14)
    paths = [folder / f"{kind}-{seed}.jpg" for seed in range(number)]
    for seed, path in enumerate(paths):
        path.write_bytes(drawings.jpeg(seed, size, grain))
    return paths


def ceiling(
    classifier: Classifier,
    run: InferenceFunction,
    files: Sequence[Path],
    batch_size: int,
    threads: int,
    seconds: float = 2,
) -> float:
    """Return images/s of decoding and classifying in this process, the files in memory."""
    contents = [file.read_bytes() for file in files] * (64 // FILES)

    def prepare(content: bytes) -> Tensor:
        return prepare_image(content, classifier.spec.resizing)[0]

    began, rounds = time.perf_counter(), 0
    with ThreadPoolExecutor(threads) as pool:
        while time.perf_counter() - began < seconds:
            for start in range(0, len(contents), batch_size):
                batch = contents[start : start + batch_size]
                run(torch.stack(list(map(prepare, batch) if threads == 1 else pool.map(prepare, batch))))
            rounds += 1
    return rounds * len(contents) / (time.perf_counter() - began)


@dataclass(frozen=True)
class _Service:
    """One that runs, but computes only while it is :meth:`awake`. Its processes are those of the session ``sid``."""

    port: int
    sid: int

    @contextmanager
    def awake(self) -> Iterator[None]:
        self.send(signal.SIGCONT)
        try:
            yield
            time.sleep(SETTLE_S)
        finally:
            self.send(signal.SIGSTOP)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and _session(entry) == self.sid:
                with suppress(ProcessLookupError):
                    os.kill(int(entry.name), number)


@contextmanager
def _running(contestant: Contestant, path: Path, answers: Mapping[Path, float]) -> Iterator[_Service]:
    """Start a service, compare its answers and stop it for the time being; end all that it started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(port) if part == "PORT" else part for part in contestant.command]
    environment = os.environ | QUIET | {"TORCHLIGHT_CHECKPOINT": str(path), "PYTHONPATH": str(contestant.folder)}
    environment |= contestant.environment
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPATH"] += os.pathsep + folder
        _save_version(Path(folder))
        process = subprocess.Popen(
            command,
            cwd=contestant.folder,
            env=environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        service = _Service(port, process.pid)
        try:
            _until_answering(process, port, next(iter(answers)))
            for file, expected in answers.items():
                got = max(one["probability"] for one in _post(port, file)["predictions"])
                if abs(got - expected) > contestant.tolerance:
                    raise SystemExit(f"{contestant.name} says {got:.4f} for {file.name}, not {expected:.4f}")
            service.send(signal.SIGSTOP)
            yield service
        except BaseException:
            log.seek(0)
            sys.stderr.write(f"the end of what {contestant.name} said:\n")
            sys.stderr.write(log.read().decode(errors="replace")[-2000:])
            raise
        finally:
            service.send(signal.SIGCONT)
            _end(process, service)


def _save_version(folder: Path) -> None:
    """Save the version of a package ``torchlight``: a checkout that is not installed has none, and older ones ask."""
    metadata = folder / "torchlight-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: torchlight\nVersion: 0\n")


def _until_answering(process: subprocess.Popen[bytes], port: int, file: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            _post(port, file)
            return
        except httpx2.HTTPError:
            if process.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.5)


def _post(port: int, file: Path) -> dict[str, list[dict[str, float]]]:
    files = {"file": ("a.jpg", file.read_bytes(), "image/jpeg")}
    answer = httpx2.post(f"http://127.0.0.1:{port}/v1/predict", files=files, timeout=PATIENCE_S).raise_for_status()
    read: dict[str, list[dict[str, float]]] = answer.json()
    return read


def _end(process: subprocess.Popen[bytes], service: _Service) -> None:
    """End the process and all of its session."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    service.send(signal.SIGKILL)


def _session(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return 0


def run_wrk(port: int, files: Sequence[Path], connections: int, seconds: int) -> Result:
    """Let wrk send the files in turn, on so many connections."""
    url = f"http://127.0.0.1:{port}/v1/predict"
    before = _children_cpu_s()
    process = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", SCRIPT, url, "--", *files],
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    spent = _children_cpu_s() - before
    (line,) = (line for line in process.stdout.splitlines() if line.startswith("RESULT "))
    requests, duration, p50, p99, refused, failed = map(int, line.split()[1:])
    cores = len(os.sched_getaffinity(0))
    share = spent / (duration / 1e6 * cores)
    return Result(requests / (duration / 1e6), p50 / 1000, p99 / 1000, refused + failed, share)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median_of(results: Sequence[Result]) -> Result:
    return Result(
        requests_per_s=median(one.requests_per_s for one in results),
        p50_ms=median(one.p50_ms for one in results),
        p99_ms=median(one.p99_ms for one in results),
        errors=sum(one.errors for one in results),
        client_share=median(one.client_share for one in results),
    )


def _sheet(measured: Measured, contestants: Sequence[Contestant]) -> Sheet:
    rows = []
    for contestant, connections in _rows(measured, contestants):
        result = measured.results[contestant.name, connections]
        rows.append(
            (
                contestant.name,
                contestant.settings,
                str(connections),
                f"{result.requests_per_s / measured.ceiling:.2f}",
                f"{result.requests_per_s:.0f}",
                f"{result.p50_ms:.1f}",
                f"{result.p99_ms:.1f}",
                str(result.errors),
                f"{result.client_share:.0%}",
            )
        )
    head = ("service", "settings", "connections", "of the ceiling", "requests/s", "p50 ms", "p99 ms", "errors", "wrk")
    title = f"{measured.kind}, {measured.kilobytes:.0f} kB; the ceiling is {measured.ceiling:.0f} images/s"
    return Sheet(title, head, rows)


def _ratio_sheet(measured: Measured, others: Sequence[Contestant]) -> Sheet:
    """Return ours divided by each other checkout, as the median of the ratios of the rounds with their range."""
    rows = []
    for contestant, connections in _rows(measured, others):
        rounds = list(
            zip(measured.rounds[OURS[0].name, connections], measured.rounds[contestant.name, connections], strict=True)
        )
        throughput = [ours.requests_per_s / other.requests_per_s for ours, other in rounds]
        p99 = [ours.p99_ms / other.p99_ms for ours, other in rounds]
        rows.append((contestant.name, str(connections), _with_range(throughput), _with_range(p99)))
    head = ("compared with", "connections", "requests/s, ours / it", "p99, ours / it")
    return Sheet(f"{measured.kind}: {OURS[0].name} beside other checkouts", head, rows)


def _rows(measured: Measured, contestants: Sequence[Contestant]) -> Iterator[tuple[Contestant, int]]:
    """Yield each contestant with each number of connections it was measured with."""
    for contestant in contestants:
        yield from ((contestant, connections) for name, connections in measured.rounds if name == contestant.name)


def _with_range(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _checks(measured: Measured) -> list[Check]:
    """Return what we want to be true, with the better of our float32 settings for what is asked."""
    checks = []
    ours = [one.name for one in OURS if (one.name, BUSY) in measured.results]
    if not ours:
        return []
    busy = max((measured.results[name, BUSY] for name in ours), key=lambda result: result.requests_per_s)
    share, least = busy.requests_per_s / measured.ceiling, SHARES[measured.kind]
    checks.append(Check(f"{measured.kind}: of the ceiling", f"{share:.2f}", f"{least:.2f}", share >= least))
    peer = measured.best_peer()
    if peer is None or (peer, ALONE) not in measured.results:
        return checks
    theirs, lone = measured.results[peer, BUSY], measured.results[peer, ALONE]
    alone = max(measured.results[name, ALONE].requests_per_s for name in ours)
    ratios = [
        (f"of {peer}, {BUSY} connections", busy.requests_per_s / theirs.requests_per_s, 1.25),
        (f"of {peer}, 1 connection", alone / lone.requests_per_s, 1.0),
    ]
    if (INT8.name, BUSY) in measured.results:
        ratios.append(
            (f"int8, of {peer}", measured.results[INT8.name, BUSY].requests_per_s / theirs.requests_per_s, 2.0)
        )
    for what, ratio, limit in ratios:
        checks.append(Check(f"{measured.kind}: {what}", f"{ratio:.2f}", f"{limit:.2f}", ratio >= limit))
    half = theirs.p99_ms / 2
    return [
        *checks,
        Check(
            f"{measured.kind}: p99, half of {peer}'s", f"{busy.p99_ms:.0f} ms", f"{half:.0f} ms", busy.p99_ms <= half
        ),
    ]


def _chart(measured: Sequence[Measured], contestants: Sequence[Contestant]) -> Figure:
    """Return the requests a second over BUSY connections as bars, as shares of the ceiling."""
    figure = Figure(figsize=(9, 0.9 + 0.32 * len(contestants) * len(measured)), layout="constrained")
    for axis, one in zip(figure.subplots(len(measured), 1, squeeze=False)[:, 0], measured, strict=True):
        results = [one.results[contestant.name, BUSY] for contestant in reversed(contestants)]
        shares = [result.requests_per_s / one.ceiling for result in results]
        colours = ["#d97706" if contestant.name.startswith("ours") else "0.7" for contestant in reversed(contestants)]
        bars = axis.barh([contestant.name for contestant in reversed(contestants)], shares, color=colours)
        labels = [f"{result.requests_per_s:.0f}/s, p99 {result.p99_ms:.0f} ms" for result in results]
        backing = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the line must not cross them
        axis.axvline(1, color="black", linewidth=1)
        axis.bar_label(bars, labels, padding=4, fontsize=9, bbox=backing)
        axis.set_xlim(0, max(1.0, *shares) * 1.25)
        title = f"{one.kind}, {one.kilobytes:.0f} kB, {BUSY} connections, as shares of {one.ceiling:.0f} images/s"
        axis.set_title(f"{title} without HTTP", loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
