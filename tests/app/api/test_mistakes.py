"""Photos that were answered wrongly, from a file beside the checkpoint."""

import dataclasses
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests.app.api.answers import png
from torchlight.app.main import create_app
from torchlight.app.settings import Settings
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.views.kept_mistakes import KeptMistakes, MistakesSource, mistakes_path, save_mistakes

PHOTOS = 4


def save_some(checkpoint: Path, picture: Callable[..., bytes]) -> KeptMistakes:
    """Save mistakes of the three classes cat, dog and owl beside the checkpoint."""
    kept = KeptMistakes(
        checkpoint_digest=load_checkpoint(checkpoint).digest,
        class_names=("cat", "dog", "owl"),
        source=MistakesSource("photos", "all photos", "cross_validated"),
        images=(20, 30, 0),
        cells={(0, 1): 2, (1, 0): 7, (1, 2): 1},
        names=("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
        photos=torch.stack([prepare_image(picture(seed), Resizing(32))[0] for seed in range(PHOTOS)]),
        classes=torch.tensor([[0, 1], [1, 0], [1, 2], [0, 1]], dtype=torch.int32),
        probabilities=torch.tensor([[0.25, 0.75]] * PHOTOS),
    )
    save_mistakes(mistakes_path(checkpoint), kept)
    return kept


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, picture: Callable[..., bytes]
) -> Iterator[tuple[TestClient, KeptMistakes]]:
    folder = tmp_path_factory.mktemp("mistakes")
    path = Path(shutil.copy(tiny_checkpoint, folder))
    kept = save_some(path, picture)
    settings = Settings(checkpoint=path, device="cpu", store_dir=folder / "store", deadline_s=120)
    with TestClient(create_app(settings)) as client:
        yield client, kept


def test_mistakes_are_listed_by_cell_the_most_frequent_first(served: tuple[TestClient, KeptMistakes]) -> None:
    client, kept = served
    said = client.get("/v1/model/mistakes").json()
    assert said["model"] == kept.checkpoint_digest
    assert said["source"] == {"name": "photos", "split": "all photos", "exposure": "cross_validated"}
    assert said["images"] == {"cat": 20, "dog": 30, "owl": 0}
    assert [(one["true"], one["predicted"], one["count"]) for one in said["cells"]] == [
        ("dog", "cat", 7),
        ("cat", "dog", 2),
        ("dog", "owl", 1),
    ]
    assert [[photo["number"] for photo in one["photos"]] for one in said["cells"]] == [[1], [0, 3], [2]]
    assert said["cells"][2]["photos"] == [
        {
            "number": 2,
            "name": "c.jpg",
            "true_probability": 0.25,
            "predicted_probability": 0.75,
            "picture": "/v1/model/mistakes/2.png",
        }
    ]
    assert client.get("/v1/model").json()["has_mistakes"] is True


@pytest.mark.parametrize(
    ("query", "counts"),
    [
        ({"true": "dog"}, [7, 1]),
        ({"predicted": "dog"}, [2]),
        ({"true": "dog", "predicted": "owl"}, [1]),
        ({"true": "owl"}, []),
    ],
)
def test_a_query_chooses_cells(
    served: tuple[TestClient, KeptMistakes], query: dict[str, str], counts: list[int]
) -> None:
    client, _ = served
    assert [one["count"] for one in client.get("/v1/model/mistakes", params=query).json()["cells"]] == counts


def test_a_photo_comes_as_the_network_got_it_and_gives_that_input_when_it_is_sent(
    served: tuple[TestClient, KeptMistakes],
) -> None:
    client, kept = served
    answer = client.get("/v1/model/mistakes/2.png")
    shown = png(answer)
    assert (shown.size, shown.info["note"]) == ((32, 32), "dog, taken for owl")
    array = np.load(io.BytesIO(client.get("/v1/model/mistakes/2.npy").content))
    np.testing.assert_array_equal(array, kept.photos[2].numpy())
    assert client.get("/v1/model/mistakes/2.json").json()["name"] == "c.jpg"
    path = client.post("/v1/images", files={"file": answer.content}).headers["Location"]
    np.testing.assert_array_equal(np.load(io.BytesIO(client.get(f"{path}/input.npy").content)), kept.photos[2].numpy())


@pytest.mark.parametrize("address", ["", "/0.png", "/1.npy", "?true=cat"])
def test_a_client_that_has_it_gets_nothing_again(served: tuple[TestClient, KeptMistakes], address: str) -> None:
    client, _ = served
    tag = client.get(f"/v1/model/mistakes{address}").headers["ETag"]
    assert client.get(f"/v1/model/mistakes{address}", headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/4", (404, "unknown_mistake")),
        ("/99999999999999999999.png", (404, "unknown_mistake")),
        ("/-1", (422, "invalid_parameter")),
        ("/0x10.png", (422, "invalid_parameter")),
        ("/..%2F..%2Ftiny.safetensors", (404, "not_found")),
        ("/0.png?true=cat", (422, "invalid_parameter")),
        ("/0.jpeg", (422, "invalid_parameter")),
        (".png", (406, "not_acceptable")),
        ("?true=cow", (422, "unknown_target")),
        ("?true=", (422, "unknown_target")),
        ("?predicted=0", (422, "unknown_target")),
        ("?true=cat&true=dog%00", (422, "unknown_target")),
        ("?predicted=" + 5000 * "x", (422, "unknown_target")),
        ("?actual=cat", (422, "invalid_parameter")),
    ],
)
def test_refusals(served: tuple[TestClient, KeptMistakes], address: str, expected: tuple[int, str]) -> None:
    client, _ = served
    answer = client.get(f"/v1/model/mistakes{address}")
    assert (answer.status_code, answer.json()["code"]) == expected
    assert len(answer.json()["detail"]) < 500


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(tiny_checkpoint, tmp_path))


def refusal_of(checkpoint: Path, folder: Path) -> dict[str, str]:
    settings = Settings(checkpoint=checkpoint, device="cpu", store_dir=folder / "store")
    with TestClient(create_app(settings)) as client:
        answers = [client.get(f"/v1/model/mistakes{rest}") for rest in ("", "/0.png")]
        assert client.get("/v1/model").json()["has_mistakes"] is False
    assert [(one.status_code, one.json()["code"]) for one in answers] == [(404, "no_mistakes")] * 2
    return dict(answers[0].json())


def test_a_service_without_mistakes_names_the_way_out(checkpoint: Path, tmp_path: Path) -> None:
    assert "torchlight train SOURCE --keep-mistakes" in refusal_of(checkpoint, tmp_path)["detail"]


def test_mistakes_of_another_checkpoint_are_left_out_and_the_log_says_why(
    checkpoint: Path, picture: Callable[..., bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = save_some(checkpoint, picture)
    save_mistakes(mistakes_path(checkpoint), dataclasses.replace(kept, checkpoint_digest="sha256:other"))
    detail = refusal_of(checkpoint, tmp_path)["detail"]
    assert "its log says why" in detail
    assert str(tmp_path) not in detail
    assert "was made for checkpoint sha256:other" in caplog.text
