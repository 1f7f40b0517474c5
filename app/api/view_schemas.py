"""What views may be asked for, and the bodies of those that are numbers."""

from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from torchlight.app.api.problems import Body
from torchlight.app.api.schemas import (
    COVERAGE_TEXT,
    IMAGE_ID,
    AnswerSet,
    ImageSummary,
    ModelSummary,
    PredictionBody,
    Unknown,
)
from torchlight.model.defaults import LOWEST_COVERAGE
from torchlight.model.errors import ViewError
from torchlight.model.views.activations import MapStage, MapStatistics
from torchlight.model.views.facts import Display, Facts, FilterScale, MapScale, display_maps
from torchlight.model.views.filters import FilterStatistics, Space
from torchlight.model.views.image_index import Neighbour, Source
from torchlight.model.views.kept_mistakes import MistakesSource
from torchlight.model.views.layer_table import LayerFacts
from torchlight.model.views.receptive_field import ReceptiveField, SeenPixels

MAX_REQUEST_STEPS = 256  # of integrated gradients: four times the default; what they leave, see there
MAX_NEIGHBOURS = 100
FLOAT32 = torch.finfo(torch.float32)


class Parameters(BaseModel):
    """Query parameters; a misspelt one is refused, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NoParameters(Parameters):
    """None at all."""


class PredictionParameters(Parameters):
    """How much of the answer."""

    top_k: int | None = Field(None, ge=1, description="How many labels; without it, all.")
    coverage: float | None = Field(None, ge=LOWEST_COVERAGE, lt=1, description=COVERAGE_TEXT)


class MapsParameters(Parameters):
    """How activation maps are shown."""

    stage: MapStage = Field(
        "output", description="The layer's own output, or what is before or after the activation function there."
    )
    scale: MapScale = Field(
        "layer", description="One range for all maps of the layer, each map its own, or `fixed` by `limit`."
    )
    limit: float | None = Field(
        None,
        ge=FLOAT32.smallest_normal,  # pictures are computed in float32
        le=FLOAT32.max,
        description="With scale=fixed: the absolute value that gets the last colour.",
    )
    page: int = Field(1, ge=1, description="Of a sheet with more maps than one picture holds.")

    def check_limit(self) -> None:
        """Refuse a limit that means nothing, or one that is missing.

        Raises:
            ViewError: with what to say instead.
        """
        if (self.scale == "fixed") != (self.limit is not None):
            raise ViewError("scale=fixed and limit go together: say scale=fixed&limit=1.5, or neither")

    def display(self, maps: Tensor, channel: int | None, facts: Facts) -> Display:
        """Return what :func:`model.views.facts.display_maps` does for these parameters."""
        return display_maps(
            maps,
            channel=channel,
            facts=replace(facts, stage=self.stage),
            scale=self.scale,
            fixed_limit=self.limit,
            page=self.page,
        )


class FiltersParameters(Parameters):
    """How filters are shown."""

    space: Space = Field(
        "normalised", description="`pixel`: as the weights would be on RGB in [0, 1]; first layer only."
    )
    folded: bool = Field(False, description="With the batch norm that follows.")
    scale: FilterScale = Field("filter", description="Each filter its own range, or one for the layer.")
    page: int = Field(1, ge=1, description="Of a sheet with more filters than one picture holds.")


class AttributionParameters(Parameters):
    """Evidence for which class, and how it is found; what the method does not take is refused."""

    target: str | None = Field(None, description="Label or index of the class; without it, the most probable one.")
    target_vs: str | None = Field(None, description="Class to compare with: why the target rather than this?")
    layer: str | None = Field(None, description="grad_cam, hires_cam: whose maps; without it, the last there are.")
    n_steps: int | None = Field(None, ge=1, le=MAX_REQUEST_STEPS, description="integrated_gradients: parts of the way.")
    window: int | None = Field(None, ge=1, description="occlusion: side of the square in pixels.")
    stride: int | None = Field(None, ge=1, description="occlusion: from one square to the next, in pixels.")
    baseline: str | None = Field(
        None,
        pattern="^[0-9a-f]{6}$",
        description="occlusion: colour of the square as rrggbb; without it, the mean of the training data.",
    )


class SquareParameters(Parameters):
    """The square that hides a part of the image."""

    y: int = Field(description="Its first row; may lie outside, as long as the square touches the image.")
    x: int = Field(description="Its first column.")
    window: int | None = Field(None, ge=1, description="Its side in pixels; without it, a quarter of the image's.")
    baseline: str | None = Field(
        None, pattern="^[0-9a-f]{6}$", description="Its colour as rrggbb; without it, the mean of the training data."
    )


class MistakesParameters(Parameters):
    """Which cells of the confusion matrix."""

    true: str | None = Field(None, description="Label of the true class; without it, every class.")
    predicted: str | None = Field(None, description="Label that was answered; without it, every class.")


class PositionParameters(Parameters):
    """A position in a layer's maps; both or none."""

    y: int | None = Field(None, description="Row of the map.")
    x: int | None = Field(None, description="Column of the map.")

    def position(self, without: str) -> tuple[int, int] | None:
        """Return (y, x), or None for what is shown without them.

        Raises:
            ViewError: only one of them came.
        """
        if (self.y is None) != (self.x is None):
            raise ViewError(f"y and x go together: say both, or neither for {without}")
        return None if self.y is None or self.x is None else (self.y, self.x)


