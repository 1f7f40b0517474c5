"""Why this answer: evidence maps, one square to drag, reconstructions of what fired a unit, and images found alike."""

from collections.abc import Sequence
from inspect import signature
from math import isfinite
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Path, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import Channel, Exchange, ImageForms, ImageId, LayerName, Viewing, shown
from torchlight.app.api.view_schemas import (
    Evidence,
    EvidenceParameters,
    Occluded,
    OccludedPrediction,
    PositionParameters,
    ReconstructionBody,
    SquareParameters,
)
from torchlight.app.errors import UnknownMethod
from torchlight.app.inference.service import PreparedImage
from torchlight.model.drawing.rendering import Grid, render_evidence, render_images, text_chunks
from torchlight.model.errors import ViewError, ViewNotApplicable
from torchlight.model.graph import INPUT
from torchlight.model.views.attribution import METHODS, Attribution, Colour, Occlusion, occlude_once, resolve_target
from torchlight.model.views.deconvnet import Reconstruction, reconstruct
from torchlight.model.views.receptive_field import Box, SeenPixels, box, receptive_fields

router = APIRouter(
    prefix="/v1/images/{image_id}", tags=["evidence"], default_response_class=Response, route_class=ViewRoute
)
CAVEAT = "which pattern fired this unit, not why the class; shown to recover parts of any image"


@router.get("/attributions/{method}", responses=shown(Evidence, "png", "json", "npy"))
async def image_attribution(
    exchange: Viewing,
    image_id: ImageId,
    method: Annotated[str, Path(description=", ".join(METHODS), examples=["hires_cam"])],
    parameters: Annotated[EvidenceParameters, Query()],
) -> Response:
    """Show where the evidence for a class lies, signed, and how far it adds up to the logit.

    Methods: grad_cam, hires_cam, saliency, input_x_gradient, integrated_gradients and occlusion.
    """
    options = _options(exchange, method, parameters)

    def attribute(image: PreparedImage) -> Attribution:
        probabilities = exchange.inspector.logits(image).softmax(0)
        versus = parameters.target_vs
        target = resolve_target(exchange.classifier, parameters.target, probabilities)
        target_vs = None if versus is None else resolve_target(exchange.classifier, versus, probabilities)
        return METHODS[method](exchange.classifier, image.tensor, target, target_vs, **options)

    def picture(image: PreparedImage) -> bytes:
        found = attribute(image)
        return _draw(exchange, image, found, _grid(exchange, found))

    def body(image: PreparedImage) -> Evidence:
        found = attribute(image)
        return _body(exchange, found, text_chunks(_draw(exchange, image, found, Grid())))

    def array(image: PreparedImage) -> Tensor:
        return attribute(image).map

    forms: ImageForms = {"png": picture, "json": body, "npy": array}
    return await exchange.show_image(image_id, forms, method=method, **dict(parameters))


