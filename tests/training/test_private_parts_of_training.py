"""The parts of dependencies that are not documented, and that :mod:`training` needs as they are.

Each test fails with a sentence that names the part and the code that uses it, when another version changes it.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from torchlight.training.optimisation.malloc_settings import LARGE, M_MMAP_THRESHOLD
from torchlight.training.report import charts

LOSES_ITS_PEER = """
import os, sys, torch, torch.distributed as dist
from torchlight.training.optimisation.distributed import ProcessLost, TorchrunProcesses

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
processes = TorchrunProcesses()
processes.mean(torch.ones(1))
if rank == 1:
    os._exit(0)
try:
    with processes.watched():
        processes.mean(torch.ones(1))
except ProcessLost:
    print("ProcessLost")
except RuntimeError as error:
    print(type(error).__name__, error)
os._exit(0)
"""


def test_gloo_names_itself_in_the_error_when_another_process_has_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOSES_ITS_PEER]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    arguments = str(tmp_path / "store")
    other = subprocess.Popen([*command, "1", arguments], env=environment, stderr=subprocess.DEVNULL)
    done = subprocess.run(
        [*command, "0", arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    other.wait(60)
    assert done.stdout.strip() == "ProcessLost", (
        "torch's gloo backend raises a RuntimeError that does not contain 'gloo' when another process has ended: see "
        f"TorchrunProcesses.watched in training/optimisation/distributed.py; it said: {done.stdout}"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_mallopt_takes_the_threshold() -> None:
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE) == 1, (
        "glibc's mallopt refuses M_MMAP_THRESHOLD: training/optimisation/malloc_settings.py has no effect any more"
    )


def test_momentum_of_sgd_is_kept_under_its_name() -> None:
    layer = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert set(optimizer.state[layer.weight]) == {"momentum_buffer"}, (
        "torch.optim.SGD keeps something else than 'momentum_buffer' for a parameter: see Training.state and "
        "Training.restore in training/optimisation/loop.py, which would lose it when a run is resumed"
    )


def test_matplotlib_writes_colours_as_style_attributes_and_ids_of_artists_on_groups() -> None:
    figure = Figure()
    figure.subplots().plot(1, 1, "o", color=charts.VAL, gid=charts.TIP + "a dot")
    drawn = charts.to_svg(figure, "label")
    (group,) = [node for node in drawn.iter("g") if node.find("title") is not None]
    assert [node.get("fill") for node in group.iter("use")] == ["var(--accent)"], (
        "matplotlib's SVG has another structure: see _inline in training/report/charts.py, which gives the figures of "
        "the report their colours and tooltips"
    )
