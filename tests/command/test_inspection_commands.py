"""The commands ``index`` and ``selftest`` as a user meets them, and what the service makes of their files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from torchlight import command
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.checks import self_test
from torchlight.model.checks.self_test import load_self_test
from torchlight.model.checks.subject import Finding, Rule
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views import image_index

COMMAND = Path(sys.executable).with_name("torchlight")
COLOURS = {"apple": (220, 30, 40), "leaf": (40, 200, 60), "sky": (60, 90, 230)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of random weights, one dead unit in it, and twelve pictures of its classes."""
    root = tmp_path_factory.mktemp("inspected")
    for name, colour in COLOURS.items():
        (root / "photos" / name).mkdir(parents=True)
        for number in range(4):
            noise = np.random.default_rng([*colour, number]).normal(0, 25, (12, 12, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(NetworkConfig("guide", 3))
    network.conv2.weight.data[5] = network.conv2.bias.data[5] = 0
    spec = ImageSpec(32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    header = Header(NetworkConfig("guide", 3), tuple(COLOURS), spec, {}, {}, {}, {})
    save_checkpoint(root / "fruit.safetensors", network, header)
    return root


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[object, str, str]:
    """Run the command in this process; return its exit code, what it printed, and its errors."""
    monkeypatch.setattr(sys, "argv", ["torchlight", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return (ended.value.code, *capsys.readouterr())


@pytest.fixture(scope="module")
def indexing(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(folder, "index", "fruit.safetensors", "photos")


@pytest.fixture(scope="module")
def checking(folder: Path, indexing: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """The self-test with the index in place."""
    return run(folder, "selftest", "fruit.safetensors")


def test_index_lies_beside_the_checkpoint_and_dead_channels_are_listed(
    folder: Path, indexing: subprocess.CompletedProcess[str]
) -> None:
    assert (indexing.returncode, indexing.stderr) == (0, "")
    assert "12 of 12 train images, 288 channels of 7 layers" in indexing.stdout
    assert re.search(r"^  relu2: (\d+, )*5(, \d+)*$", indexing.stdout, re.MULTILINE)
    assert "indexing" in indexing.stdout
    assert "12/12" in indexing.stdout
    assert "wrote fruit.index.safetensors" in indexing.stdout
    made = image_index.load_index(
        folder / "fruit.index.safetensors", load_checkpoint(folder / "fruit.safetensors").digest
    )
    assert len(made) == 12
    assert 5 in made.dead_channels("relu2")


def test_limit_takes_that_many(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "other.safetensors"
    copied.write_bytes((folder / "fruit.safetensors").read_bytes())
    code, out, _ = call(capsys, monkeypatch, "index", str(copied), str(folder / "photos"), "--limit", "7")
    assert code == 0
    assert "7 of 12 train images" in out
    assert (tmp_path / "other.index.safetensors").exists()


def test_index_follows_decisions_about_single_photos(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "other.safetensors"
    copied.write_bytes((folder / "fruit.safetensors").read_bytes())
    photos = folder / "photos"
    first = min(path.relative_to(photos) for path in photos.rglob("*.png"))
    corrections = tmp_path / "corrections.csv"
    corrections.write_text(f"file,action,class\n{first},leave out,\n")
    given = ("--corrections", str(corrections))
    code, out, _ = call(capsys, monkeypatch, "index", str(copied), str(photos), *given)
    assert code == 0
    assert "11 of 11 train images" in out
    corrections.write_text("file,action,class\nnowhere.png,leave out,\n")
    for name in ("index", "quantise"):
        code, _, err = call(capsys, monkeypatch, name, str(copied), str(photos), *given)
        assert code == 1
        assert "corrections.csv line 2: nowhere.png is not in the source" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fruit.safetensors", "nowhere"], "nowhere"),
        (["fruit.safetensors", "photos", "--split", "test"], "has no images in split 'test'; it has 12 train"),
        (["absent.safetensors", "photos"], "absent.safetensors"),
    ],
)
def test_mistake_of_indexing_is_one_line(
    folder: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    code, _, said = call(capsys, monkeypatch, "index", *arguments)
    assert code == 1
    assert message in said
    assert len(said.splitlines()) == 1


def test_selftest_prints_a_table_and_writes_it_beside_the_checkpoint(
    folder: Path, checking: subprocess.CompletedProcess[str]
) -> None:
    assert (checking.returncode, checking.stderr) == (0, "")
    assert re.search(r"C1 +a traced number is the network's own +pass +[\d.e-]+ +1e-05 +200 numbers", checking.stdout)
    assert re.search(r"C4 .* not applicable +no convolution of this network", checking.stdout)
    assert re.search(r"C17 .* pass .* 12 images", checking.stdout)
    assert re.search(r"^0 failed, [\d.]+ s; wrote fruit\.selftest\.json$", checking.stdout, re.MULTILINE)
    written = json.loads((folder / "fruit.selftest.json").read_text())
    assert written["checkpoint"] == load_checkpoint(folder / "fruit.safetensors").digest
    assert {check["outcome"] for check in written["checks"]} == {"pass", "not applicable"}


def test_selftest_that_fails_says_so_with_its_exit_code(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "other.safetensors"
    copied.write_bytes((folder / "fruit.safetensors").read_bytes())
    broken = Rule("C3", "two [and] two are four", 0, lambda subject: Finding(1.0, "counted"))
    monkeypatch.setattr(self_test, "RULES", (broken,))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)  # of this process, which has more to do
    code, out, _ = call(capsys, monkeypatch, "selftest", str(copied))
    assert code == 1
    assert "two [and] two" in out
    assert "1 failed" in out
    (check,) = load_self_test(tmp_path / "other.selftest.json", load_checkpoint(copied).digest).failed
    assert (check.id, check.measured, check.bound, check.note) == ("C3", 1.0, 0, "counted")


@pytest.mark.usefixtures("checking")
def test_service_shows_what_both_commands_made(folder: Path, tmp_path: Path) -> None:
    app = create_app(Settings(checkpoint=folder / "fruit.safetensors", device="cpu", store_dir=tmp_path))
    with TestClient(app) as client:
        summary = client.get("/v1/model").json()["self_test"]
        units = client.get("/v1/layers/relu2/units").json()
        photo = (folder / "photos" / "leaf" / "0.png").read_bytes()
        path = client.post("/v1/images", files={"file": photo}).headers["Location"]
        neighbours = client.get(f"{path}/neighbours.json?k=3").json()["neighbours"]
    assert (summary["failed"], summary["passed"] > 10) == (0, True)
    assert 5 in units["dead"]
    assert {one["label"] for one in neighbours} == {"leaf"}
