"""Answers say how strange an image is: everywhere the same, and nothing where the checkpoint cannot tell."""

from pathlib import Path

import httpx2
import pytest

from tests.server_process import StartServer
from torchlight.model.checkpoint import load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import choose_engine
from torchlight.model.images import prepare_image


def ask(client: httpx2.Client, content: bytes) -> dict[str, float | bool] | None:
    answer = client.post("/v1/predict", files={"file": content})
    assert answer.status_code == 200, answer.text
    found: dict[str, float | bool] | None = answer.json()["unknown"]
    return found


def test_noise_is_unknown_to_a_network_that_knows_plain_images(
    client: httpx2.Client, photo: bytes, classifier: Classifier
) -> None:
    unknown = ask(client, photo)
    assert unknown is not None
    assert unknown["is_unknown"] is True
    assert unknown["threshold"] == 0.05
    pixels, _ = prepare_image(photo, classifier.spec.resizing)
    strangeness = choose_engine(classifier, "auto").answer(pixels[None]).strangeness
    assert strangeness is not None
    assert unknown["p_value"] == pytest.approx(strangeness.p_values[0], abs=1e-4)


def test_a_plain_image_is_known(client: httpx2.Client, plain_photo: bytes) -> None:
    unknown = ask(client, plain_photo)
    assert unknown is not None
    assert unknown["is_unknown"] is False
    assert unknown["p_value"] > 0.05


def test_batch_and_stored_image_say_the_same(client: httpx2.Client, photo: bytes, plain_photo: bytes) -> None:
    expected = [ask(client, photo), ask(client, plain_photo)]
    files = [("files", ("a.png", photo)), ("files", ("b.png", plain_photo))]
    results = client.post("/v1/predict/batch", files=files).json()["results"]
    assert [one["unknown"] for one in results] == expected
    for content, unknown in zip((photo, plain_photo), expected, strict=True):
        stored = client.post("/v1/images", files={"file": content}).headers["Location"]
        assert client.get(f"{stored}/prediction").json()["unknown"] == unknown


def test_unknown_images_are_counted(client: httpx2.Client, photo: bytes, plain_photo: bytes) -> None:
    def count() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = [one for one in lines if one.startswith("torchlight_unknown_images_total ")]
        return float(line.split()[1])

    before = count()
    ask(client, photo)
    ask(client, plain_photo)
    assert count() == before + 1


def test_a_checkpoint_that_cannot_tell_says_null_and_why(
    start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path, photo: bytes, client: httpx2.Client
) -> None:
    assert client.get("/v1/model").json()["no_unknown"] is None
    loaded = load_checkpoint(tiny_checkpoint)
    old = tmp_path / "old.safetensors"
    save_checkpoint(old, loaded.network, loaded.header)
    server = start_server(checkpoint=old)
    with httpx2.Client(base_url=server.url) as other:
        assert ask(other, photo) is None
        assert "torchlight calibrate" in other.get("/v1/model").json()["no_unknown"]
