"""Make dashboard.png and the samples in docs/operations.md: a real service under load, as the dashboard shows it.

python docs/pictures/draw_dashboard.py

Starts two processes of the service with the checkpoint we ship and a short queue, sends what people send (photos,
batches, views, broken files, clients that leave), lets more come than it can take, and kills one process. What the
panels of deploy/grafana/torchlight.json ask for is computed here from the scrapes, for what they use of PromQL.
"""

import contextlib
import io
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from PIL import Image, ImageOps
from prometheus_client.parser import text_string_to_metric_families

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DASHBOARD = ROOT / "deploy" / "grafana" / "torchlight.json"
PHOTO = (HERE / "ship.jpg").read_bytes()
EVERY_S, WINDOW_S = 1.0, 10.0  # of scrapes, and of rates
PHASES = (  # seconds, clients, what they send: calm, busy, more than it can take, calm again, and then other pictures
    (20, 2, "photos"),
    (20, 8, "photos"),
    (20, 64, "photos"),
    (25, 3, "photos"),
    (25, 3, "noise"),
)
KILL_AFTER_S = 66
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#b8a800", "#5b3a8c", "#333333")

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
Scrape = tuple[float, dict[tuple[str, Labels], float]]


def main() -> None:
    """Write the picture, and print a scrape and a log event."""
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (url, pid, log):
        scrapes = observe(url, pid)
        text = httpx2.get(f"{url}/metrics").text
        event = next(line for line in log() if '"path": "/v1/predict"' in line and '"status": 200' in line)
    draw(json.loads(DASHBOARD.read_text()), scrapes)
    print(text)
    print(event)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, int, Callable[[], list[str]]]]:
    """Start the service; gives its address, its process, and what it has logged."""
    settings = {"workers": 2, "threads": 1, "queue_size": 24, "max_files": 8, "deadline_s": 2, "log_format": "json"}
    settings |= {"store_dir": folder / "store", "device": "cpu"}
    environment = dict(os.environ) | {f"TORCHLIGHT_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "torchlight", "serve", "--port", "0"]
    path = folder / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        found = re.search(r"(http://\S+)/$", process.stderr.readline())
        assert found
        until(lambda: httpx2.get(f"{found[1]}/readyz").status_code == 200)
        yield found[1], process.pid, lambda: path.read_text().splitlines()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def until(is_so: Callable[[], bool]) -> None:
    """Wait, two minutes at most."""
    limit = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.1)


def observe(url: str, pid: int) -> list[Scrape]:
    """Send the load and return the scrapes made meanwhile."""
    started, scrapes, killed = time.monotonic(), list[Scrape](), False
    begins = 0.0
    wanted = Crowd(url)
    with httpx2.Client(base_url=url, timeout=30) as client:
        for seconds, clients, pictures in PHASES:
            PICTURES[:] = DRAWN[pictures]()
            wanted.become(clients)
            begins += seconds
            while (now := time.monotonic() - started) < begins:
                if now > KILL_AFTER_S and not killed:
                    killed = kill_a_process(pid)
                with contextlib.suppress(httpx2.HTTPError):
                    scrapes.append((now, read(client.get("/metrics").text)))
                time.sleep(EVERY_S)
    wanted.become(0)
    return scrapes


def kill_a_process(pid: int) -> bool:
    """End one of those that answer, as a lack of memory would."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    holders = [
        int(child)
        for child in children
        if any("hold-" in os.readlink(one) for one in Path(f"/proc/{child}/fd").iterdir())
    ]
    os.kill(holders[0], signal.SIGKILL)
    return True


class Crowd:
    """Clients that send one thing after another; there are as many as said last."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._threads: list[tuple[threading.Thread, threading.Event]] = []

    def become(self, number: int) -> None:
        """Let clients come or go."""
        while len(self._threads) < number:
            leave = threading.Event()
            thread = threading.Thread(target=self._send, args=(len(self._threads), leave))
            thread.start()
            self._threads.append((thread, leave))
        gone, self._threads = self._threads[number:], self._threads[:number]
        for _, leave in gone:
            leave.set()
        for thread, _ in gone:
            thread.join()

    def _send(self, seed: int, leave: threading.Event) -> None:
        choose = random.Random(seed)
        while not leave.is_set():
            what = choose.choices((photo, batch, view, broken, impatient), (80, 6, 6, 4, 4))[0]
            with contextlib.suppress(httpx2.HTTPError), httpx2.Client(base_url=self._url, timeout=30) as client:
                what(client, choose)
            leave.wait(choose.uniform(0.05, 0.25))


def photo(client: httpx2.Client, choose: random.Random) -> None:
    """Send one image of a few that look different."""
    client.post("/v1/predict", files={"file": choose.choice(PICTURES)})


