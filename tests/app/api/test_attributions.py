"""Evidence, occlusion and reconstructions on a real server; the numbers are the model's own."""

import math
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor

from tests.app.api.answers import array, body, png
from torchlight.app.api.routes import attributions
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.classifier import Classifier
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.views.attribution import METHODS, occlude_once
from torchlight.model.views.deconvnet import Reconstruction, reconstruct
from torchlight.model.views.receptive_field import find_seen_pixels

OPTIONS: dict[str, dict[str, Any]] = {
    "grad_cam": {"layer": "relu2"},
    "hires_cam": {},
    "saliency": {},
    "input_x_gradient": {},
    "integrated_gradients": {"n_steps": 4},
    "occlusion": {"window": 16, "stride": 8, "baseline": "ff0080"},
}
MODEL_OPTIONS = OPTIONS | {"occlusion": {"window": 16, "stride": 8, "baseline": (255, 0, 128)}}


@pytest.fixture(scope="module")
def tensor(photo: bytes) -> Tensor:
    return prepare_image(photo, Resizing(32))[0]


def test_every_method_is_tested() -> None:
    assert OPTIONS.keys() == METHODS.keys()


@pytest.mark.parametrize("method", METHODS)
def test_evidence_is_the_model_s_in_every_form(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor, method: str
) -> None:
    expected = METHODS[method](classifier, tensor, 1, 2, **MODEL_OPTIONS[method])
    path, query = f"{stored}/attributions/{method}", {"target": "dog", "target_vs": "2"} | OPTIONS[method]
    said = body(client.get(f"{path}.json", params=query))
    np.testing.assert_allclose(array(client.get(f"{path}.npy", params=query)), expected.map.numpy(), atol=1e-6)
    np.testing.assert_allclose(said["map"], expected.map.numpy(), atol=1e-6)
    assert (said["target"], said["target_vs"], said["law"]) == ("dog", "owl", expected.law)
    assert said["logit"] == pytest.approx(expected.logit, abs=1e-6)
    assert said["sum"] == pytest.approx(expected.sum, abs=1e-5)
    assert said["bias"] == pytest.approx(expected.bias, abs=1e-6)
    facts = png(client.get(path, params=query)).info
    assert said["facts"] == facts
    assert (facts["view"], facts["layer"], facts["target"]) == (method, expected.layer, "dog rather than owl")
    assert float(facts["vmax"]) == pytest.approx(expected.map.max().item(), rel=1e-4)


def test_evidence_without_a_target_is_for_the_answer(client: httpx2.Client, stored: str) -> None:
    answer = body(client.get(f"{stored}/prediction"))["predictions"][0]
    said = body(client.get(f"{stored}/attributions/hires_cam.json"))
    assert said["target"] == answer["label"]
    assert said["logit"] == pytest.approx(answer["logit"], abs=1e-5)
    assert abs(said["residual"]) <= 1e-4 * max(1, abs(said["logit"]))


def test_occlusion_says_which_label_wins_where(client: httpx2.Client, stored: str) -> None:
    said = body(client.get(f"{stored}/attributions/occlusion.json?window=16&stride=16"))
    assert np.shape(said["labels"]) == (2, 2)
    assert {label for row in said["labels"] for label in row} <= {"cat", "dog", "owl"}
    assert np.shape(said["probability_map"]) == (32, 32)


def test_dragged_square_gives_the_probabilities_without_what_it_hides(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor
) -> None:
    said = body(client.get(f"{stored}/occlusion?y=-3&x=20&window=12&baseline=000000"))
    hidden = occlude_once(classifier, tensor, -3, 20, 12, (0, 0, 0))
    plain = classifier.probabilities(tensor[None])[0]
    assert [one["probability"] for one in said["predictions"]] == sorted(hidden.tolist(), reverse=True)
    for one in said["predictions"]:
        assert one["difference"] == pytest.approx((hidden - plain)[one["index"]].item(), abs=1e-6)


@pytest.mark.parametrize(("query", "position"), [("", None), ("?y=3&x=4", (3, 4))])
def test_reconstruction_is_the_model_s_beside_its_patch(
    client: httpx2.Client,
    stored: str,
    classifier: Classifier,
    tensor: Tensor,
    query: str,
    position: tuple[int, int] | None,
) -> None:
    expected = reconstruct(classifier, tensor, "relu2", 3, position)
    path = f"{stored}/reconstructions/relu2/3"
    np.testing.assert_allclose(array(client.get(f"{path}.npy{query}")), expected.pixels.numpy(), atol=1e-6)
    said = body(client.get(f"{path}.json{query}"))
    assert ((said["y"], said["x"]), said["value"]) == (expected.position, pytest.approx(expected.value, abs=1e-6))
    seen = find_seen_pixels(classifier.graph, "relu2", *expected.position)
    assert said["box"] == {"full": list(seen.full), "clipped": list(seen.clipped or ())}
    y0, x0, y1, x1 = seen.full
    np.testing.assert_allclose(said["pixels"], expected.pixels[:, y0 : y1 + 1, x0 : x1 + 1].numpy(), atol=1e-6)
    assert said["facts"] == png(client.get(path + query)).info


