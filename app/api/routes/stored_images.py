"""Stored images: the answer for them, what the network gets of them, and what its layers make of them."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.dependencies import RunningInspector
from torchlight.app.api.disconnect import while_connected
from torchlight.app.api.problems import document_problems
from torchlight.app.api.summaries import describe_unknown, summarise_image, summarise_model
from torchlight.app.api.uploads import document_image_body, read_image
from torchlight.app.api.view_response import (
    AS_JSON,
    Channel,
    ImageForms,
    ImageId,
    LayerName,
    Nothing,
    Viewing,
    ViewRequest,
    document_view,
)
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
from torchlight.model.drawing.figures import draw_images, draw_maps
from torchlight.model.views.activations import statistics
from torchlight.model.views.facts import Display, Facts
from torchlight.model.views.trace import trace

PREFIX = "/v1/images"
LINKS = {  # of an upload: view -> rest of its address
    "neighbours": "neighbours",
    "reconstructions": "reconstructions/{layer}/{channel}",
    "occlusion": "occlusion",
    "attributions": "attributions/{method}",
    "trace": "trace/{layer}/{channel}",
    "activations": "activations/{layer}",
    "input": "input",
    "prediction": "prediction",
}
router = APIRouter(prefix=PREFIX, tags=["images"], default_response_class=Response, route_class=ViewRoute)


@router.post(
    "",
    status_code=201,
    response_class=JSONResponse,
    responses=document_problems(400, 408, 413, 415, 422, 503, 504, 507),
    openapi_extra=document_image_body("file"),
)
async def store_image(request: Request, response: Response, inspector: RunningInspector) -> StoredImage:
    """Keep an image for a while, to be looked into; its id is the hash of its bytes.

    Only what decodes is kept. The oldest uploads make room for new ones.
    """
    content = await read_image(request, inspector.service.settings)
    image = await while_connected(request, inspector.add(content))
    response.headers["Location"] = f"{_root(request)}/{image.id}"
    return _stored(request, image)


@router.get("/{image_id}", responses=document_view(StoredImage, "json"))
async def stored_image(view: Viewing, image_id: ImageId, _: Nothing) -> Response:
    """Say what the upload was, and where its views are."""

    def body(image: PreparedImage) -> StoredImage:
        return _stored(view.request, image)

    return await view.show_image(image_id, body, AS_JSON)


@router.get("/{image_id}/prediction", responses=document_view(ImagePrediction, "json"))
async def image_prediction(
    view: Viewing, image_id: ImageId, parameters: Annotated[PredictionParameters, Query()]
) -> Response:
    """Classify the image by PyTorch in float32, whatever engine answers `POST /v1/predict`, and give the logits too."""
    asked = parameters.coverage  # what is answered without it depends on the settings, and so does the ETag
    coverage = view.inspector.service.settings.coverage if asked is None else asked

    def body(image: PreparedImage) -> ImagePrediction:
        logits, p_value = view.inspector.answer(image)  # (K,)
        probabilities = logits.softmax(0)
        best = view.classifier.top_k(probabilities, parameters.top_k)
        return ImagePrediction(
            predictions=[PredictionWithLogit(**vars(one), logit=logits[one.index].item()) for one in best],
            unknown=describe_unknown(p_value),
            set=view.inspector.service.answer_set(probabilities, coverage),
            model=summarise_model(view.inspector.service),
            image=summarise_image(image),
        )

    return await view.show_image(image_id, body, AS_JSON, top_k=parameters.top_k, coverage=coverage)


@router.get("/{image_id}/input", responses=document_view(ImageInput, "png", "json", "npy"))
async def image_input(view: Viewing, image_id: ImageId, _: Nothing) -> Response:
    """Show what the network gets: the square of the image that it sees, in the network's size, pixel by pixel."""

    def facts(image: PreparedImage, tensor: Tensor) -> Facts:
        return replace(view.facts(image), view="what the network sees", shape=_size(tensor))

    def picture(image: PreparedImage, tensor: Tensor) -> bytes:
        return draw_images([tensor], [f"{_size(tensor)} pixels"], facts=facts(image, tensor), columns=1)

    def body(image: PreparedImage, tensor: Tensor) -> ImageInput:
        left, top, side = view.classifier.spec.resizing.seen_square(image.width, image.height)
        square = Square(top=top, left=left, side=side)
        said = facts(image, tensor).to_text()
        return ImageInput(facts=said, image=summarise_image(image), size=tensor.shape[-1], square=square)

    forms: ImageForms[Tensor] = {"png": picture, "json": body, "npy": lambda _, tensor: tensor}
    return await view.show_image(image_id, lambda image: image.tensor, forms)


