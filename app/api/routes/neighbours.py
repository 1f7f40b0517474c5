"""Views of the index beside the checkpoint: images that the network finds alike, and examples of each channel."""

from collections.abc import Sequence
from typing import Annotated

import torch
from fastapi import APIRouter, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import (
    AS_JSON,
    Channel,
    Forms,
    ImageForms,
    ImageId,
    LayerName,
    Nothing,
    Viewing,
    ViewRequest,
    document_view,
)
from torchlight.app.api.view_schemas import Neighbours, NeighboursParameters, SeenPeak, Unit, Units
from torchlight.app.inference.service import PreparedImage
from torchlight.model.drawing.figures import describe_examples, describe_neighbours, draw_examples, draw_neighbours
from torchlight.model.views.embedding import image_digest
from torchlight.model.views.image_index import ChannelExamples, Neighbour, Peak
from torchlight.model.views.receptive_field import find_seen_pixels_if_placed

router = APIRouter(prefix="/v1", tags=["examples"], default_response_class=Response, route_class=ViewRoute)


@router.get("/images/{image_id}/neighbours", responses=document_view(Neighbours, "png", "json", "npy"))
async def image_neighbours(
    view: Viewing, image_id: ImageId, parameters: Annotated[NeighboursParameters, Query()]
) -> Response:
    """Show the indexed images that the network finds most like this one, without the image itself."""
    index = view.inspector.index

    def nearest(image: PreparedImage) -> list[Neighbour]:
        embedding = view.inspector.embedding(image)
        return index.neighbours(embedding, parameters.k, exclude_digest=image_digest(image.tensor))

    def picture(image: PreparedImage, found: list[Neighbour]) -> bytes:
        return draw_neighbours(image.tensor, found, index, describe_neighbours(index, view.facts(image)))

    def body(image: PreparedImage, found: list[Neighbour]) -> Neighbours:
        facts = describe_neighbours(index, view.facts(image)).to_text()
        return Neighbours(facts=facts, source=index.source, neighbours=found)

    def array(_image: PreparedImage, found: list[Neighbour]) -> Tensor:
        return index.thumbnails[torch.tensor([one.image for one in found], dtype=torch.int64)]

    forms: ImageForms[list[Neighbour]] = {"png": picture, "json": body, "npy": array}
    return await view.show_image(image_id, nearest, forms, index=view.inspector.index_version, **dict(parameters))


@router.get("/layers/{layer}/units", responses=document_view(Units, "json"))
async def layer_units(view: Viewing, layer: LayerName, _: Nothing) -> Response:
    """List the units of a layer: how strongly each fires at most on the indexed images, and which are dead on all."""
    index = view.inspector.index

    def body() -> Units:
        view.classifier.graph.find_layer(layer)
        return Units(
            model=view.classifier.digest,
            layer=layer,
            source=index.source,
            images=len(index),
            dead=index.dead_channels(layer),
            largest=index.largest_values(layer),
        )

    return await view.show(body, AS_JSON, layer=layer, index=view.inspector.index_version)


@router.get("/layers/{layer}/units/{channel}", responses=document_view(Unit, "png", "json", "npy"))
async def layer_unit(view: Viewing, layer: LayerName, channel: Channel, _: Nothing) -> Response:
    """Show the indexed images on which a unit fires most, some at random to compare with, and where it fires least."""
    index = view.inspector.index

    def examples() -> ChannelExamples:
        view.classifier.graph.find_layer(layer)
        return index.top_images(layer, channel)

    def picture(rows: ChannelExamples) -> bytes:
        facts = describe_examples(index, layer, channel, view.facts())
        return draw_examples(view.classifier, index, layer, rows, facts)

    def body(rows: ChannelExamples) -> Unit:
        return Unit(
            facts=describe_examples(index, layer, channel, view.facts()).to_text(),
            source=index.source,
            is_dead=index.is_dead(layer, channel),
            **{name: _locate(view, layer, row) for name, row in vars(rows).items()},
        )

    def array(rows: ChannelExamples) -> Tensor:
        return index.thumbnails[torch.tensor([[peak.image for peak in row] for row in vars(rows).values()])]

    forms: Forms[ChannelExamples] = {"png": picture, "json": body, "npy": array}
    version = view.inspector.index_version
    return await view.show(examples, forms, layer=layer, channel=channel, index=version)


def _locate(view: ViewRequest, layer: str, row: Sequence[Peak]) -> list[SeenPeak]:
    """Return the peaks with what their positions can see, where that is known."""
    graph = view.classifier.graph
    return [SeenPeak(**vars(peak), box=find_seen_pixels_if_placed(graph, layer, peak.y, peak.x)) for peak in row]
