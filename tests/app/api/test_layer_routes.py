"""Layers on a real server: the table, receptive fields and filters."""

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient
from torch import Tensor, nn

from tests.app.api.answers import body, png
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.classifier import Classifier
from torchlight.model.graph import NetworkGraph
from torchlight.model.views.filters import filters
from torchlight.model.views.layer_table import describe_layers
from torchlight.model.views.receptive_field import receptive_fields


def as_json(value: Any) -> Any:
    """Return tuples as lists, all the way down."""
    return [as_json(one) for one in value] if isinstance(value, tuple) else value


def test_table_is_the_model_s(client: httpx2.Client, classifier: Classifier) -> None:
    said = body(client.get("/v1/layers"))
    assert said["model"] == classifier.digest
    for row, expected in zip(said["layers"], describe_layers(classifier.graph), strict=True):
        field = {name: as_json(value) for name, value in asdict(expected).pop("receptive_field").items()}
        plain = {name: as_json(value) for name, value in vars(expected).items()}
        assert row == plain | {"receptive_field": field}


def test_table_says_which_views_a_layer_has(client: httpx2.Client) -> None:
    views = {row["name"]: row["views"] for row in body(client.get("/v1/layers.json"))["layers"]}
    assert "filters" in views["conv1"]
    assert "filters" not in views["relu1"]
    assert "activations" not in views["fc"]


def test_receptive_field_is_the_model_s(client: httpx2.Client, classifier: Classifier) -> None:
    said = body(client.get("/v1/layers/conv2/receptive-field?y=0&x=23"))
    field = receptive_fields(classifier.graph)["conv2"]
    assert field is not None
    assert said["field"] == {name: as_json(value) for name, value in vars(field).items()}
    assert (said["y"], said["x"]) == (0, 23)
    assert said["box"] == {"full": [0, 23, 8, 31], "clipped": [0, 23, 8, 31]}  # two 5x5 filters see 9x9 pixels


def test_position_in_the_middle_is_the_default(client: httpx2.Client) -> None:
    said = body(client.get("/v1/layers/conv1/receptive-field"))
    assert (said["y"], said["x"]) == (14, 14)


def test_receptive_field_is_drawn_on_an_image(client: httpx2.Client, stored: str) -> None:
    query = {"y": 0, "x": 23, "image": stored.rpartition("/")[2]}
    shown = png(client.get("/v1/layers/conv2/receptive-field.png", params=query))
    assert shown.info["layer"] == "conv2"
    assert shown.info["image"] == query["image"]
    assert body(client.get("/v1/layers/conv2/receptive-field", params=query))["y"] == 0


@pytest.mark.parametrize("query", ["", "?space=pixel&scale=layer"])
def test_filters_are_the_model_s_in_every_form(client: httpx2.Client, classifier: Classifier, query: str) -> None:
    bank = filters(classifier, "conv1", space="pixel" if query else "normalised")
    npy = client.get(f"/v1/layers/conv1/filters.npy{query}")
    np.testing.assert_array_equal(np.load(io.BytesIO(npy.content)), bank.weights.numpy())
    said = body(client.get(f"/v1/layers/conv1/filters.json{query}"))
    assert [one["bias"] for one in said["statistics"]] == pytest.approx(bank.bias.tolist())
    assert [one["norm"] for one in said["statistics"]] == pytest.approx(bank.weights.flatten(1).norm(dim=1).tolist())
    assert said["facts"] == png(client.get(f"/v1/layers/conv1/filters{query}")).info


def test_one_filter_comes_with_its_weights(client: httpx2.Client, classifier: Classifier) -> None:
    weights = filters(classifier, "conv2").weights[5]
    said = body(client.get("/v1/layers/conv2/filters/5.json"))
    np.testing.assert_array_equal(np.array(said["weights"], dtype=np.float32), weights.numpy())
    np.testing.assert_array_equal(
        np.load(io.BytesIO(client.get("/v1/layers/conv2/filters/5.npy").content)), weights.numpy()
    )
    assert said["facts"] == png(client.get("/v1/layers/conv2/filters/5")).info


class Tokens(nn.Module):
    """A network of 16 tokens of 192 numbers each, as vision transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 8, stride=8)
        self.fc = nn.Linear(192, 3)

    def forward(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.fc(self.patches(images).flatten(2).permute(0, 2, 1).mean(1)))


def test_position_of_a_token_is_refused_as_having_no_place(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(checkpoint=tiny_checkpoint, device="cpu", store_dir=tmp_path))
    monkeypatch.setattr(app.state.service.classifier, "graph", NetworkGraph(Tokens(), 32))
    with TestClient(app) as local:
        answer = local.get("/v1/layers/permute/receptive-field")
    assert (answer.status_code, answer.json()["code"]) == (422, "view_not_applicable")
    assert "no known place" in answer.json()["detail"]


def test_receptive_fields_are_computed_once_for_a_network(classifier: Classifier) -> None:
    assert receptive_fields(classifier.graph) is receptive_fields(classifier.graph)


REFUSED = {
    "/conv9/filters": (404, "unknown_layer", "conv1"),
    "/relu1/filters": (422, "view_not_applicable", "only convolutions have filters"),
    "/conv1/filters?folded=true": (422, "view_not_applicable", "batch norm"),
    "/conv2/filters?space=pixel": (422, "view_not_applicable", "pixel space"),
    "/conv1/filters/32": (422, "channel_out_of_range", "0 to 31"),
    "/conv1/filters/32.npy": (422, "channel_out_of_range", "0 to 31"),
    "/conv1/filters/32.json": (422, "channel_out_of_range", "0 to 31"),
    "/conv1/filters?page=2": (422, "invalid_view", "1 page"),
    "/conv1/filters?scale=global": (422, "invalid_parameter", "scale"),
    "/conv1/filters?colour=red": (422, "invalid_parameter", "colour"),
    "/conv1/receptive-field?y=28&x=0": (422, "position_out_of_range", "y 0 to 27"),
    "/conv1/receptive-field?y=1": (422, "invalid_view", "y and x go together"),
    "/conv1/receptive-field?image=sha256:0": (404, "unknown_image", "64 hex digits"),
    "/conv1/receptive-field.png": (422, "invalid_view", "?image="),
    "/conv1/receptive-field.npy": (406, "not_acceptable", "application/json"),
    "/conv9/receptive-field": (404, "unknown_layer", "conv1"),
    "/conv1/units/0": (404, "no_index", "torchlight index CHECKPOINT SOURCE"),
    ".png": (406, "not_acceptable", "application/json"),
    "?page=1": (422, "invalid_parameter", "page"),
    "/..%2fconv1/filters": (404, "not_found", ""),
    "/%00/filters": (404, "unknown_layer", "conv1"),
}


@pytest.mark.parametrize(("view", "expected"), REFUSED.items())
def test_refusal_names_thing_and_bound(client: httpx2.Client, view: str, expected: tuple[int, str, str]) -> None:
    answer = client.get(f"/v1/layers{view}")
    status, code, words = expected
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]


def test_a_checkpoint_without_a_filmstrip_says_so(client: httpx2.Client) -> None:
    assert client.get("/v1/model").json()["has_filmstrip"] is False
    answer = client.get("/v1/layers/conv1/filmstrip")
    assert answer.status_code == 422
    assert "this checkpoint has no filmstrip" in answer.json()["detail"]


def test_each_layer_names_what_it_reads(client: httpx2.Client) -> None:
    inputs = {layer["name"]: layer["inputs"] for layer in client.get("/v1/layers").json()["layers"]}
    assert inputs["conv1"] == ["input"]
    assert inputs["relu1"] == ["conv1"]
