"""Features of photos -> how far each is from its like, and which are strangers. Knows nothing of files and pixels.

Source: Ramaswamy, Rastogi, Shim: Efficient Algorithms for Mining Outliers from Large Data Sets, SIGMOD 2000, with the
mean over the nearest neighbours, as Angiulli and Pizzuti (PKDD 2002).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

NEIGHBOURS = 10  # of 30 flowers hidden among insects 17 are found, and of 30 insects among flowers 25; see docs/log.md
DEVIATIONS = 3.0  # above the usual distance to all photos; in robust standard deviations
DEVIATIONS_IN_CLASS = 2.5  # above the usual distance to those of the class; lists 1 to 3 of 100 photos of a clean set
LEAST_DISTANCE = 0.1  # among photos that are all alike, a little further means nothing; real ones are about 0.3 apart
MIN_PHOTOS = 10  # of a class, or of all; fewer do not say what is usual
BLOCK = 1024  # photos compared with all others at a time


def measure_distances(features: Tensor, labels: Tensor, groups: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return each photo's mean cosine distance to the nearest ten of all photos, and of those of its class.

    Near-identical photos do not count as neighbours: two copies of a stranger are still strangers. Photos that have
    fewer than ten neighbours are measured by those; without any, the distance is 0.

    Args:
        features: (N, D) float32.
        labels: (N,) int64.
        groups: equal for near-identical photos, N names.

    Returns:
        Two tensors (N,) float32 from 0 to 2.
    """
    names = {name: k for k, name in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([names[name] for name in groups])  # (N,)
    directions = F.normalize(features, dim=1)
    all_parts, class_parts = [], []
    for start in range(0, len(labels), BLOCK):
        rows = slice(start, start + BLOCK)
        distance = 1 - directions[rows] @ directions.T  # (n, N)
        distance[group[rows][:, None] == group] = torch.inf
        all_parts.append(_mean_of_nearest(distance))
        distance[labels[rows][:, None] != labels] = torch.inf
        class_parts.append(_mean_of_nearest(distance))
    return torch.cat(all_parts), torch.cat(class_parts)


def find_far(distances: Tensor, deviations: float = DEVIATIONS) -> list[int]:
    """Return the positions of distances (N,) far above the usual one, the farthest first; none of few photos."""
    if len(distances) < MIN_PHOTOS:
        return []
    usual = distances.median()
    spread = 1.4826 * (distances - usual).abs().median()  # the standard deviation, if they are normal
    limit = (usual + deviations * spread).clamp(min=LEAST_DISTANCE)
    found = (distances > limit).nonzero()[:, 0]
    return found[distances[found].argsort(descending=True, stable=True)].tolist()


def find_far_from_class(distances: Tensor, labels: Tensor) -> list[int]:
    """Return the positions of photos far from their own class, as is usual there, the farthest first.

    Args:
        distances: (N,), each to the nearest photos of its class.
        labels: (N,) int64.
    """
    found: list[int] = []
    for label in torch.unique(labels):
        members = (labels == label).nonzero()[:, 0]
        found += members[find_far(distances[members], DEVIATIONS_IN_CLASS)].tolist()
    return sorted(found, key=lambda k: -distances[k].item())


def _mean_of_nearest(distance: Tensor) -> Tensor:
    """Return (n,) the mean of the smallest finite distances of each row (n, N); 0 of a row without any."""
    nearest = distance.topk(min(NEIGHBOURS, distance.shape[1]), 1, largest=False).values
    is_known = nearest.isfinite()
    return torch.where(is_known, nearest, 0.0).sum(1).clamp(min=0) / is_known.sum(1).clamp(min=1)
