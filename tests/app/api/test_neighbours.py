"""Neighbours and examples of channels, from an index beside the checkpoint."""

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
from torchlight.model.classifier import Classifier
from torchlight.model.drawing.rendering import MARGIN, TILE, TOP
from torchlight.model.files import tensor_file
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.views import image_index
from torchlight.model.views.embedding import embed, image_digest
from torchlight.model.views.image_index import Index, LayerExamples, Source, digest_rows

IMAGES = 12


def save_index(path: Path, classifier: Classifier, pictures: list[bytes], name: str = "photos") -> Index:
    """Save an index of pictures whose channels have random values at random places of 28x28 maps."""
    generator = torch.Generator().manual_seed(0)
    tensors = torch.stack([prepare_image(content, Resizing(32))[0] for content in pictures])
    shape = (32, 3, 9)
    examples = LayerExamples(
        values=torch.randn(shape, generator=generator),
        places=torch.randint(IMAGES, (*shape, 3), generator=generator, dtype=torch.int32),
        dead=torch.arange(32) == 7,
    )
    made = Index(
        checkpoint_digest=classifier.digest,
        class_names=classifier.class_names,
        source=Source(name, "sha256:1234", "val", IMAGES, True),
        thumbnails=tensors,
        embeddings=embed(classifier, tensors),
        labels=torch.arange(IMAGES, dtype=torch.int32) % 3,
        digests=digest_rows([image_digest(tensor) for tensor in tensors]),
        layers={"relu1": examples},
    )
    image_index.save_index(path, made)
    return made


@pytest.fixture(scope="module")
def indexed(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Path,
    classifier: Classifier,
    picture: Callable[..., bytes],
) -> Iterator[tuple[TestClient, Index]]:
    """The service beside whose checkpoint is an index of twelve pictures."""
    folder = tmp_path_factory.mktemp("indexed")
    path = Path(shutil.copy(tiny_checkpoint, folder))
    made = save_index(image_index.index_path(path), classifier, [picture(seed) for seed in range(IMAGES)])
    settings = Settings(checkpoint=path, device="cpu", store_dir=folder / "store", deadline_s=120)
    with TestClient(create_app(settings)) as client:
        yield client, made


def stored(client: TestClient, content: bytes) -> str:
    return str(client.post("/v1/images", files={"file": content}).headers["Location"])


def test_neighbours_are_those_of_the_index_without_the_image_itself(
    indexed: tuple[TestClient, Index], classifier: Classifier, picture: Callable[..., bytes]
) -> None:
    client, made = indexed
    path = stored(client, picture(4))
    tensor, _ = prepare_image(picture(4), Resizing(32))
    expected = made.neighbours(embed(classifier, tensor[None])[0], 5, image_digest(tensor))
    said = client.get(f"{path}/neighbours.json?k=5").json()
    assert [one["image"] for one in said["neighbours"]] == [one.image for one in expected]
    assert [one["label"] for one in said["neighbours"]] == [one.label for one in expected]
    assert [one["similarity"] for one in said["neighbours"]] == pytest.approx([one.similarity for one in expected])
    assert 4 not in [one["image"] for one in said["neighbours"]]
    assert said["source"]["split"] == "val"
    assert said["facts"] == png(client.get(f"{path}/neighbours?k=5")).info
    thumbnails = np.load(io.BytesIO(client.get(f"{path}/neighbours.npy?k=5").content))
    np.testing.assert_array_equal(thumbnails, made.thumbnails[[one.image for one in expected]].numpy())


def test_more_neighbours_than_there_are_images_are_all_others(
    indexed: tuple[TestClient, Index], picture: Callable[..., bytes]
) -> None:
    client, _ = indexed
    said = client.get(f"{stored(client, picture(4))}/neighbours.json?k=100").json()
    assert len(said["neighbours"]) == IMAGES - 1


def test_unit_comes_with_its_best_random_and_lowest_images(indexed: tuple[TestClient, Index]) -> None:
    client, made = indexed
    said = client.get("/v1/layers/relu1/units/3.json").json()
    expected = made.top_images("relu1", 3)
    for row in ("best", "random", "lowest"):
        plain = [{name: value for name, value in peak.items() if name != "box"} for peak in said[row]]
        assert plain == [vars(peak) for peak in getattr(expected, row)]
    first = said["best"][0]
    y, x = first["y"], first["x"]
    assert first["box"]["full"] == [y, x, y + 4, x + 4]  # 5x5 filters
    assert said["is_dead"] is False
    shown = png(client.get("/v1/layers/relu1/units/3"))
    assert said["facts"] == shown.info
    assert (shown.info["layer"], shown.info["channel"]) == ("relu1", "3")
    thumbnails = np.load(io.BytesIO(client.get("/v1/layers/relu1/units/3.npy").content))
    assert thumbnails.shape == (3, 9, 3, 32, 32)
    np.testing.assert_array_equal(thumbnails[0, 0], made.thumbnails[first["image"]].numpy())


