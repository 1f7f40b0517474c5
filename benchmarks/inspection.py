"""What looking inside costs beside the plain answer, on a real server with the checkpoint that ships.

python -m benchmarks.inspection [rounds]

Requests take turns, so that whatever else the machine does falls on all of them; medians over the rounds. The server
keeps no layer outputs between requests, so each view pays for its own forward pass.

The last line is CPU time in the thread for views, measured in this process: what the facts and statistics of all maps
of the first layer cost beside the network's own pass, which the npy form is.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx2
import torch
from rich.console import Console
from rich.table import Table
from starlette.testclient import TestClient

from torchlight.app.inference.service import PreparedImage
from torchlight.app.main import create_app
from torchlight.app.settings import Settings

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "docs" / "pictures" / "ship.jpg"
ROUNDS = 25
PATIENCE_S = 120
FACTS_LIMIT_MS = 3
HEAD_START_S = 0.05  # by then the longer request has reached the network, and is far from done


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        limit_ms: what it may take, less the plain answer if ``is_extra``; None without a limit.
        status: the one it is answered with.
        beside: a longer request that is under way meanwhile; its time does not count.
    """

    name: str
    request: Callable[[], httpx2.Response]
    limit_ms: float | None = None
    is_extra: bool = False
    status: int = 200
    beside: Callable[[], httpx2.Response] | None = None


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with server() as url, httpx2.Client(base_url=url, timeout=PATIENCE_S) as client:
        given = cases(client)
        taken: dict[str, list[float]] = {case.name: [] for case in given}
        for number in range(rounds + 2):
            for case in given:
                taken[case.name].append(1000 * measure(case))
            if number == 1:
                for figures in taken.values():
                    figures.clear()  # the first two rounds warm up
    Console().print(table(given, {name: median(figures) for name, figures in taken.items()}, rounds))
    extra = facts_cpu_ms(rounds)
    verdict = "kept" if extra <= FACTS_LIMIT_MS else "MISSED"
    print(f"facts of all 64 maps of conv1, JSON less npy: {extra:.1f} ms of CPU; limit {FACTS_LIMIT_MS} ms: {verdict}")


def facts_cpu_ms(rounds: int) -> float:
    """Return the CPU time of the thread for views for a layer's maps as JSON, less that for the same maps as npy."""
    torch.set_num_threads(1)  # so that the pass runs in the thread that is measured
    taken: dict[str, list[float]] = {"json": [], "npy": []}
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(store_dir=Path(folder), view_cache_bytes=0, device="cpu", deadline_s=PATIENCE_S))
        view_of, form = app.state.service.view_of, ""

        async def measured(
            load: Callable[[], Awaitable[PreparedImage]], draw: Callable[[PreparedImage], bytes]
        ) -> bytes:
            def draw_measured(image: PreparedImage) -> bytes:
                started = time.thread_time()
                drawn = draw(image)
                taken[form].append(1000 * (time.thread_time() - started))
                return drawn

            answer: bytes = await view_of(load, draw_measured)
            return answer

        app.state.service.view_of = measured
        with TestClient(app) as client:
            path = client.post("/v1/images", files={"file": PHOTO.read_bytes()}).headers["Location"]
            for form in list(taken) * (rounds + 2):
                assert client.get(f"{path}/activations/conv1.{form}").status_code == 200
    return median(taken["json"][2:]) - median(taken["npy"][2:])


def measure(case: Case) -> float:
    """Return the seconds that one request takes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        if case.beside is not None:
            pool.submit(case.beside)
            time.sleep(HEAD_START_S)
        started = time.perf_counter()
        answer = case.request()
        seconds = time.perf_counter() - started
    assert answer.status_code == case.status, answer.text
    return seconds


def cases(client: httpx2.Client) -> list[Case]:
    """Return the requests, the plain answer first."""
    photo = PHOTO.read_bytes()
    path = client.post("/v1/images", files={"file": photo}).headers["Location"]
    tag = client.get(f"{path}/activations/conv1.png").headers["ETag"]

    def get(view: str, **headers: str) -> Callable[[], httpx2.Response]:
        return lambda: client.get(f"{path}/{view}", headers=headers)

    def predict() -> httpx2.Response:
        return client.post("/v1/predict", files={"file": photo})

    return [
        Case("plain answer: POST /v1/predict", predict),
        Case("all 64 maps of conv1, PNG", get("activations/conv1.png"), 60, is_extra=True),
        Case("all 256 maps of relu6, PNG", get("activations/relu6.png"), 60, is_extra=True),
        Case("all 64 maps of conv1, npy", get("activations/conv1.npy")),
        Case("trace of one number", get("trace/conv4/5/3/3")),
        Case("Grad-CAM, npy", get("attributions/grad_cam.npy")),
        Case("HiResCAM, PNG", get("attributions/hires_cam.png")),
        Case("integrated gradients, 64 steps, npy", get("attributions/integrated_gradients.npy")),
        Case("occlusion, 169 windows, npy", get("attributions/occlusion.npy"), 1500),
        Case("plain answer while that occlusion runs", predict, beside=get("attributions/occlusion.npy")),
        Case("one dragged square", get("occlusion?y=8&x=8")),
        Case("reconstruction, PNG", get("reconstructions/relu6/5.png")),
        Case("304, nothing has changed", get("activations/conv1.png", **{"If-None-Match": tag}), 5, status=304),
    ]


def table(given: list[Case], medians: dict[str, float], rounds: int) -> Table:
    """Return the figures with their ratios to the plain answer."""
    plain = medians[given[0].name]
    drawn = Table("request", "median ms", "x plain", "extra ms", "limit", box=None)
    drawn.title = f"{rounds} rounds, {os.cpu_count()} cores, torch {torch.__version__}"
    for case in given:
        taken = medians[case.name]
        held = taken - plain if case.is_extra else taken
        limit = "" if case.limit_ms is None else f"{'extra ' * case.is_extra}{case.limit_ms:g} ms"
        verdict = "" if case.limit_ms is None else (": kept" if held <= case.limit_ms else ": MISSED")
        drawn.add_row(case.name, f"{taken:.1f}", f"{taken / plain:.2f}", f"{taken - plain:+.1f}", limit + verdict)
    return drawn


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Run ``torchlight serve`` on a free port, and yield its address once it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLIGHT_")}
        environment |= {"TORCHLIGHT_STORE_DIR": folder, "TORCHLIGHT_VIEW_CACHE_BYTES": "0", "TORCHLIGHT_DEVICE": "cpu"}
        environment |= {"TORCHLIGHT_DEADLINE_S": str(PATIENCE_S)}
        command = [sys.executable, "-m", "torchlight", "serve", "--port", "0"]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
            assert process.stderr is not None
            try:
                greeting = process.stderr.readline()
                found = re.search(r"http://[^/\s]+", greeting)
                assert found, greeting + process.stderr.read()
                while httpx2.get(f"{found[0]}/readyz", timeout=PATIENCE_S).status_code != 200:
                    assert process.poll() is None
                yield found[0]
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
