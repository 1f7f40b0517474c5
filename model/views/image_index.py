"""The index of a checkpoint: the images on which each channel is largest, and the images the network finds alike.

A channel's value on an image is the largest of its map. The index is one ``.safetensors`` file beside the checkpoint.
It holds N images, numbered in a seeded random order. Its header is a flat map of text; beside ``format`` and
``format_version`` each value is a JSON document:

    format           "torchlight-index"
    format_version   "1"
    checkpoint       digest of the only checkpoint it is true of
    class_names      ["airplane", ...]
    source           {"name", "fingerprint", "split", "split_images", "is_training_data"}
    sizes            {"images": N, "thumbnail": T, "embedding": D}
    layers           [["conv1", C], ...]        in the order they run, with their channels

    thumbnails       (N, 3, T, T) uint8 RGB     the network's input itself up to 64 pixels, else reduced to that
    embeddings       (N, D) float32             see :func:`model.views.embedding.embed`
    labels           (N,) int32
    digests          (N, 32) uint8              see :func:`model.views.embedding.image_digest`
    values/<layer>   (C, 3, M) float32          rows: best, random, lowest; M = min(9, N)
    places/<layer>   (C, 3, M, 3) int32         image, y, x of each value
    dead/<layer>     (C,) bool

Knows nothing of data sets. Loading maps the file into memory: what is not looked at takes none. So a file that is in
use must be replaced, as :func:`save_index` does, never written into: that would change what is shown, and cutting it
short would end the process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchlight.model.errors import (
    ChannelOutOfRange,
    IndexFileError,
    IndexMismatch,
    IndexNotFound,
    IndexTruncated,
    InvalidIndex,
    ViewNotApplicable,
)
from torchlight.model.files.sidecar import sidecar_path
from torchlight.model.files.tensor_file import FileKind, open_tensors, save_tensors

KIND = FileKind(
    noun="index",
    command="torchlight index",
    format="torchlight-index",
    version="1",
    documents=("checkpoint", "class_names", "source", "sizes", "layers"),
    error=IndexFileError,
    errors={
        "missing": IndexNotFound,
        "truncated": IndexTruncated,
        "foreign": InvalidIndex,
        "unsupported": InvalidIndex,
        "invalid": InvalidIndex,
    },
)
ROW_LENGTH = 9  # images a row; Zeiler & Fergus show nine


@dataclass(frozen=True)
class Peak:
    """Where a channel's map is largest on one image: the ``value`` at (``y``, ``x``) of the map."""

    image: int
    label: str
    y: int
    x: int
    value: float


@dataclass(frozen=True)
class ChannelExamples:
    """A channel on three rows of images, at most ``ROW_LENGTH`` each, one peak an image.

    Attributes:
        best: the images with the largest values, largest first; equal values in the order of their numbers.
        random: the same images for every channel of the index, so that channels can be compared.
        lowest: the images with the smallest values, smallest first; equal values in the order of their numbers.
    """

    best: tuple[Peak, ...]
    random: tuple[Peak, ...]
    lowest: tuple[Peak, ...]


@dataclass(frozen=True)
class Neighbour:
    """An indexed image and the cosine, in [-1, 1], between its embedding and the one asked for."""

    image: int
    label: str
    split: str
    similarity: float


@dataclass(frozen=True)
class Source:
    """Where the images come from.

    Attributes:
        name: of the folder or the data set.
        fingerprint: over labels, contents and splits.
        split: ``train``, ``val`` or ``test``.
        split_images: how many the split has; the index may hold a random part of them.
        is_training_data: the checkpoint was trained on exactly this source, so ``train`` is what it learnt from.
    """

    name: str
    fingerprint: str
    split: str
    split_images: int
    is_training_data: bool


@dataclass(frozen=True)
class LayerExamples:
    """The channels of one layer, laid out as in the file: ``values``, ``places`` and ``dead``."""

    values: Tensor
    places: Tensor
    dead: Tensor


@dataclass(frozen=True)
class Index:
    """A loaded or newly made index; the fields are the file's, ``layers`` by name.

    ``thumbnails[image]`` is the picture of any image it names.
    """

    checkpoint_digest: str
    class_names: tuple[str, ...]
    source: Source
    thumbnails: Tensor
    embeddings: Tensor
    labels: Tensor
    digests: Tensor
    layers: Mapping[str, LayerExamples]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def top_images(self, layer: str, channel: int) -> ChannelExamples:
        """Return the images on which a channel is largest, some at random, and those on which it is smallest.

        Raises:
            ViewNotApplicable: the layer is not indexed.
            ChannelOutOfRange: it has fewer channels.
        """
        examples = self._find_examples(layer, channel)
        return ChannelExamples(*(tuple(self._peaks(examples, channel, row)) for row in range(3)))

    def is_dead(self, layer: str, channel: int) -> bool:
        """Return whether the channel is zero at every position of every indexed image. Raises as :meth:`top_images`."""
        return bool(self._find_examples(layer, channel).dead[channel])

    def dead_channels(self, layer: str) -> list[int]:
        """Return the channels of a layer for which :meth:`is_dead`, in order.

        Raises:
            ViewNotApplicable: the layer is not indexed.
        """
        return self._find_examples(layer, 0).dead.nonzero().flatten().tolist()

    def largest_values(self, layer: str) -> list[float]:
        """Return for each channel of a layer its largest value on any image. Raises as :meth:`dead_channels`."""
        return self._find_examples(layer, 0).values[:, 0, 0].tolist()

    def neighbours(self, embedding: Tensor, k: int, exclude_digest: str | None = None) -> list[Neighbour]:
        """Return the ``k`` most similar images, most similar first; equal ones in the order of their numbers.

        Args:
            embedding: (D,) one row of :func:`model.views.embedding.embed`.
            k: at least 1; larger values than there are images give all.
            exclude_digest: :func:`model.views.embedding.image_digest` of an image to leave out, such as the query.
        """
        similarities = (self.embeddings @ embedding).clamp(-1, 1)
        if exclude_digest is not None:
            same = (self.digests == digest_rows([exclude_digest])).all(dim=1)
            similarities = similarities.masked_fill(same, -torch.inf)
        values, images = similarities.sort(descending=True, stable=True)
        nearest = zip(images[:k].tolist(), values[:k].tolist(), strict=True)
        return [
            Neighbour(image, self._label(image), self.source.split, value)
            for image, value in nearest
            if value > -torch.inf
        ]

    def _find_examples(self, layer: str, channel: int) -> LayerExamples:
        if layer not in self.layers:
            raise ViewNotApplicable(f"layer {layer!r} is not indexed; the index has {', '.join(self.layers)}")
        examples = self.layers[layer]
        if not 0 <= channel < len(examples.dead):
            raise ChannelOutOfRange(channel, layer, len(examples.dead))
        return examples

    def _peaks(self, examples: LayerExamples, channel: int, row: int) -> Iterator[Peak]:
        places, values = examples.places[channel, row].tolist(), examples.values[channel, row].tolist()
        for (image, y, x), value in zip(places, values, strict=True):
            yield Peak(image, self._label(image), y, x, value)

    def _label(self, image: int) -> str:
        return self.class_names[int(self.labels[image])]