def test_dead_unit_is_called_dead(indexed: tuple[TestClient, Index]) -> None:
    client, _ = indexed
    assert client.get("/v1/layers/relu1/units/7.json").json()["is_dead"] is True
    assert "dead" in png(client.get("/v1/layers/relu1/units/7")).info["note"]


def test_units_of_a_layer_are_listed_with_the_dead_ones(
    indexed: tuple[TestClient, Index], classifier: Classifier
) -> None:
    client, made = indexed
    answer = client.get("/v1/layers/relu1/units")
    said = answer.json()
    assert said["dead"] == [7]
    assert said["largest"] == made.layers["relu1"].values[:, 0, 0].tolist()
    assert (said["model"], said["layer"], said["images"]) == (classifier.digest, "relu1", IMAGES)
    assert said["source"]["name"] == "photos"
    assert client.get("/v1/layers/relu1/units", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert client.get("/v1/layers/pool1/units").json()["code"] == "view_not_applicable"


def test_thumbnails_of_a_unit_are_lit_where_its_position_can_see(indexed: tuple[TestClient, Index]) -> None:
    client, made = indexed
    peak = made.top_images("relu1", 3).best[0]
    thumbnail = made.thumbnails[peak.image]
    shown = np.asarray(png(client.get("/v1/layers/relu1/units/3")).convert("RGB"))
    zoom = 2 * TILE // 32
    first = shown[TOP : TOP + 32 * zoom : zoom, MARGIN : MARGIN + 32 * zoom : zoom].transpose(2, 0, 1)
    lit = (first == thumbnail.numpy()).all(0) & (thumbnail.numpy() > 0).any(0)
    rows, columns = lit.nonzero()
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == (peak.y, peak.x, peak.y + 4, peak.x + 4)
    np.testing.assert_array_equal(first[:, ~lit], (thumbnail * 0.35).to(torch.uint8).numpy()[:, ~lit])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("conv9/units/0", (404, "unknown_layer")),
        ("pool1/units/0", (422, "view_not_applicable")),
        ("relu1/units/32", (422, "channel_out_of_range")),
        ("relu1/units/-1", (422, "invalid_parameter")),
    ],
)
def test_refusal_of_a_unit(indexed: tuple[TestClient, Index], unit: str, expected: tuple[int, str]) -> None:
    client, _ = indexed
    answer = client.get(f"/v1/layers/{unit}")
    assert (answer.status_code, answer.json()["code"]) == expected


@pytest.mark.parametrize(("name", "first"), [("photos", 100), ("other photos", 0)], ids=["other images", "other name"])
def test_another_index_gives_another_tag(
    indexed: tuple[TestClient, Index],
    classifier: Classifier,
    picture: Callable[..., bytes],
    tmp_path: Path,
    name: str,
    first: int,
) -> None:
    client, _ = indexed
    path = Path(shutil.copy(classifier.checkpoint.path, tmp_path))
    save_index(image_index.index_path(path), classifier, [picture(seed) for seed in range(first, first + IMAGES)], name)
    with TestClient(create_app(Settings(checkpoint=path, device="cpu", store_dir=tmp_path / "store"))) as other:
        tags = [one.get("/v1/layers/relu1/units/3").headers["ETag"] for one in (client, other)]
    assert tags[0] != tags[1]


def test_index_of_another_checkpoint_is_left_out_and_the_log_says_why(
    classifier: Classifier,
    other_checkpoint: Path,
    picture: Callable[..., bytes],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Path(shutil.copy(other_checkpoint, tmp_path))
    assert load_checkpoint(path).digest != classifier.digest
    save_index(image_index.index_path(path), classifier, [picture(seed) for seed in range(IMAGES)])
    with TestClient(create_app(Settings(checkpoint=path, device="cpu", store_dir=tmp_path / "store"))) as client:
        answer = client.get("/v1/layers/relu1/units/3")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_index")
    assert "cannot be used" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    assert "was made for checkpoint" in caplog.text


def test_index_that_cannot_be_read_is_left_out_and_the_log_says_why(
    classifier: Classifier,
    picture: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = Path(shutil.copy(classifier.checkpoint.path, tmp_path))
    save_index(image_index.index_path(path), classifier, [picture(seed) for seed in range(IMAGES)])
    monkeypatch.setattr(tensor_file, "safe_open", refuse)
    with TestClient(create_app(Settings(checkpoint=path, device="cpu", store_dir=tmp_path / "store"))) as client:
        assert client.get("/v1/layers/relu1/units/3").json()["code"] == "no_index"
    assert "the index is left out" in caplog.text
    assert "Permission denied" in caplog.text