@router.get("/occlusion", responses=shown(Occluded, "json"))
async def image_occlusion(
    exchange: Viewing, image_id: ImageId, parameters: Annotated[SquareParameters, Query()]
) -> Response:
    """Hide one square of the image and classify the rest: to be dragged over the photo."""
    size = exchange.classifier.spec.size
    window = parameters.window or max(1, size // 4)
    _check_square(parameters.y, parameters.x, window, size)

    def body(image: PreparedImage) -> Occluded:
        plain = exchange.inspector.logits(image).softmax(0)
        colour = _colour(parameters.baseline)
        hidden = occlude_once(exchange.classifier, image.tensor, parameters.y, parameters.x, window, colour)
        predictions = [
            OccludedPrediction(**vars(one), difference=(hidden - plain)[one.index].item())
            for one in exchange.classifier.top_k(hidden)
        ]
        place = {"y": parameters.y, "x": parameters.x, "window": window}
        return Occluded(model=exchange.classifier.digest, image=image.id, **place, predictions=predictions)

    return await exchange.show_image(image_id, {"json": body}, **dict(parameters) | {"window": window})


@router.get("/reconstructions/{layer}/{channel}", responses=shown(ReconstructionBody, "png", "json", "npy"))
async def image_reconstruction(
    exchange: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    parameters: Annotated[PositionParameters, Query()],
) -> Response:
    """Send one activation back down to the pixels (deconvnet), beside the patch that caused it.

    Without y and x it is the strongest of the map. For networks of ReLUs only.
    """
    position = _position(parameters)

    def rebuild(image: PreparedImage) -> Reconstruction:
        return reconstruct(exchange.classifier, image.tensor, layer, channel, position)

    def picture(image: PreparedImage) -> bytes:
        return _draw_pair(exchange, image, rebuild(image))

    def body(image: PreparedImage) -> ReconstructionBody:
        found = rebuild(image)
        seen, (y, x) = _seen(exchange, found), found.position
        facts = text_chunks(_draw_pair(exchange, image, found))
        pixels = _crop(found.pixels, _frame(seen, found.pixels)).tolist()
        return ReconstructionBody(facts=facts, channel=channel, y=y, x=x, value=found.value, box=seen, pixels=pixels)

    def array(image: PreparedImage) -> Tensor:
        return rebuild(image).pixels

    forms: ImageForms = {"png": picture, "json": body, "npy": array}
    return await exchange.show_image(image_id, forms, layer=layer, channel=channel, **dict(parameters))


def _options(exchange: Exchange, method: str, parameters: EvidenceParameters) -> dict[str, object]:
    """Return what goes to the method beside the targets; one that works in batches ends with its request.

    Raises:
        UnknownMethod: there is none of that name.
        ViewError: a parameter came that it does not take.
    """
    if method not in METHODS:
        raise UnknownMethod(f"method {method!r} does not exist; there are {', '.join(METHODS)}")
    keywords = {one.name for one in signature(METHODS[method]).parameters.values() if one.kind is one.KEYWORD_ONLY}
    takes = keywords & EvidenceParameters.model_fields.keys()
    given = parameters.model_dump(exclude={"target", "target_vs"}, exclude_none=True)
    if not takes.issuperset(given):
        foreign = ", ".join(sorted(given.keys() - takes))
        raise ViewError(
            f"{method} does not take {foreign}; beside the targets it takes {', '.join(sorted(takes)) or 'nothing'}"
        )
    given |= {"baseline": _colour(parameters.baseline)} if parameters.baseline is not None else {}
    return given | ({"on_batch": exchange.check_awaited} if "on_batch" in keywords else {})


def _colour(text: str | None) -> Colour | None:
    return None if text is None else (int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16))


def _grid(exchange: Exchange, found: Attribution) -> Grid:
    """Return where the cells of a map of evidence lie on the image."""
    if found.layer == INPUT:
        return Grid()
    field = receptive_fields(exchange.classifier.graph)[found.layer]
    if field is None:
        raise ViewNotApplicable(
            f"positions of layer {found.layer!r} have no known place in the image; take the map as .json or .npy, "
            "or name a layer before it"
        )
    y, x = (float(jump or exchange.classifier.spec.size) for jump in field.jump)
    return Grid(field.start, (y, x))


def _draw(exchange: Exchange, image: PreparedImage, found: Attribution, grid: Grid) -> bytes:
    names = exchange.classifier.class_names
    versus = "" if found.target_vs is None else f" rather than {names[found.target_vs]}"
    account = {"logit": found.logit, "bias": found.bias, "sum": found.sum, "residual": found.residual}
    figures = {name: f"{value:.6g}" for name, value in account.items() if value is not None}
    text = {"view": found.method, "target": names[found.target] + versus, "law": found.law}
    shown = figures if found.bias is not None else {"logit": figures["logit"]}
    note = "   ".join([*(f"{name} {value}" for name, value in shown.items()), f"law: {found.law}"])
    facts = exchange.facts(found.layer, image, **text, **figures, note=note)
    return render_evidence(found.map, image.tensor, grid=grid, facts=facts, signed=found.is_signed)


