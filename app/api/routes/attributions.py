"""Why this answer: attributions, one square to drag, and reconstructions of what activated a channel."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import (
    AS_JSON,
    Channel,
    ImageForms,
    ImageId,
    LayerName,
    Viewing,
    ViewRequest,
    document_view,
)
from torchlight.app.api.view_schemas import (
    AttributionParameters,
    Evidence,
    Occluded,
    OccludedPrediction,
    PositionParameters,
    ReconstructionBody,
    SquareParameters,
)
from torchlight.app.errors import UnknownMethod
from torchlight.app.inference.service import PreparedImage
from torchlight.model.drawing.figures import (
    describe_attribution,
    describe_reconstruction,
    draw_attribution,
    draw_reconstruction,
)
from torchlight.model.errors import ViewError
from torchlight.model.views.attribution import (
    BATCHED,
    METHODS,
    OPTIONS,
    Attribution,
    Colour,
    Occlusion,
    check_square,
    occlude_once,
    resolve_target,
)
from torchlight.model.views.deconvnet import Reconstruction, reconstruct
from torchlight.model.views.facts import Facts
from torchlight.model.views.receptive_field import find_grid, find_seen_pixels_if_placed

router = APIRouter(
    prefix="/v1/images/{image_id}", tags=["evidence"], default_response_class=Response, route_class=ViewRoute
)


@router.get("/attributions/{method}", responses=document_view(Evidence, "png", "json", "npy"))
async def image_attribution(
    view: Viewing,
    image_id: ImageId,
    method: Annotated[str, Path(description=", ".join(METHODS), examples=["hires_cam"])],
    parameters: Annotated[AttributionParameters, Query()],
) -> Response:
    """Show where the evidence for a class lies, signed, and how far it adds up to the logit.

    Methods: grad_cam, hires_cam, saliency, input_x_gradient, integrated_gradients and occlusion.
    """
    classifier = view.classifier
    options = _options(view, method, parameters)

    def attribute(image: PreparedImage) -> Attribution:
        probabilities = view.inspector.logits(image).softmax(0)
        versus = parameters.target_vs
        target = resolve_target(classifier, parameters.target, probabilities)
        target_vs = None if versus is None else resolve_target(classifier, versus, probabilities)
        return METHODS[method](classifier, image.tensor, target, target_vs, **options)

    def facts(image: PreparedImage, found: Attribution) -> Facts:
        return describe_attribution(found, classifier.class_names, view.facts(image))

    def picture(image: PreparedImage, found: Attribution) -> bytes:
        grid = find_grid(classifier.graph, found.layer)
        return draw_attribution(found, image.tensor, grid, facts(image, found))

    def body(image: PreparedImage, found: Attribution) -> Evidence:
        return _body(found, classifier.class_names, facts(image, found))

    forms: ImageForms[Attribution] = {"png": picture, "json": body, "npy": lambda _, found: found.map}
    return await view.show_image(image_id, attribute, forms, method=method, **dict(parameters))


@router.get("/occlusion", responses=document_view(Occluded, "json"))
async def image_occlusion(
    view: Viewing, image_id: ImageId, parameters: Annotated[SquareParameters, Query()]
) -> Response:
    """Hide one square of the image and classify the rest: to be dragged over the photo."""
    size = view.classifier.spec.size
    y, x, window = parameters.y, parameters.x, parameters.window or max(1, size // 4)
    check_square(y, x, window, size)

    def body(image: PreparedImage) -> Occluded:
        plain = view.inspector.logits(image).softmax(0)  # (K,)
        hidden = occlude_once(view.classifier, image.tensor, y, x, window, _colour(parameters.baseline))  # (K,)
        predictions = [
            OccludedPrediction(**vars(one), difference=(hidden - plain)[one.index].item())
            for one in view.classifier.top_k(hidden)
        ]
        origin = {"model": view.classifier.digest, "image": image.id}
        return Occluded(**origin, y=y, x=x, window=window, predictions=predictions)

    return await view.show_image(image_id, body, AS_JSON, **dict(parameters) | {"window": window})


@router.get("/reconstructions/{layer}/{channel}", responses=document_view(ReconstructionBody, "png", "json", "npy"))
async def image_reconstruction(
    view: Viewing,
    image_id: ImageId,
    layer: LayerName,
    channel: Channel,
    parameters: Annotated[PositionParameters, Query()],
) -> Response:
    """Send one activation back down to the pixels (deconvnet), beside the patch that caused it.

    Without y and x it is the strongest of the map. For networks of ReLUs only.
    """
    classifier = view.classifier
    position = parameters.position("the strongest position")

    def rebuild(image: PreparedImage) -> Reconstruction:
        return reconstruct(classifier, image.tensor, layer, channel, position)

    def facts(image: PreparedImage, found: Reconstruction) -> Facts:
        return describe_reconstruction(found, classifier.spec.std, view.facts(image))

    def picture(image: PreparedImage, found: Reconstruction) -> bytes:
        return draw_reconstruction(classifier, found, image.tensor, facts(image, found))

    def body(image: PreparedImage, found: Reconstruction) -> ReconstructionBody:
        y, x = found.position
        seen = find_seen_pixels_if_placed(classifier.graph, layer, y, x)
        return ReconstructionBody(
            facts=facts(image, found).to_text(),
            channel=channel,
            y=y,
            x=x,
            value=found.value,
            box=seen,
            pixels=found.frame(seen).crop(found.pixels).tolist(),
        )

    forms: ImageForms[Reconstruction] = {"png": picture, "json": body, "npy": lambda _, found: found.pixels}
    return await view.show_image(image_id, rebuild, forms, layer=layer, channel=channel, **dict(parameters))


def _options(view: ViewRequest, method: str, parameters: AttributionParameters) -> dict[str, object]:
    """Return what goes to the method beside the targets; one that works in batches ends with its request.

    Raises:
        UnknownMethod: there is none of that name.
        ViewError: a parameter came that it does not take.
    """
    if method not in METHODS:
        raise UnknownMethod(f"method {method!r} does not exist; there are {', '.join(METHODS)}")
    takes = OPTIONS.get(method, ())
    given = parameters.model_dump(exclude={"target", "target_vs"}, exclude_none=True)
    foreign = sorted(given.keys() - set(takes))
    if foreign:
        raise ViewError(
            f"{method} does not take {', '.join(foreign)}; beside the targets it takes {', '.join(takes) or 'nothing'}"
        )
    given |= {"baseline": _colour(parameters.baseline)} if parameters.baseline is not None else {}
    return given | ({"on_batch": view.check_awaited} if method in BATCHED else {})


def _colour(text: str | None) -> Colour | None:
    return None if text is None else (int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16))


def _body(found: Attribution, names: Sequence[str], facts: Facts) -> Evidence:
    return Evidence(
        facts=facts.to_text(),
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
        **_occlusion_fields(found, names) if isinstance(found, Occlusion) else {},
    )


def _occlusion_fields(found: Occlusion, names: Sequence[str]) -> dict[str, Any]:
    labels = [[names[index] for index in row] for row in found.labels.tolist()]
    probabilities = found.probability_map.tolist()
    return {"window": found.window, "stride": found.stride, "probability_map": probabilities, "labels": labels}
