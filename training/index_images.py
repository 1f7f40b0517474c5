"""One pass over images -> the index of a checkpoint. Writes no file, prints nothing."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import DataError, IndexFileError
from torchlight.model.graph import Layer, NetworkGraph
from torchlight.model.views.embedding import embedding_layer, image_digest, layer_outputs, to_embeddings
from torchlight.model.views.image_index import ROW_LENGTH, Index, LayerExamples, Source, digest_rows
from torchlight.model.views.receptive_field import ACTIVATIONS
from torchlight.training.data.held_out import load_as_divided_in_training
from torchlight.training.data.loading import LabelledImages

MAX_IMAGES = 50_000  # all of a common data set; 0.6 GB of thumbnails at their largest
MAX_THUMBNAIL_SIZE = 64  # 12 kB an image, enough to recognise a photo by
MAX_BATCH_SIZE = 256  # larger ones gain nothing
BATCH_BYTES = 256 * 2**20  # of maps kept at a time; a network with more than that for one image takes what it needs
SEED = 0  # of the order in which images are numbered


def build_index(
    classifier: Classifier,
    source: str,
    split: str = "train",
    *,
    limit: int = MAX_IMAGES,
    skip_unreadable: bool = False,
    corrections: Path | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Index:
    """Read a source and index one of its splits.

    The images are prepared as in serving and not augmented. What the checkpoint was trained on is divided as it was
    then; of any other source, all images that are not in a ``val`` or ``test`` folder count as ``train``.

    Args:
        source: as for :func:`training.data.loading.load_dataset`.
        limit: the most images to index; of a larger split, a seeded random part.
        skip_unreadable: leave unreadable files out instead of refusing the source.
        corrections: decisions about single photos; those that the checkpoint was trained with have to be given again.
        on_image, on_batch: called with how many images are read, then indexed, and how many there are.

    Raises:
        DataError: the source cannot be read, or has no such split.
        IndexFileError: the network gives values that are not finite.
    """
    dataset, is_training_data = load_as_divided_in_training(
        classifier.checkpoint, source, skip_unreadable=skip_unreadable, corrections=corrections, on_image=on_image
    )
    images = dataset.splits.get(split)
    if not images:
        sizes = ", ".join(f"{len(part)} {name}" for name, part in dataset.splits.items())
        raise DataError(f"{source} has no images in split {split!r}; it has {sizes}")
    described = Source(Path(source).name, dataset.fingerprint, split, len(images), is_training_data)
    return index_images(classifier, images, described, limit, on_batch)


def index_images(
    classifier: Classifier,
    images: LabelledImages,
    source: Source,
    limit: int = MAX_IMAGES,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Index:
    """Index images already in memory; arguments as for :func:`build_index`.

    They are numbered in a seeded random order, whose last nine are the random row of every channel: so images that a
    channel cannot tell apart do not come from the class that happens to be first.
    """
    graph = classifier.graph
    head = embedding_layer(graph)
    records = {layer.name: _Record(layer) for layer in indexed_layers(graph)}
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(SEED))[:limit]
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    done = 0
    for numbers in torch.split(chosen, _batch_size(graph, [*records, head])):
        batch = images.images[numbers]
        outputs = layer_outputs(classifier, batch, [*records, head])
        for name, record in records.items():
            record.add(outputs[name], first_image=done)
        parts.append((thumbnails(batch), to_embeddings(outputs[head]), digest_rows([image_digest(x) for x in batch])))
        done += len(batch)
        on_batch(done, len(chosen))
    thumbs, embeddings, digests = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Index(
        checkpoint_digest=classifier.digest,
        class_names=classifier.class_names,
        source=source,
        thumbnails=thumbs,
        embeddings=embeddings,
        labels=images.labels[chosen].int(),
        digests=digests,
        layers={name: record.finish() for name, record in records.items()},
    )


def indexed_layers(graph: NetworkGraph) -> list[Layer]:
    """Return the layers whose channels are indexed: every convolution and every activation function that gives maps.

    Maps of one position are left out.
    """
    kinds = ACTIVATIONS | {"Conv2d"}
    return [layer for layer in graph.layers.values() if layer.has_places and layer.type in kinds]


def thumbnails(images: Tensor) -> Tensor:
    """Return images (N, 3, S, S) uint8 as they are, or, if S > 64, reduced to 64 x 64, bilinear with antialiasing."""
    if images.shape[-1] <= MAX_THUMBNAIL_SIZE:
        return images
    reduced = F.interpolate(images.float(), size=MAX_THUMBNAIL_SIZE, mode="bilinear", antialias=True)
    return reduced.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class _Peaks:
    """Where maps of C channels are largest on M images: values (C, M) float32, places (C, M, 3) int32 image, y, x."""

    values: Tensor
    places: Tensor

    def join(self, later: "_Peaks") -> "_Peaks":
        return _Peaks(torch.cat([self.values, later.values], 1), torch.cat([self.places, later.places], 1))

    def largest(self, sign: int) -> "_Peaks":
        """Return, for each channel, the images with the largest ``sign * value``; equal ones by their numbers."""
        keys = _keys(sign * self.values, self.places[:, :, 0])
        order = keys.topk(min(ROW_LENGTH, keys.shape[1])).indices
        return _Peaks(self.values.gather(1, order), self.places.take_along_dim(order[:, :, None], 1))

    def last(self) -> "_Peaks":
        return _Peaks(self.values[:, -ROW_LENGTH:], self.places[:, -ROW_LENGTH:])


class _Record:
    """The rows of one layer's channels, kept up to date batch by batch."""

    def __init__(self, layer: Layer) -> None:
        channels = layer.out_shape[0]
        nothing = _Peaks(torch.empty(channels, 0), torch.empty(channels, 0, 3, dtype=torch.int32))
        self._name = layer.name
        self._best = self._random = self._lowest = nothing
        self._minimum = torch.full((channels,), torch.inf)

    def add(self, maps: Tensor, first_image: int) -> None:
        """Take in the maps (N, C, H, W) of images ``first_image``, ``first_image + 1``, ..."""
        peaks = _find_peaks(maps, first_image)
        if not peaks.values.isfinite().all():
            raise IndexFileError(f"layer {self._name!r} gives values that are not finite; train the network again")
        self._best = self._best.join(peaks).largest(1)
        self._random = self._random.join(peaks).last()
        self._lowest = self._lowest.join(peaks).largest(-1)
        self._minimum = torch.minimum(self._minimum, maps.amin((0, 2, 3)).float().cpu())

    def finish(self) -> LayerExamples:
        rows = (self._best, self._random, self._lowest)
        return LayerExamples(
            values=torch.stack([row.values for row in rows], 1),
            places=torch.stack([row.places for row in rows], 1),
            dead=(self._best.values[:, 0] == 0) & (self._minimum == 0),
        )


def _find_peaks(maps: Tensor, first_image: int) -> _Peaks:
    """Return the maximum of each map (N, C, H, W), the first in reading order if there are several."""
    values, positions = (tensor.T.cpu() for tensor in maps.flatten(2).max(2))  # (C, N)
    images = torch.arange(first_image, first_image + len(maps)).expand_as(positions)
    width = maps.shape[3]
    return _Peaks(values.float(), torch.stack([images, positions // width, positions % width], 2).int())


def _keys(values: Tensor, images: Tensor) -> Tensor:
    """Return int64 numbers, no two alike, that order as the values do, and equal values by image, the first largest.

    The bits of a float32, read as an integer, order as it does, once those of negative numbers are turned round.
    """
    bits = (values + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) - images


def _batch_size(graph: NetworkGraph, layers: list[str]) -> int:
    """Return how many images' maps of those layers fit into ``BATCH_BYTES``; at least one."""
    numbers = sum(math.prod(graph.layers[name].out_shape) for name in layers)
    return min(MAX_BATCH_SIZE, max(1, BATCH_BYTES // (4 * numbers)))
