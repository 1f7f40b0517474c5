"""The parent and its workers, as real processes: they stop, die, are replaced and reloaded, and no answer is lost.

What only the parent does is tested with :mod:`tests.app.server.fake_worker`, which starts at once; what both have to do
together, with the whole service.
"""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.server_process import PATIENCE_S, Log, Server, StartServer
from torchlight.app.errors import StartError
from torchlight.app.server import supervisor
from torchlight.app.settings import Settings
from torchlight.model.canary import canary_answer
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("fake_worker.py")
SUPERVISOR = """
import sys
from torchlight.app.server import supervisor
from torchlight.app.settings import Settings
supervisor.FIRST_PAUSE_S = 0.1
supervisor.LONGEST_PAUSE_S = 0.5
supervisor.run(Settings(port=0, workers=int(sys.argv[1])), [sys.executable, *sys.argv[2:]])
"""
StartFakes = Callable[..., Server]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """What the fake workers do when they start, one a line."""
    return tmp_path / "plan"


@pytest.fixture
def start_fakes(plan: Path) -> Iterator[StartFakes]:
    """Start a supervisor of fake workers that follow the plan."""
    with ExitStack() as stack:

        def start(*steps: str, workers: int = 1, stdin: int = subprocess.DEVNULL) -> Server:
            plan.write_text("\n".join(steps))
            environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHLIGHT_")}
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", SUPERVISOR, str(workers), str(FAKE), str(plan)],
                    cwd=ROOT,
                    env=environment,
                    text=True,
                    process_group=0,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            assert process.stdout
            assert process.stderr
            log = Log(process.stdout)
            stack.callback(log.close)
            stack.callback(process.terminate)
            greeting = process.stderr.readline()
            found = re.search(r"(http://\S+)/$", greeting, re.MULTILINE)
            assert found, greeting + process.stderr.read()
            return Server(process, greeting, found[1], log)

        yield start


def address(server: Server) -> tuple[str, int]:
    url = httpx2.URL(server.url)
    assert url.port
    return url.host, url.port


def until_nobody_listens(server: Server) -> None:
    with pytest.raises(ConnectionError):  # noqa: PT012
        while True:
            socket.create_connection(address(server), timeout=PATIENCE_S).close()


def workers(server: Server, number: int) -> list[int]:
    """Return the processes that began to serve, oldest first, once there are so many."""
    return [int(line[1]) for line in server.log.wait_for(r"worker (\d+) serves", number)]


def ended(server: Server) -> tuple[int, str]:
    """Wait for its end, and return its exit code and what it said after the greeting."""
    assert server.process.stderr
    return server.process.wait(PATIENCE_S), server.process.stderr.read()


class Client:
    """One connection to a fake worker."""

    def __init__(self, server: Server) -> None:
        self._connection = socket.create_connection(address(server), timeout=PATIENCE_S)

    def ask(self, line: bytes = b"more\n") -> str:
        """Return the digest that the worker serves, or nothing if it is gone."""
        self._connection.sendall(line)
        return self._connection.recv(100).decode().strip()

    def close(self) -> None:
        self._connection.close()


def ask(server: Server) -> str:
    """Ask a fake worker on a new connection."""
    client = Client(server)
    digest = client.ask(b"end\n")
    client.close()
    return digest


def is_gone(client: Client) -> bool:
    """Whether the connection was closed without an answer."""
    try:
        return client.ask() == ""
    except ConnectionError:
        return True


@contextmanager
def clients(server: Server, number: int) -> Iterator[list[Client]]:
    """Connect so many, each of which a worker has accepted."""
    with ExitStack() as stack:
        connected = [Client(server) for _ in range(number)]
        for client in connected:
            stack.callback(client.close)
        assert all(client.ask() for client in connected)
        yield connected


def test_ctrl_c_in_a_terminal_stops_it_and_what_was_accepted_is_answered(start_fakes: StartFakes) -> None:
    server = start_fakes("one")
    with clients(server, 50) as connected:
        os.killpg(server.process.pid, signal.SIGINT)
        until_nobody_listens(server)
        assert [client.ask(b"end\n") for client in connected] == ["one"] * 50
    assert ended(server) == (0, "")


def test_a_second_signal_ends_it_at_once(start_fakes: StartFakes) -> None:
    server = start_fakes("one")
    with clients(server, 1) as (client,):
        server.process.terminate()
        until_nobody_listens(server)
        server.process.terminate()
        assert ended(server) == (128 + signal.SIGTERM, "")
        assert is_gone(client)