def batch(client: httpx2.Client, choose: random.Random) -> None:
    """Send some, one of them broken."""
    client.post("/v1/predict/batch", files=[("files", one) for one in [*choose.sample(PICTURES, 4), b"text"]])


def view(client: httpx2.Client, _choose: random.Random) -> None:
    """Look at filters."""
    client.get("/v1/layers/conv1/filters.png")


def broken(client: httpx2.Client, choose: random.Random) -> None:
    """Send what is no image, or half of one, or ask for what is not there."""
    content = choose.choice((b"text", PHOTO[: len(PHOTO) // 2]))
    client.post("/v1/predict", files={"file": content})
    client.get("/v1/layers/none/filters")


def impatient(client: httpx2.Client, _choose: random.Random) -> None:
    """Leave before the answer."""
    client.post("/v1/predict", files={"file": PHOTO}, timeout=httpx2.Timeout(30, read=0.002))


def crops() -> list[bytes]:
    """Return parts of the photo, some mirrored, as if they were many photos."""
    image = Image.open(io.BytesIO(PHOTO)).convert("RGB")
    choose, side = random.Random(0), min(image.size)
    files = []
    for number in range(100):
        width = choose.randint(side * 3 // 4, side)
        left, top = choose.randint(0, image.width - width), choose.randint(0, image.height - width)
        part = image.crop((left, top, left + width, top + width))
        files.append(encode(ImageOps.mirror(part) if number % 2 else part))
    return files


def noise() -> list[bytes]:
    """Return pictures that are no photos."""
    return [encode(Image.effect_noise((64, 64), 20 + 2 * number).convert("RGB")) for number in range(100)]


def encode(image: Image.Image) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


DRAWN = {"photos": crops, "noise": noise}
PICTURES: list[bytes] = []  # that clients choose from now


def read(text: str) -> dict[tuple[str, Labels], float]:
    """Return the samples of a scrape."""
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples}


TOKEN = re.compile(r"\s*(sum|rate|histogram_quantile|by|[\d.]+|[a-z]\w*(?:\{[^}]*\})?|\[[^\]]*\]|[(),/>])")


@dataclass
class Query:
    """What a panel asks for, at one moment."""

    tokens: list[str]
    scrapes: list[Scrape]

    def value(self) -> Vector:
        """Take an expression off the tokens."""
        left = self.term()
        while self.tokens and self.tokens[0] in "/>":
            operator, right = self.tokens.pop(0), self.term()
            if operator == ">":
                bound = right[frozenset()]
                left = {labels: number for labels, number in left.items() if number > bound}
            else:
                left = {labels: left[labels] / right[labels] for labels in left if right.get(labels)}
        return left

    def term(self) -> Vector:
        """Take what stands between operators."""
        token = self.tokens.pop(0)
        if token == "sum":
            by = self.labels() if self.tokens[0] == "by" else []
            return total(self.arguments()[0], by)
        if token == "histogram_quantile":
            share, buckets = self.arguments()
            return quantile(share[frozenset()], buckets)
        if token == "rate":
            self.tokens.pop(0)
            selector = self.tokens.pop(0)
            assert self.tokens.pop(0) == "[$__rate_interval]"
            self.tokens.pop(0)
            return self.rate(selector)
        if re.fullmatch(r"[\d.]+", token):
            return {frozenset(): float(token)}
        return select(token, self.scrapes[-1])

    def arguments(self) -> list[Vector]:
        """Take what is in parentheses."""
        self.tokens.pop(0)
        values = [self.value()]
        while self.tokens.pop(0) == ",":
            values.append(self.value())
        return values

    def labels(self) -> list[str]:
        """Take ``by (a, b)``."""
        end = self.tokens.index(")")
        names = [token for token in self.tokens[2:end] if token != ","]
        del self.tokens[: end + 1]
        return names

    def rate(self, selector: str) -> Vector:
        """Return the increase a second within the window."""
        now = self.scrapes[-1][0]
        first = next(one for one in self.scrapes if one[0] >= now - WINDOW_S)
        before, after = select(selector, first), select(selector, self.scrapes[-1])
        seconds = now - first[0]
        return (
            {labels: (number - before.get(labels, 0)) / seconds for labels, number in after.items()} if seconds else {}
        )


def select(selector: str, scrape: Scrape) -> Vector:
    """Return the samples that a selector names."""
    name, _, rest = selector.partition("{")
    matchers = re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', rest)

    def fits(labels: Labels) -> bool:
        values = dict(labels)
        tests = {"=": str.__eq__, "!=": str.__ne__}
        return all(
            bool(re.fullmatch(wanted, values.get(label, ""))) == (operator == "=~")
            if "~" in operator
            else tests[operator](values.get(label, ""), wanted)
            for label, operator, wanted in matchers
        )

    return {labels: value for (found, labels), value in scrape[1].items() if found == name and fits(labels)}


def total(vector: Vector, by: list[str]) -> Vector:
    """Return the sums of those whose labels ``by`` agree."""
    sums: Vector = {}
    for labels, value in vector.items():
        key = frozenset((name, label) for name, label in labels if name in by)
        sums[key] = sums.get(key, 0.0) + value
    return sums


def quantile(share: float, buckets: Vector) -> Vector:
    """Return what Prometheus does: linear within the bucket, the last bound if it is beyond."""
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, value in buckets.items():
        others = frozenset(one for one in labels if one[0] != "le")
        groups.setdefault(others, []).append((float(dict(labels)["le"]), value))
    return {labels: _quantile(share, sorted(group)) for labels, group in groups.items() if max(group)[1] > 0}


def _quantile(share: float, buckets: list[tuple[float, float]]) -> float:
    rank, low, below = share * buckets[-1][1], 0.0, 0.0
    for bound, number in buckets:
        if number >= rank:
            return low if math.isinf(bound) else low + (bound - low) * (rank - below) / max(number - below, 1e-12)
        low, below = bound, number
    return low


def draw(dashboard: dict[str, object], scrapes: list[Scrape]) -> None:
    """Draw the panels over time, each where the dashboard has it."""
    panels = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]  # type: ignore[index,attr-defined]
    rows = max(panel["gridPos"]["y"] for panel in panels) // 8 + 1
    plt.rcParams |= {"font.size": 9, "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    figure, axes = plt.subplots(rows, 3, figsize=(16, 3.3 * rows + 0.8), layout="constrained", squeeze=False)
    phases = ", then ".join(f"{clients} clients" for _, clients, _ in PHASES[:-1])
    figure.suptitle(
        "Torchlight's dashboard (deploy/grafana/torchlight.json), its queries computed from real scrapes and drawn by "
        f"draw_dashboard.py, not by Grafana\ntwo processes on two busy cores; {phases}, then noise in place of photos; "
        f"one process killed after {KILL_AFTER_S} s; rates over {WINDOW_S:g} s",
        fontsize=10.5,
        x=0.01,
        ha="left",
    )
    for panel in panels:
        draw_panel(axes[panel["gridPos"]["y"] // 8][panel["gridPos"]["x"] // 8], panel, scrapes)
    figure.savefig(HERE / "dashboard.png", dpi=100, metadata={"Software": None})


def draw_panel(axis: Axes, panel: dict[str, object], scrapes: list[Scrape]) -> None:
    """Draw one panel's queries."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for target in panel["targets"]:  # type: ignore[attr-defined]
        for end in range(5, len(scrapes) + 1):
            query = Query(TOKEN.findall(target["expr"]), scrapes[:end])
            for labels, value in query.value().items():
                name = re.sub(r"\{\{(\w+)\}\}", lambda found, of=dict(labels): of[found[1]], target["legendFormat"])
                lines.setdefault(name, []).append((scrapes[end - 1][0], value))
    for (name, points), colour in zip(sorted(lines.items()), COLOURS * 3, strict=False):
        axis.plot(*zip(*points, strict=True), label=name, color=colour, linewidth=1.6)
    axis.set_title(str(panel["title"]))
    highest = max((value for points in lines.values() for _, value in points), default=1.0)
    axis.set_ylim(0, highest * (1.55 if len(lines) > 4 else 1.35) or 1.0)  # room for the legend
    axis.locator_params(axis="y", nbins=5)
    axis.set_xlabel("seconds", fontsize=8, color="#666666", labelpad=1)
    axis.set_xlim(0, sum(seconds for seconds, *_ in PHASES))
    axis.yaxis.set_major_formatter(FuncFormatter(FORMATS[panel["fieldConfig"]["defaults"]["unit"]]))  # type: ignore[index]
    axis.grid(color="#e4e4e4")
    axis.spines[["top", "right"]].set_visible(False)
    begins = 0
    for seconds, *_ in PHASES[:-1]:
        begins += seconds
        axis.axvline(begins, color="#bbbbbb", linewidth=0.8, linestyle="--")
    axis.axvline(KILL_AFTER_S, color="#bbbbbb", linewidth=0.8, linestyle=":")
    axis.legend(fontsize=7.5, frameon=False, ncols=2 if len(lines) > 4 else 1, loc="upper left")


FORMATS: dict[str, Callable[[float, int], str]] = {
    "reqps": lambda value, _: f"{value:g}/s",
    "s": lambda value, _: f"{value:g} s" if value >= 1 or not value else f"{1000 * value:g} ms",
    "short": lambda value, _: f"{value:g}",
    "percentunit": lambda value, _: f"{value:.0%}",
    "bytes": lambda value, _: f"{value / 1e6:g} MB",
}

if __name__ == "__main__":
    main()
