"""What was seen of a service's processes over a run, and what follows from it. Runs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from stress.load.service import Reading

WARM_UP = 0.25
LINES: tuple[tuple[str, str], ...] = (("rss_mb", "resident memory, MB"), ("descriptors", "file descriptors"),
                                      ("threads", "threads"))  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """All processes of the service at one moment; sums count a page that two of them share twice.

    Attributes:
        seconds: since the load began.
        requests: made until then.
    """

    seconds: float
    requests: int
    readings: tuple[Reading, ...]

    @property
    def rss_mb(self) -> float:
        """Resident memory, in 10^6 bytes."""
        return sum(one.rss_mb for one in self.readings)

    @property
    def descriptors(self) -> int:
        """Open files and sockets."""
        return sum(one.descriptors for one in self.readings)

    @property
    def threads(self) -> int:
        """Threads."""
        return sum(one.threads for one in self.readings)


@dataclass(frozen=True)
class Slope:
    """A fitted line's rise for 1,000 requests, in MB, and the standard error of that."""

    mb_per_1000: float
    error: float


def after_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return the samples after the first quarter of the requests, in which caches and the store fill up."""
    return [one for one in samples if one.requests >= WARM_UP * samples[-1].requests]


def memory_slope(samples: Sequence[Sample]) -> Slope:
    """Fit a line to the memory by least squares.

    Args:
        samples: at least three, at different numbers of requests.
    """
    requests = np.array([one.requests / 1000 for one in samples])
    memory = np.array([one.rss_mb for one in samples])
    (rise, level), *_ = np.polyfit(requests, memory, 1, full=True)
    residuals = memory - (rise * requests + level)
    spread = np.sqrt(residuals @ residuals / (len(samples) - 2))
    return Slope(float(rise), float(spread / np.linalg.norm(requests - requests.mean())))


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Return the medians of one of LINES over the first and the last third of the samples."""
    third = max(1, len(samples) // 3)
    values = [getattr(one, name) for one in samples]
    return median(values[:third]), median(values[-third:])


def draw_chart(samples: Sequence[Sample]) -> Figure:
    """Return memory, descriptors and threads over the requests, the sum in bold and each process beside it."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(len(LINES), 1, sharex=True)
    requests = [one.requests for one in samples]
    warm = after_warm_up(samples)
    for axis, (name, label) in zip(axes, LINES, strict=True):
        axis.plot(requests, [getattr(one, name) for one in samples], color="black", linewidth=1.8, label="all")
        for pid, role in processes(samples).items():
            values = [_of(sample, pid, name) for sample in samples]
            axis.plot(requests, values, linewidth=1, label=f"{role} {pid}")
        axis.axvspan(0, warm[0].requests, color="0.92", zorder=0)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    rise = f"{memory_slope(warm).mb_per_1000:+.3f} MB for 1,000 after warm-up (grey)"
    title = f"{requests[-1]:,} requests in {samples[-1].seconds / 60:.3g} minutes: {rise}"
    axes[0].set_title(title, loc="left", fontsize=11)
    axes[0].legend(loc="lower right", ncols=4, frameon=False, fontsize=9)
    axes[-1].set_xlabel("requests")
    axes[-1].set_xlim(0, requests[-1])
    return figure


def processes(samples: Sequence[Sample]) -> dict[int, str]:
    """Return the role of each process that was ever seen."""
    return {one.pid: one.role for sample in samples for one in sample.readings}


def _of(sample: Sample, pid: int, name: str) -> float:
    return next((getattr(one, name) for one in sample.readings if one.pid == pid), float("nan"))