def test_a_killed_worker_is_replaced_and_only_what_it_had_accepted_fails(start_fakes: StartFakes) -> None:
    server = start_fakes("one")
    (first,) = workers(server, 1)
    with clients(server, 1) as (client,):
        os.kill(first, signal.SIGKILL)
        assert ask(server) == "one"  # it waits for the next worker
        assert is_gone(client)
    server.log.wait_for(f"error   worker {first} was ended by SIGKILL; starting another")
    assert first not in workers(server, 2)[1:]


@pytest.mark.parametrize(
    ("step", "reason"),
    [("fail the network is wrong", "the network is wrong"), ("die", "ended with exit code 3 before")],
)
def test_a_worker_that_cannot_start_stops_the_start_with_its_reason(plan: Path, step: str, reason: str) -> None:
    plan.write_text(step)
    with pytest.raises(StartError, match=reason):
        supervisor.run(Settings(port=0), [sys.executable, str(FAKE), str(plan)])


def test_a_worker_that_cannot_start_is_tried_again_after_longer_and_longer_pauses(start_fakes: StartFakes) -> None:
    server = start_fakes("one", "fail it is away", "die", "fail it is away", "one")
    os.kill(*workers(server, 1), signal.SIGKILL)
    failed = (
        r"a worker cannot start: (?:it is away|worker \d+ ended with exit code 3 before.*); trying again in (\S+) s"
    )
    assert [line[1] for line in server.log.wait_for(failed, 3)] == ["0.1", "0.2", "0.4"]
    assert ask(server) == "one"


def test_a_reload_replaces_all_workers(start_fakes: StartFakes) -> None:
    server = start_fakes("one", "one", "two", workers=2)
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for("info    reloaded")
    assert {ask(server) for _ in range(20)} == {"two"}
    assert len(set(workers(server, 4))) == 4


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (["two", "fail no memory"], "no memory"),
        (["two", "die"], r"worker \d+ ended with exit code 3 before it could answer"),
        (["two", "three"], "the checkpoint changed while it was read; reload again"),
    ],
)
def test_a_reload_whose_second_worker_fails_leaves_one_digest_answering(
    start_fakes: StartFakes, steps: list[str], reason: str
) -> None:
    server = start_fakes("one", "one", *steps, "four", workers=2)
    old = set(workers(server, 2))
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for(f"error   reload failed, the workers that answer go on: {reason}")
    assert {ask(server) for _ in range(20)} == {"one"}
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    assert {int(pid) for pid in children.split()} == old
    server.process.send_signal(signal.SIGHUP)
    server.log.wait_for("info    reloaded")
    assert {ask(server) for _ in range(20)} == {"four"}


def test_a_worker_that_finds_another_checkpoint_makes_all_take_it(start_fakes: StartFakes) -> None:
    server = start_fakes("one", "one", "two", workers=2)
    os.kill(workers(server, 2)[0], signal.SIGKILL)
    server.log.wait_for("info    reloaded")
    assert {ask(server) for _ in range(20)} == {"two"}


def test_workers_that_started_with_different_checkpoints_are_replaced(start_fakes: StartFakes) -> None:
    server = start_fakes("one", "two", workers=2)
    server.log.wait_for("info    reloaded")
    assert {ask(server) for _ in range(20)} == {"two"}


def test_a_reload_that_fails_is_repeated_while_two_checkpoints_answer(start_fakes: StartFakes) -> None:
    server = start_fakes("one", "one", "two", "fail no memory", "two", workers=2)
    os.kill(workers(server, 2)[0], signal.SIGKILL)
    server.log.wait_for("error   reload failed, the workers that answer go on: no memory")
    server.log.wait_for("info    reloaded")
    assert {ask(server) for _ in range(20)} == {"two"}


