"""Pictures of what the served network sees, and of what it has learned."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from app.dependencies import RunningService
from app.disconnect import while_connected
from app.errors import documented
from app.service import PreparedImage, Service
from app.uploads import image_body, read_image
from model.activations import activation_maps
from model.filters import filters
from model.layers import first_convolution
from model.rendering import MapScale, render_filters, render_maps

router = APIRouter(prefix="/v1", tags=["inspection"], default_response_class=Response)

PNG: dict[int | str, dict[str, Any]] = {200: {"description": "A picture with a legend.", "content": {"image/png": {}}}}
Layer = Annotated[str, Path(description="Dotted path of the layer.", examples=["conv1"])]


@router.post(
    "/activations", responses=PNG | documented(400, 404, 413, 415, 422, 503, 504), openapi_extra=image_body("file")
)
async def activations(
    request: Request,
    service: RunningService,
    layer: Annotated[str | None, Query(description="Dotted path; without it, the first convolution.")] = None,
    channel: Annotated[int | None, Query(ge=0, description="One map; without it, a sheet of all.")] = None,
    scale: Annotated[
        MapScale, Query(description="One range for all maps of the layer, or each map its own.")
    ] = "layer",
) -> Response:
    """Draw what a layer makes of the image: its activation maps, as the network that answers computes them."""

    def draw(image: PreparedImage) -> bytes:
        name = layer or first_convolution(service.classifier.graph)
        maps = activation_maps(service.classifier, image.tensor, name)
        return render_maps(maps, channel=channel, facts=_facts(service, name) | {"image": image.id}, scale=scale)

    content = await read_image(request, service.settings)
    return _png(await while_connected(request, service.view_of(content, draw)))


@router.get("/layers/{layer}/filters", responses=PNG | documented(404, 422, 503, 504))
async def layer_filters(service: RunningService, layer: Layer) -> Response:
    """Draw all filters of a convolution, each over its own range."""
    return await _draw_filters(service, layer, None)


@router.get("/layers/{layer}/filters/{channel}", responses=PNG | documented(404, 422, 503, 504))
async def layer_filter(
    service: RunningService, layer: Layer, channel: Annotated[int, Path(ge=0, description="Output channel.")]
) -> Response:
    """Draw one filter of a convolution."""
    return await _draw_filters(service, layer, channel)


async def _draw_filters(service: Service, layer: str, channel: int | None) -> Response:
    def draw() -> bytes:
        return render_filters(filters(service.classifier, layer).weights, channel=channel, facts=_facts(service, layer))

    return _png(await service.view(draw))


def _facts(service: Service, layer: str) -> dict[str, str]:
    return {"model": service.classifier.digest, "layer": layer}


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")
