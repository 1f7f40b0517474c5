"""Starting: a bad start is one line and a failure. How a service stops is in test_supervisor.py."""

import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from torchlight import command
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.errors import CheckpointError
from torchlight.model.files import tensor_file

ROOT = Path(__file__).parents[3]


class Trap:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("unpickled",)


def pickled(_good: Path) -> bytes:
    file = io.BytesIO()
    torch.save(Trap(), file)
    return file.getvalue()


def with_header(**fields: str) -> Callable[[Path], bytes]:
    """Return what makes a copy of a checkpoint with other header fields."""

    def copy(good: Path) -> bytes:
        with safetensors.safe_open(good, framework="pt") as file:
            metadata = file.metadata()
        return safetensors.torch.save(safetensors.torch.load_file(good), metadata | fields)

    return copy


BAD_CHECKPOINTS: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda good: b"",
    "cut off in the header": lambda good: good.read_bytes()[:100],
    "cut off in the weights": lambda good: good.read_bytes()[:-1],
    "a picture": lambda good: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "pickled": pickled,
    "weights of another program": lambda good: safetensors.torch.save({"a": torch.zeros(2)}),
    "of a newer format": with_header(format_version="2"),
    "header that is not JSON": with_header(network="{"),
    "unknown architecture": with_header(network='{"architecture": "x", "num_classes": 3}'),
    "two names for three classes": with_header(class_names='["cat", "dog"]'),
    "weights of another architecture": with_header(network='{"architecture": "lenet5", "num_classes": 3}'),
}


@pytest.fixture
def fail_to_serve(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``torchlight serve``, make sure that it fails with one line, and return it."""

    def fail(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["torchlight", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        captured = capsys.readouterr()
        assert (stopped.value.code, captured.out, captured.err.count("\n")) == (1, "", 1), captured.err
        return captured.err

    return fail


@pytest.mark.parametrize("spoil", BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS.keys())
def test_bad_checkpoint_is_refused_by_name(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], bytes]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(spoil(tiny_checkpoint))
    with pytest.raises(CheckpointError) as refused:
        create_app(Settings(checkpoint=bad))
    assert re.match(rf"checkpoint {bad}.+\Z", str(refused.value))  # one line
    assert os.listdir(tmp_path) == ["bad.safetensors"]


def test_checkpoint_that_cannot_be_read_is_refused_by_name(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensor_file, "_check_container", refuse)
    with pytest.raises(CheckpointError, match=rf"^checkpoint {tiny_checkpoint} cannot be read \(Permission denied\)$"):
        create_app(Settings(checkpoint=tiny_checkpoint))


def test_missing_checkpoint_ends_a_real_process_with_one_line(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "torchlight", "serve", "--checkpoint", str(tmp_path / "none")]
    ended = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"torchlight: checkpoint {tmp_path / 'none'} does not exist\n"


def test_port_in_use_stops_the_start_with_one_line(fail_to_serve: Callable[..., str], tiny_checkpoint: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fail_to_serve("--checkpoint", tiny_checkpoint, "--port", port)
    expected = f"cannot listen on 127.0.0.1:{port} (Address already in use); choose with --host and --port\n"
    assert line == f"torchlight: {expected}"


def test_host_that_does_not_exist_stops_the_start_with_one_line(
    fail_to_serve: Callable[..., str], tiny_checkpoint: Path
) -> None:
    line = fail_to_serve("--checkpoint", tiny_checkpoint, "--host", "192.0.2.1", "--port", 0)
    assert "cannot listen on 192.0.2.1:0" in line


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has the device")
def test_missing_device_stops_the_start_with_one_line(
    fail_to_serve: Callable[..., str], tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHLIGHT_DEVICE", "mps")
    assert "device mps cannot be used" in fail_to_serve("--checkpoint", tiny_checkpoint)


def test_bad_setting_stops_the_start_with_one_line(
    fail_to_serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHLIGHT_MAX_PIXELS", "many")
    line = fail_to_serve()
    assert line.startswith("torchlight: TORCHLIGHT_MAX_PIXELS is 'many': Input should be a valid integer")


def test_greeting_says_what_is_served_and_where_to_look(server: Any) -> None:
    expected = f"torchlight: serving tiny (3 classes, guide) on cpu; look at {server.url}/\n"
    assert server.greeting == expected
