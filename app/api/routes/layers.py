"""Layers of the served network, whatever the image: what they are, what they can see, and their filters."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import (
    AS_JSON,
    Channel,
    Forms,
    ImageForms,
    LayerName,
    Nothing,
    Viewing,
    ViewRequest,
    document_view,
)
from torchlight.app.api.view_schemas import (
    BoxParameters,
    Filmstrip,
    Filter,
    Filters,
    FiltersParameters,
    Layers,
    SeenBox,
)
from torchlight.app.inference.service import PreparedImage
from torchlight.app.inspection.inspector import pick
from torchlight.model.drawing.figures import describe_seen, draw_filters, draw_seen
from torchlight.model.errors import ViewError
from torchlight.model.views.facts import Display, display_filters
from torchlight.model.views.filters import FilterBank, FilterHistory, filter_history, filter_statistics, filters
from torchlight.model.views.layer_table import describe_layers
from torchlight.model.views.receptive_field import SeenPosition, see_position

router = APIRouter(prefix="/v1/layers", tags=["layers"], default_response_class=Response, route_class=ViewRoute)


@router.get("", responses=document_view(Layers, "json"))
async def layers(view: Viewing, _: Nothing) -> Response:
    """List the layers: their shapes, their parameters, what they see of the image, and which views they have."""

    def body() -> Layers:
        return Layers(model=view.classifier.digest, layers=describe_layers(view.classifier.graph))

    return await view.show(body, AS_JSON)


@router.get("/{layer}/receptive-field", responses=document_view(SeenBox, "json", "png"))
async def layer_receptive_field(
    view: Viewing, layer: LayerName, parameters: Annotated[BoxParameters, Query()]
) -> Response:
    """Say which pixels a position of a layer can see; with an image, also show them.

    Without y and x it is the position in the middle. A bound: how much each pixel counts is another matter.
    """
    position = parameters.position("the position in the middle")
    if view.suffix == "png" and parameters.image is None:
        raise ViewError("a receptive field is drawn on an image: name one with ?image= and the id of an upload")

    def see(_image: PreparedImage | None = None) -> SeenPosition:
        return see_position(view.classifier.graph, layer, position)

    def picture(image: PreparedImage, seen: SeenPosition) -> bytes:
        return draw_seen(image.tensor, seen, describe_seen(seen, replace(view.facts(image), layer=layer)))

    def body(seen: SeenPosition) -> SeenBox:
        return SeenBox(model=view.classifier.digest, layer=layer, **vars(seen))

    if parameters.image is None:
        return await view.show(see, {"json": body}, layer=layer, **dict(parameters))
    forms: ImageForms[SeenPosition] = {"json": lambda _, seen: body(seen), "png": picture}
    return await view.show_image(parameters.image, see, forms, layer=layer, **dict(parameters))


@router.get("/{layer}/filters", responses=document_view(Filters, "png", "json", "npy"))
async def layer_filters(view: Viewing, layer: LayerName, parameters: Annotated[FiltersParameters, Query()]) -> Response:
    """Show all filters of a convolution; zero is mid-grey or neutral, and never moves."""
    return await _filters(view, layer, None, parameters)


@router.get("/{layer}/filters/{channel}", responses=document_view(Filter, "png", "json", "npy"))
async def layer_filter(
    view: Viewing, layer: LayerName, channel: Channel, parameters: Annotated[FiltersParameters, Query()]
) -> Response:
    """Show one filter of a convolution, with its weights."""
    return await _filters(view, layer, channel, parameters)


@router.get("/{layer}/filmstrip", responses=document_view(Filmstrip, "json", "npy"))
async def layer_filmstrip(view: Viewing, layer: LayerName, _: Nothing) -> Response:
    """Show the filters of the first convolution while the network learnt, from noise on, if the checkpoint has them."""

    def compute() -> FilterHistory:
        return filter_history(view.classifier, layer)

    def body(history: FilterHistory) -> Filmstrip:
        return Filmstrip(model=view.classifier.digest, layer=layer, epochs=history.epochs)

    return await view.show(compute, {"json": body, "npy": lambda history: history.frames}, layer=layer)


async def _filters(view: ViewRequest, layer: str, channel: int | None, parameters: FiltersParameters) -> Response:
    def compute() -> FilterBank:
        return filters(view.classifier, layer, space=parameters.space, folded=parameters.folded)

    def display(bank: FilterBank) -> Display:
        facts = replace(view.facts(), layer=layer, space=parameters.space, folded=parameters.folded)
        return display_filters(bank.weights, channel=channel, facts=facts, scale=parameters.scale, page=parameters.page)

    def picture(bank: FilterBank) -> bytes:
        return draw_filters(display(bank))

    def body(bank: FilterBank) -> Filters | Filter:
        facts, statistics = display(bank).facts.to_text(), filter_statistics(bank)
        if channel is None:
            return Filters(facts=facts, statistics=statistics)
        return Filter(facts=facts, statistics=statistics[channel], weights=bank.weights[channel].tolist())

    def array(bank: FilterBank) -> Tensor:
        return bank.weights if channel is None else pick(bank.weights, channel, layer)

    forms: Forms[FilterBank] = {"png": picture, "json": body, "npy": array}
    return await view.show(compute, forms, layer=layer, channel=channel, **dict(parameters))
