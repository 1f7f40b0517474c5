"""The bodies of the answers, with the examples that /docs shows."""

from typing import Annotated, Any, Literal

from pydantic import Field

from torchlight.app.api.problems import Body, Problem
from torchlight.model.checks.self_test import Check

DIGEST = "sha256:3f6a1c0b9d2e4f58a7c6b5d4e3f2a1b09c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f"
COVERAGE_TEXT = "Share of images whose `set` shall hold the true label; without it, `TORCHLIGHT_COVERAGE`."
IMAGE_ID = "sha256:9b2c64d1e8f70a35c4b6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9012a3b"


class PredictionBody(Body):
    """One label with its probability."""

    label: str = Field(examples=["cat"])
    index: int = Field(description="Position of the label in the model's classes.", examples=[3])
    probability: float = Field(description="From 0 to 1; all labels together give 1.", examples=[0.97])


class UnknownBody(Body):
    """How strange the image is to this network."""

    p_value: float = Field(
        description="Share of known images that are at least as strange; known images are those that the network was "
        "measured on without having learnt from them. Below 0.05 in five of a hundred known images.",
        examples=[0.62],
    )
    is_unknown: bool = Field(description="Whether the p-value is at most the threshold.", examples=[False])
    threshold: float = Field(examples=[0.05])


Unknown = Annotated[
    UnknownBody | None,
    Field(description="null if the checkpoint cannot tell; `GET /v1/model` says why, as `no_unknown`."),
]


class ModelSummary(Body):
    """Which model answered."""

    name: str = Field(description="Name of the checkpoint's file.", examples=["torchlight-cifar10"])
    digest: str = Field(description="Hash of the checkpoint; changes whenever anything in it does.", examples=[DIGEST])
    architecture: str = Field(examples=["torchlight"])


class ImageSummary(Body):
    """What was uploaded."""

    id: str = Field(description="Hash of the uploaded bytes.", examples=[IMAGE_ID])
    width: int = Field(description="Pixels, after the EXIF orientation.", examples=[640])
    height: int = Field(examples=[480])
    format: str = Field(examples=["JPEG"])


class Timing(Body):
    """Where the time went, in milliseconds."""

    decode: float = Field(description="From the end of the upload to network input.", examples=[4.1])
    queue: float = Field(description="Until the network was free.", examples=[0.2])
    inference: float = Field(description="The whole batch that the image was part of.", examples=[6.8])


AnswerSet = Annotated[
    list[str] | None,
    Field(
        description="Labels that hold the true one in so many images as `coverage` says, most probable first; "
        "null if the model has none: `answer_sets.reason` of `GET /v1/model` says why.",
        examples=[["cat", "dog"]],
    ),
]


class PredictResponse(Body):
    """The answer for one image."""

    predictions: list[PredictionBody] = Field(description="Most probable first.")
    unknown: Unknown
    set: AnswerSet
    model: ModelSummary
    image: ImageSummary
    timing_ms: Timing


class BatchPrediction(Body):
    """The answer for one file of a batch."""

    filename: str = Field(examples=["cat.jpg"])
    predictions: list[PredictionBody] = Field(description="Most probable first.")
    unknown: Unknown
    set: AnswerSet
    image: ImageSummary


class BatchProblem(Body):
    """What was wrong with one file of a batch."""

    filename: str = Field(examples=["notes.txt"])
    problem: Problem


class BatchResponse(Body):
    """The answers for many images."""

    results: list[BatchPrediction | BatchProblem] = Field(description="One for each file, in the order they came.")
    model: ModelSummary


class Preprocessing(Body):
    """How an image becomes network input."""

    size: int = Field(description="Side of the square input in pixels.", examples=[32])
    mean: tuple[float, float, float] = Field(description="Subtracted; RGB in [0, 1].", examples=[(0.49, 0.48, 0.45)])
    std: tuple[float, float, float] = Field(description="Divided by.", examples=[(0.25, 0.24, 0.26)])
    resize: str = Field(
        description="`centre_square_bilinear_antialias`: the largest centred square, bilinear; "
        "`centre_crop_bicubic_antialias`: size / (size + 32) of its side, bicubic.",
        examples=["centre_square_bilinear_antialias"],
    )


