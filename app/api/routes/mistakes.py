"""Photos that were answered wrongly, kept beside the checkpoint when it was trained."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from torch import Tensor

from torchlight.app.api.content_negotiation import ViewRoute
from torchlight.app.api.view_response import AS_JSON, Forms, Nothing, Viewing, ViewRequest, document_view
from torchlight.app.api.view_schemas import MistakenPhoto, Mistakes, MistakesCell, MistakesParameters
from torchlight.app.errors import UnknownMistake
from torchlight.model.drawing.rendering import encode_png
from torchlight.model.errors import UnknownTarget
from torchlight.model.images import add_margin

PREFIX = "/v1/model/mistakes"
router = APIRouter(prefix=PREFIX, tags=["model"], default_response_class=Response, route_class=ViewRoute)


@router.get("", responses=document_view(Mistakes, "json"))
async def mistakes(view: Viewing, parameters: Annotated[MistakesParameters, Query()]) -> Response:
    """List the held-out photos that were answered wrongly, by cell of the confusion matrix.

    If the figures are cross-validated, each was judged by a network that had not seen it; the one that is served has
    learnt from it since, and may answer it right.
    """
    kept = view.inspector.mistakes
    wanted = [_find_class(view, label) for label in (parameters.true, parameters.predicted)]

    def body() -> Mistakes:
        listed = sorted(kept.cells.items(), key=lambda item: -item[1])
        photos = _list_photos(view)
        names = kept.class_names
        return Mistakes(
            model=view.classifier.digest,
            source=kept.source,
            images=dict(zip(names, kept.images, strict=True)),
            cells=[
                MistakesCell(true=names[cell[0]], predicted=names[cell[1]], count=count, photos=photos.get(cell, []))
                for cell, count in listed
                if all(asked in (None, one) for asked, one in zip(wanted, cell, strict=True))
            ],
        )

    return await view.show(body, AS_JSON, mistakes=kept.version, **dict(parameters))


@router.get("/{number}", responses=document_view(MistakenPhoto, "png", "json", "npy"))
async def mistaken_photo(
    view: Viewing, number: Annotated[int, Path(ge=0, description="As the list gives it.")], _: Nothing
) -> Response:
    """Show one of these photos as the network got it.

    Sent to `POST /v1/images`, the picture gives the network exactly that input: where the resize rule cuts a margin
    off, the picture has one of mirrored pixels.
    """
    kept = view.inspector.mistakes
    if number >= len(kept):
        raise UnknownMistake(f"photo {number} does not exist; there are {len(kept)}, counted from 0")

    def picture(photo: Tensor) -> bytes:
        true, predicted = (kept.class_names[one] for one in kept.classes[number].tolist())
        facts = replace(view.facts(), view="answered wrongly", note=f"{true}, taken for {predicted}")
        return encode_png(add_margin(photo, view.classifier.spec.resizing).permute(1, 2, 0).numpy(), facts)

    forms: Forms[Tensor] = {
        "png": picture,
        "json": lambda _photo: _describe_photo(view, number),
        "npy": lambda photo: photo,
    }
    return await view.show(lambda: kept.photos[number], forms, mistakes=kept.version, number=number)


def _find_class(view: ViewRequest, label: str | None) -> int | None:
    """Return the index of a class, None for none.

    Raises:
        UnknownTarget: the network has no class of that name.
    """
    if label is None:
        return None
    if label not in view.classifier.class_names:
        raise UnknownTarget(f"{label[:80]!r} is not a class of this network; GET /v1/model lists them")
    return view.classifier.class_names.index(label)


def _list_photos(view: ViewRequest) -> dict[tuple[int, int], list[MistakenPhoto]]:
    """Return the photos of each cell (true, predicted) that has any."""
    photos: dict[tuple[int, int], list[MistakenPhoto]] = {}
    for number, (true, predicted) in enumerate(view.inspector.mistakes.classes.tolist()):
        photos.setdefault((true, predicted), []).append(_describe_photo(view, number))
    return photos


def _describe_photo(view: ViewRequest, number: int) -> MistakenPhoto:
    """Return what is said of a photo; its address is under the prefix that a proxy may have put before it."""
    kept = view.inspector.mistakes
    own, answered = kept.probabilities[number].tolist()
    return MistakenPhoto(
        number=number,
        name=kept.names[number],
        true_probability=own,
        predicted_probability=answered,
        picture=f"{view.request.scope.get('root_path', '')}{PREFIX}/{number}.png",
    )
