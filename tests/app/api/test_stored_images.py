"""Stored images: uploading, the answer, the input, activation maps and traces."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from torch import Tensor

from tests.app.api.answers import array, body, png, problem
from tests.server_process import PATIENCE_S
from torchlight.app.errors import StoreUnavailable
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.classifier import Classifier
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.views.activations import activation_maps, statistics
from torchlight.model.views.trace import trace

Picture = Callable[..., bytes]
Serve = Callable[..., TestClient]
NOBODY = f"sha256:{'0' * 64}"


@pytest.fixture
def serve(tiny_checkpoint: Path) -> Iterator[Serve]:
    """Return a function that starts a service in this process, with its folder for uploads, and with settings."""
    with ExitStack() as stack:

        def start(store: Path, **settings: float) -> TestClient:
            usual = {"checkpoint": tiny_checkpoint, "device": "cpu", "store_dir": store, "deadline_s": PATIENCE_S}
            return stack.enter_context(TestClient(create_app(Settings(**usual | settings))))

        yield start


@pytest.fixture(scope="module")
def tensor(photo: bytes) -> Tensor:
    return prepare_image(photo, Resizing(32))[0]


def test_upload_is_answered_with_its_hash_its_facts_and_where_its_views_are(
    client: httpx2.Client, picture: Picture
) -> None:
    content = picture(1, "JPEG", (64, 30))
    answer = client.post("/v1/images", content=content, headers={"Content-Type": "image/jpeg"})
    said = answer.json()
    identity = f"sha256:{sha256(content).hexdigest()}"
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/images/{identity}")
    assert {name: said[name] for name in ("id", "width", "height", "format")} == {
        "id": identity,
        "width": 64,
        "height": 30,
        "format": "JPEG",
    }
    assert said["links"]["activations"] == f"/v1/images/{identity}/activations/{{layer}}"
    assert body(client.get(answer.headers["Location"])) == said
    assert client.get(said["links"]["prediction"]).status_code == 200


@pytest.mark.parametrize(("content", "code"), [(b"", "unreadable_image"), (b"text", "unknown_image_format")])
def test_only_what_decodes_is_stored(serve: Serve, tmp_path: Path, content: bytes, code: str) -> None:
    answer = serve(tmp_path).post("/v1/images", files={"file": content})
    assert answer.json()["code"] == code
    assert not list(tmp_path.iterdir())


def test_prediction_is_the_one_for_an_upload_with_its_logits(
    client: httpx2.Client, stored: str, photo: bytes, classifier: Classifier, tensor: Tensor
) -> None:
    uploaded = client.post("/v1/predict", files={"file": photo}).json()
    kept = body(client.get(f"{stored}/prediction"))
    assert (kept["model"], kept["image"]) == (uploaded["model"], uploaded["image"])
    logits = classifier.logits(tensor[None])[0]
    for one, other in zip(kept["predictions"], uploaded["predictions"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)
        assert (one["label"], one["index"]) == (other["label"], other["index"])
        assert one["logit"] == pytest.approx(logits[one["index"]].item(), abs=1e-6)


def test_prediction_is_limited_to_the_best_labels(client: httpx2.Client, stored: str) -> None:
    everything = body(client.get(f"{stored}/prediction"))["predictions"]
    assert body(client.get(f"{stored}/prediction.json?top_k=2"))["predictions"] == everything[:2]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.99])
def test_the_set_of_a_stored_image_is_that_of_the_upload(
    client: httpx2.Client, stored: str, photo: bytes, coverage: float
) -> None:
    uploaded = client.post("/v1/predict", files={"file": photo}, params={"coverage": coverage}).json()
    assert body(client.get(f"{stored}/prediction?coverage={coverage}"))["set"] == uploaded["set"]


def test_another_default_coverage_makes_another_answer_of_the_same_address(
    serve: Serve, tmp_path: Path, photo: bytes
) -> None:
    tags = []
    for coverage in (0.5, 0.99):
        client = serve(tmp_path, coverage=coverage)
        path = client.post("/v1/images", files={"file": photo}).headers["Location"]
        plain, asked = (client.get(f"{path}/prediction{query}") for query in ("", f"?coverage={coverage}"))
        assert (plain.json(), plain.headers["ETag"]) == (asked.json(), asked.headers["ETag"])
        tags.append(plain.headers["ETag"])
    assert tags[0] != tags[1]


def test_input_is_the_network_s_own_pixel_by_pixel(client: httpx2.Client, stored: str, tensor: Tensor) -> None:
    np.testing.assert_array_equal(array(client.get(f"{stored}/input.npy")), tensor.numpy())
    picture = np.asarray(png(client.get(f"{stored}/input.png")))
    expected = tensor.permute(1, 2, 0).numpy().repeat(14, 0).repeat(14, 1)  # 448 pixels, the largest multiple of 32
    assert any(
        np.array_equal(picture[top : top + 448, 12 : 12 + 448], expected) for top in range(picture.shape[0] - 447)
    )
    said = body(client.get(f"{stored}/input.json"))
    assert said["square"] == {"top": 0.0, "left": 4.0, "side": 40}  # the picture is 48x40
    assert said["size"] == 32
    assert said["facts"] == png(client.get(f"{stored}/input")).info


@pytest.mark.parametrize("kind", ["rotated", "cmyk", "grey16", "alpha", "one pixel", "grey", "animated", "palette"])
def test_odd_uploads_are_seen_alike_by_prediction_and_inspection(client: httpx2.Client, kind: str) -> None:
    content = ODD[kind]()
    predicted = client.post("/v1/predict", files={"file": content}).json()
    path = client.post("/v1/images", files={"file": content}).headers["Location"]
    np.testing.assert_array_equal(
        array(client.get(f"{path}/input.npy")), prepare_image(content, Resizing(32))[0].numpy()
    )
    seen = body(client.get(f"{path}/prediction"))["predictions"]
    assert [one["probability"] for one in seen] == pytest.approx(
        [one["probability"] for one in predicted["predictions"]], abs=1e-6
    )


def save(mode: str, image_format: str, size: tuple[int, int] = (20, 12), **options: Any) -> bytes:
    noise = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise, "RGBA").convert("RGB" if mode == "I;16" else mode).save(file, image_format, **options)
    return file.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return save("RGB", "JPEG", exif=exif)


def grey16() -> bytes:
    values = np.random.default_rng(7).integers(0, 65536, (12, 20), dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def animated() -> bytes:
    frames = [Image.new("RGB", (20, 12), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


ODD: dict[str, Callable[[], bytes]] = {
    "rotated": rotated,
    "cmyk": lambda: save("CMYK", "JPEG"),
    "grey16": grey16,
    "alpha": lambda: save("RGBA", "PNG"),
    "one pixel": lambda: save("RGB", "PNG", (1, 1)),
    "grey": lambda: save("L", "PNG"),
    "animated": animated,
    "palette": lambda: save("P", "PNG"),
}


@pytest.mark.parametrize("stage", ["output", "pre_activation", "post_activation"])
def test_activation_maps_are_those_of_the_model_in_every_form(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor, stage: Any
) -> None:
    maps = activation_maps(classifier, tensor, "conv1", stage)
    path = f"{stored}/activations/conv1"
    np.testing.assert_allclose(array(client.get(f"{path}.npy?stage={stage}")), maps.numpy(), atol=1e-6)
    said = body(client.get(f"{path}.json?stage={stage}"))
    facts = png(client.get(f"{path}?stage={stage}")).info
    assert said["facts"] == facts
    assert [one["max"] for one in said["statistics"]] == pytest.approx([one.max for one in statistics(maps)], abs=1e-6)
    assert [one["flag"] for one in said["statistics"]] == [one.flag for one in statistics(maps)]
    assert (facts["layer"], facts["channel"], facts["stage"], facts["scale"]) == ("conv1", "all", stage, "layer")
    assert float(facts["vmin"]) == pytest.approx(maps.min().item(), rel=1e-5, abs=1e-6)
    assert float(facts["vmax"]) == pytest.approx(maps.max().item(), rel=1e-5)
    assert (facts["model"], facts["image"]) == (classifier.digest, stored.rpartition("/")[2])


def test_one_map_comes_with_its_numbers(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor
) -> None:
    expected = activation_maps(classifier, tensor, "conv2")[5]
    path = f"{stored}/activations/conv2/5"
    np.testing.assert_allclose(array(client.get(f"{path}.npy")), expected.numpy(), atol=1e-6)
    said = body(client.get(f"{path}.json"))
    np.testing.assert_allclose(said["values"], expected.numpy(), atol=1e-6)
    assert said["statistics"]["channel"] == 5
    assert said["facts"] == png(client.get(path)).info


def test_fixed_scale_is_the_same_for_different_images(client: httpx2.Client, stored: str, picture: Picture) -> None:
    other = client.post("/v1/images", files={"file": picture(3)}).headers["Location"]
    query = "/activations/conv1?scale=fixed&limit=2.5"
    facts = [png(client.get(path + query)).info for path in (stored, other)]
    assert {(one["scale"], one["limit"]) for one in facts} == {("fixed", "2.5")}


def test_maps_of_an_upload_that_is_not_stored_are_the_same(client: httpx2.Client, stored: str, photo: bytes) -> None:
    parameters = {"layer": "conv2", "stage": "post_activation", "scale": "map"}
    direct = client.post("/v1/activations", files={"file": photo}, params=parameters)
    query = {"stage": "post_activation", "scale": "map"}
    assert direct.content == client.get(f"{stored}/activations/conv2", params=query).content


TRACED = ["conv1/3/1/2", "conv1/3", "relu1/0/27/27", "pool1/2/3/4", "fc/2", "softmax/1"]


@pytest.mark.parametrize("unit", TRACED)
def test_trace_is_the_model_s_and_holds(
    client: httpx2.Client, stored: str, classifier: Classifier, tensor: Tensor, unit: str
) -> None:
    layer, *numbers = unit.split("/")
    expected = trace(classifier, tensor, layer, *map(int, numbers)).to_dict()
    said = body(client.get(f"{stored}/trace/{unit}"))
    assert said["total"] == pytest.approx(expected["total"], abs=1e-6)
    assert said["kind"] == expected["kind"]
    assert said["holds"] is True
    assert said.keys() == expected.keys() | {"model", "image"}
    assert abs(said["total"] - said["framework"]) <= said["bound"]


def test_trace_of_a_convolution_adds_up_in_full_precision(client: httpx2.Client, stored: str) -> None:
    said = body(client.get(f"{stored}/trace/conv1/3/1/2.json"))
    products = torch.tensor(said["products"], dtype=torch.float64)
    assert products.shape == (3, 5, 5)  # 75 products, as in the guide
    assert products.sum().item() + said["bias"] == pytest.approx(said["total"], abs=1e-12)


IDS = [
    NOBODY,
    "abc",
    f"sha256:{'A' * 64}",
    f"SHA256:{'0' * 64}",
    "sha256:",
    "%00",
    f"sha256:{'0' * 63}%00",
    "%2e%2e",
    ".",
]


@pytest.mark.parametrize("image_id", IDS)
@pytest.mark.parametrize("view", ["/input", "/prediction.json", "/activations/conv1"])
def test_unknown_or_hostile_id_is_a_404(client: httpx2.Client, image_id: str, view: str) -> None:
    assert problem(client.get(f"/v1/images/{image_id}{view}"))[0] == 404


def test_unknown_image_is_told_how_to_come_back(client: httpx2.Client) -> None:
    answer = client.get(f"/v1/images/{NOBODY}/input")
    assert problem(answer) == (404, "unknown_image")
    assert "upload it again with POST /v1/images; uploads are kept 24 hours" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/images/..%2f..%2fetc%2fpasswd/input", "/v1/images/../../etc/passwd"])
def test_path_that_climbs_leads_nowhere(client: httpx2.Client, path: str) -> None:
    assert problem(client.get(path))[0] == 404


REFUSED = {
    "/activations/conv9": (404, "unknown_layer"),
    "/activations/fc": (422, "view_not_applicable"),
    "/activations/fc?stage=post_activation": (422, "view_not_applicable"),
    "/activations/conv1/32": (422, "channel_out_of_range"),
    "/activations/conv1/32.json": (422, "channel_out_of_range"),
    "/activations/conv1/32.npy": (422, "channel_out_of_range"),
    "/activations/conv1/-1": (422, "invalid_parameter"),
    "/activations/conv1/one": (422, "invalid_parameter"),
    f"/activations/conv1/{10**30}": (422, "channel_out_of_range"),
    "/activations/conv1?page=2": (422, "invalid_view"),
    "/activations/conv1?page=0": (422, "invalid_parameter"),
    "/activations/conv1?stage=before": (422, "invalid_parameter"),
    "/activations/conv1?scale=fixed": (422, "invalid_view"),
    "/activations/conv1?limit=2": (422, "invalid_view"),
    "/activations/conv1?scale=fixed&limit=nan": (422, "invalid_parameter"),
    "/activations/conv1?scale=fixed&limit=0": (422, "invalid_parameter"),
    "/activations/conv1?scale=fixed&limit=inf": (422, "invalid_parameter"),
    "/activations/conv1?scale=fixed&limit=1e-300": (422, "invalid_parameter"),
    "/activations/conv1?scale=fixed&limit=1e300": (422, "invalid_parameter"),
    "/activations/conv1?chanel=3": (422, "invalid_parameter"),
    "/input?zoom=3": (422, "invalid_parameter"),
    "/prediction?top_k=0": (422, "invalid_parameter"),
    "/prediction?coverage=1": (422, "invalid_parameter"),
    "/trace/conv1/3/28/0": (422, "position_out_of_range"),
    "/trace/conv1/32/0/0": (422, "channel_out_of_range"),
    "/trace/conv1/3/-1/0": (422, "invalid_parameter"),
    "/trace/fc/1/0/1": (422, "position_out_of_range"),
    "/trace/nothing/1": (404, "unknown_layer"),
    "/trace/%00/1": (404, "unknown_layer"),
    "/trace/conv1/3/0": (404, "not_found"),
    "/prediction.png": (406, "not_acceptable"),
    "/trace/conv1/3/1/2.npy": (406, "not_acceptable"),
    "/nothing": (404, "not_found"),
}


@pytest.mark.parametrize(("view", "expected"), REFUSED.items())
def test_refusal_of_a_view(client: httpx2.Client, stored: str, view: str, expected: tuple[int, str]) -> None:
    assert problem(client.get(stored + view)) == expected


@pytest.mark.parametrize(
    ("view", "bound"),
    [
        ("/activations/conv1/32", "0 to 31"),
        ("/trace/conv1/3/28/0", "y 0 to 27, x 0 to 27"),
        ("/activations/conv9", "conv1, relu1"),
        ("/activations/conv1?page=2", "1 page of 256"),
    ],
)
def test_refusal_names_the_bound(client: httpx2.Client, stored: str, view: str, bound: str) -> None:
    assert bound in client.get(stored + view).json()["detail"]


def test_two_servers_share_a_store(serve: Serve, tmp_path: Path, photo: bytes, tensor: Tensor) -> None:
    first, second = serve(tmp_path), serve(tmp_path)
    path = first.post("/v1/images", files={"file": photo}).headers["Location"]
    np.testing.assert_array_equal(array(second.get(f"{path}/input.npy")), tensor.numpy())
    (tmp_path / path.rpartition(":")[2]).unlink()
    assert [one.get(f"{path}/input").status_code for one in (first, second)] == [404, 404]


def test_service_says_which_folder_it_cannot_keep_uploads_in(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(checkpoint=tiny_checkpoint, store_dir=tmp_path / "file" / "store")
    with pytest.raises(
        StoreUnavailable, match=r"folder .*/file/store for uploads cannot be made .*TORCHLIGHT_STORE_DIR"
    ):
        create_app(settings)
