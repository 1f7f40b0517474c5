"""The parent and its workers, as real processes: they stop, die, are replaced and reloaded, and no answer is lost."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from torchlight.model.canary import canary_answer
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[3]
PATIENCE_S = 120
StartServer = Callable[..., Any]


@pytest.fixture
def start(start_server: StartServer) -> Iterator[StartServer]:
    """Start servers that are stopped with the test: each takes a lot of memory."""
    with ExitStack() as stack:

        def begin(**settings: object) -> Any:
            server = start_server(**settings)
            stack.callback(server.process.wait, PATIENCE_S)
            stack.callback(server.process.terminate)
            return server

        yield begin


def address(server: Any) -> tuple[str, int]:
    url = httpx2.URL(server.url)
    assert url.port
    return url.host, url.port


def until_nobody_listens(server: Any) -> None:
    with pytest.raises(ConnectionError):  # noqa: PT012
        while True:
            socket.create_connection(address(server), timeout=PATIENCE_S).close()


def workers(server: Any, number: int) -> list[int]:
    """Return the processes that began to serve, oldest first, once there are so many."""
    return [int(line[1]) for line in server.log.wait_for(r"worker (\d+) serves", number)]


def ended(server: Any) -> tuple[int, str]:
    """Wait for its end, and return its exit code and what it said after the greeting."""
    return server.process.wait(PATIENCE_S), server.process.stderr.read()


def predict(server: Any, photo: bytes) -> Any:
    """Ask on a new connection."""
    return httpx2.post(f"{server.url}/v1/predict", files={"file": photo}, timeout=PATIENCE_S).json()


class Upload:
    """A request that the server has accepted, and whose body has not come yet."""

    def __init__(self, server: Any, photo: bytes) -> None:
        self._photo = photo
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}\r\n"
        self._connection = socket.create_connection(address(server), timeout=PATIENCE_S)
        self._connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert self._connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"

    def finish(self) -> http.client.HTTPResponse:
        self._connection.sendall(self._photo)
        answer = http.client.HTTPResponse(self._connection)
        answer.begin()
        return answer

    def close(self) -> None:
        self._connection.close()


@contextmanager
def uploads(server: Any, photo: bytes, number: int) -> Iterator[list[Upload]]:
    with ExitStack() as stack:
        begun = [Upload(server, photo) for _ in range(number)]
        for one in begun:
            stack.callback(one.close)
        yield begun


@pytest.mark.parametrize(
    ("number", "stop"),
    [(1, lambda pid: os.killpg(pid, signal.SIGINT)), (2, lambda pid: os.kill(pid, signal.SIGTERM))],
    ids=["Ctrl+C, one worker", "SIGTERM, two workers"],
)
def test_told_to_stop_with_50_requests_in_flight_it_is_not_ready_and_gives_50_answers(
    start: StartServer, photo: bytes, number: int, stop: Callable[[int], None]
) -> None:
    server = start(workers=number)
    probe = http.client.HTTPConnection(*address(server), timeout=PATIENCE_S)
    probe.request("GET", "/readyz")
    assert probe.getresponse().read() == b'{"status":"ready"}'
    with uploads(server, photo, 50) as begun:
        stop(server.process.pid)
        until_nobody_listens(server)
        probe.request("GET", "/readyz")
        unready = probe.getresponse()
        answers = [upload.finish() for upload in begun]
        assert [answer.status for answer in answers] == [200] * 50
        assert {answer.headers["Connection"] for answer in answers} == {"close"}
    assert (unready.status, unready.headers["Connection"]) == (503, "close")
    probe.close()
    assert ended(server) == (0, "")


def test_a_second_signal_ends_it_at_once(start: StartServer, photo: bytes) -> None:
    server = start()
    with uploads(server, photo, 1) as begun:
        server.process.terminate()
        until_nobody_listens(server)
        server.process.terminate()
        assert ended(server) == (128 + signal.SIGTERM, "")
        with pytest.raises(ConnectionError):
            begun[0].finish()


def test_a_killed_worker_is_replaced_and_only_what_it_had_accepted_fails(start: StartServer, photo: bytes) -> None:
    server = start()
    (first,) = workers(server, 1)
    with uploads(server, photo, 1) as begun:
        os.kill(first, signal.SIGKILL)
        assert len(predict(server, photo)["predictions"]) == 3  # it waits for the next worker
        with pytest.raises(ConnectionError):
            begun[0].finish()
    server.log.wait_for(f"error   worker {first} was ended by SIGKILL; starting another")
    assert first not in workers(server, 2)[1:]


def test_workers_end_when_their_parent_is_killed(start: StartServer) -> None:
    server = start()
    server.process.kill()
    until_nobody_listens(server)


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_tried_again_after_longer_and_longer_pauses(
    start: StartServer, tiny_checkpoint: Path, tmp_path: Path, photo: bytes
) -> None:
    path = tmp_path / "moved.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    server = start(checkpoint=path)
    path.rename(tmp_path / "away")
    os.kill(*workers(server, 1), signal.SIGKILL)
    failed = rf"a worker cannot start: checkpoint {path} does not exist; trying again in (\d) s"
    assert [line[1] for line in server.log.wait_for(failed, 2)] == ["1", "2"]
    (tmp_path / "away").rename(path)
    assert len(predict(server, photo)["predictions"]) == 3


class Clients:
    """Two who ask again and again and retry nothing: one on a connection it keeps, one on a new one each time."""

    def __init__(self, server: Any, photo: bytes) -> None:
        self.answers: list[tuple[int, str]] = []
        self.errors: list[Exception] = []
        self._server, self._photo = server, photo
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in (self._ask_on_one, self._ask_on_many)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask_on_one(self) -> None:
        connection = http.client.HTTPConnection(
            *address(self._server), timeout=PATIENCE_S
        )  # opens another when told to
        while not self._is_over.wait(0.05):
            self._ask(connection)
        connection.close()

    def _ask_on_many(self) -> None:
        while not self._is_over.wait(0.05):
            connection = http.client.HTTPConnection(*address(self._server), timeout=PATIENCE_S)
            self._ask(connection)
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.request("POST", "/v1/predict", self._photo, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            self.answers.append((answer.status, answer.read().decode()))
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(error)
            connection.close()


def test_reload_loses_no_answer_and_keeps_the_old_checkpoint_when_the_new_one_is_bad(
    start: StartServer, tiny_checkpoint: Path, other_checkpoint: Path, tmp_path: Path, photo: bytes
) -> None:
    path = tmp_path / "served.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    server = start(checkpoint=path)
    loaded = load_checkpoint(other_checkpoint)
    with Clients(server, photo) as clients:
        path.write_bytes(b"not a checkpoint")
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for(rf"error   reload failed, the workers that answer go on: checkpoint {path}.*\n")

        wrong = replace(loaded.header, golden=(0.0, 0.0, 1.0))
        save_checkpoint(path, loaded.network, wrong)
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for(rf"reload failed, .*: checkpoint {path}: its golden image should be 'owl' with .* 1\.0000")
        assert httpx2.get(f"{server.url}/readyz", timeout=PATIENCE_S).status_code == 200
        assert predict(server, photo)["model"]["digest"] == load_checkpoint(tiny_checkpoint).digest

        right = replace(loaded.header, golden=canary_answer(loaded.network, loaded.header.image_spec))
        save_checkpoint(path, loaded.network, right)
        server.process.send_signal(signal.SIGHUP)
        server.log.wait_for("info    reloaded")
        digests = {predict(server, photo)["model"]["digest"] for _ in range(20)}
    assert digests == {load_checkpoint(path).digest}
    assert clients.errors == []
    assert {status for status, _ in clients.answers} == {200}
    assert len(set(workers(server, 2))) == 2


@pytest.mark.slow
def test_a_worker_that_finds_another_checkpoint_makes_all_take_it(
    start: StartServer, tiny_checkpoint: Path, other_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "served.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    server = start(checkpoint=path, workers=2)
    path.write_bytes(other_checkpoint.read_bytes())
    os.kill(workers(server, 2)[0], signal.SIGKILL)
    server.log.wait_for("info    reloaded")


def test_a_terminal_that_is_closed_stops_it(start: StartServer) -> None:
    terminal, stdin = os.openpty()
    server = start(stdin=stdin)
    os.close(stdin)
    os.close(terminal)
    server.process.send_signal(signal.SIGHUP)
    assert ended(server) == (0, "")


def test_the_parent_needs_no_torch() -> None:
    code = (
        "import sys, torchlight.command, torchlight.app.server.supervisor\n"
        "sys.exit('torch' in sys.modules or 'fastapi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
