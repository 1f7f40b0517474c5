"""Stored images: the answer for them, what the network gets of them, and what its layers make of them."""

from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.dependencies import RunningInspector
from torchlight.app.api.disconnect import while_connected
from torchlight.app.api.problems import documented
from torchlight.app.api.routes.upload_activations import check_limit, draw_maps
from torchlight.app.api.summaries import summarise_image, summarise_model
from torchlight.app.api.uploads import image_body, read_image
from torchlight.app.api.view_response import Channel, Exchange, ImageId, LayerName, Nothing, Viewing, shown
from torchlight.app.api.view_schemas import (
    ImageInput,
    ImagePrediction,
    Map,
    Maps,
    MapsParameters,
    PredictionParameters,
    PredictionWithLogit,
    Square,
    StoredImage,
    TraceOfOne,
)
from torchlight.app.inference.service import PreparedImage
from torchlight.app.inspection.inspector import pick
from torchlight.model.drawing.rendering import render_images, text_chunks
from torchlight.model.views.activations import statistics
from torchlight.model.views.trace import trace

PREFIX = "/v1/images"
router = APIRouter(prefix=PREFIX, tags=["images"], default_response_class=Response, route_class=ViewRoute)


@router.post(
    "",
    status_code=201,
    response_class=JSONResponse,
    responses=documented(400, 408, 413, 415, 422, 503, 504, 507),
    openapi_extra=image_body("file"),
)
async def store_image(request: Request, response: Response, inspector: RunningInspector) -> StoredImage:
    """Keep an image for a while, to be looked into; its id is the hash of its bytes.

    Only what decodes is kept. The oldest uploads make room for new ones.
    """
    content = await read_image(request, inspector.service.settings)
    image = await while_connected(request, inspector.add(content))
    response.headers["Location"] = f"{_root(request)}/{image.id}"
    return _stored(request, image)


@router.get("/{image_id}", responses=shown(StoredImage, "json"))
async def stored_image(exchange: Viewing, image_id: ImageId, _: Nothing) -> Response:
    """Say what the upload was, and where its views are."""
    return await exchange.show_image(image_id, {"json": partial(_stored, exchange.request)})


@router.get("/{image_id}/prediction", responses=shown(ImagePrediction, "json"))
async def image_prediction(
    exchange: Viewing, image_id: ImageId, parameters: Annotated[PredictionParameters, Query()]
) -> Response:
    """Classify the image as `POST /v1/predict` does, and give the logits too."""

    def body(image: PreparedImage) -> ImagePrediction:
        logits = exchange.inspector.logits(image)
        best = exchange.classifier.top_k(logits.softmax(0), parameters.top_k)
        predictions = [PredictionWithLogit(**vars(one), logit=logits[one.index].item()) for one in best]
        return ImagePrediction(
            predictions=predictions, model=summarise_model(exchange.inspector.service), image=summarise_image(image)
        )

    return await exchange.show_image(image_id, {"json": body}, **dict(parameters))


@router.get("/{image_id}/input", responses=shown(ImageInput, "png", "json", "npy"))
async def image_input(exchange: Viewing, image_id: ImageId, _: Nothing) -> Response:
    """Show what the network gets: the largest centred square, reduced or enlarged to its size, pixel by pixel."""

    def picture(image: PreparedImage) -> bytes:
        size = "x".join(map(str, image.tensor.shape[:0:-1]))
        facts = exchange.facts(image=image, view="what the network sees", shape=size)
        return render_images([image.tensor], [f"{size} pixels"], facts=facts, columns=1)

    def body(image: PreparedImage) -> ImageInput:
        side = min(image.width, image.height)
        square = Square(top=(image.height - side) / 2, left=(image.width - side) / 2, side=side)
        facts = text_chunks(picture(image))
        return ImageInput(facts=facts, image=summarise_image(image), size=image.tensor.shape[-1], square=square)

    return await exchange.show_image(image_id, {"png": picture, "json": body, "npy": lambda image: image.tensor})


