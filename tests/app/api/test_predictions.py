"""Answers of a real server."""

import io
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checkpoint import ABSENT, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier, choose_device
from torchlight.model.images import Resizing, prepare_image

Picture = Callable[..., bytes]


def probabilities(body: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in body["predictions"]}


def classify(client: httpx2.Client, content: bytes, **parameters: float) -> dict[str, Any]:
    answer = client.post("/v1/predict", files={"file": content}, params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_probabilities_sum_to_one_and_the_most_probable_comes_first(client: httpx2.Client, photo: bytes) -> None:
    values = [one["probability"] for one in classify(client, photo)["predictions"]]
    assert sum(values) == pytest.approx(1, abs=1e-6)
    assert values == sorted(values, reverse=True)
    assert len(values) == 3


def test_server_answers_what_the_classifier_says(client: httpx2.Client, photo: bytes, tiny_checkpoint: Path) -> None:
    classifier = Classifier(load_checkpoint(tiny_checkpoint), choose_device("cpu"))
    tensor, _ = prepare_image(photo, Resizing(32))
    expected = classifier.top_k(classifier.probabilities(tensor[None])[0])
    served = classify(client, photo)
    assert probabilities(served) == pytest.approx({one.label: one.probability for one in expected}, abs=1e-6)
    assert [one["index"] for one in served["predictions"]] == [one.index for one in expected]


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/JPEG; q=1", "application/octet-stream"])
def test_raw_body_is_answered_like_the_form_field(client: httpx2.Client, photo: bytes, content_type: str) -> None:
    raw = client.post("/v1/predict", content=photo, headers={"Content-Type": content_type}).json()
    assert raw["predictions"] == classify(client, photo)["predictions"]


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (2, 2), (3, 3), (10**30, 3)])
def test_top_k_limits_the_labels(client: httpx2.Client, photo: bytes, top_k: int, expected: int) -> None:
    everything = classify(client, photo)["predictions"]
    assert classify(client, photo, top_k=top_k)["predictions"] == everything[:expected]


@pytest.mark.parametrize(("coverage", "threshold"), [(None, 0.69), (0.5, 0.61), (0.9, 0.69), (0.99, 1.0)])
def test_the_set_holds_the_labels_down_to_the_threshold(
    client: httpx2.Client, picture: Picture, coverage: float | None, threshold: float
) -> None:
    asked = {} if coverage is None else {"coverage": coverage}
    contents = [picture(seed) for seed in range(6)]
    for content in contents:
        body = classify(client, content, **asked)
        first, *others = body["predictions"]
        members = [first["label"], *(one["label"] for one in others if 1 - one["probability"] <= threshold)]
        assert body["set"] == members
        assert classify(client, content, top_k=1, **asked)["set"] == members  # all of it, however many labels are told
    files = [("files", (str(number), one)) for number, one in enumerate(contents)]
    results = client.post("/v1/predict/batch", files=files, params=asked).json()["results"]
    assert [one["set"] for one in results] == [classify(client, content, **asked)["set"] for content in contents]


def test_a_checkpoint_without_sets_says_so(tiny_checkpoint: Path, tmp_path: Path, photo: bytes) -> None:
    loaded = load_checkpoint(tiny_checkpoint)
    old = tmp_path / "old.safetensors"
    save_checkpoint(old, loaded.network, replace(loaded.header, answer_sets=None))
    with TestClient(create_app(Settings(checkpoint=old, device="cpu", store_dir=tmp_path))) as client:
        assert client.post("/v1/predict", files={"file": photo}).json()["set"] is None
        assert client.get("/v1/model").json()["answer_sets"] == {"coverage": 0.9, "measured": None, "reason": ABSENT}


def test_model_says_how_well_its_sets_did(client: httpx2.Client) -> None:
    found = client.get("/v1/model").json()["answer_sets"]
    assert (found["coverage"], found["reason"]) == (0.9, None)
    assert found["measured"] == {
        "target": 0.9,
        "images": 20,
        "coverage": 0.95,
        "mean_size": 1.5,
        "single_share": 0.75,
        "worst_class": {"label": "owl", "images": 5, "coverage": 0.8},
    }


def test_answer_names_model_and_image(client: httpx2.Client, picture: Picture, tiny_checkpoint: Path) -> None:
    content = picture(1, "JPEG", (64, 30))
    body = classify(client, content)
    digest = load_checkpoint(tiny_checkpoint).digest
    assert body["model"] == {"name": "tiny", "digest": digest, "architecture": "guide"}
    identity = f"sha256:{sha256(content).hexdigest()}"
    assert body["image"] == {"id": identity, "width": 64, "height": 30, "format": "JPEG"}