class BoxParameters(PositionParameters):
    """A position, and the image to show it on."""

    image: str | None = Field(
        None, description="Id of a stored image; with it there is a picture.", examples=[IMAGE_ID]
    )


class NeighboursParameters(Parameters):
    """How many neighbours."""

    k: int = Field(9, ge=1, le=MAX_NEIGHBOURS, description="Images, most similar first.")


class StoredImage(ImageSummary):
    """A stored image, and where its views are."""

    links: dict[str, str] = Field(
        description="View -> address, as a URI template.",
        examples=[{"activations": f"/v1/images/{IMAGE_ID}/activations/{{layer}}"}],
    )


class PredictionWithLogit(PredictionBody):
    """One label with its probability, and the number before softmax."""

    logit: float = Field(examples=[7.25])


class ImagePrediction(Body):
    """The answer for a stored image, as the network gives it to an image that comes alone."""

    predictions: list[PredictionWithLogit] = Field(description="Most probable first.")
    unknown: Unknown
    set: AnswerSet
    model: ModelSummary
    image: ImageSummary


class View(Body):
    """What all views say."""

    facts: dict[str, str] = Field(
        description="What the picture at the same address says in its legend and text chunks.",
        examples=[{"layer": "conv1", "vmin": "-1.25", "vmax": "3.5", "scale": "layer"}],
    )


class Square(Body):
    """The part of the upright original that the network gets, in pixels; it may begin and end within one."""

    top: float
    left: float
    side: float


class ImageInput(View):
    """How the original became network input; the pixels are in the PNG, and as (3, S, S) uint8 in the npy."""

    image: ImageSummary
    size: int = Field(description="Side S of the network's input.", examples=[32])
    square: Square


class Maps(View):
    """All maps of a layer in figures; the numbers are in the npy, (C, H, W) float32."""

    statistics: list[MapStatistics]


class Map(View):
    """One map: figures and numbers."""

    statistics: MapStatistics
    values: list[list[float | None]] = Field(description="Rows of the map; null for what is not finite.")


class TraceOfOne(Body):
    """The arithmetic of one number: `total` is ours in float64, `framework` the network's own in float32."""

    model_config = ConfigDict(extra="allow")

    model: str
    image: str
    layer: str
    type: str
    kind: str = Field(description="Which arithmetic; the other fields depend on it.", examples=["Convolution"])
    channel: int
    y: int
    x: int
    total: float | None
    framework: float | None
    difference: float | None
    bound: float | None = Field(description="What rounding may make of the difference.")
    holds: bool = Field(description="Whether the difference is within the bound.")


class Evidence(View):
    """Where the evidence lies; `sum` is that of `map`, and `residual` what it leaves of `logit - bias`."""

    method: str
    layer: str = Field(description="Whose grid the map is on; `input` is that of the pixels.")
    target: str
    target_vs: str | None
    map: list[list[float | None]]
    logit: float
    bias: float | None
    sum: float
    residual: float | None
    law: str = Field(description="What the cells add up to, or why they do not.")
    window: int | None = Field(None, description="occlusion only.")
    stride: int | None = None
    probability_map: list[list[float | None]] | None = None
    labels: list[list[str]] | None = Field(None, description="The most probable label with each window hidden.")


