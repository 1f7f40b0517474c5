"""Every metric of the service, and how the numbers of all its processes become one exposition.

Counts are those of all processes since the service started, of killed ones too; gauges are those of the living. The
rest of the service says what happened (:class:`Metrics`) and knows no name of a metric. Knows nothing of HTTP.
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from statistics import fmean

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from torchlight.app.telemetry.shared_counters import Key, SharedCounters
from torchlight.model.uncertainty.drift import DriftFigures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PUBLISH_S = 1  # how old the gauges of a process may be that did not answer the scrape itself
FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)  # up to the usual deadline
PROBABILITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Counter:
    """Only grows. The exposition adds ``_total`` to the name."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """How many values were at most each bound, and their sum."""

    name: str
    help: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...] = ()

    @cached_property
    def buckets(self) -> tuple[str, ...]:
        """The bounds as the exposition writes them, with the last, which nothing exceeds."""
        return (*(f"{bound:g}" for bound in self.bounds), "+Inf")


@dataclass(frozen=True)
class Gauge:
    """How much there is now; ``combine`` makes one number of those of several processes."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    combine: Callable[[Iterable[float]], float] = sum


REQUESTS = Counter(
    "torchlight_requests",
    "Requests by route, method and status; 499 if the client left before the answer.",
    ("route", "method", "status"),
)
REQUEST_SECONDS = Histogram(
    "torchlight_request_duration_seconds", "From the request's head to the end of its answer.", FAST_S, ("route",)
)
REQUESTS_IN_PROGRESS = Gauge("torchlight_requests_in_progress", "Requests that are not answered yet.")
REFUSALS = Counter(
    "torchlight_refusals", "Requests, and files of batch requests, that got a problem instead, by its code.", ("code",)
)
ABANDONED = Counter("torchlight_abandoned_requests", "Requests whose client left before the answer.")
STAGE_SECONDS = Histogram(
    "torchlight_stage_duration_seconds",
    "Of each classified image: decode (with its wait for a decoder), queue, inference (of its whole batch).",
    FAST_S,
    ("stage",),
)
BATCH_SIZE = Histogram(
    "torchlight_batch_size", "Images that the network computed together; the first of a process is its warm-up.", SIZES
)
QUEUE_LENGTH = Gauge("torchlight_queue_length", "Images that wait for the network.")
PREDICTIONS = Counter("torchlight_predictions", "Classified images by their most probable label.", ("label",))
UNKNOWN = Counter("torchlight_unknown_images", "Classified images that are unlike what the network knows.")
CONFIDENCE = Histogram(
    "torchlight_confidence", "Probability of the most probable label of each classified image.", PROBABILITIES
)
MODEL_INFO = Gauge(
    "torchlight_model_info",
    "1 for each model that is served, 0 for one that was.",
    ("name", "digest", "architecture", "classes"),
    max,
)
READY = Gauge("torchlight_ready_processes", "Processes that are ready.")
PROCESSES = Gauge("torchlight_processes", "Processes that answer.")
DRIFT = Gauge(
    "torchlight_drift",
    "Evidence that images are stranger than known ones, 1 where an alarm is due; the highest of all processes.",
    combine=max,
)
DRIFT_DISTANCE = Gauge(
    "torchlight_drift_distance",
    "From the mean of their class in training to that of the last 200 images, in standard deviations, beyond chance.",
    combine=fmean,
)
DRIFT_UNKNOWN_SHARE = Gauge(
    "torchlight_drift_unknown_share",
    "Share of the last 200 images that are unlike what the network knows; 0.05 is usual.",
    combine=fmean,
)
DRIFT_LABEL_DISTANCE = Gauge(
    "torchlight_drift_label_distance",
    "Share of the last 200 images that would need another label to have those of training, beyond chance.",
    combine=fmean,
)
CPU_SECONDS = Counter("process_cpu_seconds", "User and system CPU time of the processes that answer, in seconds.")
PROCESS_GAUGES = {
    gauge.name: gauge
    for gauge in (
        Gauge("process_resident_memory_bytes", "Resident memory of the processes that answer, in bytes."),
        Gauge("process_virtual_memory_bytes", "Virtual memory of the processes that answer, in bytes."),
        Gauge("process_open_fds", "Open file descriptors of the processes that answer."),
        Gauge("process_max_fds", "Most file descriptors that they may open."),
        Gauge("process_start_time_seconds", "When the youngest process started, in seconds since 1970.", combine=max),
    )
}
COUNTERS = (REQUESTS, REFUSALS, ABANDONED, PREDICTIONS, UNKNOWN, CPU_SECONDS)
HISTOGRAMS = (REQUEST_SECONDS, STAGE_SECONDS, BATCH_SIZE, CONFIDENCE)
DRIFT_GAUGES = (DRIFT, DRIFT_DISTANCE, DRIFT_UNKNOWN_SHARE, DRIFT_LABEL_DISTANCE)  # in the order of DriftFigures
GAUGES = (REQUESTS_IN_PROGRESS, QUEUE_LENGTH, MODEL_INFO, READY, PROCESSES, *DRIFT_GAUGES, *PROCESS_GAUGES.values())
SUM = "sum"


