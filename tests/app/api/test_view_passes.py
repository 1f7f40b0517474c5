"""How often a view runs the network when nothing is kept between requests, and what an upload costs beside it."""

from collections.abc import Callable, Iterator
from inspect import signature

import pytest
import torch
from starlette.testclient import TestClient

from torchlight.app.api.routes.stored_images import LINKS
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.drawing import rendering
from torchlight.model.views.attribution import BATCHED, METHODS, OPTIONS

PASSES = {  # of a network with one fully connected layer
    "input": 0,
    "prediction": 1,
    "activations/conv1": 1,
    "activations/relu2/3": 1,
    "trace/conv1/3/1/2": 1,
    "attributions/grad_cam": 3,  # the answer's own class, the logit to explain, its gradient
    "attributions/hires_cam": 4,  # and the bias: maps of zeros
    "attributions/saliency": 3,
    "attributions/occlusion?window=16&stride=16": 3,  # and its four windows, in one batch
    "occlusion?y=3&x=4": 2,
    "reconstructions/relu2/3": 2,
}
JSON_ALONE = ("prediction", "trace/conv1/3/1/2", "occlusion?y=3&x=4")
CASES = [(view, form) for view in PASSES for form in ("json", "png", "npy") if form == "json" or view not in JSON_ALONE]


@pytest.fixture(scope="module")
def forgetful(tiny_checkpoint: object, photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service that keeps nothing between requests, with the photo stored."""
    settings = Settings(
        checkpoint=tiny_checkpoint,
        device="cpu",
        store_dir=tmp_path_factory.mktemp("store"),
        view_cache_bytes=0,
        deadline_s=120,
    )
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/images", files={"file": photo}).status_code == 201
        yield client


@pytest.fixture
def address(stored: str) -> Callable[[str, str], str]:
    """Return the address of a view in a form."""

    def build(view: str, form: str) -> str:
        path, _, query = view.partition("?")
        return f"{stored}/{path}.{form}?{query}".rstrip("?")

    return build


@pytest.mark.parametrize(("view", "form"), CASES)
def test_each_form_of_a_view_computes_it_once(
    forgetful: TestClient,
    address: Callable[[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    view: str,
    form: str,
) -> None:
    passes = []
    forward = torch.nn.Linear.forward

    def counted(self: torch.nn.Linear, features: torch.Tensor) -> torch.Tensor:
        passes.append(len(features))
        return forward(self, features)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    assert forgetful.get(address(view, form)).status_code == 200
    assert len(passes) == PASSES[view]


@pytest.mark.parametrize("view", [view for view, form in CASES if form == "png"])
def test_json_draws_nothing(
    forgetful: TestClient, address: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    expected = forgetful.get(address(view, "json")).content

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a picture was drawn")

    monkeypatch.setattr(rendering, "encode_png", refuse)
    monkeypatch.setattr(rendering, "_render_text", refuse)
    assert forgetful.get(address(view, "json")).content == expected


def test_links_of_an_upload_are_the_views_there_are(forgetful: TestClient) -> None:
    prefix = "/v1/images/{image_id}/"
    paths = [path for path in forgetful.app.openapi()["paths"] if path.startswith(prefix)]
    assert {path.removeprefix(prefix).split("/")[0] for path in paths} == LINKS.keys()
    assert {prefix + rest for rest in LINKS.values()} <= set(paths)


def test_an_upload_builds_no_openapi_document(
    forgetful: TestClient, photo: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(forgetful.app), "openapi", None)
    assert forgetful.post("/v1/images", files={"file": photo}).status_code == 201


@pytest.mark.parametrize("method", METHODS)
def test_options_of_a_method_are_its_own(method: str) -> None:
    keywords = {one.name for one in signature(METHODS[method]).parameters.values() if one.kind is one.KEYWORD_ONLY}
    assert keywords == {*OPTIONS.get(method, ()), *(["on_batch"] if method in BATCHED else [])}