class OccludedPrediction(PredictionBody):
    """One label with the square there."""

    difference: float = Field(description="Probability with the square, less that without it.", examples=[-0.31])


class Occluded(Body):
    """What one square changes."""

    model: str
    image: str
    y: int
    x: int
    window: int
    predictions: list[OccludedPrediction] = Field(description="Most probable first.")


class ReconstructionBody(View):
    """What one activation is made of; the npy has all pixels, (3, S, S) float32, zero outside the box."""

    channel: int
    y: int
    x: int
    value: float
    box: SeenPixels | None = Field(description="What the position can see; null where that is not known.")
    pixels: list[list[list[float | None]]] = Field(description="(3, h, w) in the box, signed, in normalised space.")


class Neighbours(View):
    """The indexed images whose last vector is nearest, by cosine; thumbnails (k, 3, T, T) uint8 in the npy."""

    source: Source
    neighbours: list[Neighbour]


class Layers(Body):
    """The layers in the order they run."""

    model: str
    layers: list[LayerFacts]


class SeenBox(Body):
    """What a position can see."""

    model: str
    layer: str
    y: int
    x: int
    field: ReceptiveField
    box: SeenPixels


class Filters(View):
    """All filters of a layer in figures; the weights are in the npy, (C_out, C_in / groups, h, w) float32."""

    statistics: list[FilterStatistics]


class Filter(View):
    """One filter: figures and weights."""

    statistics: FilterStatistics
    weights: list[list[list[float]]]


class Filmstrip(Body):
    """The first layer's filters while the network learnt; they are in the npy, (E, C, C_in, h, w) float32."""

    model: str
    layer: str
    epochs: list[int] = Field(description="After which epoch each of the E frames was taken; 0 is before training.")


class SeenPeak(Body):
    """Where a unit is largest on one indexed image, and the pixels that position can see."""

    image: int
    label: str
    y: int
    x: int
    value: float
    box: SeenPixels | None


class Unit(View):
    """A unit on indexed images; thumbnails (3, n, 3, T, T) uint8 in the npy: best, random, lowest."""

    source: Source
    is_dead: bool = Field(description="Zero at every position of every indexed image.")
    best: list[SeenPeak]
    random: list[SeenPeak] = Field(description="The same images for every unit, to compare with.")
    lowest: list[SeenPeak]


class Units(Body):
    """The units of a layer on all indexed images."""

    model: str
    layer: str
    source: Source
    images: int = Field(description="How many are indexed.", examples=[45000])
    dead: list[int] = Field(description="Channels that are zero at every position of every one.", examples=[[3, 17]])
    largest: list[float] = Field(description="For each channel, the largest value on any of them.")


class MistakenPhoto(Body):
    """A photo that was answered wrongly."""

    number: int = Field(examples=[0])
    name: str = Field(description="Of its file, without folders.", examples=["IMG_0042.jpg"])
    true_probability: float = Field(description="Of its own class, in [0, 1].", examples=[0.04])
    predicted_probability: float = Field(description="Of the class that was answered.", examples=[0.93])
    picture: str = Field(description="Address of the photo.", examples=["/v1/model/mistakes/0.png"])


class MistakesCell(Body):
    """A cell of the confusion matrix beside its diagonal."""

    true: str = Field(examples=["cat"])
    predicted: str = Field(examples=["dog"])
    count: int = Field(description="How many images of the one class were taken for the other.", examples=[12])
    photos: list[MistakenPhoto] = Field(description="Those that are kept, the most confident mistake first.")


class Mistakes(Body):
    """Held-out images that were answered wrongly, by cell of the confusion matrix."""

    model: str
    source: MistakesSource
    images: dict[str, int] = Field(description="How many images of each class were judged.", examples=[{"cat": 100}])
    cells: list[MistakesCell] = Field(description="The most frequent first; those that are not listed are empty.")
