"""Hostile and mistaken uploads: each is refused with its own status and code, and the server answers on."""

import asyncio
import gc
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx2
import pytest
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from torchlight.app.api.uploads import read_images
from torchlight.app.settings import Settings

FORM = "multipart/form-data; boundary=xx"
PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that declares its size and holds no pixels."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IEND", b"")
    )


def endless(start: bytes = b"") -> Iterator[bytes]:
    """Yield a body of 100 MB whose length nobody declares."""
    yield start
    for _ in range(100):
        yield bytes(1_000_000)


def part(head: str, content: bytes = b"hello") -> bytes:
    return f"--xx\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n--xx--\r\n"


def raw(content: Any, content_type: str = "image/png") -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": content_type}}


def form(*fields: tuple[str, Any]) -> dict[str, Any]:
    return {"files": list(fields)}


FILE_HEAD = b'--xx\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
PICTURE = ("a.png", b"a picture")
BMP_BOMB = b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(20)

HOSTILE = {
    "empty raw body": ("/v1/predict", raw(b""), 422, "unreadable_image"),
    "empty file": ("/v1/predict", form(("file", ("a.png", b""))), 422, "unreadable_image"),
    "text as image": ("/v1/predict", form(("file", ("a.png", b"hello"))), 415, "unknown_image_format"),
    "svg": ("/v1/predict", raw(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, "unknown_image_format"),
    "eps renamed to png": ("/v1/predict", raw(b"%!PS-Adobe-3.0 EPSF-3.0\n"), 415, "unknown_image_format"),
    "heic": ("/v1/predict", raw(b"\x00\x00\x00\x18ftypheic" + bytes(40)), 415, "unknown_image_format"),
    "png without pixels": ("/v1/predict", raw(png_header(10, 10)), 422, "unreadable_image"),
    "png bomb": ("/v1/predict", raw(png_header(50_000, 50_000)), 413, "image_too_large"),
    "bmp bomb": ("/v1/predict", raw(BMP_BOMB), 413, "image_too_large"),
    "zero width": ("/v1/predict", raw(png_header(0, 10)), 422, "unreadable_image"),
    "no content type": ("/v1/predict", {"content": b"hello"}, 415, "unsupported_media_type"),
    "json": ("/v1/predict", {"json": {"file": "a.png"}}, 415, "unsupported_media_type"),
    "url-encoded form": ("/v1/predict", {"data": {"file": "a.png"}}, 415, "unsupported_media_type"),
    "raw body for a batch": ("/v1/predict/batch", raw(b"hello"), 415, "unsupported_media_type"),
    "wrong field": ("/v1/predict", form(("image", PICTURE)), 422, "wrong_field"),
    "two files": ("/v1/predict", form(("file", PICTURE), ("file", PICTURE)), 422, "wrong_field"),
    "two files in two fields": ("/v1/predict", form(("file", PICTURE), ("mask", PICTURE)), 422, "wrong_field"),
    "batch in the wrong field": ("/v1/predict/batch", form(("file", PICTURE)), 422, "wrong_field"),
    "path in place of a file": ("/v1/predict", raw(part('name="file"', b"@a.png"), FORM), 422, "wrong_field"),
    "form without fields": ("/v1/predict", raw(b"--xx--\r\n", FORM), 422, "wrong_field"),
    "empty form": ("/v1/predict", raw(b"", FORM), 422, "wrong_field"),
    "form cut off": ("/v1/predict", raw(part('name="file"; filename="a"')[:-20], FORM), 422, "wrong_field"),
    "form without boundary": ("/v1/predict", raw(b"--xx--", "multipart/form-data"), 400, "malformed_form"),
    "form with another boundary": ("/v1/predict", raw(b"--yy\r\n\r\n--yy--", FORM), 400, "malformed_form"),
    "part without a name": ("/v1/predict", raw(part('filename="a.png"'), FORM), 400, "malformed_form"),
    **{
        f"charset {charset[:9]}": (
            "/v1/predict",
            raw(part('name="file"; filename="a"'), f"{FORM}; charset={charset}"),
            415,
            "unknown_image_format",
        )
        for charset in ("undefined", "hex", "zip", "utf-16", "a" * 1000)
    },
    **{
        f"{name!r} undefined": (
            "/v1/predict",
            raw(part('name="file"; filename="a"'), f"{FORM}; {name}=undefined"),
            415,
            "unknown_image_format",
        )
        for name in ("charset ", "CharSet\t", ' charset="x"; charset')
    },
    "boundary with quotes": (
        "/v1/predict", raw(b"--a\"b\r\n\r\n--a\"b--", 'multipart/form-data; boundary="a\\"b"'), 400, "malformed_form",
    ),
    "field name that is not unicode": (
        "/v1/predict", raw(part('name="\xff\xd8"; filename="a"'), FORM), 422, "wrong_field",
    ),
    "traversal in the name": ("/v1/predict", form(("file", ("../../etc/passwd", b"x"))), 415, "unknown_image_format"),
    "65 files": ("/v1/predict/batch", form(*[("files", PICTURE)] * 65), 400, "malformed_form"),
    "100 fields": ("/v1/predict", {"files": [(f"f{n}", (None, "x")) for n in range(100)]}, 400, "malformed_form"),
    "body over the limit": ("/v1/predict", raw(bytes(20_000_001)), 413, "body_too_large"),
    "form over the limit": ("/v1/predict", form(("file", ("a", bytes(20_000_001)))), 413, "body_too_large"),
    "100 MB of unknown length": ("/v1/predict", raw(endless()), 413, "body_too_large"),
    "100 MB form of unknown length": (
        "/v1/predict", raw(endless(FILE_HEAD), FORM), 413, "body_too_large",
    ),
    "100 MB of form headers": (
        "/v1/predict", raw(endless(b"--xx\r\nX-Header: "), FORM), 400, "malformed_form",
    ),
    "top_k of zero": ("/v1/predict?top_k=0", raw(b"hello"), 422, "invalid_parameter"),
    "top_k that is no number": ("/v1/predict?top_k=many", raw(b"hello"), 422, "invalid_parameter"),
    "coverage of everything": ("/v1/predict?coverage=1", raw(b"hello"), 422, "invalid_parameter"),
    "coverage below a half": ("/v1/predict/batch?coverage=0.49", raw(b"hello"), 422, "invalid_parameter"),
    "coverage that is no number": ("/v1/predict?coverage=nan", raw(b"hello"), 422, "invalid_parameter"),
    "negative channel": ("/v1/activations?channel=-1", raw(b"hello"), 422, "invalid_parameter"),
    "unknown scale": ("/v1/activations?scale=huge", raw(b"hello"), 422, "invalid_parameter"),
    "text as image to look at": ("/v1/activations", raw(b"hello"), 415, "unknown_image_format"),
}  # fmt: skip


def check_problem(answer: httpx2.Response, status: int, code: str) -> None:
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body.keys() == PROBLEM_FIELDS
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), answer.text
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["instance"] == answer.request.url.path
    assert body["detail"]