def test_server_timing_header_says_what_the_body_says(client: httpx2.Client, photo: bytes) -> None:
    answer = client.post("/v1/predict", files={"file": photo})
    header = {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", answer.headers["Server-Timing"])}
    assert header == answer.json()["timing_ms"]
    assert header.keys() == {"decode", "queue", "inference"}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"])
def test_every_format_is_recognised_by_its_bytes(client: httpx2.Client, picture: Picture, image_format: str) -> None:
    files = {"file": ("no extension", picture(2, image_format), "text/plain")}
    assert client.post("/v1/predict", files=files).json()["image"]["format"] == image_format


def test_batch_gives_same_probabilities_as_single_images(client: httpx2.Client, picture: Picture) -> None:
    contents = [picture(seed) for seed in range(40)]
    body = client.post("/v1/predict/batch", files=[("files", (f"{n}.png", one)) for n, one in enumerate(contents)])
    results = body.json()["results"]
    assert [result["filename"] for result in results] == [f"{n}.png" for n in range(40)]
    for result, content in zip(results, contents, strict=True):
        assert probabilities(result) == pytest.approx(probabilities(classify(client, content)), abs=1e-5)


def test_a_bad_file_of_a_batch_is_a_problem_of_its_own(client: httpx2.Client, picture: Picture) -> None:
    files = [("files", ("a.png", picture(1))), ("files", ("b.png", b"")), ("files", ("c.png", picture(2)))]
    answer = client.post("/v1/predict/batch", files=files, params={"top_k": 1})
    first, second, third = answer.json()["results"]
    assert answer.status_code == 200
    assert len(first["predictions"]) == len(third["predictions"]) == 1
    assert (second["filename"], second["problem"]["code"]) == ("b.png", "unreadable_image")
    assert second["problem"]["request_id"] == answer.headers["X-Request-ID"]


def test_concurrent_images_each_get_their_own_answer(client: httpx2.Client, picture: Picture) -> None:
    contents = [picture(seed) for seed in range(100)]
    expected = [probabilities(classify(client, content)) for content in contents]
    with ThreadPoolExecutor(16) as pool:
        served = list(pool.map(lambda content: probabilities(classify(client, content)), contents))
    for one, alone in zip(served, expected, strict=True):
        assert one == pytest.approx(alone, abs=1e-5)


def test_model_describes_itself_and_hides_the_command_it_was_trained_with(client: httpx2.Client) -> None:
    answer = client.get("/v1/model")
    body = answer.json()
    assert body["classes"] == ["cat", "dog", "owl"]
    assert body["preprocessing"]["size"] == 32
    assert body["parameters"] == 82_403  # 75*32+32 + 800*32+32 + 800*64+64 + 1024*3+3
    assert body["multiply_adds"] == 19_907_072  # 784*75*32 + 576*800*32 + 64*800*64 + 1024*3
    assert body["metrics"] == {"test": {"accuracy": 0.5}}
    assert body["training"] == {"epochs": 1}
    assert body["device"] == "cpu"
    assert "/home/" not in answer.text


def png_of(answer: httpx2.Response) -> Image.Image:
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png"), answer.text
    picture = Image.open(io.BytesIO(answer.content))
    picture.load()
    return picture


def test_activations_are_a_png_that_says_what_it_shows(client: httpx2.Client, photo: bytes) -> None:
    sheet = png_of(client.post("/v1/activations", files={"file": photo}))
    one = png_of(client.post("/v1/activations", files={"file": photo}, params={"layer": "pool2", "channel": 5}))
    identity = classify(client, photo)
    assert sheet.info["layer"] == "conv1"
    assert (one.info["layer"], one.info["channel"]) == ("pool2", "5")
    assert sheet.info["model"] == one.info["model"] == identity["model"]["digest"]
    assert sheet.info["image"] == one.info["image"] == identity["image"]["id"]


def test_filters_are_a_png_that_says_what_it_shows(client: httpx2.Client) -> None:
    sheet = png_of(client.get("/v1/layers/conv1/filters"))
    one = png_of(client.get("/v1/layers/conv1/filters/31"))
    assert sheet.info["layer"] == one.info["layer"] == "conv1"
    assert one.info["channel"] == "31"
    assert sheet.width > one.width


def test_answers_do_not_change_while_layers_are_looked_at(client: httpx2.Client, picture: Picture) -> None:
    contents = [picture(seed) for seed in range(20)]
    expected = [classify(client, content)["predictions"] for content in contents]
    with ThreadPoolExecutor(8) as pool:
        views = [pool.submit(client.post, "/v1/activations", files={"file": content}) for content in contents]
        served = list(pool.map(lambda content: probabilities(classify(client, content)), contents))
    assert {view.result().status_code for view in views} == {200}
    for one, alone in zip(served, expected, strict=True):
        assert one == pytest.approx(probabilities({"predictions": alone}), abs=1e-5)
    assert [classify(client, content)["predictions"] for content in contents] == expected


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_threads_do_not_grow_with_requests(server: Any, client: httpx2.Client, picture: Picture) -> None:
    def threads_after(requests: int) -> int:
        contents = [picture(seed) for seed in range(requests)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda content: client.post("/v1/activations", files={"file": content}), contents[:20]))
            list(pool.map(lambda content: classify(client, content), contents))
        return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    assert threads_after(100) == threads_after(300)


def test_with_and_without_a_query_the_answer_is_the_same(client: httpx2.Client, photo: bytes) -> None:
    plain, asked = (client.post(f"/v1/predict{query}", files={"file": photo}) for query in ("", "?top_k=100"))
    assert plain.headers.keys() == asked.headers.keys()
    bodies = [answer.json() for answer in (plain, asked)]
    timings = [body.pop("timing_ms") for body in bodies]
    assert bodies[0] == bodies[1]
    assert timings[0].keys() == timings[1].keys()
