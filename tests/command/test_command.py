"""The command as a user meets it: train, evaluate and predict on drawn pictures, and one line for every mistake."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from torchlight import command
from torchlight.app.settings import Settings
from torchlight.commands.options import TRAIN_OPTIONS, run_options
from torchlight.commands.predict import describe_set, write_outcome
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint
from torchlight.model.classifier import Prediction
from torchlight.model.engines.folder_predictions import Outcome
from torchlight.model.network import build_network
from torchlight.training.config import RunOptions, TrainingConfig
from torchlight.training.data.loading import load_dataset

COMMAND = Path(sys.executable).with_name("torchlight")
PART = str(Path(command.__file__).with_name("training") / "report" / "missing.css")
COLOURS = {"apple": (220, 30, 40), "leaf": (40, 200, 60), "sky": (60, 90, 230)}


def draw(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    noise = np.random.default_rng(seed).normal(0, 25, (12, 12, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path, "PNG")
    return path


def draw_photos(root: Path, number: int) -> Path:
    for index, (name, colour) in enumerate(COLOURS.items()):
        for count in range(number):
            draw(root / name / f"{count}.png", colour, 100 * index + count)
    return root


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a folder, as from a terminal of 200 columns."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@dataclass(frozen=True)
class Trained:
    """A folder with ``photos`` and ``out``, and what the command said when it made the second from the first."""

    folder: Path
    process: subprocess.CompletedProcess[str]

    @property
    def checkpoint(self) -> str:
        return str(self.folder / "out" / "checkpoint.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("command")
    draw_photos(folder / "photos", 20)
    arguments = ["--architecture", "guide", "--epochs", "3", "--batch-size", "8", "--learning-rate", "1"]
    return Trained(folder, run(folder, "train", "photos", "--out", "out", *arguments))


def test_train_writes_a_checkpoint_and_says_what_to_do_next(trained: Trained) -> None:
    assert (trained.process.returncode, trained.process.stderr) == (0, "")
    assert "3 classes, images: 48 train, 6 val, 6 test" in trained.process.stdout
    assert "of 6 test images right" in trained.process.stdout
    assert "now: torchlight serve --checkpoint out/checkpoint.safetensors" in trained.process.stdout
    assert {path.name for path in (trained.folder / "out").iterdir()} == {
        "checkpoint.safetensors",
        "metrics.jsonl",
        "curves.png",
        "confusion.png",
        "report.html",
        "snapshots",
    }


def test_train_without_options_names_its_folder_like_the_source(tmp_path: Path) -> None:
    draw_photos(tmp_path / "holiday", 1)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "holiday").touch()
    process = run(tmp_path, "train", "holiday/")
    assert process.stderr == "torchlight: runs/holiday is a file; choose another --out\n"


def test_train_shows_a_line_for_each_epoch(trained: Trained) -> None:
    history = [json.loads(line) for line in (trained.folder / "out" / "metrics.jsonl").read_text().splitlines()]
    lines = re.findall(r"epoch +(\d+) .*validation loss .* accuracy ([\d.]+)%", trained.process.stdout)
    assert lines == [(str(one["epoch"]), f"{100 * one['val_accuracy']:.2f}") for one in history]
    assert len(lines) == 3


def test_evaluate_uses_only_held_out_images_and_says_so(trained: Trained) -> None:
    process = run(trained.folder, "evaluate", "out/checkpoint.safetensors", "photos")
    (told,) = re.findall(r"([\d.]+)% of 6 test images right", trained.process.stdout)
    assert (process.returncode, process.stderr) == (0, "")
    assert f"accuracy {told}% of 6 images" in process.stdout
    assert "split: test (held out of its training data)" in process.stdout
    assert re.findall(r"^ *(apple|leaf|sky) +(\d+)", process.stdout, re.MULTILINE) == [
        ("apple", "2"),
        ("leaf", "2"),
        ("sky", "2"),
    ]


def test_evaluate_has_no_figures_for_a_class_without_images(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("leaf", "sky"):
        draw(tmp_path / "photos" / name / "1.png", COLOURS[name], 500)
        draw(tmp_path / "photos" / name / "2.png", COLOURS[name], 501)
    code, out, _ = call(capsys, monkeypatch, "evaluate", trained.checkpoint, str(tmp_path / "photos"))
    assert code == 0
    assert [line.split() for line in out.splitlines() if "apple" in line] == [["apple", "0", "–", "–"]]
    assert len(re.findall(r"^ *(?:leaf|sky) +2 +[\d.]+% +[\d.]+%", out, re.MULTILINE)) == 2


@pytest.fixture(scope="module")
def cross_validated(trained: Trained) -> Trained:
    """A checkpoint beside the trained one that learnt from all photos, as its header says."""
    header = load_checkpoint(Path(trained.checkpoint)).header
    dataset = load_dataset(
        str(trained.folder / "photos"), header.image_spec.resizing, val_fraction=0.0, test_fraction=0.0
    )
    measured = {"accuracy": 0.9, "interval": [0.8, 0.953], "loss": 0.3, "calibration_error": 0.05}
    header = replace(
        header,
        metrics={"cross_validation": measured | {"images": 60, "folds": 5}},
        data=header.data | {"fingerprint": dataset.fingerprint, "val_fraction": 0.0, "test_fraction": 0.0},
    )
    folder = trained.folder / "all"
    save_checkpoint(folder / "out" / "checkpoint.safetensors", build_network(header.network), header)
    return Trained(folder, trained.process)


def test_evaluate_tells_the_cross_validation_of_what_was_learnt_and_no_flattering_figure(
    trained: Trained, cross_validated: Trained
) -> None:
    process = run(trained.folder, "evaluate", cross_validated.checkpoint, "photos")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.splitlines()[-3:] == [
        "The network learnt from every photo of photos: its answers to them say nothing about others.",
        "In 5-fold cross-validation it was right in 90 of 100 of these 60 photos (80 to 96 with 95% confidence), each "
        "judged by a network that had not seen it; loss 0.3000, calibration error 5.00%.",
        "To measure the network itself, give it a folder of photos that it has not seen.",
    ]
    assert "precision" not in process.stdout


def test_evaluate_writes_no_report_on_what_was_learnt(
    trained: Trained,
    cross_validated: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos, out = str(trained.folder / "photos"), tmp_path / "report"
    code, _, error = call(capsys, monkeypatch, "evaluate", cross_validated.checkpoint, photos, "--out", str(out))
    assert code == 1
    assert error.startswith(f"torchlight: the network learnt from every photo of {photos}, so a report on them would")
    assert not out.exists()


def test_evaluate_measures_a_cross_validated_network_on_other_photos(
    cross_validated: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_photos(tmp_path, 21)
    code, out, _ = call(capsys, monkeypatch, "evaluate", cross_validated.checkpoint, str(tmp_path))
    assert code == 0
    assert re.search(r"^accuracy .* of 63 images, .*; split: all images$", out, re.MULTILINE)


def test_predict_goes_on_after_a_broken_file_and_fails_at_the_end(trained: Trained) -> None:
    (trained.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    draw(trained.folder / "good.png", COLOURS["sky"], 5)
    process = run(
        trained.folder, "predict", "out/checkpoint.safetensors", "broken.png", "missing.png", "good.png", "--top-k", "1"
    )
    lines = process.stdout.splitlines()
    assert process.returncode == 1
    assert lines[0] == "broken.png"
    assert lines[1].startswith("  PNG image cannot be read")
    assert lines[2] == "missing.png"
    assert "No such file" in lines[3]
    assert lines[4] == "good.png"
    assert lines[5].startswith("  sky ")
    assert "Traceback" not in process.stdout + process.stderr


@pytest.mark.parametrize(
    ("p_value", "says"),
    [(0.05, ["  unlike anything that it learnt: 5 of 100 known images are as strange"]), (0.06, []), (None, [])],
)
def test_predict_says_what_is_unlike_all_that_was_learnt(
    p_value: float | None, says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_outcome(Outcome(Path("a.png"), (Prediction("sky", 2, 0.75),), p_value), 0.9)
    assert capsys.readouterr().out.splitlines()[1:] == says


def test_calibrate_writes_another_checkpoint_and_says_by_what(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new.safetensors"
    photos = str(trained.folder / "photos")
    code, told, error = call(capsys, monkeypatch, "calibrate", trained.checkpoint, photos, "--out", str(out))
    assert (code, error) == (0, "")
    assert f"wrote {out}: it has answer sets and cannot tell unknown images yet, which takes 19 known ones" in told
    assert load_checkpoint(out).novelty is not None
    assert load_checkpoint(out).header.answer_sets is not None


def test_predict_says_that_a_folder_holds_no_images(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    code, out, error = call(capsys, monkeypatch, "predict", trained.checkpoint, str(tmp_path))
    assert (code, out) == (1, "")
    assert error.startswith(f"torchlight: {tmp_path}: no images in there; their names must end in one of .bmp ")


def kill_after_epoch(folder: Path, epoch: int, *arguments: str) -> None:
    """Start the command and kill it, without a word, while it trains the epoch after that one."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    with subprocess.Popen([COMMAND, *arguments], cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        metrics, end = folder / "parts" / "metrics.jsonl", time.monotonic() + 240
        while not metrics.exists() or metrics.read_text().count("\n") < epoch:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def weights(checkpoint_path: Path) -> dict[str, Tensor]:
    return load_checkpoint(checkpoint_path).network.state_dict()