def _body(exchange: Exchange, found: Attribution, facts: dict[str, str]) -> Evidence:
    names = exchange.classifier.class_names
    return Evidence(
        facts=facts,
        method=found.method,
        layer=found.layer,
        target=names[found.target],
        target_vs=None if found.target_vs is None else names[found.target_vs],
        map=found.map.tolist(),
        logit=found.logit,
        bias=found.bias,
        sum=found.sum,
        residual=found.residual,
        law=found.law,
        **_extras(found, names) if isinstance(found, Occlusion) else {},
    )


def _extras(found: Occlusion, names: Sequence[str]) -> dict[str, Any]:
    labels = [[names[index] for index in row] for row in found.labels.tolist()]
    probabilities = found.probability_map.tolist()
    return {"window": found.window, "stride": found.stride, "probability_map": probabilities, "labels": labels}


def _check_square(y: int, x: int, window: int, size: int) -> None:
    if window > size:
        raise ViewError(f"window is {window} pixels; take 1 to {size}, the side of the image")
    if not (-window < y < size and -window < x < size):
        raise ViewError(
            f"square at y={y}, x={x} misses the image; with window={window} both go from {1 - window} to {size - 1}"
        )


def _position(parameters: PositionParameters) -> tuple[int, int] | None:
    if (parameters.y is None) != (parameters.x is None):
        raise ViewError("y and x go together: say both, or neither for the strongest position")
    return None if parameters.y is None or parameters.x is None else (parameters.y, parameters.x)


def _seen(exchange: Exchange, found: Reconstruction) -> SeenPixels | None:
    """Return what the position can see; None where that is not known."""
    graph = exchange.classifier.graph
    return box(graph, found.layer, *found.position) if receptive_fields(graph)[found.layer] else None


def _frame(seen: SeenPixels | None, pixels: Tensor) -> Box:
    """Return the pixels to show: those seen, else all."""
    last = pixels.shape[-1] - 1
    return (seen and seen.clipped) or Box(0, 0, last, last)


def _crop(pixels: Tensor, frame: Box) -> Tensor:
    return pixels[:, frame.y0 : frame.y1 + 1, frame.x0 : frame.x1 + 1]


def _draw_pair(exchange: Exchange, image: PreparedImage, found: Reconstruction) -> bytes:
    """Draw a reconstruction, zero at mid-grey and its colours scaled together, beside the same part of the image."""
    std = torch.tensor(exchange.classifier.spec.std).view(3, 1, 1)
    colours = (found.pixels * std).nan_to_num(posinf=0.0, neginf=0.0)  # RGB, less the mean colour
    limit = colours.abs().max().item()
    displayed = (127.5 + 127.5 * (colours / (limit or 1.0))).round().to(torch.uint8)
    frame = _frame(_seen(exchange, found), found.pixels)
    facts = exchange.facts(
        found.layer,
        image,
        view="reconstruction",
        channel=str(found.channel),
        position="y {}, x {}".format(*found.position),
        activation=f"{found.value:.6g}",
        vmin=f"{colours.min().item():.6g}",
        vmax=f"{colours.max().item():.6g}",
        scale="its own",
        limit=f"{limit:.6g}",
        colormap="rgb, zero at mid-grey",
        note=_remark(found),
    )
    labels = [f"activation {found.value:.4g}", f"rows {frame.y0}-{frame.y1}, columns {frame.x0}-{frame.x1}"]
    pictures = [_crop(displayed, frame), _crop(image.tensor, frame)]
    return render_images(pictures, labels, facts=facts, columns=2, limit=limit)


def _remark(found: Reconstruction) -> str:
    """Return what a reconstruction means, or why there is none."""
    if not (isfinite(found.value) and found.pixels.isfinite().all()):
        return "not finite: pixels that are no number are drawn as zero"
    if not found.value:
        return "the unit is zero here: it did not fire, so there is nothing to show"
    return CAVEAT if found.pixels.any() else "all zero: none of the unit's value reaches the pixels"
