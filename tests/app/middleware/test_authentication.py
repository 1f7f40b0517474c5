"""Who gets in: keys, names, other sites, how often. Who does not is refused before the body is read, and logged."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Mount
from starlette.testclient import TestClient

from torchlight.app.errors import InvalidKeys, TooManyRequests, UnknownHost
from torchlight.app.main import create_app
from torchlight.app.middleware.authentication import OPEN_ROUTES, STATIC
from torchlight.app.security import api_keys
from torchlight.app.security.api_keys import Key, Keys
from torchlight.app.security.rate_limit import RateLimit, network_of
from torchlight.app.security.trusted_hosts import check_host
from torchlight.app.settings import Settings

ALICE, BOB = "a1" * 16, "b0b" * 12
PADDED = "Q" * 32 + "=="
Serve = Callable[..., TestClient]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


HASH_OF_BOB = sha256(BOB)
GIVEN = f"alice={ALICE},bob=sha256:{HASH_OF_BOB}"


@pytest.fixture(scope="module")
def serve(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Return a client of the service with these settings; what it asks never gets to the network."""

    def start(**settings: Any) -> TestClient:
        settings = {"checkpoint": tiny_checkpoint, "store_dir": tmp_path_factory.mktemp("store")} | settings
        return TestClient(create_app(Settings(**settings)), base_url="http://photos.example.org")

    return start


@pytest.fixture(scope="module")
def closed(serve: Serve) -> TestClient:
    return serve(api_keys=GIVEN)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# What is open


def paths_of(client: TestClient) -> set[str]:
    """Return a path for every route, and one in every folder of files."""
    routes = client.app.router.routes  # type: ignore[attr-defined]
    mounted = {f"{route.path}/x.js" for route in routes if isinstance(route, Mount)}
    listed = set(client.app.openapi()["paths"]) | {"/", "/docs", "/openapi.json"}  # type: ignore[attr-defined]
    return mounted | {re.sub(r"\{\w+\}", "1", path) for path in listed}


def test_every_route_is_closed_but_those_on_the_list(closed: TestClient) -> None:
    let_in = {path for path in paths_of(closed) if closed.get(path).status_code != 401}
    assert let_in == {"/livez", "/readyz", "/docs", "/openapi.json", "/docs/assets/x.js", "/page/x.js"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/livez/",
        "/LIVEZ",
        "//livez",
        "/page/../v1/model",
        "/docs/assets/..%2f..%2fv1/model",
        "/v1/model?x=/livez",
        "/v1/model#/livez",
        "/v1/model;/livez",
        "/docs/",
        "/page",
    ],
)
def test_no_spelling_of_a_path_opens_a_closed_route(closed: TestClient, path: str) -> None:
    assert closed.request("GET", f"http://photos.example.org{path}").status_code in (401, 404)
    assert "classes" not in closed.get(path).text


@pytest.mark.parametrize("host", ["x/livez?", "livez", "x/page/", "[::1]/livez", "", "x#"])
def test_the_header_host_has_no_part_in_what_is_open(closed: TestClient, host: str) -> None:
    assert closed.get("/v1/model", headers={"Host": host}).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_no_method_opens_a_closed_route(closed: TestClient, method: str) -> None:
    assert closed.request(method, "/v1/images").status_code == 401


@pytest.mark.parametrize(
    ("setting", "opened"),
    [("none", set()), ("probes", {"probes"}), ("metrics,docs", {"metrics", "docs"}), ("docs", {"docs"})],
)
def test_probes_metrics_and_docs_are_open_as_set(serve: Serve, setting: str, opened: set[str]) -> None:
    client = serve(api_keys=GIVEN, open_routes=setting)
    answers = {path: client.get(path).status_code != 401 for group in OPEN_ROUTES.values() for path in group}
    assert answers == {path: name in opened for name, group in OPEN_ROUTES.items() for path in group}


def test_without_keys_nobody_is_asked_for_one(serve: Serve) -> None:
    assert serve().get("/v1/model").status_code == 200


# Keys