@dataclass(frozen=True)
class Snapshot:
    """The values of a process's gauges; ``drift`` is None if there is nothing to say of it."""

    queue_length: int
    is_ready: bool
    model_name: str
    digest: str
    architecture: str
    class_names: Sequence[str]
    drift: DriftFigures | None


class Metrics(Collector):
    """Counts events of this process; any thread may call it."""

    def __init__(self, folder: Path | None = None) -> None:
        """Continue from the counts of ended processes in the folder.

        Args:
            folder: shared by the processes of one service; None for a service of one process.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._shared = SharedCounters(folder)
        self._in_progress = 0
        self._cpu_s = 0.0
        self._model: tuple[str, ...] = ()
        self._process = ProcessCollector(registry=None)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._count(ABANDONED, amount=0)
        self._count(UNKNOWN, amount=0)

    @property
    def process_number(self) -> int:
        """Number of this process; no other living one of the service has it."""
        return self._shared.number

    def begin_request(self) -> None:
        """Count a request that is in progress until :meth:`end_request`."""
        self._in_progress += 1

    def end_request(self, route: str, method: str, status: int, seconds: float, code: str | None) -> None:
        """Count a request by how it ended.

        Args:
            route, method: each is a label, so it takes a bounded number of values: a template, never a path.
            code: that of the problem it got, if it got one.
        """
        self._in_progress -= 1
        self.count_request(route, method, status)
        self._observe(REQUEST_SECONDS, seconds, route)
        if code is not None:
            self.count_problem(code)

    def count_request(self, route: str, method: str, status: int) -> None:
        """Count a request that ended before :meth:`begin_request` could be called for it."""
        self._count(REQUESTS, route, method, str(status))

    def count_abandoned(self) -> None:
        """Count a request whose client left."""
        self._count(ABANDONED)

    def count_problem(self, code: str) -> None:
        """Count a problem that was sent."""
        self._count(REFUSALS, code)

    def expect_codes(self, codes: Iterable[str]) -> None:
        """Show these codes with 0 from the start, so that the first problem is an increase."""
        for code in codes:
            self._count(REFUSALS, code, amount=0)

    def count_image(
        self, label: str, probability: float, stages: Mapping[str, float], *, is_unknown: bool = False
    ) -> None:
        """Count a classified image, its most probable label, and the seconds of each of its stages."""
        self._count(PREDICTIONS, label)
        self._count(UNKNOWN, amount=is_unknown)
        self._observe(CONFIDENCE, probability)
        for stage, seconds in stages.items():
            self._observe(STAGE_SECONDS, seconds, stage)

    def count_batch(self, images: int) -> None:
        """Count a batch."""
        self._observe(BATCH_SIZE, images)

    def publish(self, snapshot: Snapshot) -> None:
        """Set this process's gauges, for the scrapes that any process answers."""
        self._set(REQUESTS_IN_PROGRESS, self._in_progress)
        self._set(QUEUE_LENGTH, snapshot.queue_length)
        self._set(READY, snapshot.is_ready)
        self._set(PROCESSES, 1)
        self._publish_model(snapshot)
        if snapshot.drift is not None:
            for gauge, value in zip(DRIFT_GAUGES, snapshot.drift, strict=True):
                if value is not None:
                    self._set(gauge, value)
        for sample in (sample for family in self._process.collect() for sample in family.samples):
            self._publish_process(sample.name, sample.value)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Leave the counts to the process that replaces this one."""
        self._shared.close()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with the numbers of all processes."""
        counts = _by_metric(self._shared.counts())
        gauges = [_by_metric(one) for one in self._shared.gauges()]
        for counter in COUNTERS:
            yield _counter_family(counter, counts.get(counter.name, {}))
        for histogram in HISTOGRAMS:
            yield _histogram_family(histogram, counts.get(histogram.name, {}))
        for gauge in GAUGES:
            yield _gauge_family(gauge, [one.get(gauge.name, {}) for one in gauges])

    def _count(self, counter: Counter, *labels: str, amount: float = 1) -> None:
        self._shared.add((counter.name, *labels), amount)

    def _observe(self, histogram: Histogram, value: float, *labels: str) -> None:
        bucket = histogram.buckets[bisect.bisect_left(histogram.bounds, value)]
        self._shared.add((histogram.name, *labels, bucket))
        self._shared.add((histogram.name, *labels, SUM), value)

    def _set(self, gauge: Gauge, value: float, *labels: str) -> None:
        self._shared.set((gauge.name, *labels), value)

    def _publish_model(self, snapshot: Snapshot) -> None:
        labels = (snapshot.model_name, snapshot.digest, snapshot.architecture, str(len(snapshot.class_names)))
        if labels == self._model:
            return
        if self._model:
            self._set(MODEL_INFO, 0, *self._model)
        self._model = labels
        self._set(MODEL_INFO, 1, *labels)
        for label in snapshot.class_names:  # so that the first answer is an increase
            self._count(PREDICTIONS, label, amount=0)

    def _publish_process(self, name: str, value: float) -> None:
        if name in PROCESS_GAUGES:
            self._set(PROCESS_GAUGES[name], value)
        elif name == f"{CPU_SECONDS.name}_total":
            self._count(CPU_SECONDS, amount=value - self._cpu_s)
            self._cpu_s = value


