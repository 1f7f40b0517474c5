"""In which form a view comes, and when it need not come at all."""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from torchlight.app.api import view_response
from torchlight.app.api.content_negotiation import choose, encode
from torchlight.app.errors import NotAcceptable
from torchlight.app.main import create_app
from torchlight.app.settings import Settings

ALL = ("png", "json", "npy")
ACCEPTED = {
    "": "png",
    "*/*": "png",
    "application/json": "json",
    "application/x-npy": "npy",
    "IMAGE/PNG": "png",
    "image/*": "png",
    "application/*": "json",
    "application/json, image/png": "png",
    "application/json, image/png;q=0.9": "json",
    "application/json;q=0.5, application/x-npy ; q=0.6": "npy",
    "image/png;q=0, */*;q=0.1": "json",
    "application/*;q=0.9, application/json;q=0.1, image/*;q=0.2": "npy",
    "text/html, application/xhtml+xml, image/webp, */*;q=0.8": "png",
    "image/png;q=nonsense, application/json;q=0.1": "json",
    "application/json;profile=x;q=0.3": "json",
}


@pytest.mark.parametrize(("accept", "form"), ACCEPTED.items())
def test_accept_decides_by_quality_then_by_the_order_of_the_view(accept: str, form: str) -> None:
    assert choose(ALL, None, accept) == form


@pytest.mark.parametrize("suffix", ALL)
def test_suffix_wins_over_accept(suffix: str) -> None:
    assert choose(ALL, suffix, "text/html;q=1, application/json;q=0") == suffix


@pytest.mark.parametrize(
    ("suffix", "accept"), [("npy", "*/*"), (None, "application/x-npy"), (None, "text/html"), (None, "*/*;q=0")]
)
def test_form_that_a_view_has_not_is_refused_with_those_it_has(suffix: str | None, accept: str) -> None:
    with pytest.raises(NotAcceptable, match=r"image/png \(\.png\), application/json \(\.json\)"):
        choose(("png", "json"), suffix, accept)


def test_json_has_null_for_what_is_not_finite() -> None:
    body = encode("json", {"values": [1.5, float("nan"), float("inf")]})
    assert json.loads(body) == {"values": [1.5, None, None]}


def test_npy_is_the_very_tensor() -> None:
    tensor = torch.tensor([[1.5, float("nan")]])
    array = np.load(io.BytesIO(encode("npy", tensor)))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, tensor.numpy())


Serve = Callable[..., TestClient]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory, photo: bytes) -> Iterator[Serve]:
    """Start the service on a checkpoint, in this process, with the photo stored."""

    def start(checkpoint: Path) -> TestClient:
        folder = tmp_path_factory.mktemp("store")
        app = create_app(Settings(checkpoint=checkpoint, device="cpu", store_dir=folder, deadline_s=120))
        client = stack.enter_context(TestClient(app))
        assert client.post("/v1/images", files={"file": photo}).status_code == 201
        return client

    with ExitStack() as stack:
        yield start


@pytest.fixture(scope="module")
def local(serve: Serve, tiny_checkpoint: Path) -> TestClient:
    return serve(tiny_checkpoint)


