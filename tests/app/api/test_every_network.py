"""Every view over HTTP on networks of every make: what the table of layers promises is there, the rest says why not."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig, build_network
from torchlight.model.views.attribution import METHODS

NETWORKS = {
    "torchlight": 32,
    "guide": 32,
    "lenet5": 32,
    "resnet18": 64,
    "mobilenet_v3_small": 64,
    "vgg11_bn": 64,
    "densenet121": 64,
}
# name of a view in the table of layers -> where it is
OF_LAYERS = {
    "filters": "/v1/layers/{layer}/filters/0.json",
    "receptive_field": "/v1/layers/{layer}/receptive-field.json",
    "activations": "{image}/activations/{layer}/0.json",
    "trace": "{image}/trace/{layer}/0.json",
    "reconstructions": "{image}/reconstructions/{layer}/0.json",
    "grad_cam": "{image}/attributions/grad_cam.npy?layer={layer}",
    "hires_cam": "{image}/attributions/hires_cam.npy?layer={layer}",
}
FUNCTIONS = ("ReLU", "relu", "Tanh", "Hardswish", "Hardsigmoid")  # activation functions of these networks
PATIENCE_S = 120


SLOW = ("guide", "lenet5", "vgg11_bn", "densenet121")  # of the makes that the others have, too


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NETWORKS], scope="module"
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, photo: bytes
) -> Iterator[tuple[TestClient, str]]:
    """The service with random weights of one architecture, not taken through a file, and a stored image's path."""
    size = NETWORKS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(NetworkConfig(request.param, 3)).eval().requires_grad_(False)
    spec = ImageSpec(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    header = Header(NetworkConfig(request.param, 3), ("cat", "dog", "owl"), spec, {}, {}, {}, {})
    folder = tmp_path_factory.mktemp(request.param)
    made = Checkpoint(header, network, f"sha256:{request.param}", folder / "network.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchlight.app.main.load_checkpoint", lambda path: made)
        app = create_app(Settings(checkpoint=made.path, device="cpu", store_dir=folder, deadline_s=PATIENCE_S))
    with TestClient(app) as client:
        yield client, client.post("/v1/images", files={"file": photo}).headers["Location"]


def one_of_each_type(client: TestClient) -> list[dict[str, Any]]:
    """Return the row of the last layer of each type: what comes late has most in its way."""
    rows: list[dict[str, Any]] = client.get("/v1/layers").json()["layers"]
    return list({row["type"]: row for row in rows}.values())


def test_layers_have_the_views_that_their_table_promises_and_no_others(served: tuple[TestClient, str]) -> None:
    client, image = served
    rows = one_of_each_type(client)
    for row in rows:
        answers = {
            view: client.get(address.format(layer=row["name"], image=image)) for view, address in OF_LAYERS.items()
        }
        given = {view for view, answer in answers.items() if answer.status_code == 200}
        refused = [answer for view, answer in answers.items() if view not in given]
        assert given == set(row["views"]) & set(OF_LAYERS), row["name"]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} <= {(422, "view_not_applicable")}
        assert [answer.text for answer in refused if "layer '" not in answer.json()["detail"]] == []
    assert {view for row in rows for view in row["views"]} >= {"filters", "activations", "trace", "receptive_field"}


def test_traces_hold_and_answers_are_those_of_the_upload(served: tuple[TestClient, str], photo: bytes) -> None:
    client, image = served
    answer = {one["label"]: one["probability"] for one in client.get(f"{image}/prediction").json()["predictions"]}
    plain = client.post("/v1/predict", files={"file": photo}).json()["predictions"]
    assert answer == pytest.approx({one["label"]: one["probability"] for one in plain}, abs=1e-5)
    traced = [row["name"] for row in one_of_each_type(client) if "trace" in row["views"]] + ["softmax"]
    assert [name for name in traced if not client.get(f"{image}/trace/{name}/0").json()["holds"]] == []


def test_stages_are_there_wherever_there_is_an_activation_function(served: tuple[TestClient, str]) -> None:
    client, image = served
    rows = [row for row in client.get("/v1/layers").json()["layers"] if "activations" in row["views"]]
    last = {row["type"]: row for row in rows if row["type"] in FUNCTIONS}
    assert last
    for row in last.values():
        before, itself, after = (
            client.get(f"{image}/activations/{name}.npy?stage={stage}").content
            for name, stage in (
                (row["name"], "pre_activation"),
                (row["name"], "output"),
                (row["name"], "post_activation"),
            )
        )
        assert before == client.get(f"{image}/activations/{row['inputs'][0]}.npy").content, row["name"]
        assert itself == after, row["name"]


@pytest.mark.parametrize("method", METHODS)
def test_evidence_is_drawn_for_every_network(served: tuple[TestClient, str], method: str) -> None:
    client, image = served
    options = {"integrated_gradients": "n_steps=2", "occlusion": "window=16&stride=16"}
    answer = client.get(f"{image}/attributions/{method}.png?target=dog&{options.get(method, '')}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png"), answer.text


def test_sheets_of_every_network_are_drawn(served: tuple[TestClient, str]) -> None:
    client, image = served
    first = next(row["name"] for row in client.get("/v1/layers").json()["layers"] if row["type"] == "Conv2d")
    for address in (f"{image}/input.png", f"{image}/activations/{first}.png", f"/v1/layers/{first}/filters.png"):
        assert client.get(address).content.startswith(b"\x89PNG"), address
    assert client.get(f"{image}/occlusion?y=0&x=0").status_code == 200
    assert client.get(f"{image}/neighbours").json()["code"] == "no_index"
