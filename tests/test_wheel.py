"""The wheel, which is what the image installs: it holds every file of the tree, and works where the tree is not."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
FOLDERS = ("torchlight", "app", "model", "training")  # the last three are links in the first
COLOURS = {"apple": (220, 30, 40), "sky": (60, 90, 230)}
NOT_PACKED = r"__pycache__|\.index\.safetensors$"  # the second holds other people's images
LOAD = """
import sys, torchlight
assert torchlight.__file__.startswith(sys.prefix), torchlight.__file__
print(torchlight.load("out/checkpoint.safetensors").predict("photos/sky/1.png", top_k=1)[0].probability)
"""


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *map(str, arguments)]
    subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools writes into the tree that it builds from."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / "tree" / name, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder / "tree")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "tree")
    (made,) = folder.glob("*.whl")
    return made


def test_wheel_holds_every_file_of_the_tree_and_nothing_else(wheel: Path) -> None:
    files = {file.relative_to(ROOT).as_posix() for name in FOLDERS for file in (ROOT / name).rglob("*")}
    expected = {
        name if name.startswith("torchlight/") else f"torchlight/{name}"
        for name in files
        if (ROOT / name).is_file() and not re.search(NOT_PACKED, name)
    }
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {f"torchlight/training/report/{name}" for name in ("report.css", "check.js", "check.html.j2")} <= packed
    assert {"torchlight/app/page/index.html"} <= packed


@contextmanager
def serving(command: list[str | Path], folder: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run a service until the end of the block; give its address once it listens."""
    with subprocess.Popen(
        [*command, "--port", "0"], cwd=folder, env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        greeting = process.stderr.readline()
        (address,) = re.findall(r"http://\S+(?=/$)", greeting, re.MULTILINE)
        try:
            yield address
        finally:
            process.terminate()
            process.stderr.read()
    assert process.returncode == 0


def test_installed_wheel_trains_evaluates_exports_serves_and_predicts(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, which borrows everything but Torchlight from the one that runs the tests."""
    environment, folder = tmp_path / "environment", tmp_path / "elsewhere"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], timeout=60, check=True)
    python, torchlight = environment / "bin" / "python", environment / "bin" / "torchlight"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    pip("--python", python, "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))  # .pth files in there have no effect
    for name, colour in COLOURS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng([*colour, number]).normal(0, 25, (12, 12, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TORCHLIGHT"))}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    run(torchlight, "train", "photos", "--out", "out", "--architecture", "guide", "--epochs", "2", "--batch-size", "4")
    assert (folder / "out" / "report.html").stat().st_size > 10_000
    run(torchlight, "evaluate", "out/checkpoint.safetensors", "photos", "--out", "again")
    assert (folder / "again" / "report.html").stat().st_size > 10_000
    run(torchlight, "export", "out/checkpoint.safetensors", "--out", "network.pt2")
    assert (folder / "network.pt2").stat().st_size > 100_000
    with serving([torchlight, "serve", "--checkpoint", "out/checkpoint.safetensors"], folder, variables) as address:
        content = (folder / "photos" / "sky" / "1.png").read_bytes()
        request = urllib.request.Request(f"{address}/v1/predict?top_k=1", content, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as response:
            (answered,) = json.load(response)["predictions"]
    assert answered["probability"] == pytest.approx(float(run(python, "-c", LOAD)), abs=1e-6)