@pytest.mark.parametrize(
    "headers",
    [
        bearer(ALICE),
        bearer(BOB),
        {"Authorization": f"bearer   {BOB}"},
        {"X-API-Key": BOB},
        {"X-API-Key": ALICE, "Authorization": "Basic cHJveHk6cGFzc3dvcmQ="},  # of a proxy before us
    ],
)
def test_each_key_opens_in_each_header(closed: TestClient, headers: dict[str, str]) -> None:
    assert closed.get("/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize("login", [("", ALICE), ("anyone", BOB), (ALICE, ""), ("a", "")], ids=str)
def test_the_browsers_own_dialog_takes_a_key_as_user_or_password(closed: TestClient, login: tuple[str, str]) -> None:
    assert (closed.get("/", auth=login).status_code == 200) == bool({ALICE, BOB} & {*login})


WRONG = {
    "none": {},
    "other": bearer("c" * 32),
    "empty": bearer(""),
    "start of one": bearer(ALICE[:-1]),
    "more than one": bearer(f"{ALICE}1"),
    "other case": bearer(ALICE.upper()),
    "hash": bearer(HASH_OF_BOB),
    "hash as it is set": bearer(f"sha256:{HASH_OF_BOB}"),
    "with its name": bearer(f"alice={ALICE}"),
    "both": bearer(f"{ALICE},{BOB}"),
    "other scheme": {"Authorization": f"Digest {ALICE}"},
    "no scheme": {"Authorization": ALICE},
    "not ASCII": {"X-API-Key": "é".encode() * 32},
    "not base64": {"Authorization": f"Basic {ALICE}!"},
    "not text": {"Authorization": "Basic /w=="},
    "neither": {"Authorization": b"Basic \xe9\xe9"},
    "in the query": {"Referer": f"/?api_key={ALICE}"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_key_is_a_401_problem(closed: TestClient, headers: dict[str, Any]) -> None:
    answer = closed.get(f"/v1/model?api_key={ALICE}", headers={"X-Request-ID": "me-42"} | headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert (answer.json()["code"], answer.json()["request_id"]) == ("wrong_key", "me-42")
    assert answer.headers["X-Request-ID"] == "me-42"
    assert ALICE not in answer.text


def test_the_browsers_dialog_opens_only_for_who_tried_no_token(closed: TestClient) -> None:
    def challenges(headers: dict[str, str]) -> list[str]:
        fields = closed.get("/", headers=headers).headers.get_list("WWW-Authenticate")
        return [field.partition(" ")[0] for field in fields]

    assert challenges({}) == ["Bearer", "Basic"]
    assert challenges({"Authorization": "Basic eDp5"}) == ["Bearer", "Basic"]
    assert challenges(bearer("x")) == challenges({"X-API-Key": "x"}) == ["Bearer"]


@pytest.mark.parametrize(("site", "status"), [("cross-site", 401), ("same-site", 401), ("same-origin", 415)])
def test_other_sites_cannot_use_the_password_that_a_browser_keeps(closed: TestClient, site: str, status: int) -> None:
    headers = {"Sec-Fetch-Site": site, "Content-Type": "text/plain"}
    assert closed.post("/v1/images", auth=("", ALICE), headers=headers).status_code == status
    assert closed.post("/v1/images", headers=bearer(ALICE) | headers).status_code == 415


def test_the_body_of_a_refused_request_is_not_read(closed: TestClient) -> None:
    async def no_one_reads() -> Any:
        raise AssertionError("the body was read")

    scope = {"type": "http", "method": "POST", "path": "/v1/images", "headers": [(b"transfer-encoding", b"chunked")]}
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(closed.app({**scope, "query_string": b"", "client": None}, no_one_reads, send))
    assert sent[0]["status"] == 401


def test_the_log_names_the_holder_and_never_a_key(closed: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "torchlight")
    closed.get("/v1/model", headers=bearer(BOB))
    closed.get("/v1/model", headers=bearer("wrong" * 10))
    first, second = (record.__dict__["facts"] for record in caplog.records)
    assert (first["client"], first["status"]) == ("bob", 200)
    assert (second.get("client"), second["status"], second["code"]) == (None, 401, "wrong_key")
    assert not re.search(f"{BOB}|{HASH_OF_BOB[:8]}|wrongwrong", str([record.__dict__ for record in caplog.records]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ALICE, [(f"key-{sha256(ALICE)[:8]}", ALICE)]),
        (f"# who\nalice={ALICE}\n\n  bob=sha256:{HASH_OF_BOB},\n", [("alice", ALICE), ("bob", BOB)]),
        (f"old={ALICE} old={BOB}", [("old", ALICE), ("old", BOB)]),
        (PADDED, [(f"key-{sha256(PADDED)[:8]}", PADDED)]),
        (f"x={PADDED}", [("x", PADDED)]),
    ],
)
def test_keys_are_held_as_hashes_under_their_names(text: str, expected: list[tuple[str, str]]) -> None:
    assert api_keys.parse_keys(text, "here") == tuple(Key(name, sha256(secret)) for name, secret in expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "here holds no key; without keys, unset it"),
        ("# none\n , ", "here holds no key"),
        (f"{ALICE},bob=hunter2", "here: key 2 has 7 characters; at least 32 are needed, as `openssl rand -hex 32`"),
        ("sha256:beef", "here: key 1 starts with sha256: but 64 digits of lower-case hex do not follow"),
        ("é" * 40, "here: key 1 has characters other than visible ASCII"),
    ],
)
def test_what_can_be_no_key_is_refused_without_repeating_it(text: str, message: str) -> None:
    with pytest.raises(InvalidKeys, match=f"^{re.escape(message)}") as refused:
        api_keys.parse_keys(text, "here")
    assert "hunter2" not in str(refused.value)


def test_bad_keys_stop_the_start_and_are_not_in_the_message(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(InvalidKeys, match=r"the file of API keys .*none cannot be read \(No such file"):
        serve(api_keys_file=tmp_path / "none")
    (tmp_path / "keys").write_text("hunter2")
    with pytest.raises(InvalidKeys, match="keys: key 1 has 7 characters"):
        serve(api_keys_file=tmp_path / "keys")


class Clock:
    """Stands still until told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_keys_in_the_file_change_while_the_service_runs(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice={ALICE}")
    held = Keys(api_keys.parse_keys(f"root={'r' * 32}", "here"), file, clock)
    file.write_text(f"bob={BOB}")
    assert (held.holder([ALICE]), held.holder([BOB])) == ("alice", None)
    clock.now = api_keys.REREAD_S
    assert (held.holder([ALICE]), held.holder([BOB]), held.holder(["r" * 32])) == (None, "bob", "root")


@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda file: file.write_text("short"), lambda file: file.write_text("")]
)
def test_a_file_gone_bad_leaves_the_keys_as_they_were_and_is_logged(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object]
) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice={ALICE}")
    held = Keys((), file, clock)
    spoil(file)
    clock.now = api_keys.REREAD_S
    assert held.holder([ALICE]) == "alice"
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert str(file) in record.__dict__["facts"]["reason"]
    file.write_text(f"bob={BOB}")
    clock.now += api_keys.REREAD_S
    assert (held.holder([ALICE]), held.holder([BOB])) == (None, "bob")


def test_every_key_is_compared_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr("hmac.compare_digest", lambda ours, given: compared.append(ours) or ours == given)
    held = Keys(api_keys.parse_keys(f"{ALICE} {BOB} {'c' * 32}", "here"))
    counts = []
    for secret in (ALICE, "c" * 32, "x"):
        compared.clear()
        held.holder([secret])
        counts.append(len(compared))
    assert counts == [3, 3, 3]


# How often


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Clock:
    """Time that stands still within a window of each length: with a new one one more request may pass."""
    clock.now = 1_800_001_800.25
    monkeypatch.setattr("time.time", clock)
    return clock


@pytest.mark.usefixtures("still")
def test_one_request_too_many_is_a_429_that_says_when_to_come_again(serve: Serve) -> None:
    client = serve(rate_limit="2/hour")
    assert [client.get("/v1/model").status_code for _ in range(2)] == [200, 200]
    answer = client.get("/v1/model")
    assert (answer.status_code, answer.headers["Content-Type"]) == (429, "application/problem+json")
    assert answer.json()["code"] == "too_many_requests"
    assert 1 <= int(answer.headers["Retry-After"]) <= 3600
    assert f"2/hour of this service; ask again in {answer.headers['Retry-After']} s" in answer.json()["detail"]


@pytest.mark.usefixtures("still")
def test_what_is_open_does_not_count(serve: Serve) -> None:
    client = serve(rate_limit="1/hour", open_routes="probes,docs,metrics")
    for path in 2 * [*OPEN_ROUTES["probes"], *OPEN_ROUTES["docs"], f"{STATIC[0]}main.js"]:
        assert client.get(path).status_code != 429
    assert client.get("/v1/model").status_code == 200


@pytest.mark.usefixtures("still")
def test_a_client_is_its_key_and_without_one_its_address(serve: Serve) -> None:
    client = serve(rate_limit="1/hour", api_keys=f"team={ALICE},team={BOB},other={'c' * 32}")

    def ask(key: str) -> int:
        return client.get("/v1/model", headers=bearer(key)).status_code

    assert [ask(ALICE), ask(BOB), ask("c" * 32)] == [200, 429, 200]  # two keys of one name are one client
    assert [ask("wrong"), ask("another")] == [401, 429]


@pytest.mark.usefixtures("still")
def test_what_a_client_says_of_its_address_is_not_believed(serve: Serve) -> None:
    client = serve(rate_limit="1/hour")
    answers = [client.get("/v1/model", headers={"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("/run/socket", "/run/socket"),
    ],
)
def test_addresses_that_one_client_has_to_himself_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.usefixtures("still")
@pytest.mark.anyio
async def test_clients_that_are_remembered_are_bounded_and_the_others_start_anew() -> None:
    limit = RateLimit("1/hour", max_clients=3)
    for client in ("a", "b", "c"):
        await limit.hit(client)
    with pytest.raises(TooManyRequests):
        await limit.hit("a")  # so that b is the one that asked least lately
    await limit.hit("d")
    await limit.hit("b")
    with pytest.raises(TooManyRequests):
        await limit.hit("a")


@pytest.mark.anyio
async def test_after_the_time_it_says_a_request_is_let_in(still: Clock) -> None:
    limit = RateLimit("5/second")
    for _ in range(5):
        await limit.hit("a")
    with pytest.raises(TooManyRequests) as refused:
        await limit.hit("a")
    assert refused.value.retry_after_s == 1
    still.now += refused.value.retry_after_s
    await limit.hit("a")


# Names, and other sites


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("photos.example.org", "photos.example.org"),
        ("Photos.Example.ORG.:8443", "photos.example.org"),
        ("a.b.example.org", "x,*.example.org"),
        ("[::1]:8000", "[::1]"),
        ("anything", "*"),
        ("", "*"),
    ],
)
def test_the_service_answers_under_its_names(host: str, allowed: str) -> None:
    check_host(host, tuple(allowed.split(",")))


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.com",
        "evil-example.org",
        "example.org",
        "example.org.evil.com",
        "x:y",
        "[::1",
        "a.example.org/x",
        "*",
    ],
)
def test_the_service_answers_under_no_other_name(host: str) -> None:
    with pytest.raises(UnknownHost):
        check_host(host, ("*.example.org", "photos.example.org"))


def test_another_name_is_a_421_problem_but_not_for_probes(serve: Serve) -> None:
    client = serve(allowed_hosts="other.example.org")
    answer = client.get("/v1/model")
    assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host")
    assert "'photos.example.org'" in answer.json()["detail"]
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/model", headers={"Host": "other.example.org"}).status_code == 200


SITE = "https://site.example.net"


@pytest.mark.parametrize("path", ["/v1/model", "/livez", "/"])
def test_other_sites_are_told_nothing_by_default(serve: Serve, path: str) -> None:
    client = serve()
    preflight = {"Origin": SITE, "Access-Control-Request-Method": "GET"}
    for answer in (client.get(path, headers={"Origin": SITE}), client.options(path, headers=preflight)):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_sites_on_the_list_may_ask_with_a_key_and_read_refusals_too(serve: Serve) -> None:
    client = serve(cors_origins=f"{SITE},https://b.example", api_keys=GIVEN)
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, x-api-key"}
    preflight = client.options("/v1/predict", headers={"Origin": SITE} | wanted)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == SITE
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    refused, answered = (client.get("/v1/model", headers={"Origin": SITE} | more) for more in ({}, bearer(ALICE)))
    assert (refused.status_code, answered.status_code) == (401, 200)
    assert refused.headers["Access-Control-Allow-Origin"] == answered.headers["Access-Control-Allow-Origin"] == SITE
    stranger = client.get("/v1/model", headers={"Origin": "https://site.example.net.evil"} | bearer(ALICE))
    assert "Access-Control-Allow-Origin" not in stranger.headers


# What is said about it


def test_the_documentation_asks_for_a_key_where_one_is_needed(closed: TestClient, serve: Serve) -> None:
    document = closed.app.openapi()  # type: ignore[attr-defined]
    kinds = {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes_of(document).values()}
    assert kinds == {("http", "bearer", None), ("apiKey", None, "X-API-Key")}
    operation = document["paths"]["/v1/predict"]["post"]
    assert operation["security"] == [{"bearer": []}, {"header": []}]
    assert "401" in operation["responses"]
    assert "security" not in document["paths"]["/livez"]["get"]
    assert schemes_of(serve().app.openapi()) == {}  # type: ignore[attr-defined]


def schemes_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"].get("securitySchemes", {})
    return found


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/", "default-src 'self'"),
        ("/docs", "default-src 'self'"),
        ("/livez", "default-src 'none'"),
        ("/x", "default-"),
    ],
)
def test_every_answer_tells_browsers_what_not_to_do(serve: Serve, path: str, policy: str) -> None:
    headers = serve().get(path).headers
    assert headers["Content-Security-Policy"].startswith(policy)
    assert "frame-ancestors" in headers["Content-Security-Policy"]
    assert "script-src 'unsafe-inline'" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "camera=(self)" in headers["Permissions-Policy"]


# A real server


@pytest.fixture(scope="module")
def guarded(start_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A server that knows keys from a file and believes a proxy on this machine, and that file."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(f"alice={ALICE}")
    return start_server(api_keys_file=file, trusted_proxies="127.0.0.1", rate_limit="1/day"), file


def from_address(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


def test_a_key_is_taken_back_and_another_given_without_a_restart(guarded: tuple[Any, Path]) -> None:
    server, file = guarded
    others = (from_address(f"198.51.100.{number}") for number in range(256))
    with httpx2.Client(base_url=server.url, timeout=120) as client:
        assert client.get("/v1/model", headers=bearer(ALICE)).status_code == 200
        file.write_text(f"bob={BOB}")
        while client.get("/v1/model", headers=bearer(BOB) | next(others)).status_code != 200:
            assert file.stat().st_mtime > time.time() - 10 * api_keys.REREAD_S
            time.sleep(api_keys.REREAD_S / 10)
        assert client.get("/v1/model", headers=bearer(ALICE) | next(others)).status_code == 401


def test_behind_a_proxy_that_is_trusted_clients_are_told_apart(guarded: tuple[Any, Path]) -> None:
    ask = [("192.0.2.1", 401), ("192.0.2.2", 401), ("192.0.2.1", 429), ("203.0.113.8, 192.0.2.2", 429)]
    for forwarded, status in ask:
        answer = httpx2.get(f"{guarded[0].url}/v1/model", headers=from_address(forwarded), timeout=120)
        assert answer.status_code == status


def chunks(number: int) -> Iterator[bytes]:
    """Yield that many chunks of a megabyte."""
    for _ in range(number):
        yield bytes(1_000_000)


def resident_bytes(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return 1024 * int(found[1])


def memory(server: Any) -> int:
    """Return the bytes that the process and its children hold."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(resident_bytes, [pid, *map(int, children)]))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads memory from Linux's /proc")
def test_a_large_body_without_a_key_costs_no_memory(guarded: tuple[Any, Path]) -> None:
    server, _ = guarded
    before = memory(server)
    headers = {"Content-Type": "image/png"} | from_address("192.0.2.3")
    answer = httpx2.post(f"{server.url}/v1/images", content=chunks(300), headers=headers, timeout=120)
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_key")
    assert memory(server) - before < 20_000_000
