"""The input, the result and the declaration of a check."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from torchlight.model.classifier import Classifier
from torchlight.model.errors import ViewNotApplicable
from torchlight.model.graph import NetworkGraph
from torchlight.model.views.image_index import Index


class Finding(NamedTuple):
    """The worst figure found, and a note on what was measured."""

    measured: float
    note: str


@dataclass(frozen=True)
class Subject:
    """A classifier with the images to check it on.

    Attributes:
        classifier: on the CPU.
        images: (N, 3, S, S) uint8 RGB, at least two.
        index: the one beside the checkpoint, if there is one that fits.
    """

    classifier: Classifier
    images: Tensor
    index: Index | None

    @property
    def image(self) -> Tensor:
        """The first image, (3, S, S)."""
        return self.images[0]

    @property
    def graph(self) -> NetworkGraph:
        """The layers that views are computed from."""
        return self.classifier.graph

    @cached_property
    def logits(self) -> Tensor:
        """(N, K), as served."""
        return self.classifier.logits(self.images)

    @cached_property
    def targets(self) -> list[int]:
        """The most probable class of each image."""
        targets: list[int] = self.logits.argmax(1).tolist()
        return targets

    def inputs(self, number: int) -> Tensor:
        """Return (1, 3, S, S) network input of one image."""
        return self.classifier.network_input(self.images[number : number + 1])

    def stored(self) -> tuple[Index, Tensor]:
        """Return the index and its images as network input.

        Raises:
            ViewNotApplicable: there is no index, or its images are smaller than the network's input.
        """
        if self.index is None:
            raise ViewNotApplicable("there is no index beside the checkpoint; `torchlight index` makes one")
        if self.index.thumbnails.shape[-1] != self.classifier.spec.size:
            raise ViewNotApplicable("the index keeps reduced images, so nothing can be computed from them again")
        return self.index, self.index.thumbnails


class Rule(NamedTuple):
    """One invariant: its figure, found by ``measure``, is at most ``bound``."""

    id: str
    title: str
    bound: float
    measure: Callable[[Subject], Finding]


def below(limit: int, generator: torch.Generator) -> int:
    """Return a random number from 0 to ``limit - 1``."""
    return int(torch.randint(limit, (), generator=generator))