@router.get("/{image_id}/activations/{layer}", responses=shown(Maps, "png", "json", "npy"))
async def image_activations(
    exchange: Viewing, image_id: ImageId, layer: LayerName, parameters: Annotated[MapsParameters, Query()]
) -> Response:
    """Show what a layer makes of the image: all its activation maps, those that are dead or constant marked."""
    return await _activations(exchange, image_id, layer, None, parameters)


@router.get("/{image_id}/activations/{layer}/{channel}", responses=shown(Map, "png", "json", "npy"))
async def image_activation(
    exchange: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    parameters: Annotated[MapsParameters, Query()],
) -> Response:
    """Show one activation map, with its numbers."""
    return await _activations(exchange, image_id, layer, channel, parameters)


@router.get("/{image_id}/trace/{layer}/{channel}", responses=shown(TraceOfOne, "json"))
async def image_trace(exchange: Viewing, image_id: ImageId, layer: LayerName, channel: Channel, _: Nothing) -> Response:
    """Show the arithmetic of one number of a vector, or of the position (0, 0) of a map.

    The layer may also be `softmax`, after the last one, which gives the probabilities.
    """
    return await _trace(exchange, image_id, layer, channel, 0, 0)


@router.get("/{image_id}/trace/{layer}/{channel}/{y}/{x}", responses=shown(TraceOfOne, "json"))
async def image_trace_at(
    exchange: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    y: Annotated[int, Path(ge=0, description="Row of the map.")],
    x: Annotated[int, Path(ge=0, description="Column of the map.")],
    _: Nothing,
) -> Response:
    """Show the arithmetic of one number of a map: the patch, the weights, their products, the sum, and the check."""
    return await _trace(exchange, image_id, layer, channel, y, x)


async def _activations(
    exchange: Exchange, image_id: str, layer: str, channel: int | None, parameters: MapsParameters
) -> Response:
    check_limit(parameters)

    def maps(image: PreparedImage) -> Tensor:
        return exchange.inspector.maps(image, layer, parameters.stage)

    def picture(image: PreparedImage) -> bytes:
        return draw_maps(maps(image), channel, exchange.facts(layer, image, stage=parameters.stage), parameters)

    def body(image: PreparedImage) -> Maps | Map:
        facts = text_chunks(picture(image))
        if channel is None:
            return Maps(facts=facts, statistics=statistics(maps(image)))
        (one,) = statistics(maps(image)[channel : channel + 1])
        return Map(facts=facts, statistics=replace(one, channel=channel), values=maps(image)[channel].tolist())

    def array(image: PreparedImage) -> Tensor:
        return maps(image) if channel is None else pick(maps(image), channel, layer)

    return await exchange.show_image(
        image_id, {"png": picture, "json": body, "npy": array}, layer=layer, channel=channel, **dict(parameters)
    )


async def _trace(exchange: Exchange, image_id: str, layer: str, channel: int, y: int, x: int) -> Response:
    def body(image: PreparedImage) -> dict[str, object]:
        steps = trace(exchange.classifier, image.tensor, layer, channel, y, x).to_dict()
        return {"model": exchange.classifier.digest, "image": image.id, **steps}

    return await exchange.show_image(image_id, {"json": body}, layer=layer, channel=channel, y=y, x=x)


def _stored(request: Request, image: PreparedImage) -> StoredImage:
    """Return the body about an image; its links are the routes there are."""
    paths = (path for path in reversed(request.app.openapi()["paths"]) if path.startswith(f"{PREFIX}/{{image_id}}/"))
    addresses = {path.split("/")[4]: path.removeprefix(f"{PREFIX}/{{image_id}}") for path in paths}
    links = {view: f"{_root(request)}/{image.id}{rest}" for view, rest in addresses.items()}
    return StoredImage(**dict(summarise_image(image)), links=links)


def _root(request: Request) -> str:
    """Return the address of the images, under the prefix that a proxy may have put before it."""
    return f"{request.scope.get('root_path', '')}{PREFIX}"