@pytest.mark.slow
def test_killed_run_that_is_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos", 20)
    arguments = ["train", "photos", "--architecture", "guide", "--epochs", "6", "--batch-size", "8", "--out"]
    assert run(tmp_path, *arguments, "whole").returncode == 0
    kill_after_epoch(tmp_path, 1, *arguments, "parts")
    kill_after_epoch(tmp_path, 3, *arguments, "parts", "--resume")
    assert run(tmp_path, *arguments, "parts", "--resume").returncode == 0
    for file in ("snapshots/epoch-004.safetensors", "checkpoint.safetensors"):
        expected, found = (weights(tmp_path / folder / file) for folder in ("whole", "parts"))
        assert [name for name, value in expected.items() if not torch.equal(value, found[name])] == []


def test_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    process = run(tmp_path, "train", "nowhere", "--out", "out")
    assert process.returncode == 1
    assert "Traceback" not in process.stdout
    assert re.fullmatch(r"torchlight: nowhere is neither a folder, a CSV file nor one of .*\n", process.stderr)
    assert list(tmp_path.iterdir()) == []


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code and what it wrote."""
    monkeypatch.setattr(sys, "argv", ["torchlight", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        command.main()
    written = capsys.readouterr()
    return int(caught.value.code or 0), written.out, written.err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(13, "Permission denied", "a.safetensors"), "a.safetensors: Permission denied"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (OSError(28, "No space left", "a.png"), "a.png: No space left; make room and repeat the command"),
        (
            FileNotFoundError(2, "No such file", PART),
            f"{PART}: No such file; it is a part of Torchlight: install Torchlight again",
        ),
    ],
    ids=["file", "no file", "full", "part of the package"],
)
def test_failure_of_the_disk_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: OSError, line: str
) -> None:
    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr("torchlight.model.checkpoint.load_checkpoint", fail)
    assert call(capsys, monkeypatch, "predict", "a.safetensors", "b.png") == (1, "", f"torchlight: {line}\n")


def good(folder: Path) -> None:
    draw_photos(folder / "photos", 5)


def one_class(folder: Path) -> None:
    draw(folder / "photos" / "sky" / "1.png", COLOURS["sky"], 1)


def with_text_file(folder: Path) -> None:
    good(folder)
    (folder / "photos" / "sky" / "notes.txt").write_text("hello")


def with_markup_in_a_name(folder: Path) -> None:
    good(folder)
    (folder / "photos" / "sky" / "a[bold]b[").write_text("hello")


def with_checkpoint(folder: Path) -> None:
    good(folder)
    (folder / "out").mkdir()
    (folder / "out" / "checkpoint.safetensors").write_bytes(b"weeks of work")


def with_file_in_the_way(folder: Path) -> None:
    good(folder)
    (folder / "out").write_text("a file, not a folder")


def with_pickle(folder: Path) -> None:
    (folder / "model.pt").write_bytes(pickle.dumps({"weights": [0.5]}))


def with_torch_file(folder: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, folder / "model.pt")


def nothing(folder: Path) -> None:
    assert folder.is_dir()


TRAIN = ["train", "photos", "--out", "out", "--architecture", "guide", "--epochs", "1", "--batch-size", "4"]
TRAIN += ["--val-fraction", "0.2", "--test-fraction", "0.2"]


@pytest.mark.parametrize(
    ("prepare", "arguments", "words"),
    [
        pytest.param(one_class, TRAIN, "at least 2", id="one class"),
        pytest.param(with_text_file, TRAIN, "notes.txt", id="unreadable file"),
        pytest.param(with_markup_in_a_name, TRAIN, "a[bold]b[", id="unreadable file with brackets"),
        pytest.param(with_checkpoint, TRAIN, "exists already", id="finished run in the way"),
        pytest.param(with_file_in_the_way, TRAIN, "out", id="out is a file"),
        pytest.param(good, [*TRAIN, "--architecture", "resnet19"], "resnet18", id="unknown architecture"),
        pytest.param(good, [*TRAIN, "--batch-size", "500"], "one batch of 500", id="batch too large"),
        pytest.param(good, [*TRAIN, "--image-size", "16"], "16", id="size the network cannot take"),
        pytest.param(good, [*TRAIN, "--learning-rate", "1e30", "--epochs", "9"], "lower the learning", id="diverging"),
        pytest.param(good, [*TRAIN, "--device", "abacus"], "abacus", id="unknown device"),
        pytest.param(good, [*TRAIN, "--device", "cuda:99"], "cuda:99", id="device that is not there"),
        pytest.param(nothing, ["predict", "nowhere.safetensors", "cat.png"], "does not exist", id="no checkpoint"),
        pytest.param(with_pickle, ["predict", "model.pt", "cat.png"], "pickled", id="pickle"),
        pytest.param(with_torch_file, ["evaluate", "model.pt", "photos"], "pickled", id="torch.save"),
        pytest.param(nothing, ["evaluate", ".", "photos"], "does not exist", id="folder for a checkpoint"),
    ],
)
def test_every_mistake_is_one_line_that_names_it_and_nothing_is_written(
    prepare: Callable[[Path], None],
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, _, error = call(capsys, monkeypatch, *arguments)
    assert code == 1
    assert error.startswith("torchlight: ")
    assert words in error
    assert error.count("\n") == 1
    assert "checkpoint.safetensors" not in {path.name for path in tmp_path.rglob("*") if path not in before}
    assert {path: path.read_bytes() for path in before} == before


def test_predict_answers_with_the_folders_names(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(draw(tmp_path / f"new {name}.png", colour, 999)) for name, colour in COLOURS.items()]
    code, out, error = call(capsys, monkeypatch, "predict", trained.checkpoint, *files, "--top-k", "2")
    assert (code, error) == (0, "")
    sets = re.findall(r"^  (.+): for 9 of 10 images, the truth is among the names given here$", out, re.MULTILINE)
    assert [sorted(one.split(" or ")) for one in sets] == [sorted(COLOURS)] * 3  # few held-out images rule out nothing
    labels = re.findall(r"^  (\w+) +[\d.]+%", out, re.MULTILINE)
    assert [line for line in out.splitlines() if not line.startswith("  ")] == files
    assert labels[::2] == ["apple", "leaf", "sky"]
    assert set(labels) <= COLOURS.keys()
    assert len(labels) == 6


@pytest.mark.parametrize(
    ("number", "coverage", "said"),
    [
        (1, 0.9, "label 0: for 9 of 10 images"),
        (2, 0.95, "label 0 or label 1: for 19 of 20 images"),
        (5, 0.5, "label 0 or label 1 or label 2 or label 3 or label 4: for 1 of 2 images"),
        (7, 0.99, "label 0 or label 1 or label 2 or label 3 or label 4 or one of 2 more: for 99 of 100 images"),
    ],
)
def test_a_set_is_said_in_words(number: int, coverage: float, said: str) -> None:
    assert (
        describe_set([f"label {k}" for k in range(number)], coverage)
        == f"{said}, the truth is among the names given here"
    )


def test_predict_writes_the_answers_of_a_folder_and_goes_on_with_them(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = tmp_path / "new", tmp_path / "answers.jsonl"
    folder.mkdir()
    for name, colour in COLOURS.items():
        draw(folder / f"{name}.png", colour, 999)
    arguments = ["predict", trained.checkpoint, str(folder), "--out", str(out), "--top-k", "1"]
    code, told, error = call(capsys, monkeypatch, *arguments)
    assert (code, error) == (0, "")
    assert "3 of 3 images classified now, 0 of them not readable" in told
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [Path(answer["file"]).stem for answer in answers] == sorted(COLOURS)
    assert [answer["predictions"][0]["label"] for answer in answers] == sorted(COLOURS)
    assert [sorted(answer["set"]) for answer in answers] == [sorted(COLOURS)] * 3
    before = out.read_text()
    (folder / "broken.png").write_bytes(b"no picture")
    code, told, _ = call(capsys, monkeypatch, *arguments)
    assert code == 1
    assert "1 of 4 images classified now, 1 of them not readable" in told
    assert f"{folder / 'broken.png'}: " in told
    assert out.read_text().startswith(before)
    assert len(out.read_text().splitlines()) == 4
    out.write_text("notes\n")
    code, _, error = call(capsys, monkeypatch, *arguments)
    assert (code, error.count("\n")) == (1, 1)
    assert "line 1 is no answer to an image" in error


@pytest.mark.parametrize("name", ["cat[1].png", "cat [copy].png", "cat[bold].png", "käse 猫.png"], ids=repr)
def test_predict_prints_the_names_of_files_as_they_are(
    name: str, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / name, COLOURS["sky"], 3)
    (tmp_path / f"broken {name}").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capsys, monkeypatch, "predict", trained.checkpoint, name, f"broken {name}")
    assert code == 1
    assert out.splitlines()[0] == name
    assert f"broken {name}" in out.splitlines()


@pytest.mark.parametrize(
    ("suffix", "option", "batch"), [(".onnx", "--dynamic-batch", "N"), (".pt2", "--fixed-batch", "1")]
)
def test_export_writes_a_program_and_says_what_goes_in_and_out(
    suffix: str,
    option: str,
    batch: str,
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / f"network{suffix}"
    code, text, error = call(capsys, monkeypatch, "export", trained.checkpoint, "--out", str(out), option)
    assert (code, error) == (0, "")
    assert f"images ({batch}, 3, 32, 32) uint8 RGB -> probabilities ({batch}, 3) float32" in text
    assert f"written: {out}" in text
    assert out.stat().st_size > 100_000


def test_export_overwrites_a_file_only_by_force(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "network.pt2"
    out.write_bytes(b"older")
    arguments = ("export", trained.checkpoint, "--out", str(out))
    code, text, error = call(capsys, monkeypatch, *arguments)
    assert (code, text) == (1, "")
    assert error == f"torchlight: export file {out} exists; choose another name, or overwrite it with --force\n"
    assert out.read_bytes() == b"older"
    code, _, error = call(capsys, monkeypatch, *arguments, "--force")
    assert (code, error) == (0, "")
    assert out.read_bytes() != b"older"


def test_every_option_of_training_becomes_a_value_of_the_run(tmp_path: Path) -> None:
    given = {name: object() for name in TRAIN_OPTIONS if name != "out"}
    options = run_options("photos", tmp_path, given)
    found = {name: getattr(options, name) for name in given if name in RunOptions.__annotations__}
    assert found | dict(options.settings) == given
    assert run_options("photos", tmp_path, {"seed": 3}).seed == 3


def test_help_names_the_default_of_each_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, training, _ = call(capsys, monkeypatch, "train", "--help")
    for name, default in [
        ("momentum", TrainingConfig.momentum),
        ("seed", 0),
    ]:
        assert re.search(rf"--{name} .*\. Default: {default}\. ", training)
    _, serving, _ = call(capsys, monkeypatch, "serve", "--help")
    for name in ("host", "port", "workers"):
        default = Settings.model_fields[name].default
        assert re.search(rf"--{name} .*efault: TORCHLIGHT_{name.upper()}, else {default}\.", serving)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = call(capsys, monkeypatch, "--help")
    assert code == 0
    assert [name for name in ("train", "evaluate", "predict", "export", "serve") if name not in out] == []
