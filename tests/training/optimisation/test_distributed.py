"""Two real processes under torchrun make the steps of one, tell everything once, and end together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.optimisation.together import compute
from torchlight.model.errors import DataError, DeviceUnavailable
from torchlight.model.network import NetworkConfig, build_network
from torchlight.training.config import RunOptions, default_batch_size
from torchlight.training.optimisation.batch_norm import SharedBatchNorm, share_statistics
from torchlight.training.optimisation.distributed import Processes, TorchrunProcesses
from torchlight.training.run_setup import Observer, set_up

ROOT = Path(__file__).parents[3]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Return a function that starts a command in a folder, its words going to ``said``; at the end none is left."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, *command: str) -> subprocess.Popen[str]:
        environment = os.environ | {"COLUMNS": "300", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        with (folder / "said").open("w") as said:
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, text=True))
        return started[-1]

    yield run
    for process in started:
        process.terminate()  # nothing, if it has ended; torchrun ends the processes that it started
        process.wait(60)


@pytest.fixture(scope="module")
def both(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process computes, and what two do."""
    folder = tmp_path_factory.mktemp("together")
    process = start(folder, *TORCHRUN, str(ROOT / "tests" / "training" / "optimisation" / "together.py"), "found.pt")
    alone = compute(Processes())
    assert process.wait(300) == 0, (folder / "said").read_text()
    return alone, torch.load(folder / "found.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "atol"),
    [
        ("default network", 1e-2),  # Muon amplifies what the order of additions changes
        ("default network, sgd", 1e-3),
        ("guide", 1e-4),
        ("lenet5, frozen first", 1e-4),
    ],
)
def test_two_processes_go_down_the_curve_of_one(
    name: str, atol: float, both: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Losses and accuracies of training and of an odd number of validation images, epoch by epoch; then the weights."""
    one, two = (found["runs"][name] for found in both)
    torch.testing.assert_close(two["curve"], one["curve"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=0, atol=atol)
    assert one["curve"][-1, 0] < one["curve"][0, 0]


@pytest.mark.slow
def test_two_processes_go_down_nearly_the_same_curve_in_bfloat16(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, two = (found["runs"]["bfloat16"]["curve"] for found in both)
    torch.testing.assert_close(two, one, rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_shared_batch_norm_is_that_of_the_whole_batch(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Outputs, gradients and running statistics, in float64, though the mean is 33 standard deviations from zero."""
    one, two = (found["batch norm"] for found in both)
    assert two.keys() == one.keys()
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_parts_are_gathered_in_order_each_once(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert both[1]["gathered"].tolist() == both[0]["gathered"].tolist() == list(range(7))


@pytest.mark.slow
def test_processes_agree_on_means_and_claims(both: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert both[1]["mean"].tolist() == [1.5]
    assert both[1]["claims"] == [True, True, False]


@pytest.mark.parametrize("number", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [1, 7, 16, 5000])
def test_parts_are_disjoint_complete_and_as_equal_as_can_be(items: int, number: int) -> None:
    parts = []
    for rank in range(number):
        processes = Processes()
        processes.rank, processes.number = rank, number
        parts.append(processes.own_part(items))
    assert [item for part in parts for item in range(items)[part]] == list(range(items))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_state_dict_and_evaluation_stay_the_same_with_shared_batch_norm() -> None:
    plain = build_network(NetworkConfig("torchlight", 3)).eval()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    parameters = list(plain.parameters())
    images = torch.randn(2, 3, 32, 32)
    expected = plain(images)
    shared = share_statistics(plain)
    after = shared.state_dict()
    assert sum(isinstance(module, SharedBatchNorm) for module in shared.modules()) == 6
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(own is other for own, other in zip(shared.parameters(), parameters, strict=True))
    assert torch.equal(shared(images), expected)


def test_shared_batch_norm_reaches_nested_layers() -> None:
    network = share_statistics(nn.Sequential(nn.Sequential(nn.BatchNorm2d(2, eps=0.5, momentum=0.25)), nn.ReLU()))
    assert isinstance(network[0][0], SharedBatchNorm)
    assert (network[0][0].eps, network[0][0].momentum) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("number", "batch_size", "advised"), [(2, 9, 8), (3, 16, 15), (12, 9, 12)], ids=["2", "3", "more than images"]
)
def test_batch_that_cannot_be_shared_equally_is_refused_with_one_that_can(
    number: int, batch_size: int, advised: int, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    photos = str(draw_folder(tmp_path, 20))
    settings = {"batch_size": batch_size, "epochs": 1}
    options = RunOptions(source=photos, out=tmp_path, architecture="lenet5", settings=settings)
    with pytest.raises(
        DataError, match=f"a batch of {batch_size} .* among {number} processes; .*--batch-size {advised}$"
    ):
        set_up(options, torch.device("cpu"), Observer(), number)


@pytest.mark.parametrize(
    ("images", "number", "batch_size"), [(1000, 1, 62), (1000, 4, 60), (30, 3, 6), (30, 16, 16), (45_000, 8, 512)]
)
def test_default_batch_can_be_shared_equally(images: int, number: int, batch_size: int) -> None:
    assert default_batch_size(images, number) == batch_size


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> TorchrunProcesses:
    """The sixth of eight processes; the others are not there."""
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 5)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
    return TorchrunProcesses()


def test_each_process_of_a_machine_has_its_own_gpu(
    launched: TorchrunProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the machine is pretended; this one has no GPU."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched.own_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceUnavailable, match=r"process 3 of this machine finds 2 GPUs; .*--nproc-per-node 2"):
        launched.own_device(torch.device("cuda"))


def test_device_that_processes_cannot_share_is_refused(launched: TorchrunProcesses) -> None:
    assert launched.own_device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(DeviceUnavailable, match="device mps cannot be shared by several processes; pass --device cpu"):
        launched.own_device(torch.device("mps"))


TRAIN = ["-m", "torchlight", "train", "photos", "--architecture", "lenet5", "--batch-size", "16", "--out"]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], deadline_s: float = 240) -> None:
    """Poll until it holds: files of another process announce nothing."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)


def workers(torchrun: int) -> list[int]:
    """Return the processes that a torchrun has started, by rank."""
    return [int(pid) for pid in Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds processes as Linux shows them")
def test_run_that_loses_a_process_ends_and_goes_on_in_one(
    start: Start, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    draw_folder(tmp_path / "photos", 21)
    arguments = [*TRAIN, "out", "--epochs", "2000"]
    process = start(tmp_path, *TORCHRUN, *arguments)
    wait_for((tmp_path / "out" / "state.safetensors").exists, process)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    assert process.wait(120) == 1
    said = (tmp_path / "said").read_text()
    (line,) = [line for line in said.splitlines() if line.startswith("torchlight: ")]
    assert "another process of this run has ended" in line
    assert "out/checkpoint.safetensors holds epoch" in line
    assert line.endswith("repeat the command with --resume to continue")
    assert "SIGKILL" in said  # torchrun tells which and how

    done = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    alone = start(tmp_path, sys.executable, *arguments, "--resume")
    wait_for(lambda: len((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()) > len(done) + 2, alone)
    alone.send_signal(signal.SIGTERM)
    assert alone.wait(120) == 1
    resumed = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert resumed[: len(done) - 1] == done[: len(done) - 1]
    assert [json.loads(line)["epoch"] for line in resumed] == list(range(1, len(resumed) + 1))


@pytest.mark.slow
def test_command_writes_and_tells_everything_once_and_stops_both_when_asked(
    start: Start, draw_folder: Callable[..., Path], tmp_path: Path
) -> None:
    draw_folder(tmp_path / "photos", 21)
    process = start(tmp_path, *TORCHRUN, *TRAIN, "out", "--epochs", "2000")
    wait_for((tmp_path / "out" / "state.safetensors").exists, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) != 0
    said = (tmp_path / "said").read_text()
    assert said.count("3 classes, images: 51 train, 6 val, 6 test") == 1
    assert said.count("epoch   1  loss") == 1
    assert said.count("torchlight: stopped after step") == 1
    assert "repeat the command with --resume to continue" in said
    assert "Connection" not in said  # both left at the same step


@pytest.mark.slow
def test_mistake_is_told_once_and_ends_both(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path, *TORCHRUN, *TRAIN, "out")
    assert process.wait(120) == 1
    said = (tmp_path / "said").read_text()
    assert said.count("torchlight: photos is neither") == 1
    assert "[rank1]" not in said  # no traceback of the other
    assert not (tmp_path / "out").exists()
