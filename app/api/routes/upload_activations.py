"""Activation maps of an image that is not stored."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from torchlight.app.api.dependencies import RunningService
from torchlight.app.api.disconnect import while_connected
from torchlight.app.api.problems import document_problems
from torchlight.app.api.uploads import document_image_body, read_image
from torchlight.app.api.view_response import describe_origin, explains_header
from torchlight.app.api.view_schemas import MapsParameters
from torchlight.app.inference.service import PreparedImage
from torchlight.model.drawing.figures import draw_maps
from torchlight.model.views.activations import activation_maps
from torchlight.model.views.layer_table import first_convolution_name

router = APIRouter(prefix="/v1", tags=["inspection"], default_response_class=Response)

PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A picture with a legend.", "content": {"image/png": {}}}}


class UploadMapsParameters(MapsParameters):
    """Which maps of an upload are shown, and how."""

    layer: str | None = Field(None, description="Dotted path; without it, the first convolution.")
    channel: int | None = Field(None, ge=0, description="One map; without it, a sheet of all.")


@router.post(
    "/activations",
    responses=PNG | document_problems(400, 404, 408, 413, 415, 422, 503, 504),
    openapi_extra=document_image_body("file"),
)
async def activations(
    request: Request, service: RunningService, parameters: Annotated[UploadMapsParameters, Query()]
) -> Response:
    """Draw what a layer makes of the image: its activation maps, computed by PyTorch in float32."""
    parameters.check_limit()

    def draw(image: PreparedImage) -> bytes:
        layer = parameters.layer or first_convolution_name(service.classifier.graph)
        maps = activation_maps(service.classifier, image.tensor, layer, parameters.stage)
        return draw_maps(
            parameters.display(maps, parameters.channel, replace(describe_origin(service, image), layer=layer))
        )

    content = await read_image(request, service.settings)
    load = partial(service.prepare, content)
    drawn = await while_connected(request, service.view_of(load, draw))
    return Response(drawn, media_type="image/png", headers=explains_header(service))