@pytest.fixture
def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grow by one with each run of a network, the served one or its twin."""
    calls = []
    forward = torch.nn.Linear.forward

    def counted(self: torch.nn.Linear, features: torch.Tensor) -> torch.Tensor:
        calls.append(str(self))
        return forward(self, features)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)  # each network of these tests has one such layer
    return calls


VIEWS = [
    "/prediction?top_k=2",
    "/input",
    "/activations/relu2?scale=map",
    "/activations/relu2/3",
    "/trace/conv1/3/1/2",
    "/attributions/hires_cam?target=dog",
    "/attributions/occlusion?window=16",
    "/occlusion?y=3&x=4",
    "/reconstructions/relu2/3",
]


@pytest.fixture
def path(stored: str) -> str:
    return stored


@pytest.mark.parametrize("view", VIEWS)
def test_same_request_twice_gives_the_same_bytes_and_tag(local: TestClient, path: str, view: str) -> None:
    first, second = local.get(path + view), local.get(path + view)
    assert (first.status_code, first.content) == (200, second.content)
    assert first.headers["ETag"] == second.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    assert first.headers["Vary"] == "Accept"


def test_process_elsewhere_gives_the_same_bytes_and_tag(local: TestClient, client: httpx2.Client, path: str) -> None:
    here, there = (one.get(f"{path}/activations/conv1.png") for one in (local, client))
    assert (here.content, here.headers["ETag"]) == (there.content, there.headers["ETag"])


@pytest.mark.parametrize("view", VIEWS)
def test_other_weights_give_another_tag(
    serve: Serve, local: TestClient, other_checkpoint: Path, path: str, view: str
) -> None:
    other = serve(other_checkpoint)
    assert local.get(path + view).headers["ETag"] != other.get(path + view).headers["ETag"]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("given", ["{}", "W/{}", '"a", {}, "b"'])
def test_what_the_client_has_is_a_304_that_runs_no_network(
    local: TestClient, path: str, forward_passes: list[str], view: str, given: str
) -> None:
    tag = local.get(path + view).headers["ETag"]
    before = len(forward_passes)
    again = local.get(path + view, headers={"If-None-Match": given.format(tag)})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert len(forward_passes) == before


def test_forward_passes_are_counted_and_layer_outputs_kept(
    local: TestClient, path: str, forward_passes: list[str]
) -> None:
    for channel in range(5):
        assert local.get(f"{path}/activations/pool1/{channel}").status_code == 200
    assert len(forward_passes) == 1


@pytest.mark.parametrize("given", ['"other"', "", "nonsense", '""', "*"])
def test_what_the_client_has_not_is_sent(local: TestClient, path: str, given: str) -> None:
    assert local.get(f"{path}/input", headers={"If-None-Match": given}).status_code == 200


@pytest.mark.parametrize("limit", [torch.finfo(torch.float32).smallest_normal, torch.finfo(torch.float32).max])
def test_smallest_and_largest_limit_make_pictures(local: TestClient, path: str, limit: float) -> None:
    answer = local.get(f"{path}/activations/conv1.png", params={"scale": "fixed", "limit": limit})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")


def test_star_is_no_way_around_a_refusal(local: TestClient, path: str) -> None:
    star = {"If-None-Match": "*"}
    assert local.get(f"{path}/activations/conv9", headers=star).status_code == 404
    assert local.get(f"{path}/activations/conv1/999", headers=star).status_code == 422
    assert local.get(f"/v1/images/sha256:{'0' * 64}/input", headers=star).status_code == 404


def test_image_that_is_gone_is_a_404_even_to_who_has_its_view(local: TestClient, path: str) -> None:
    tag = local.get(f"{path}/input").headers["ETag"]
    elsewhere = f"/v1/images/sha256:{'0' * 64}/input"
    assert local.get(elsewhere, headers={"If-None-Match": tag}).json()["code"] == "unknown_image"


SAME = [
    ("/activations/conv1", "/activations/conv1?scale=layer&stage=output&page=1"),
    ("/activations/conv1?scale=map&page=1", "/activations/conv1?page=1&scale=map"),
    ("/activations/conv1/3", "/activations/conv1/03"),
    ("/occlusion?y=3&x=4", "/occlusion?x=4&window=8&y=3"),
    ("/activations/conv1", "/activations/conv%31"),
]
DIFFERENT = [
    ("/activations/conv1", "/activations/conv2"),
    ("/activations/conv1", "/activations/conv1.json"),
    ("/activations/conv1", "/activations/conv1/0"),
    ("/activations/conv1", "/activations/conv1?scale=map"),
    ("/activations/conv1/1", "/activations/conv1/2"),
    ("/trace/conv1/1/0/2", "/trace/conv1/1/2/0"),
    ("/attributions/saliency?target=cat", "/attributions/saliency?target=dog"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_words_for_the_same_view_have_the_same_tag(local: TestClient, path: str, one: str, other: str) -> None:
    assert local.get(path + one).headers["ETag"] == local.get(path + other).headers["ETag"]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_another_view_has_another_tag(local: TestClient, path: str, one: str, other: str) -> None:
    assert local.get(path + one).headers["ETag"] != local.get(path + other).headers["ETag"]


def test_suffix_and_accept_lead_to_the_same_answer(local: TestClient, path: str) -> None:
    suffix = local.get(f"{path}/activations/conv1.json")
    accept = local.get(f"{path}/activations/conv1", headers={"Accept": "application/json"})
    assert (suffix.content, suffix.headers["ETag"]) == (accept.content, accept.headers["ETag"])


def test_new_renderer_gives_another_tag(local: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = local.get(f"{path}/input").headers["ETag"]
    monkeypatch.setattr(view_response, "RENDERER_VERSION", "next")
    assert local.get(f"{path}/input").headers["ETag"] != before


@pytest.mark.parametrize("view", ["/input.txt", "/activations/conv1.jpg", "/input/.png"])
def test_other_dots_belong_to_the_path(local: TestClient, path: str, view: str) -> None:
    assert local.get(path + view).status_code == 404


def test_refusal_names_what_there_is(local: TestClient, path: str) -> None:
    answer = local.get(f"{path}/prediction.png")
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert answer.json()["detail"] == (
        "suffix .png asks for what this view has not; it comes as application/json (.json)"
    )
    assert answer.json()["instance"].endswith("/prediction.png")


def test_upload_route_takes_no_suffix(local: TestClient, photo: bytes) -> None:
    assert local.post("/v1/images.json", files={"file": photo}).status_code == 404