def _by_metric(numbers: Mapping[Key, float]) -> dict[str, dict[Key, float]]:
    """Return the numbers by the metric's name, then by what follows it in the key."""
    metrics: dict[str, dict[Key, float]] = {}
    for (name, *rest), value in sorted(numbers.items()):
        metrics.setdefault(name, {})[tuple(rest)] = value
    return metrics


def _counter_family(counter: Counter, values: Mapping[Key, float]) -> Metric:
    family = CounterMetricFamily(counter.name, counter.help, labels=counter.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _histogram_family(histogram: Histogram, values: Mapping[Key, float]) -> Metric:
    family = HistogramMetricFamily(histogram.name, histogram.help, labels=histogram.labels)
    for labels in dict.fromkeys(key[:-1] for key in values):
        numbers = accumulate(values.get((*labels, bound), 0.0) for bound in histogram.buckets)
        buckets = list(zip(histogram.buckets, numbers, strict=True))
        family.add_metric(labels, buckets, values.get((*labels, SUM), 0.0))
    return family


def _gauge_family(gauge: Gauge, values: Sequence[Mapping[Key, float]]) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
    for labels in dict.fromkeys(labels for one in values for labels in one):
        family.add_metric(labels, gauge.combine(one[labels] for one in values if labels in one))
    return family