class Versions(Body):
    """The libraries that trained the checkpoint, and those that serve it now."""

    training: dict[str, str] = Field(examples=[{"torchlight": "0.1.0", "torch": "2.15.0"}])
    serving: dict[str, str] = Field(examples=[{"torchlight": "0.1.0", "torch": "2.15.0"}])


class SelfTestBody(Body):
    """Results of the checks of the views on this checkpoint: `torchlight selftest`."""

    passed: int = Field(examples=[17])
    failed: int = Field(examples=[0])
    not_applicable: int = Field(description="What this network, or a checkpoint alone, cannot show.", examples=[10])
    seconds: float = Field(examples=[8.4])
    checks: list[Check]


class PrecisionAccuracy(Body):
    """Shares of some images that each precision classifies right."""

    split: str = Field(examples=["val (held out of its training data)"])
    images: int = Field(examples=[5000])
    float32: float = Field(examples=[0.906])
    int8: float = Field(examples=[0.905])


class EngineBody(Body):
    """What computes the answers; the views always run on PyTorch."""

    name: str = Field(examples=["openvino 2026.4.1"])
    difference: float = Field(
        description="The largest to PyTorch's probabilities, compared on noise when the service started.",
        examples=[1.2e-06],
    )
    reason: str | None = Field(description="Why it is not a faster one; null if it is the fastest known.")
    precision: Literal["float32", "int8"] = Field(
        description="Of the answers; in int8 they are not what the views explain, which stay float32."
    )
    accuracy: PrecisionAccuracy | None = Field(description="What int8 costs; null if the answers are float32.")


class ClassCoverageBody(Body):
    """One class and how often its label is in the set."""

    label: str = Field(examples=["dog"])
    images: int = Field(examples=[60])
    coverage: float = Field(examples=[0.83])


class SetFiguresBody(Body):
    """What sets reached on held-out images, each with a threshold that others fixed."""

    target: float = Field(description="The share asked for.", examples=[0.9])
    images: int = Field(examples=[300])
    coverage: float = Field(description="Share of images whose set holds the true label.", examples=[0.91])
    mean_size: float = Field(description="Labels in a set.", examples=[1.04])
    single_share: float = Field(description="Share of sets that are one label.", examples=[0.96])
    worst_class: ClassCoverageBody


class AnswerSetsBody(Body):
    """The sets of labels that answers have."""

    coverage: float = Field(description="Of answers to requests that ask for no other.", examples=[0.9])
    measured: SetFiguresBody | None
    reason: str | None = Field(description="Why there are none; null if there are.")


class ModelResponse(ModelSummary):
    """Everything the checkpoint says of itself."""

    classes: list[str] = Field(description="In the order of the network's outputs.", examples=[["airplane", "cat"]])
    preprocessing: Preprocessing
    parameters: int = Field(description="Numbers that training may change.", examples=[1_570_000])
    multiply_adds: int = Field(description="For one image.", examples=[150_000_000])
    metrics: dict[str, Any] = Field(
        description="What it reached, on which split; `cross_validation` is of networks that had not seen the photos "
        "they were asked about, while the one served learnt from all of them.",
        examples=[{"test": {"accuracy": 0.9}}],
    )
    training: dict[str, Any] = Field(description="How it was trained.", examples=[{"epochs": 30}])
    device: str = Field(examples=["cpu"])
    engine: EngineBody
    answer_sets: AnswerSetsBody
    has_filmstrip: bool = Field(description="Whether it carries its first layer's filters while it learnt.")
    has_index: bool = Field(description="Whether there are neighbours of images and examples of units.")
    has_mistakes: bool = Field(description="Whether there are photos that were answered wrongly to look at.")
    no_unknown: str | None = Field(description="Why no image is ever called unknown; null if images are.")
    self_test: SelfTestBody | None = Field(description="null if this checkpoint was not checked.")
    versions: Versions


class Health(Body):
    """A sign of life."""

    status: str = Field(examples=["ok"])