def test_a_terminal_that_is_closed_stops_it(start_fakes: StartFakes) -> None:
    terminal, stdin = os.openpty()
    server = start_fakes("one", stdin=stdin)
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


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A checkpoint that tests may replace."""
    path = tmp_path_factory.mktemp("served") / "served.safetensors"
    path.write_bytes(tiny_checkpoint.read_bytes())
    return path


@pytest.fixture(scope="module")
def whole(start_server: StartServer, path: Path) -> Iterator[Server]:
    """A service of two real workers: one test reloads it, the next one stops it."""
    server = start_server(checkpoint=path, workers=2)
    yield server
    server.process.terminate()
    server.process.wait(PATIENCE_S)


def predict(server: Server, photo: bytes) -> str:
    """Ask on a new connection, and return the digest of the network that answered."""
    answer = httpx2.post(f"{server.url}/v1/predict", files={"file": photo}, timeout=PATIENCE_S).json()
    return str(answer["model"]["digest"])


class Visitors:
    """Two who ask again and again and retry nothing: one on a connection it keeps, one on a new one each time."""

    def __init__(self, server: Server, photo: bytes) -> None:
        self.answers: list[tuple[int, str]] = []
        self.errors: list[Exception] = []
        self._server, self._photo = server, photo
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=ask) for ask in (self._ask_on_one, self._ask_on_many)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask_on_one(self) -> None:
        connection = self._connect()  # it opens another when told to
        while not self._is_over.wait(0.05):
            self._ask(connection)
        connection.close()

    def _ask_on_many(self) -> None:
        while not self._is_over.wait(0.05):
            connection = self._connect()
            self._ask(connection)
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*address(self._server), timeout=PATIENCE_S)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        try:
            connection.request("POST", "/v1/predict", self._photo, {"Content-Type": "image/png"})
            answer = connection.getresponse()
            self.answers.append((answer.status, answer.read().decode()))
        except (OSError, http.client.HTTPException) as error:
            self.errors.append(error)
            connection.close()


def test_reload_loses_no_answer_and_keeps_the_old_checkpoint_when_the_new_one_is_bad(
    whole: Server, path: Path, tiny_checkpoint: Path, other_checkpoint: Path, photo: bytes
) -> None:
    loaded = load_checkpoint(other_checkpoint)
    with Visitors(whole, photo) as visitors:
        path.write_bytes(b"not a checkpoint")
        whole.process.send_signal(signal.SIGHUP)
        whole.log.wait_for(rf"error   reload failed, the workers that answer go on: checkpoint {path}.*\n")

        wrong = replace(loaded.header, golden=(0.0, 0.0, 1.0))
        save_checkpoint(path, loaded.network, wrong)
        whole.process.send_signal(signal.SIGHUP)
        whole.log.wait_for(rf"reload failed, .*: checkpoint {path}: its canary image should be 'owl' with .* 1\.0000")
        assert httpx2.get(f"{whole.url}/readyz", timeout=PATIENCE_S).status_code == 200
        assert predict(whole, photo) == load_checkpoint(tiny_checkpoint).digest

        right = replace(loaded.header, golden=canary_answer(loaded.network, loaded.header.image_spec))
        save_checkpoint(path, loaded.network, right)
        whole.process.send_signal(signal.SIGHUP)
        whole.log.wait_for("info    reloaded")
        digests = {predict(whole, photo) for _ in range(20)}
    assert digests == {load_checkpoint(path).digest}
    assert visitors.errors == []
    assert {status for status, _ in visitors.answers} == {200}
    assert len(set(workers(whole, 4))) == 4


class Upload:
    """A request that the server has accepted, and whose body has not come yet."""

    def __init__(self, server: Server, photo: bytes) -> None:
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


def test_sigterm_with_50_requests_in_flight_makes_it_unready_and_gives_50_answers(whole: Server, photo: bytes) -> None:
    probe = http.client.HTTPConnection(*address(whole), timeout=PATIENCE_S)
    probe.request("GET", "/readyz")
    assert probe.getresponse().read() == b'{"status":"ready"}'
    with ExitStack() as stack:
        uploads = [Upload(whole, photo) for _ in range(50)]
        for upload in uploads:
            stack.callback(upload.close)
        whole.process.terminate()
        until_nobody_listens(whole)
        probe.request("GET", "/readyz")
        unready = probe.getresponse()
        answers = [upload.finish() for upload in uploads]
        assert [answer.status for answer in answers] == [200] * 50
        assert {answer.headers["Connection"] for answer in answers} == {"close"}
    assert (unready.status, unready.headers["Connection"]) == (503, "close")
    probe.close()
    assert ended(whole) == (0, "")


def test_workers_end_when_their_parent_is_killed(start_server: StartServer) -> None:
    server = start_server()
    server.process.kill()
    until_nobody_listens(server)
