"""What a photo says of its owner stays out of answers, logs and disk: only what is stored on purpose is kept."""

import io
import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from starlette.testclient import TestClient

from torchlight.app.main import create_app
from torchlight.app.settings import Settings

MARK = "hunter2-was-here"  # in every place of the file where text may be
PARAMETERS = {"layer": "conv1", "channel": "0", "method": "saliency", "y": "3", "x": "4"}
CLIMBING = ["../../evil.png", "..\\..\\evil.png", "/evil.png", "evil\x00.png", "....//evil.png", "%2e%2e%2fevil.png"]


@dataclass(frozen=True)
class Place:
    """A running service, all it may write to, and where uploads belong."""

    client: TestClient
    folder: Path
    store: Path

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "tmp").mkdir()
    settings = Settings(checkpoint=tiny_checkpoint, store_dir=folder / "uploads", deadline_s=120, view_cache_bytes=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setenv("TMPDIR", str(folder / "tmp"))
        patch.chdir(folder)
        with TestClient(create_app(settings)) as client:
            yield Place(client, folder, folder / "uploads")


@pytest.fixture(scope="module")
def photo() -> bytes:
    """A JPEG over 1 MB that says who took it and where: in EXIF, XMP and a comment."""
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = MARK
    exif[ExifTags.Base.ImageDescription] = MARK
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (48.0, 51.0, 29.5)
    gps[ExifTags.GPS.GPSAreaInformation] = MARK.encode()
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1100, 3), dtype=np.uint8)
    file = io.BytesIO()
    xmp = f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{MARK}</x:xmpmeta>".encode()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif, xmp=xmp, comment=MARK.encode())
    return file.getvalue()


def test_the_photo_is_as_telling_as_it_should_be_for_these_tests(photo: bytes) -> None:
    with Image.open(io.BytesIO(photo)) as image:
        assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert photo.count(MARK.encode()) == 5
    assert len(photo) > 2**20  # the form parser moves what is larger to disk


def test_an_upload_that_is_not_stored_leaves_nothing_on_disk(place: Place, photo: bytes) -> None:
    before = place.files()
    form, raw = {"files": {"file": ("a.jpg", photo)}}, {"content": photo, "headers": {"Content-Type": "image/jpeg"}}
    for path in ("/v1/predict", "/v1/activations"):
        for body in (form, raw):
            assert place.client.post(path, **body).status_code == 200
    assert place.client.post("/v1/predict/batch", files=[("files", photo)] * 2).status_code == 200
    assert place.files() == before


def test_an_upload_that_is_refused_leaves_nothing_on_disk(place: Place, photo: bytes) -> None:
    before = place.files()
    for path in ("/v1/predict", "/v1/images"):
        assert place.client.post(path, files={"file": b"no picture" + photo}).status_code == 415
        assert place.client.post(path, files={"wrong": photo}).status_code == 422
        assert place.client.post(path, files={"file": photo[: len(photo) // 2]}).status_code == 422
    assert place.files() == before


@pytest.fixture(scope="module")
def stored(place: Place, photo: bytes) -> str:
    answer = place.client.post("/v1/images", files={"file": ("my cat.jpg", photo)})
    assert answer.status_code == 201
    identity: str = answer.json()["id"]
    return identity


def test_what_is_stored_is_one_file_named_by_its_hash_in_the_folder_for_it(
    place: Place, stored: str, photo: bytes
) -> None:
    assert {path: content for path, content in place.files().items() if MARK.encode() in content} == {
        place.store / stored.removeprefix("sha256:"): photo
    }


@pytest.mark.parametrize("name", CLIMBING, ids=repr)
def test_the_name_of_an_upload_leads_nowhere(place: Place, stored: str, photo: bytes, name: str) -> None:
    assert place.client.post("/v1/images", files={"file": (name, photo)}).json()["id"] == stored
    place.client.post("/v1/predict", files={"file": (name, photo)})
    place.client.post("/v1/predict/batch", files=[("files", (name, photo))])
    assert not list(place.folder.parent.rglob("*evil*"))
    assert not Path("/evil.png").exists()


def views(place: Place) -> list[tuple[str, str]]:
    """Return the path and media type of every view of a stored image."""
    paths = place.client.get("/openapi.json").json()["paths"]
    return [
        (path, media_type)
        for path, methods in paths.items()
        if "{image_id}" in path and "neighbours" not in path  # those need an index
        for media_type in methods["get"]["responses"]["200"]["content"]
    ]


def show(place: Place, path: str, media_type: str, image_id: str) -> bytes:
    address = re.sub(r"\{(\w+)\}", lambda found: {"image_id": image_id, **PARAMETERS}[found[1]], path)
    query = {"y": "3", "x": "4"} if path.endswith("/occlusion") else {}
    answer = place.client.get(address, params=query, headers={"Accept": media_type})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type), answer.text
    return answer.content


def test_no_view_of_a_photo_repeats_what_it_says_of_its_owner(place: Place, stored: str) -> None:
    seen = views(place)
    assert {media_type for _, media_type in seen} == {"image/png", "application/json", "application/x-npy"}
    assert not [view for view in seen if MARK.encode() in show(place, *view, stored)]


def test_pictures_carry_their_legend_and_no_other_metadata(place: Place, stored: str, photo: bytes) -> None:
    pictures = [show(place, *view, stored) for view in views(place) if view[1] == "image/png"]
    box = place.client.get(f"/v1/layers/conv1/receptive-field.png?y=3&x=4&image={stored}")
    sheet = place.client.post("/v1/activations", files={"file": photo})
    assert len(pictures) >= 5
    for content in (*pictures, box.content, sheet.content):
        assert chunks(content) <= {b"IHDR", b"PLTE", b"tRNS", b"pHYs", b"tEXt", b"iTXt", b"IDAT", b"IEND"}
        with Image.open(io.BytesIO(content)) as image:
            assert not image.getexif()
            assert not {"exif", "xmp", "icc_profile", "comment", "XML:com.adobe.xmp"} & set(image.info)


def chunks(png: bytes) -> set[bytes]:
    """Return the types of a PNG's chunks."""
    found, at = set(), 8
    while at < len(png):
        found.add(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return found


def test_the_log_holds_nothing_of_a_photo_but_its_hash(
    place: Place, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "torchlight")
    headers = {"X-API-Key": MARK, "Authorization": f"Bearer {MARK}", "Referer": f"http://x/{MARK}"}
    for path in ("/v1/predict", "/v1/images", "/v1/activations"):
        place.client.post(f"{path}?top_k=1&key={MARK}", files={"file": (f"{MARK}.jpg", photo)}, headers=headers)
        place.client.post(path, files={MARK: (f"{MARK}.jpg", MARK.encode())}, headers=headers)
        place.client.post(path, content=photo[: len(photo) // 2], headers={"Content-Type": "image/jpeg"})
    assert len(caplog.records) >= 9
    assert not [record for record in caplog.records if MARK in str(record.__dict__)]
