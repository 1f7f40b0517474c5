"""What :func:`torchlight.load` returns: images in, labels with probabilities out. Knows no HTTP and no batching."""

from pathlib import Path

import torch

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier, Prediction
from torchlight.model.defaults import COVERAGE, LOWEST_COVERAGE
from torchlight.model.engines.engine import Answers, choose_engine
from torchlight.model.images import prepare_image
from torchlight.model.named_checkpoints import find_checkpoint


class ImageClassifier:
    """A network with its labels. Its answers are those of a service with the default settings on a CPU.

    Attributes:
        class_names: label of each index.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._classifier = Classifier(load_checkpoint(find_checkpoint(checkpoint)), torch.device("cpu"))
        self._engine = choose_engine(self._classifier, "auto")
        self.class_names = self._classifier.class_names

    def predict(self, image: str | Path | bytes, top_k: int | None = None) -> list[Prediction]:
        """Return the ``top_k`` most probable labels of one image, most probable first; all of them without it.

        Args:
            image: the path of an image file, or the content of one.

        Raises:
            ImageError: it is not an image that can be decoded, or it has too many pixels.
            OSError: the file cannot be read.
        """
        return self._classifier.top_k(self._answer(image).probabilities[0], top_k)

    def predict_set(self, image: str | Path | bytes, coverage: float = COVERAGE) -> list[str] | None:
        """Return the labels that hold the true one in a share ``coverage`` of images, most probable first.

        Args:
            image: as for :meth:`predict`.
            coverage: from 0.5 to below 1.

        Returns:
            At least one label; None if the checkpoint was trained before such sets existed.

        Raises:
            ValueError: the coverage is out of range.
            ImageError, OSError: as for :meth:`predict`.
        """
        if not LOWEST_COVERAGE <= coverage < 1:
            raise ValueError(f"coverage is {coverage}, not from {LOWEST_COVERAGE} to below 1")
        return self._classifier.answer_set(self._answer(image).probabilities[0], coverage)

    def p_value(self, image: str | Path | bytes) -> float | None:
        """Return how strange one image is: the share of known images, in (0, 1], that are at least as strange.

        An image with at most 0.05 counts as unknown. None if the checkpoint cannot tell.

        Raises:
            ImageError, OSError: as for :meth:`predict`.
        """
        strangeness = self._answer(image).strangeness
        return None if strangeness is None else float(strangeness.p_values[0])

    def _answer(self, image: str | Path | bytes) -> Answers:
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        pixels, _ = prepare_image(content, self._classifier.spec.resizing)  # (3, S, S) uint8 RGB
        return self._engine.answer(pixels[None])
