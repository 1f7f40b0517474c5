"""An image classifier you can see inside. From Python, one line answers:

torchlight.load("photos.safetensors").predict("cat.jpg")
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds, and most of what imports this package has no use for it
    from torchlight.image_classifier import ImageClassifier

__all__ = ["load"]


def load(checkpoint: str | Path) -> "ImageClassifier":
    """Return the network of a checkpoint, ready to predict on the CPU.

    Args:
        checkpoint: a file, or ``imagenet``: a thousand kinds of things, made from installed weights the first time.

    Raises:
        CheckpointError: there is no such file, or it is not a checkpoint; the message says which and why.
    """
    from torchlight.image_classifier import ImageClassifier

    return ImageClassifier(Path(checkpoint))
