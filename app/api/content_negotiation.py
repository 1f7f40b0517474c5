"""The forms a view can be sent in, and which one a client wants. Knows nothing of networks."""

import io
import re
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.routing import Match
from starlette.types import Scope
from torch import Tensor

from torchlight.app.errors import NotAcceptable

Form = Literal["png", "json", "npy"]
MEDIA_TYPES: dict[str, str] = {"png": "image/png", "json": "application/json", "npy": "application/x-npy"}
SUFFIX = re.compile(r"(?<=[^/])\.(png|json|npy)$")
RENDERER_VERSION = "5"  # to be raised whenever equal requests get other bytes than before: part of every ETag


class ViewRoute(APIRoute):
    """A route whose path may end in ``.png``, ``.json`` or ``.npy``; its parameters never do.

    Other dots belong to the path: ``/v1/layers/layer1.0.conv1/filters.png``.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path without the suffix of :func:`requested_form`."""
        path = scope.get("path", "")
        has_suffix = requested_form(path) is not None and "GET" in (self.methods or ())
        return super().matches({**scope, "path": path.rpartition(".")[0] if has_suffix else path})


def requested_form(path: str) -> Form | None:
    """Return the form that the suffix of a path names, if it has one."""
    found = SUFFIX.search(path)
    return cast("Form", found[1]) if found else None


def choose(offered: Sequence[Form], suffix: Form | None, accept: str) -> Form:
    """Return the form to send: the suffix decides, then the header Accept, then the order of what is offered.

    Raises:
        NotAcceptable: with what there is.
    """
    if suffix is not None:
        qualities = {form: float(form == suffix) for form in offered}
    else:
        ranges = _ranges(accept or "*/*")
        qualities = {form: _quality(MEDIA_TYPES[form], ranges) for form in offered}
    best = max(offered, key=lambda form: qualities[form])
    if not qualities[best]:
        asked = f"suffix .{suffix}" if suffix else f"Accept: {accept[:200]}"
        there_is = ", ".join(f"{MEDIA_TYPES[form]} (.{form})" for form in offered)
        raise NotAcceptable(f"{asked} asks for what this view has not; it comes as {there_is}")
    return best


def encode(form: Form, content: Any) -> bytes:
    """Return the bytes to send: PNG as it is, tensors as a NumPy file, the rest as JSON; not finite is null."""
    if form == "png":
        assert isinstance(content, bytes)
        return content
    if form == "npy":
        assert isinstance(content, Tensor)
        file = io.BytesIO()
        np.save(file, content.numpy(), allow_pickle=False)
        return file.getvalue()
    return to_json(content, inf_nan_mode="null")


def _ranges(accept: str) -> dict[str, float]:
    """Return the media ranges of a header with their quality, 1 if it does not say."""
    ranges = {}
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        given = [value[2:] for value in parameters if value.startswith("q=")]
        quality = given[0] if given else "1"
        ranges[name] = float(quality) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", quality) else 0.0
    return ranges


def _quality(media_type: str, ranges: dict[str, float]) -> float:
    """Return the quality of the most specific range that a type is in, 0 if it is in none."""
    kind = media_type.partition("/")[0]
    return next((ranges[name] for name in (media_type, f"{kind}/*", "*/*") if name in ranges), 0.0)
