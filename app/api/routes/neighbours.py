"""What the network makes of other images, from the index beside the checkpoint: neighbours, and examples of units."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from fastapi import APIRouter, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import (
    Channel,
    Exchange,
    Forms,
    ImageForms,
    ImageId,
    LayerName,
    Nothing,
    Viewing,
    shown,
)
from torchlight.app.api.view_schemas import Neighbours, NeighboursParameters, SeenPeak, Unit, Units
from torchlight.app.inference.service import PreparedImage
from torchlight.model.drawing.rendering import light, render_images, text_chunks
from torchlight.model.views.embedding import image_digest
from torchlight.model.views.image_index import Neighbour, Peak
from torchlight.model.views.receptive_field import box, receptive_fields

router = APIRouter(prefix="/v1", tags=["examples"], default_response_class=Response, route_class=ViewRoute)


@router.get("/images/{image_id}/neighbours", responses=shown(Neighbours, "png", "json", "npy"))
async def image_neighbours(
    exchange: Viewing, image_id: ImageId, parameters: Annotated[NeighboursParameters, Query()]
) -> Response:
    """Show the indexed images that the network finds most like this one, without the image itself."""
    index = exchange.inspector.index

    def nearest(image: PreparedImage) -> list[Neighbour]:
        embedding = exchange.inspector.embedding(image)
        return index.neighbours(embedding, parameters.k, exclude_digest=image_digest(image.tensor))

    def picture(image: PreparedImage) -> bytes:
        found = nearest(image)
        labels = ["this image", *(f"{one.label} {one.similarity:.3f}" for one in found)]
        facts = exchange.facts(
            image=image, view="most alike", note=f"{index.source.split} images; cosine of last vectors"
        )
        return render_images([image.tensor, *thumbnails(found)], labels, facts=facts, columns=5)

    def thumbnails(found: list[Neighbour]) -> Tensor:
        return index.thumbnails[torch.tensor([one.image for one in found], dtype=torch.int64)]

    def body(image: PreparedImage) -> Neighbours:
        return Neighbours(facts=text_chunks(picture(image)), source=index.source, neighbours=nearest(image))

    forms: ImageForms = {"png": picture, "json": body, "npy": lambda image: thumbnails(nearest(image))}
    return await exchange.show_image(image_id, forms, index=exchange.inspector.index_version, **dict(parameters))


@router.get("/layers/{layer}/units", responses=shown(Units, "json"))
async def layer_units(exchange: Viewing, layer: LayerName, _: Nothing) -> Response:
    """List the units of a layer: how strongly each fires at most on the indexed images, and which are dead on all."""
    index = exchange.inspector.index

    def body() -> Units:
        exchange.classifier.graph.find_layer(layer)
        return Units(
            model=exchange.classifier.digest,
            layer=layer,
            source=index.source,
            images=len(index),
            dead=index.dead_units(layer),
            largest=index.largest_values(layer),
        )

    return await exchange.show({"json": body}, layer=layer, index=exchange.inspector.index_version)


@router.get("/layers/{layer}/units/{channel}", responses=shown(Unit, "png", "json", "npy"))
async def layer_unit(exchange: Viewing, layer: LayerName, channel: Channel, _: Nothing) -> Response:
    """Show the indexed images on which a unit fires most, some at random to compare with, and where it fires least."""
    index = exchange.inspector.index

    def rows() -> dict[str, tuple[Peak, ...]]:
        exchange.classifier.graph.find_layer(layer)
        return vars(index.top_images(layer, channel))

    def array() -> Tensor:
        return index.thumbnails[torch.tensor([[peak.image for peak in row] for row in rows().values()])]

    def picture() -> bytes:
        return _draw_unit(exchange, layer, channel, rows())

    def body() -> Unit:
        return Unit(
            facts=text_chunks(picture()),
            source=index.source,
            is_dead=index.is_dead(layer, channel),
            **{name: _locate(exchange, layer, row) for name, row in rows().items()},
        )

    forms: Forms = {"png": picture, "json": body, "npy": array}
    version = exchange.inspector.index_version
    return await exchange.show(forms, layer=layer, channel=channel, index=version)


def _locate(exchange: Exchange, layer: str, row: Sequence[Peak]) -> list[SeenPeak]:
    """Return the peaks with what their positions can see, where that is known."""
    graph = exchange.classifier.graph
    is_placed = receptive_fields(graph)[layer] is not None
    return [SeenPeak(**vars(peak), box=box(graph, layer, peak.y, peak.x) if is_placed else None) for peak in row]


def _draw_unit(exchange: Exchange, layer: str, channel: int, rows: Mapping[str, Sequence[Peak]]) -> bytes:
    index = exchange.inspector.index
    peaks = [(name, peak) for name, row in rows.items() for peak in row]
    labels = [f"{name} {peak.value:.3g}" for name, peak in peaks]
    note = f"{len(index)} {index.source.split} images: rows of best, random and lowest; lit: what the position can see"
    dead = "; zero on all of them: dead" if index.is_dead(layer, channel) else ""
    facts = exchange.facts(layer, view="unit", channel=str(channel), note=note + dead)
    pictures = [_light(exchange, layer, peak, index.thumbnails[peak.image]) for _, peak in peaks]
    return render_images(pictures, labels, facts=facts, columns=len(rows["best"]))


def _light(exchange: Exchange, layer: str, peak: Peak, thumbnail: Tensor) -> Tensor:
    """Return the thumbnail with what the position cannot see darkened, where that is known."""
    graph = exchange.classifier.graph
    clipped = box(graph, layer, peak.y, peak.x).clipped if receptive_fields(graph)[layer] is not None else None
    if clipped is None:
        return thumbnail
    share = thumbnail.shape[-1] / exchange.classifier.spec.size
    top, left = (math.floor(side * share) for side in (clipped.y0, clipped.x0))
    bottom, right = (math.ceil((side + 1) * share) - 1 for side in (clipped.y1, clipped.x1))
    return light(thumbnail, (top, left, bottom, right))
