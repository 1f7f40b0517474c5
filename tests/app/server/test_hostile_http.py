"""Hostile requests, sent to a running service as bytes. `python -m stress.hostile` sends all, and more at once."""

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from stress import hostile_http
from stress.hostile_http import Address, Exchange
from tests.app.conftest import PATIENCE_S, Server, StartServer

UPLOAD_TIMEOUT_S = 1.0
EVERY = 7  # of the bad values of parameters; the command sends all


@pytest.fixture(scope="module")
def impatient(start_server: StartServer) -> Server:
    """A service that waits a second for the next 100 kB."""
    return start_server(deadline_s=PATIENCE_S, upload_timeout_s=UPLOAD_TIMEOUT_S)


@pytest.fixture(scope="module")
def address(impatient: Server) -> Address:
    host, _, port = impatient.url.removeprefix("http://").partition(":")
    return host, int(port)


def wrong(address: Address, exchanges: Iterable[Exchange]) -> dict[str, int]:
    """Return the requests that got another status than a right one, with it."""
    given = list(exchanges)
    assert given
    with ThreadPoolExecutor(4) as pool:
        statuses = pool.map(lambda one: hostile_http.perform(address, one), given)
        return {one.name: status for one, status in zip(given, statuses, strict=True) if status not in one.answers}


KINDS: dict[str, Callable[[bytes], Iterable[Exchange]]] = {
    "sizes and lengths": hostile_http.lengths,
    "boundaries and parts": hostile_http.forms,
    "file names": hostile_http.filenames,
    "methods": lambda _: hostile_http.methods(),
    "heads": lambda _: hostile_http.heads(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_request_gets_its_right_status(address: Address, impatient: Server, photo: bytes, kind: str) -> None:
    assert wrong(address, KINDS[kind](photo)) == {}
    assert httpx2.post(f"{impatient.url}/v1/predict", files={"file": photo}, timeout=PATIENCE_S).status_code == 200


def test_bad_numbers_and_any_unicode_in_each_parameter_are_refused(
    address: Address, impatient: Server, photo: bytes
) -> None:
    with httpx2.Client(base_url=impatient.url, timeout=PATIENCE_S) as client:
        image_id = client.post("/v1/images", files={"file": photo}).json()["id"]
        openapi = client.get("/openapi.json").json()
    known = {"image_id": image_id, "layer": "conv1", "channel": "0", "y": "0", "x": "0", "method": "hires_cam"}
    assert wrong(address, list(hostile_http.parameters(openapi, known))[::EVERY]) == {}


def test_fifty_slow_uploads_are_refused_and_stop_nobody(address: Address, impatient: Server, photo: bytes) -> None:
    slow = hostile_http.slow(hostile_http.SLOW_CLIENTS, seconds=2 * UPLOAD_TIMEOUT_S)["slow uploads"]
    with ThreadPoolExecutor(1) as pool, httpx2.Client(base_url=impatient.url, timeout=PATIENCE_S) as client:
        crowd = pool.submit(hostile_http.perform_together, address, slow)
        answers = [client.post("/v1/predict", files={"file": photo}).status_code for _ in range(10)]
        assert set(answers) == {200}
        assert crowd.result() == [408] * hostile_http.SLOW_CLIENTS


def test_an_upload_that_is_slow_and_steady_is_answered(address: Address, photo: bytes) -> None:
    whole = hostile_http.predict(photo)
    step = len(whole) // 4
    pieces = [whole[start : start + step] for start in range(0, len(whole), step)]
    steady = hostile_http.exchange("steady", pieces, 200, pause_s=UPLOAD_TIMEOUT_S / 10)
    assert hostile_http.perform(address, steady) == 200


def abandoned(url: str) -> float:
    (count,) = re.findall(r"^torchlight_abandoned_requests\S* (\S+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE)
    return float(count)


def test_clients_that_leave_are_counted(address: Address, impatient: Server, photo: bytes) -> None:
    before = abandoned(impatient.url)
    assert wrong(address, hostile_http.departures(photo, 10)) == {}
    while abandoned(impatient.url) < before + 15:  # some of the 20 may have been answered before they left
        assert impatient.process.poll() is None
