"""Layers of the served network, whatever the image: what they are, what they can see, their filters and units."""

from typing import Annotated

import torch
from fastapi import APIRouter, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import Channel, Exchange, Forms, LayerName, Nothing, Viewing, shown
from torchlight.app.api.view_schemas import (
    BoxParameters,
    Filmstrip,
    Filter,
    Filters,
    FiltersParameters,
    FilterStatistics,
    Layers,
    SeenBox,
)
from torchlight.app.inference.service import PreparedImage
from torchlight.app.inspection.inspector import pick
from torchlight.model.drawing.rendering import render_box, render_filters, text_chunks
from torchlight.model.errors import ViewError, ViewNotApplicable
from torchlight.model.views.filters import FilterBank, filters
from torchlight.model.views.layer_table import describe, first_convolution_name
from torchlight.model.views.receptive_field import box, receptive_fields

router = APIRouter(prefix="/v1/layers", tags=["layers"], default_response_class=Response, route_class=ViewRoute)


@router.get("", responses=shown(Layers, "json"))
async def layers(exchange: Viewing, _: Nothing) -> Response:
    """List the layers: their shapes, their parameters, what they see of the image, and which views they have."""

    def body() -> Layers:
        return Layers(model=exchange.classifier.digest, layers=describe(exchange.classifier.graph))

    return await exchange.show({"json": body})


@router.get("/{layer}/receptive-field", responses=shown(SeenBox, "json", "png"))
async def layer_receptive_field(
    exchange: Viewing, layer: LayerName, parameters: Annotated[BoxParameters, Query()]
) -> Response:
    """Say which pixels a position of a layer can see; with an image, also show them.

    Without y and x it is the position in the middle. A bound: how much each pixel counts is another matter.
    """
    if (parameters.y is None) != (parameters.x is None):
        raise ViewError("y and x go together: say both, or neither for the position in the middle")
    if exchange.request.scope["suffix"] == "png" and parameters.image is None:
        raise ViewError("a receptive field is drawn on an image: name one with ?image= and the id of an upload")

    def body(_image: PreparedImage | None = None) -> SeenBox:
        return _see(exchange, layer, parameters)

    def picture(image: PreparedImage) -> bytes:
        return _draw_box(exchange, image, body())

    if parameters.image is None:
        return await exchange.show({"json": body}, layer=layer, **dict(parameters))
    shown_on = parameters.image
    return await exchange.show_image(shown_on, {"json": body, "png": picture}, layer=layer, **dict(parameters))


@router.get("/{layer}/filters", responses=shown(Filters, "png", "json", "npy"))
async def layer_filters(
    exchange: Viewing, layer: LayerName, parameters: Annotated[FiltersParameters, Query()]
) -> Response:
    """Show all filters of a convolution; zero is mid-grey or neutral, and never moves."""
    return await _filters(exchange, layer, None, parameters)


@router.get("/{layer}/filters/{channel}", responses=shown(Filter, "png", "json", "npy"))
async def layer_filter(
    exchange: Viewing, layer: LayerName, channel: Channel, parameters: Annotated[FiltersParameters, Query()]
) -> Response:
    """Show one filter of a convolution, with its weights."""
    return await _filters(exchange, layer, channel, parameters)


@router.get("/{layer}/filmstrip", responses=shown(Filmstrip, "json", "npy"))
async def layer_filmstrip(exchange: Viewing, layer: LayerName, _: Nothing) -> Response:
    """Show the filters of the first convolution while the network learnt, from noise on, if the checkpoint has them."""

    def body() -> Filmstrip:
        epochs = len(exchange.classifier.checkpoint.header.training.get("history", ()))
        places = torch.linspace(0, epochs, len(_frames(exchange, layer))).round().int().tolist()
        return Filmstrip(model=exchange.classifier.digest, layer=layer, epochs=places)

    return await exchange.show({"json": body, "npy": lambda: _frames(exchange, layer)}, layer=layer)


def _frames(exchange: Exchange, layer: str) -> Tensor:
    frames, graph = exchange.classifier.checkpoint.filmstrip, exchange.classifier.graph
    graph.find_layer(layer)
    if frames is None:
        raise ViewNotApplicable("this checkpoint has no filmstrip; those that `torchlight train` makes now have one")
    if layer != first_convolution_name(graph):
        raise ViewNotApplicable(f"the filmstrip is of layer {first_convolution_name(graph)!r}, not of {layer!r}")
    return frames.float()


def _see(exchange: Exchange, layer: str, parameters: BoxParameters) -> SeenBox:
    graph = exchange.classifier.graph
    shape = graph.find_layer(layer).out_shape
    height, width = shape[1:] if len(shape) == 3 else (1, 1)
    y = height // 2 if parameters.y is None else parameters.y
    x = width // 2 if parameters.x is None else parameters.x
    seen, field = box(graph, layer, y, x), receptive_fields(graph)[layer]
    assert field is not None  # box has refused such layers
    return SeenBox(model=exchange.classifier.digest, layer=layer, y=y, x=x, field=field, box=seen)


def _draw_box(exchange: Exchange, image: PreparedImage, seen: SeenBox) -> bytes:
    clipped = seen.box.clipped
    if clipped is None:
        raise ViewNotApplicable(f"position y={seen.y}, x={seen.x} of layer {seen.layer!r} sees nothing but padding")
    size = "x".join(map(str, seen.field.size))
    text = {"view": "receptive field", "shape": f"{size} pixels", "position": f"y {seen.y}, x {seen.x}"}
    note = f"seen by position y {seen.y}, x {seen.x}" + (", less what is outside" if clipped != seen.box.full else "")
    return render_box(image.tensor, clipped, facts=exchange.facts(seen.layer, image, **text, note=note))


async def _filters(exchange: Exchange, layer: str, channel: int | None, parameters: FiltersParameters) -> Response:
    def bank() -> FilterBank:
        return filters(exchange.classifier, layer, space=parameters.space, folded=parameters.folded)

    def picture() -> bytes:
        facts = exchange.facts(layer, space=parameters.space, folded=str(parameters.folded).lower())
        return render_filters(
            bank().weights, channel=channel, facts=facts, scale=parameters.scale, page=parameters.page
        )

    def body() -> Filters | Filter:
        found, facts = bank(), text_chunks(picture())
        if channel is None:
            return Filters(facts=facts, statistics=[_figures(found, one) for one in range(len(found.weights))])
        return Filter(facts=facts, statistics=_figures(found, channel), weights=found.weights[channel].tolist())

    def array() -> Tensor:
        return bank().weights if channel is None else pick(bank().weights, channel, layer)

    forms: Forms = {"png": picture, "json": body, "npy": array}
    return await exchange.show(forms, layer=layer, channel=channel, **dict(parameters))


def _figures(bank: FilterBank, channel: int) -> FilterStatistics:
    weights = bank.weights[channel].double()
    return FilterStatistics(
        channel=channel,
        min=weights.min().item(),
        max=weights.max().item(),
        norm=weights.norm().item(),
        bias=bank.bias[channel].item(),
    )
