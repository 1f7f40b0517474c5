"""Features on disk, beside the decoded images: computed once, taken while photos and backbone are the same."""

import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from torchlight.model.errors import TorchlightError
from torchlight.model.files.tensor_file import FileKind, read_tensors, save_tensors


class FeaturesNotUsable(TorchlightError):
    """A file of features that is missing, damaged or of something else; it is made anew."""


KIND = FileKind(
    noun="features",
    command="torchlight train",
    format="torchlight features",
    version="1",
    documents=("key", "checksum"),
    error=FeaturesNotUsable,
)


def name_source(source: str) -> str:
    """Return a name for a source's features, the same for the same path."""
    path = Path(source).resolve()
    place = hashlib.sha256(str(path).encode(errors="surrogateescape")).hexdigest()[:16]
    return f"{path.name}-{place}"


def compute_once(
    folder: Path, name: str, images: Tensor, backbone_digest: str, compute: Callable[[], Tensor]
) -> Tensor:
    """Return the features of images (N, D) from a file in ``folder``, or compute and keep them.

    A source that has changed replaces its own old file. A folder that cannot be written costs only time.

    Args:
        name: of the source, see :func:`name_source`, and of what is computed of it.
        images: (N, 3, S, S) uint8.
        backbone_digest: changes with anything that features follow from but the images.
    """
    key = hashlib.sha256(
        backbone_digest.encode() + hashlib.sha256(images.contiguous().numpy().data).digest()
    ).hexdigest()
    printable = re.sub(r"[^\w-]", "_", name)[:80]
    path = folder / f"{printable}-{backbone_digest[:16]}.features.safetensors"
    with suppress(FeaturesNotUsable, KeyError):
        contents = read_tensors(path, KIND)
        features = contents.tensors["features"]
        if contents.documents == {"key": key, "checksum": _checksum(features)}:
            return features
    features = compute()
    with suppress(OSError):
        save_tensors(path, KIND, {"features": features}, {"key": key, "checksum": _checksum(features)})
    return features


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().data).hexdigest()
