"""Photos that a network answered wrongly, kept beside its checkpoint so that a person can look at them.

They are photos of the people who trained it, so they are kept only if asked for. The file is one ``.safetensors``. Its
header is a flat map of text; beside ``format`` and ``format_version`` each value is a JSON document:

    format           "torchlight-mistakes"
    format_version   "1"
    checkpoint       digest of the only checkpoint it is true of
    class_names      ["airplane", ...]
    source           {"name", "split", "exposure"}
    images           [n, ...]                   how many images of each class were judged
    cells            [[true, predicted, n], ...]   of the confusion matrix: those beside the diagonal that are not 0
    names            ["1.jpg", ...]             of the photos, without the folders that they lie in
    sizes            {"photos": M, "side": S}

    photos           (M, 3, S, S) uint8 RGB     what the network got
    classes          (M, 2) int32               true and predicted class
    probabilities    (M, 2) float32             of the true and of the predicted class

Photos are numbered: first the most confident mistake of each cell, then the second of each, and so on. Knows nothing of
data sets. Loading maps the file into memory, so a file in use must be replaced, as :func:`save_mistakes` does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from torchlight.model.errors import MistakesFileError, MistakesNotFound
from torchlight.model.files.sidecar import sidecar_path
from torchlight.model.files.tensor_file import FileKind, open_tensors, save_tensors

KIND = FileKind(
    noun="file of mistakes",
    command="torchlight train --keep-mistakes",
    format="torchlight-mistakes",
    version="1",
    documents=("checkpoint", "class_names", "source", "images", "cells", "names", "sizes"),
    error=MistakesFileError,
    errors={"missing": MistakesNotFound},
)
MAX_BYTES = 64 * 2**20  # of the photos: 300 of 260x260 pixels, far more of 32x32


@dataclass(frozen=True)
class MistakesSource:
    """What was judged.

    Attributes:
        name: of the folder or the data set.
        split: ``test``, ``val``, ``all photos`` or such as ``200 of 1,000 photos``.
        exposure: what the images had to do with the training: nothing (``unseen``); they chose the epoch
            (``chose_epoch``); or each was judged by a network that had not seen it, while the one that is kept learnt
            from all of them (``cross_validated``).
    """

    name: str
    split: str
    exposure: Literal["unseen", "chose_epoch", "cross_validated"]


@dataclass(frozen=True)
class KeptMistakes:
    """Mistakes of one checkpoint; the fields are the file's.

    Attributes:
        cells: (true, predicted) -> how many images of the one class were taken for the other.
    """

    checkpoint_digest: str
    class_names: tuple[str, ...]
    source: MistakesSource
    images: tuple[int, ...]
    cells: Mapping[tuple[int, int], int]
    names: tuple[str, ...]
    photos: Tensor
    classes: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.names)

    @cached_property
    def version(self) -> str:
        """Identifies these mistakes among those of one checkpoint."""
        digest = sha256(repr((self.source, self.images, self.cells, self.names)).encode(errors="replace"))
        for tensor in (self.photos, self.classes, self.probabilities):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def mistakes_path(checkpoint: Path) -> Path:
    """Return where the mistakes of a checkpoint are: ``cats.safetensors`` has ``cats.mistakes.safetensors``."""
    return sidecar_path(checkpoint, ".mistakes.safetensors")


def save_mistakes(path: Path, mistakes: KeptMistakes) -> None:
    """Write the file, whole or not at all. Equal input gives equal bytes.

    Raises:
        OSError: the folder cannot be written; an older file at ``path`` is untouched.
    """
    documents = {
        "checkpoint": mistakes.checkpoint_digest,
        "class_names": mistakes.class_names,
        "source": asdict(mistakes.source),
        "images": mistakes.images,
        "cells": [(*cell, number) for cell, number in mistakes.cells.items()],
        "names": mistakes.names,
        "sizes": {"photos": len(mistakes), "side": mistakes.photos.shape[-1]},
    }
    tensors = {name: getattr(mistakes, name).contiguous() for name in ("photos", "classes", "probabilities")}
    save_tensors(path, KIND, tensors, documents)


def load_mistakes(path: Path, digest: str) -> KeptMistakes:
    """Return the mistakes of a checkpoint, mapped into memory.

    Args:
        digest: of the checkpoint that will be shown beside them.

    Raises:
        MistakesNotFound: there is no such file.
        MistakesFileError: it cannot be read, is of another kind, damaged, or of another checkpoint.
    """
    with open_tensors(path, KIND) as (file, documents):
        if documents["checkpoint"] != digest:
            raise MistakesFileError(
                f"{KIND.noun} {path} was made for checkpoint {documents['checkpoint']}, not for {digest}; "
                f"make it again with `{KIND.command}`"
            )
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        try:
            _check(documents, {name: (one.get_dtype(), *one.get_shape()) for name, one in found.items()})
            mistakes = _assemble(documents, {name: file.get_tensor(name) for name in found})
            _check_classes(mistakes)
        except (KeyError, TypeError, ValueError) as error:
            raise MistakesFileError(
                f"{KIND.noun} {path} does not hold what it should ({error}); make it again with `{KIND.command}`"
            ) from error
    return mistakes


def _check(documents: Mapping[str, Any], found: Mapping[str, tuple[Any, ...]]) -> None:
    """Compare types and shapes of the tensors with what the header announces."""
    photos, side = documents["sizes"]["photos"], documents["sizes"]["side"]
    expected = {
        "photos": ("U8", photos, 3, side, side),
        "classes": ("I32", photos, 2),
        "probabilities": ("F32", photos, 2),
    }
    if found != expected:
        raise ValueError(f"its tensors are {dict(found)}, its header announces {expected}")
    if len(documents["names"]) != photos:
        raise ValueError(f"{len(documents['names'])} names for {photos} photos")


def _assemble(documents: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KeptMistakes:
    return KeptMistakes(
        checkpoint_digest=documents["checkpoint"],
        class_names=tuple(documents["class_names"]),
        source=MistakesSource(**documents["source"]),
        images=tuple(documents["images"]),
        cells={(true, predicted): number for true, predicted, number in documents["cells"]},
        names=tuple(documents["names"]),
        **tensors,
    )


def _check_classes(mistakes: KeptMistakes) -> None:
    """Refuse classes that the network does not have, and photos of cells that are not listed."""
    number = len(mistakes.class_names)
    if len(mistakes.images) != number:
        raise ValueError(f"{len(mistakes.images)} numbers of images for {number} classes")
    if not all(one in range(number) for cell in mistakes.cells for one in cell):
        raise ValueError(f"a cell is of none of the {number} classes")
    if not {(true, predicted) for true, predicted in mistakes.classes.tolist()} <= mistakes.cells.keys():
        raise ValueError("a photo is of no cell")
