"""Whether the images that are answered drift away from those that a network learnt from. Keeps numbers, no image.

The evidence is a game against the claim that all is as in training, which makes p-values uniform. Each image
multiplies what is held by ``POWER * p ** (POWER - 1)``, whose mean is then at most 1, after 1 more was put in. So by
Doob's inequality the odds reach H within N independent images with a probability of at most N / H. Strange images
multiply, usual ones divide: the odds rise if strange images stay, and fall again when they have gone.

What p-values do not tell is described over the last images: how far their mean is from that of their class in
training, and how their labels differ. Both change for good reasons, such as a day with one kind of image or a series
of one thing, so neither is evidence.

Source: Vovk, Nouretdinov, Gammerman: Testing Exchangeability On-Line, 2003, for the game; Shin, Ramdas, Rinaldo:
E-detectors, 2022, for the stake that is put in at each image (Shiryaev-Roberts). What was measured is in docs/drift.md.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from torchlight.model.uncertainty.novelty import Array, Novelty, Plane, is_unknown

WINDOW = 200  # images that distance and shares are of
LEAST = 50  # images before anything is said
RECENT = 20  # images that one with the same bytes is looked for in; what comes more rarely than that cannot raise alarm
ALARM_ODDS = 1e6  # a false alarm in a hundred times 10,000 images at most
MOST_ODDS = ALARM_ODDS**2  # so that what was strange for long is forgotten within some 100 usual images
SPREAD_IMAGES = 5  # of a class on average, without which their standard deviation is not known
POWER = 0.4  # of the bets. Nearer to 1 finds weaker drift, but p-values from few known images are uniform only roughly


class DriftFigures(NamedTuple):
    """How the images that were answered last differ from those of training.

    Attributes:
        drift: logarithm of the odds, 1 where an alarm is due; from 0 to 2.
        distance: from the mean of their class in training to that of the images, in standard deviations within a
            class, less twice what chance does; 0 is usual. None if the checkpoint has too few images of the classes.
        unknown_share: of images that are unlike what the network knows; 0.05 is usual.
        label_distance: share of the images that would need another label to have those of training, less what chance
            does; from 0 to 1.
    """

    drift: float
    distance: float | None
    unknown_share: float
    label_distance: float


class Drift:
    """Running statistics of the images that one process answers. Not for several threads."""

    def __init__(self, novelty: Novelty, processes: int = 1) -> None:
        """Begin without an image.

        Args:
            novelty: of the checkpoint that answers.
            processes: that share the images; each looks back on its part of the window.
        """
        self._training = _Training(novelty.plane)
        self._odds = 0.0
        self._seen = 0
        self._least = -(-LEAST // processes)
        self._recent: deque[str] = deque(maxlen=RECENT)
        size = -(-WINDOW // processes)
        self._coordinates = np.zeros((size, novelty.plane.references.shape[1]), np.float32)  # (window, R)
        self._labels = np.zeros(size, np.int64)
        self._is_unknown = np.zeros(size, np.bool_)

    def add(self, image_id: str, class_index: int, coordinates: Array, p_value: float) -> None:
        """Count an image, unless it is one of the last 20 again.

        Args:
            image_id: equal for files with the same bytes.
            class_index: of the most probable label.
            coordinates: (R,) as in :class:`model.uncertainty.novelty.Strangeness`.
            p_value: in (0, 1].
        """
        if image_id in self._recent:
            return
        self._recent.append(image_id)
        place = self._seen % len(self._labels)
        self._coordinates[place], self._labels[place] = coordinates, class_index
        self._is_unknown[place] = is_unknown(p_value)
        self._seen += 1
        self._odds = min((1 + self._odds) * POWER * p_value ** (POWER - 1), MOST_ODDS)

    @property
    def drift(self) -> float:
        """The first of :class:`DriftFigures`; 0 before there are enough images."""
        return float(np.log(max(self._odds, 1)) / np.log(ALARM_ODDS)) if self._seen >= self._least else 0.0

    def figures(self) -> DriftFigures | None:
        """Return what is known of the last images; None before there are enough."""
        if self._seen < self._least:
            return None
        last = slice(min(self._seen, len(self._labels)))
        labels = self._labels[last]
        return DriftFigures(
            self.drift,
            self._training.distance(self._coordinates[last], labels),
            float(self._is_unknown[last].mean()),
            self._training.label_distance(labels),
        )


class _Training:
    """Means, spread and shares of the classes among the images that a plane has kept of the training."""

    def __init__(self, plane: Plane) -> None:
        references, classes = plane.references, plane.classes
        self._counts = np.bincount(classes, minlength=plane.num_classes)  # (K,)
        sums = np.zeros((plane.num_classes, references.shape[1]))
        np.add.at(sums, classes, references)
        self._means = sums / np.maximum(self._counts, 1)[:, None]  # (K, R)
        squared = np.square(references - self._means[classes]).sum(0)  # (R,)
        num_seen = np.count_nonzero(self._counts)
        self._has_spread = len(references) >= SPREAD_IMAGES * num_seen
        variances = squared / max(1, len(references) - num_seen)
        # Few images span fewer directions than there are: one without spread among them says nothing of others.
        self._variances = np.maximum(variances, max(variances.mean() / 100, 1e-12))
        self._shares = self._counts / len(references)

    def distance(self, coordinates: Array, labels: npt.NDArray[np.int64]) -> float | None:
        """Return :attr:`DriftFigures.distance` of images (n, R) with labels (n,); classes without images do not count.

        Chance moves the images' mean by R / n squared standard deviations, and that of a class in training likewise.
        """
        is_counted = self._counts[labels] > 0
        coordinates, labels = coordinates[is_counted], labels[is_counted]
        if not (self._has_spread and len(labels)):
            return None
        mean = (coordinates - self._means[labels]).mean(0)  # (R,)
        weights = np.bincount(labels, minlength=len(self._counts)) / len(labels)  # (K,)
        chance = 1 / len(labels) + (np.square(weights) / np.maximum(self._counts, 1)).sum()
        squared = (np.square(mean) / self._variances).sum() - 2 * len(mean) * chance
        return float(np.sqrt(max(squared, 0)))

    def label_distance(self, labels: npt.NDArray[np.int64]) -> float:
        """Return :attr:`DriftFigures.label_distance` of labels (n,)."""
        shares = np.bincount(labels, minlength=len(self._shares)) / len(labels)  # (K,)
        chance = np.sqrt(2 * self._shares * (1 - self._shares) / (np.pi * len(labels)))  # (K,) mean deviation
        return float(max((np.abs(shares - self._shares) - chance).sum() / 2, 0))