@router.get("/{image_id}/activations/{layer}", responses=document_view(Maps, "png", "json", "npy"))
async def image_activations(
    view: Viewing, image_id: ImageId, layer: LayerName, parameters: Annotated[MapsParameters, Query()]
) -> Response:
    """Show what a layer makes of the image: all its activation maps, those that are dead or constant marked."""
    return await _activations(view, image_id, layer, None, parameters)


@router.get("/{image_id}/activations/{layer}/{channel}", responses=document_view(Map, "png", "json", "npy"))
async def image_activation(
    view: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    parameters: Annotated[MapsParameters, Query()],
) -> Response:
    """Show one activation map, with its numbers."""
    return await _activations(view, image_id, layer, channel, parameters)


@router.get("/{image_id}/trace/{layer}/{channel}", responses=document_view(TraceOfOne, "json"))
async def image_trace(view: Viewing, image_id: ImageId, layer: LayerName, channel: Channel, _: Nothing) -> Response:
    """Show the arithmetic of one number of a vector, or of the position (0, 0) of a map.

    The layer may also be `softmax`, after the last one, which gives the probabilities.
    """
    return await _trace(view, image_id, layer, channel, 0, 0)


@router.get("/{image_id}/trace/{layer}/{channel}/{y}/{x}", responses=document_view(TraceOfOne, "json"))
async def image_trace_at(
    view: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    y: Annotated[int, Path(ge=0, description="Row of the map.")],
    x: Annotated[int, Path(ge=0, description="Column of the map.")],
    _: Nothing,
) -> Response:
    """Show the arithmetic of one number of a map: the patch, the weights, their products, the sum, and the check."""
    return await _trace(view, image_id, layer, channel, y, x)


async def _activations(
    view: ViewRequest, image_id: str, layer: str, channel: int | None, parameters: MapsParameters
) -> Response:
    parameters.check_limit()

    def compute(image: PreparedImage) -> Tensor:
        return view.inspector.maps(image, layer, parameters.stage)  # (C, H, W)

    def display(image: PreparedImage, maps: Tensor) -> Display:
        return parameters.display(maps, channel, replace(view.facts(image), layer=layer))

    def picture(image: PreparedImage, maps: Tensor) -> bytes:
        return draw_maps(display(image, maps))

    def body(image: PreparedImage, maps: Tensor) -> Maps | Map:
        facts = display(image, maps).facts.to_text()
        if channel is None:
            return Maps(facts=facts, statistics=statistics(maps))
        (one,) = statistics(maps[channel : channel + 1])
        return Map(facts=facts, statistics=replace(one, channel=channel), values=maps[channel].tolist())

    def array(_image: PreparedImage, maps: Tensor) -> Tensor:
        return maps if channel is None else pick(maps, channel, layer)

    forms: ImageForms[Tensor] = {"png": picture, "json": body, "npy": array}
    return await view.show_image(image_id, compute, forms, layer=layer, channel=channel, **dict(parameters))


async def _trace(view: ViewRequest, image_id: str, layer: str, channel: int, y: int, x: int) -> Response:
    def body(image: PreparedImage) -> dict[str, object]:
        steps = trace(view.classifier, image.tensor, layer, channel, y, x).to_dict()
        return {"model": view.classifier.digest, "image": image.id, **steps}

    return await view.show_image(image_id, body, AS_JSON, layer=layer, channel=channel, y=y, x=x)


def _size(image: Tensor) -> str:
    return "x".join(map(str, image.shape[:0:-1]))


def _stored(request: Request, image: PreparedImage) -> StoredImage:
    """Return the body about an image, with the addresses of its views."""
    links = {name: f"{_root(request)}/{image.id}/{rest}" for name, rest in LINKS.items()}
    return StoredImage(**dict(summarise_image(image)), links=links)


def _root(request: Request) -> str:
    """Return the address of the images, under the prefix that a proxy may have put before it."""
    return f"{request.scope.get('root_path', '')}{PREFIX}"
