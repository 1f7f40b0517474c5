"""One GET of a view: in the form the client wants, and only if it does not have it yet.

The ETag is known before any network runs: it is a hash of the model, of the path and its parameters, of the
form, of the note ``X-Explains`` and of the renderer's version. Views run in the service's own thread for them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel

from torchlight.app.api.content_negotiation import MEDIA_TYPES, RENDERER_VERSION, Form, choose, encode, requested_form
from torchlight.app.api.dependencies import RunningInspector
from torchlight.app.api.disconnect import while_connected
from torchlight.app.api.problems import document_problems
from torchlight.app.api.view_schemas import NoParameters
from torchlight.app.errors import DeadlineExceeded
from torchlight.app.inference.service import PreparedImage, Service
from torchlight.model.views.facts import Facts

Numbers = TypeVar("Numbers")
Forms = Mapping[Form, Callable[[Numbers], object]]
ImageForms = Mapping[Form, Callable[[PreparedImage, Numbers], object]]
PROBLEMS = (404, 406, 422, 503, 504)
AS_JSON: Mapping[Form, Callable[..., Any]] = {"json": lambda *numbers: numbers[-1]}  # `compute` returns the body


class ViewRequest:
    """A request for a view, and how to answer it: the numbers are computed once, then written in one form."""

    def __init__(self, request: Request, inspector: RunningInspector) -> None:
        self.request = request
        self.inspector = inspector
        self.classifier = inspector.classifier
        self.suffix = requested_form(request.scope["path"])
        self._is_awaited = True  # set by the event loop, read by the thread for views

    async def show(self, compute: Callable[[], Numbers], forms: Forms[Numbers], **parameters: object) -> Response:
        """Answer with one of the forms, by preference in their order.

        Args:
            compute: returns the numbers of the view, in the thread for views.
            forms: for each form the function that makes it of the numbers: PNG bytes, a JSON body, a tensor for npy.
            parameters: those that identify this view among those of the route.

        Raises:
            NotAcceptable; what computing and writing raise; Overloaded, DeadlineExceeded.
        """

        async def run(form: Form) -> bytes:
            return await self.inspector.service.view(lambda: encode(form, forms[form](compute())))

        return await self._answer(tuple(forms), parameters, run)

    async def show_image(
        self,
        image_id: str,
        compute: Callable[[PreparedImage], Numbers],
        forms: ImageForms[Numbers],
        **parameters: object,
    ) -> Response:
        """As :meth:`show`, for views of a stored image, which is given to ``compute`` and to the forms.

        Raises:
            UnknownImage: it is not stored.
        """
        self.inspector.store.find(image_id)
        load = partial(self.inspector.image, image_id)

        async def run(form: Form) -> bytes:
            return await self.inspector.service.view_of(
                load, lambda image: encode(form, forms[form](image, compute(image)))
            )

        return await self._answer(tuple(forms), {"image": image_id, **parameters}, run)

    def check_awaited(self) -> None:
        """Stop a view that is made batch by batch, once its deadline has passed or its client has left.

        Raises:
            DeadlineExceeded: no client waits for it.
        """
        if not self._is_awaited:
            raise DeadlineExceeded("nobody waits for this view any more")

    def facts(self, image: PreparedImage | None = None) -> Facts:
        """Return what every view says of its origin."""
        return describe_origin(self.inspector.service, image)

    async def _answer(
        self,
        offered: tuple[Form, ...],
        parameters: dict[str, object],
        run: Callable[[Form], Coroutine[Any, Any, bytes]],
    ) -> Response:
        accept = ",".join(self.request.headers.getlist("accept"))
        form = choose(offered, self.suffix, accept)
        tag = self._tag(form, parameters)
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache", "Vary": "Accept", **self._explains()}
        if self._client_has(tag):
            return Response(status_code=304, headers=headers)
        try:
            content = await while_connected(self.request, run(form))
        finally:
            self._is_awaited = False
        return Response(content, media_type=MEDIA_TYPES[form], headers=headers)

    def _explains(self) -> dict[str, str]:
        return explains_header(self.inspector.service)

    def _tag(self, form: Form, parameters: dict[str, object]) -> str:
        path, note = self.request.scope["route"].path, self._explains()
        renderer = [RENDERER_VERSION, self.classifier.digest, path, form, *note.values()]
        canonical = json.dumps([renderer, parameters], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def _client_has(self, tag: str) -> bool:
        """Whether If-None-Match names the tag. ``*`` is ignored: it asks whether any view exists."""
        given = ",".join(self.request.headers.getlist("if-none-match"))
        return tag in re.findall(r'"([^"]*)"', given)


def describe_origin(service: Service, image: PreparedImage | None) -> Facts:
    """Return the facts of a view that are known before it is computed."""
    return Facts(
        model=service.classifier.digest,
        image=None if image is None else image.id,
        x_explains=explains_header(service).get("X-Explains"),
    )


def explains_header(service: Service) -> dict[str, str]:
    """Return the header ``X-Explains`` if the answers are int8, which the views do not show; else no header."""
    if service.engine.quantisation is None:
        return {}
    return {"X-Explains": "the float32 network; answers are int8, see /v1/model"}


Viewing = Annotated[ViewRequest, Depends()]
Nothing = Annotated[NoParameters, Query()]
ImageId = Annotated[str, Path(description="As `POST /v1/images` answers it: `sha256:` and 64 hex digits.")]
LayerName = Annotated[str, Path(description="Dotted path of the layer, as `/v1/layers` lists it.", examples=["conv1"])]
Channel = Annotated[int, Path(ge=0, description="Output channel, from 0.")]


def document_view(body: type[BaseModel], *forms: Form) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that shows something in these forms."""
    others: dict[str, Any] = {MEDIA_TYPES[form]: {} for form in forms if form != "json"}
    description = f"As {', '.join(f'`.{form}`' for form in forms)}; without a suffix Accept decides, then this order."
    answer = {"description": description, "content": others, "model": body}
    return {200: answer, 304: {"description": "What If-None-Match names is still so."}, **document_problems(*PROBLEMS)}