def index_path(checkpoint: Path) -> Path:
    """Return where the index of a checkpoint is: ``cats.safetensors`` has ``cats.index.safetensors``."""
    return sidecar_path(checkpoint, ".index.safetensors")


def save_index(path: Path, index: Index) -> None:
    """Write the file so that at every moment either the old or the new one is there, whole.

    Equal input gives equal bytes.

    Raises:
        OSError: the folder cannot be written; an older file at ``path`` is untouched.
    """
    documents = {
        "checkpoint": index.checkpoint_digest,
        "class_names": index.class_names,
        "source": asdict(index.source),
        "sizes": {
            "images": len(index),
            "thumbnail": index.thumbnails.shape[-1],
            "embedding": index.embeddings.shape[-1],
        },
        "layers": [(name, len(examples.dead)) for name, examples in index.layers.items()],
    }
    tensors = {name: getattr(index, name) for name in ("thumbnails", "embeddings", "labels", "digests")} | {
        f"{part}/{name}": tensor for name, examples in index.layers.items() for part, tensor in vars(examples).items()
    }
    save_tensors(path, KIND, {name: tensor.contiguous() for name, tensor in tensors.items()}, documents)


def load_index(path: Path, digest: str) -> Index:
    """Return the index of a checkpoint, mapped into memory.

    Args:
        digest: of the checkpoint that will be shown beside it.

    Raises:
        IndexNotFound, IndexTruncated, InvalidIndex, IndexMismatch: the first that applies; the message names the file.
        IndexFileError: the disk or its permissions are in the way.
    """
    with open_tensors(path, KIND) as (file, documents):
        if documents["checkpoint"] != digest:
            raise IndexMismatch(
                f"index {path} was made for checkpoint {documents['checkpoint']}, not for {digest}; "
                f"make it again with `{KIND.command}`"
            )
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        try:
            _check(path, documents, {name: (one.get_dtype(), *one.get_shape()) for name, one in found.items()})
            return _assemble(documents, {name: file.get_tensor(name) for name in found})
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidIndex(f"index {path}: its header does not hold what it should ({error})") from error


def digest_rows(digests: Sequence[str]) -> Tensor:
    """Return hex digests as the index holds them: (N, 32) uint8."""
    return torch.tensor([list(bytes.fromhex(digest)) for digest in digests], dtype=torch.uint8)


def _check(path: Path, documents: Mapping[str, Any], found: Mapping[str, tuple[Any, ...]]) -> None:
    """Compare types and shapes of the tensors with what the header announces."""
    expected = _expected(documents)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InvalidIndex(
                f"index {path}: tensor {name!r} is {_describe(found.get(name))}, its header announces "
                f"{_describe(expected.get(name))}; make it again with `{KIND.command}`"
            )


def _expected(documents: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return type and shape of each tensor of a file with that header."""
    sizes = documents["sizes"]
    images, side = sizes["images"], sizes["thumbnail"]
    expected = {
        "thumbnails": ("U8", images, 3, side, side),
        "embeddings": ("F32", images, sizes["embedding"]),
        "labels": ("I32", images),
        "digests": ("U8", images, 32),
    }
    rows = (3, min(ROW_LENGTH, images))
    for name, channels in documents["layers"]:
        expected[f"values/{name}"] = ("F32", channels, *rows)
        expected[f"places/{name}"] = ("I32", channels, *rows, 3)
        expected[f"dead/{name}"] = ("BOOL", channels)
    return expected


def _describe(tensor: tuple[Any, ...] | None) -> str:
    return "absent" if tensor is None else f"{tensor[0]} {'x'.join(map(str, tensor[1:]))}"


def _assemble(documents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Index:
    return Index(
        checkpoint_digest=documents["checkpoint"],
        class_names=tuple(documents["class_names"]),
        source=Source(**documents["source"]),
        **{name: tensors[name] for name in ("thumbnails", "embeddings", "labels", "digests")},
        layers={
            name: LayerExamples(*(tensors[f"{part}/{name}"] for part in ("values", "places", "dead")))
            for name, _ in documents["layers"]
        },
    )
