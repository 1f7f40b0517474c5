"""Request -> image bytes, within limits. Knows nothing of what the bytes hold.

The body itself is bounded by :mod:`app.middleware.body_limits`, before any parser sees it.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from torchlight.app.errors import MalformedForm, UnsupportedMediaType, WrongField
from torchlight.app.settings import Settings

FORM = "multipart/form-data"
RAW_TYPES = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/gif",
    "image/bmp",
    "image/tiff",
    "application/octet-stream",
)
MAX_FIELDS = 16  # fields that are not files; no route has any


@dataclass(frozen=True)
class Upload:
    """One file of a form, whole; the client chose the name."""

    filename: str
    content: bytes


async def read_image(request: Request, settings: Settings) -> bytes:
    """Return the one image in the request: the form field ``file``, or the whole body.

    Raises:
        UploadError: a subclass that says what to send instead.
    """
    media_type = _media_type(request)
    if media_type == FORM:
        uploads = await _read_files(request, settings, field="file")
        if len(uploads) > 1:
            raise WrongField(f"{len(uploads)} files came; send one, or all of them as `files` to /v1/predict/batch")
        return uploads[0].content
    if media_type.startswith("image/") or media_type in RAW_TYPES:
        return await request.body()
    raise UnsupportedMediaType(
        f"content type is {media_type!r}; send {FORM} with the image in the field `file`, "
        "or the image itself as image/* or application/octet-stream"
    )


async def read_images(request: Request, settings: Settings) -> list[Upload]:
    """Return the files in the form field ``files``, at least one, in order.

    Raises:
        UploadError: a subclass that says what to send instead.
    """
    media_type = _media_type(request)
    if media_type != FORM:
        raise UnsupportedMediaType(f"content type is {media_type!r}; send {FORM} with the images in the field `files`")
    return await _read_files(request, settings, field="files")


def document_image_body(field: str, *, many: bool = False) -> dict[str, Any]:
    """Return the OpenAPI request body of a route that reads images, as its ``openapi_extra``."""
    file: Mapping[str, Any] = {"type": "string", "format": "binary"}
    files = {"type": "array", "items": file, "minItems": 1}
    form = {"type": "object", "required": [field], "properties": {field: files if many else file}}
    content = {FORM: {"schema": form}}
    if not many:
        content |= {media_type: {"schema": {**file}} for media_type in RAW_TYPES}
    return {"requestBody": {"required": True, "content": content}}


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _FormParser(MultiPartParser):
    """Starlette's parser, but each file stays in memory: bodies are bounded, and an upload leaves nothing on disk."""

    spool_max_size = sys.maxsize


def _boundary_alone(content_type: str) -> Headers:
    """Return the header of a form without its charset: a client chooses none of the hundreds that Python knows.

    Names are UTF-8 then, as browsers send them, else Latin-1.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"").decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return Headers({"content-type": f'{FORM}; boundary="{boundary}"' if boundary else FORM})


async def _read_files(request: Request, settings: Settings, *, field: str) -> list[Upload]:
    """Return all files of the form, after making sure that there are some and that all are in ``field``."""
    headers = _boundary_alone(request.headers["content-type"])
    parser = _FormParser(headers, request.stream(), max_files=settings.max_files, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        limits = f"at most {settings.max_files} files and {MAX_FIELDS} other fields"
        raise MalformedForm(f"form cannot be read: {error.message} ({limits})") from error
    try:
        files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        if {name for name, _ in files} != {field}:
            raise WrongField(_explain_fields(field, form))
        return [Upload(file.filename or "", await file.read()) for _, file in files]
    finally:
        await form.close()


def _explain_fields(field: str, form: FormData) -> str:
    if any(isinstance(value, str) for value in form.getlist(field)):
        return f"field `{field}` holds text, not a file; with curl, write -F {field}=@photo.jpg"
    came = ", ".join(f"`{name}`" for name in form) or "none"
    return f"put the image into the form field `{field}`; fields that came: {came}"
