"""The table error class -> status and code, and the problem+json body of each answer to an error.

The table is looked up along the class order, so that a new subclass of one of its classes is never a 500 by accident.
An error that is not in it is ours, not the client's: the catch-all in :mod:`app.middleware.request_log` answers it.
What is refused before the application runs, :mod:`app.server.http_protocol` answers in the same form.
"""

from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request

from torchlight.app.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    DecoderFailed,
    MalformedForm,
    NoIndex,
    NoMistakes,
    NotAcceptable,
    NotReady,
    Overloaded,
    StoreFull,
    TooManyRequests,
    UnknownHost,
    UnknownImage,
    UnknownMethod,
    UnknownMistake,
    UnsupportedMediaType,
    UploadError,
    UploadTooSlow,
    WrongField,
    WrongKey,
)
from torchlight.app.telemetry.request_facts import get_request_facts
from torchlight.model.errors import (
    ChannelOutOfRange,
    ImageError,
    ImageTooLarge,
    PositionOutOfRange,
    TorchlightError,
    UnknownImageFormat,
    UnknownLayer,
    UnknownTarget,
    UnreadableImage,
    ViewError,
    ViewNotApplicable,
)


class Body(BaseModel):
    """Immutable, and exactly what is declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Problem(Body):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Always `about:blank`: `code` tells problems apart.", examples=["about:blank"])
    title: str = Field(description="The status in words.", examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(
        description="What is wrong, the limit, and the way out.",
        examples=["JPEG image cannot be read (image file is truncated); is the file complete?"],
    )
    instance: str = Field(description="Path of the request, if it was known.", examples=["/v1/predict"])
    code: str = Field(description="Short and stable, for programs.", examples=["unreadable_image"])
    request_id: str = Field(
        description="Also in the header X-Request-ID and in the server's log.", examples=["d41c8f2a"]
    )


TABLE: dict[type[TorchlightError], tuple[int, str]] = {
    UploadError: (400, "invalid_upload"),
    BodyTooLarge: (413, "body_too_large"),
    UploadTooSlow: (408, "upload_too_slow"),
    MalformedForm: (400, "malformed_form"),
    UnsupportedMediaType: (415, "unsupported_media_type"),
    WrongField: (422, "wrong_field"),
    ImageError: (422, "invalid_image"),
    ImageTooLarge: (413, "image_too_large"),
    UnknownImageFormat: (415, "unknown_image_format"),
    UnreadableImage: (422, "unreadable_image"),
    DecoderFailed: (422, "decoder_failed"),
    ViewError: (422, "invalid_view"),
    ChannelOutOfRange: (422, "channel_out_of_range"),
    PositionOutOfRange: (422, "position_out_of_range"),
    UnknownLayer: (404, "unknown_layer"),
    UnknownTarget: (422, "unknown_target"),
    ViewNotApplicable: (422, "view_not_applicable"),
    UnknownImage: (404, "unknown_image"),
    UnknownMethod: (404, "unknown_method"),
    NoIndex: (404, "no_index"),
    NoMistakes: (404, "no_mistakes"),
    UnknownMistake: (404, "unknown_mistake"),
    NotAcceptable: (406, "not_acceptable"),
    WrongKey: (401, "wrong_key"),
    UnknownHost: (421, "unknown_host"),
    TooManyRequests: (429, "too_many_requests"),
    StoreFull: (507, "store_full"),
    DeadlineExceeded: (504, "deadline_exceeded"),
    NotReady: (503, "not_ready"),
    Overloaded: (503, "overloaded"),
}
INVALID_PARAMETER = "invalid_parameter"
INTERNAL_ERROR = "internal_error"
MALFORMED_REQUEST, HEAD_TOO_LARGE, HEAD_TOO_SLOW = "malformed_request", "head_too_large", "head_too_slow"
CODES = (  # others are names of HTTP statuses
    *(code for _, code in TABLE.values()),
    *(INVALID_PARAMETER, INTERNAL_ERROR, MALFORMED_REQUEST, HEAD_TOO_LARGE, HEAD_TOO_SLOW),
)
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1  # long enough for a queue to empty, short enough not to be felt


def find_problem(error: BaseException) -> tuple[int, str] | None:
    """Return the status and code of the error's nearest class in the table; None if it has none."""
    return next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), None)


def describe_problem(request: Request, status: int, code: str, detail: str) -> Problem:
    """Return the body of that problem with this request."""
    return Problem(
        type="about:blank",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=quote(request.scope["path"]),
        code=code,
        request_id=get_request_facts(request.scope).request_id,
    )


def respond_with_problem(
    request: Request, status: int, code: str, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return the answer whose body is that problem; the request's line in the log will carry the code."""
    get_request_facts(request.scope).code = code
    retry = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    closing = {"Connection": "close"} if status == 408 else {}  # else the rest of the body would be waited for
    body = describe_problem(request, status, code, detail).model_dump()
    return JSONResponse(body, status, retry | closing | (headers or {}), MEDIA_TYPE)


def document_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that may answer with these problems."""
    return {status: _documented(status) for status in statuses}


def _documented(status: int) -> dict[str, Any]:
    codes = [code for kind, code in TABLE.values() if kind == status] + [INVALID_PARAMETER] * (status == 422)
    example = {name: field.examples[0] for name, field in Problem.model_fields.items() if field.examples}
    example |= {"title": HTTPStatus(status).phrase, "status": status, "code": codes[0], "detail": "..."}
    schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    description = f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in codes)}"
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema, "example": example}}}


def install_handlers(app: FastAPI) -> None:
    """Make every refusal a problem: ours, the framework's, and those of its validation."""
    app.add_exception_handler(TorchlightError, _on_our_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_our_error(request: Request, error: Exception) -> JSONResponse:
    found = find_problem(error)
    if found is None:
        raise error
    return respond_with_problem(request, *found, str(error))


async def _on_invalid_parameter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [
        f"{one['loc'][0]} parameter `{one['loc'][-1]}` is {one['input']!r}: {one['msg']}" for one in error.errors()
    ]
    return respond_with_problem(request, 422, INVALID_PARAMETER, "; ".join(details))


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Say more than the framework does about a path or method that does not exist."""
    assert isinstance(error, HTTPException)
    path, headers = request.scope["path"], dict(error.headers or {})
    code = HTTPStatus(error.status_code).name.lower()
    details = {
        404: f"nothing is at {path}; /docs lists what there is",
        405: f"{path} does not answer {request.method}; it answers {headers.get('Allow', 'other methods')}",
    }
    return respond_with_problem(request, error.status_code, code, details.get(error.status_code, error.detail), headers)