def test_zero_of_a_reconstruction_is_mid_grey(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor
) -> None:
    dead = next(c for c in range(64) if reconstruct(classifier, tensor, "relu3", c, (7, 7)).value == 0)
    shown = png(client.get(f"{stored}/reconstructions/relu3/{dead}?y=7&x=7"))
    assert "did not fire" in shown.info["note"]
    left = np.asarray(shown)[40:100, 20:80]
    assert (left == 128).all()


REMARKS = {
    "alive": (0.5, torch.ones(3, 32, 32), "which pattern fired this unit"),
    "silent": (0.0, torch.zeros(3, 32, 32), "did not fire"),
    "nothing arrives": (0.5, torch.zeros(3, 32, 32), "none of the unit's value reaches the pixels"),
    "value is no number": (math.nan, torch.zeros(3, 32, 32), "not finite"),
    "a pixel is infinite": (0.5, torch.full((3, 32, 32), math.inf), "not finite"),
}


@pytest.mark.parametrize(("value", "pixels", "words"), REMARKS.values(), ids=REMARKS.keys())
def test_reconstruction_says_what_to_make_of_it(
    tiny_checkpoint: Path,
    photo: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: float,
    pixels: Tensor,
    words: str,
) -> None:
    found = Reconstruction("relu2", 3, (4, 5), value, pixels)
    monkeypatch.setattr(attributions, "reconstruct", lambda *_: found)
    with TestClient(create_app(Settings(checkpoint=tiny_checkpoint, device="cpu", store_dir=tmp_path))) as local:
        path = local.post("/v1/images", files={"file": photo}).headers["Location"]
        shown = png(local.get(f"{path}/reconstructions/relu2/3.png"))
    assert words in shown.info["note"]


REFUSED = {
    "/attributions/lime": (404, "unknown_method", "grad_cam, hires_cam"),
    "/attributions/grad_cam?layer=conv9": (404, "unknown_layer", "conv1"),
    "/attributions/grad_cam?layer=fc": (422, "view_not_applicable", "not maps"),
    "/attributions/grad_cam?target=fox": (422, "unknown_target", "0 to 2"),
    "/attributions/grad_cam?target=3": (422, "unknown_target", "0 to 2"),
    "/attributions/grad_cam?target_vs=-1": (422, "unknown_target", "0 to 2"),
    "/attributions/grad_cam?n_steps=4": (422, "invalid_view", "grad_cam does not take n_steps"),
    "/attributions/saliency?layer=conv1": (422, "invalid_view", "saliency does not take layer"),
    "/attributions/integrated_gradients?n_steps=257": (422, "invalid_parameter", "256"),
    "/attributions/integrated_gradients?n_steps=0": (422, "invalid_parameter", "1"),
    "/attributions/occlusion?window=33": (422, "view_not_applicable", "1 to 32"),
    "/attributions/occlusion?window=4&stride=5": (422, "view_not_applicable", "1 to 4"),
    "/attributions/occlusion?window=0": (422, "invalid_parameter", "1"),
    "/attributions/occlusion?baseline=red": (422, "invalid_parameter", "baseline"),
    "/attributions/saliency?traget=cat": (422, "invalid_parameter", "traget"),
    "/occlusion": (422, "invalid_parameter", "y"),
    "/occlusion?y=32&x=0": (422, "invalid_view", "-7 to 31"),
    "/occlusion?y=0&x=-8": (422, "invalid_view", "-7 to 31"),
    "/occlusion?y=0&x=0&window=33": (422, "invalid_view", "1 to 32"),
    f"/occlusion?y={10**30}&x=0": (422, "invalid_view", "misses the image"),
    "/reconstructions/relu2/32": (422, "channel_out_of_range", "0 to 31"),
    "/reconstructions/relu2/3?y=1": (422, "invalid_view", "y and x go together"),
    "/reconstructions/relu2/3?y=24&x=0": (422, "position_out_of_range", "y 0 to 23"),
    "/reconstructions/relu2/3?y=-1&x=0": (422, "position_out_of_range", "y 0 to 23"),
    "/neighbours": (404, "no_index", "torchlight index CHECKPOINT SOURCE"),
    "/neighbours?k=0": (422, "invalid_parameter", "k"),
    "/neighbours?k=101": (422, "invalid_parameter", "100"),
}


@pytest.mark.parametrize(("view", "expected"), REFUSED.items())
def test_refusal_names_thing_and_bound(
    client: httpx2.Client, stored: str, view: str, expected: tuple[int, str, str]
) -> None:
    answer = client.get(stored + view)
    status, code, words = expected
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]
