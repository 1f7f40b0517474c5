"""A trained network and the photos of a source -> its features and its answers to them. Writes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import layer_outputs
from torchlight.model.errors import DataError
from torchlight.model.views.embedding import embedding_layer, to_embeddings
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.data.sources import shorten
from torchlight.training.transfer.features import extract_features


@dataclass(frozen=True)
class Judgement:
    """What a network says of photos.

    Attributes:
        features: (N, D) float32, what enters its last layer.
        logits: (N, K) float32 of the source's classes, in their order.
        strange: positions of the photos that it takes for a class that the source does not have.
    """

    features: Tensor
    logits: Tensor
    strange: Sequence[int]


def judge_photos(classifier: Classifier, source: SourcePhotos, on_photo: Callable[[int, int], None]) -> Judgement:
    """Return what a network says of the photos of a source, whose classes are matched with its own by name.

    Args:
        source: read by the network's spec.
        on_photo: called after each batch with how many photos are done and how many there are.

    Raises:
        DataError: the network does not know a class of the source.
    """
    columns = match_classes(source.class_names, classifier.class_names)
    compute = layer_outputs(classifier, [embedding_layer(classifier.graph), classifier.graph.output])

    def run(images: Tensor) -> Tensor:
        features, logits = compute(images)
        return torch.cat([to_embeddings(features), logits], 1)

    both = extract_features(run, source.photos.images, on_photo)  # (N, D + all classes)
    features, logits = both[:, : -len(classifier.class_names)], both[:, -len(classifier.class_names) :]
    is_own = torch.zeros(logits.shape[1], dtype=torch.bool)
    is_own[columns] = True
    strange = (~is_own[logits.argmax(1)]).nonzero()[:, 0].tolist()
    return Judgement(features, logits[:, columns], strange)


def match_classes(wanted: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the position of each wanted class among those that a network knows.

    Raises:
        DataError: listing the classes that it does not know, and those it does.
    """
    missing = [repr(name) for name in wanted if name not in known]
    if missing:
        raise DataError(
            f"the checkpoint does not know {len(missing)} of {len(wanted)} classes ({shorten(missing)}); it knows "
            f"{shorten([repr(name) for name in known], 10)}; rename the folders, or check without --with"
        )
    return [known.index(name) for name in wanted]
