"""What every answer says of the model and of the image; several routes share it."""

from torchlight.app.api.schemas import ImageSummary, ModelSummary, UnknownBody
from torchlight.app.inference.service import PreparedImage, Service
from torchlight.model.uncertainty.novelty import describe_p_value


def summarise_model(service: Service) -> ModelSummary:
    """Return which model answers."""
    checkpoint = service.classifier.checkpoint
    return ModelSummary(
        name=checkpoint.path.stem, digest=checkpoint.digest, architecture=checkpoint.header.network.architecture
    )


def describe_unknown(p_value: float | None) -> UnknownBody | None:
    """Return how strange an image is; None if the checkpoint cannot tell."""
    return None if p_value is None else UnknownBody.model_validate(describe_p_value(p_value))


def summarise_image(image: PreparedImage) -> ImageSummary:
    """Return the id of the image and what its file says of it."""
    return ImageSummary(id=image.id, width=image.width, height=image.height, format=image.format)