@pytest.mark.parametrize(("path", "body", "status", "code"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_upload_is_refused_as_a_problem(
    client: httpx2.Client, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    check_problem(client.post(path, **body), status, code)
    assert client.get("/readyz").status_code == 200


PICTURES_AND_VIEWS = {
    "unknown layer": ("/v1/activations?layer=conv9", 404, "unknown_layer"),
    "empty layer name": ("/v1/activations?layer=%20", 404, "unknown_layer"),
    "channel out of range": ("/v1/activations?channel=32", 422, "channel_out_of_range"),
    "layer without maps": ("/v1/activations?layer=fc", 422, "view_not_applicable"),
}


@pytest.mark.parametrize(("path", "status", "code"), PICTURES_AND_VIEWS.values(), ids=PICTURES_AND_VIEWS.keys())
def test_view_that_does_not_exist_is_a_problem(
    client: httpx2.Client, photo: bytes, path: str, status: int, code: str
) -> None:
    check_problem(client.post(path, files={"file": photo}), status, code)


ADDRESSES = {
    "unknown path": ("GET", "/v2/nothing", 404, "not_found"),
    "line break in the path": ("GET", "/a%0D%0Ab", 404, "not_found"),
    "bytes that are not unicode": ("GET", "/%ED%A0%80", 404, "not_found"),
    "docs asset that does not exist": ("GET", "/docs/assets/../main.py", 404, "not_found"),
    "wrong method": ("GET", "/v1/predict", 405, "method_not_allowed"),
    "filters of an unknown layer": ("GET", "/v1/layers/conv9/filters", 404, "unknown_layer"),
    "filters of a layer without": ("GET", "/v1/layers/relu1/filters", 422, "view_not_applicable"),
    "filter out of range": ("GET", "/v1/layers/conv1/filters/32", 422, "channel_out_of_range"),
    "filter that is no number": ("GET", "/v1/layers/conv1/filters/x", 422, "invalid_parameter"),
}


@pytest.mark.parametrize(("method", "path", "status", "code"), ADDRESSES.values(), ids=ADDRESSES.keys())
def test_address_that_is_not_answered_is_a_problem(
    client: httpx2.Client, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_wrong_method_names_the_right_one(client: httpx2.Client) -> None:
    answer = client.get("/v1/predict")
    assert answer.headers["Allow"] == "POST"
    assert answer.json()["detail"] == "/v1/predict does not answer GET; it answers POST"


HINTS = {
    "wrong field": (form(("image", PICTURE), ("mask", PICTURE)), "field `file`; fields that came: `image`, `mask`"),
    "two files": (
        form(("file", PICTURE), ("file", PICTURE)),
        "send one, or all of them as `files` to /v1/predict/batch",
    ),
    "path in place of a file": (raw(part('name="file"', b"a.png"), FORM), "write -F file=@photo.jpg"),
    "json": (
        {"json": {}},
        "send multipart/form-data with the image in the field `file`, or the image itself as image/*",
    ),
    "large body": (raw(bytes(20_000_001)), "20000001 bytes; the limit is 20000000"),
}


@pytest.mark.parametrize(("body", "hint"), HINTS.values(), ids=HINTS.keys())
def test_refusal_says_what_to_send(client: httpx2.Client, body: dict[str, Any], hint: str) -> None:
    assert hint in client.post("/v1/predict", **body).json()["detail"]


def test_name_that_is_not_unicode_does_not_spoil_the_answer(client: httpx2.Client) -> None:
    content = part('name="files"; filename="cafX.png"').replace(b"X", b"\xe9")
    (result,) = client.post("/v1/predict/batch", **raw(content, FORM)).json()["results"]
    assert result["filename"] == "caf\u00e9.png"


def test_declared_length_over_the_limit_is_refused_before_the_body_is_sent(client: httpx2.Client) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 90000000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=120) as connection:
        connection.sendall(head)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_jpeg_cut_anywhere_is_refused_and_never_an_error_of_ours(
    client: httpx2.Client, picture: Callable[..., bytes]
) -> None:
    whole = picture(7, "JPEG")
    answers = [
        client.post("/v1/predict", **raw(whole[: len(whole) * percent // 100], "image/jpeg"))
        for percent in (0, 1, 5, 50, 99)
    ]
    assert {answer.status_code for answer in answers} <= {415, 422}
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}


def form_request(content: bytes) -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": content, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": [(b"content-type", FORM.encode())]}, receive)


def test_no_form_waits_for_garbage_collection() -> None:
    gc.collect()
    gc.disable()
    try:
        uploads = asyncio.run(
            read_images(form_request(part('name="files"; filename="a.png"', bytes(1000))), Settings())
        )
        assert uploads[0].content == bytes(1000)
        assert not [one for one in gc.get_objects() if type(one) in (SpooledTemporaryFile, UploadFile)]
    finally:
        gc.enable()


def test_no_file_of_a_form_is_written_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpooledTemporaryFile, "rollover", None)  # what moves the file to the disk
    content = bytes(5_000_000)
    uploads = asyncio.run(read_images(form_request(part('name="files"; filename="a.png"', content)), Settings()))
    assert uploads[0].content == content
