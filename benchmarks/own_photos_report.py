"""The rows of :mod:`benchmarks.own_photos` as tables, limits and a picture. Measures nothing."""

import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from stress.load.report import Check, Report, Sheet

DEFAULT, BASELINE = "default", "logistic regression"
ALL = 0  # photos a class: as many as there are
BEHIND_BEST, BEHIND_BASELINE = 2.0, 1.0  # points that the default may lie below the best candidate, the baseline
SECONDS = {200: 15.0, 1000: 180.0}  # at most, of the default, for up to so many photos
SECONDS_OF_TEN = 10.0  # the same, for ten photos a class
CALIBRATION = 5.0  # points of calibration error, at most


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        each: photos a class; ``ALL`` for all of them.
        photos: that it learnt from, in all.
        seconds, cpu_seconds: of the process, from its start to its end.
        memory_bytes: that it had at its peak.
        accuracy: on the photos apart, in [0, 1]; None if the run was refused.
        calibration_error, by_chance: expected calibration error there, and the mean of what chance makes.
        says: why it was refused; else what it says of itself.
    """

    set: str
    way: str
    each: int
    seed: int
    photos: int
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    accuracy: float | None
    calibration_error: float | None
    by_chance: float | None
    says: str

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What no two rows share."""
        return self.set, self.way, self.each, self.seed


def is_baseline(way: str) -> bool:
    """Return whether a way is one of the plain baselines."""
    return way.startswith(BASELINE)


@dataclass(frozen=True)
class Table:
    """Rows by set, way and photos a class."""

    rows: Sequence[Row]

    @property
    def sets(self) -> list[str]:
        """Their names in the order of the rows."""
        return list(dict.fromkeys(row.set for row in self.rows))

    @property
    def ways(self) -> list[str]:
        """The default first, the baseline last."""
        found = list(dict.fromkeys(row.way for row in self.rows))
        return sorted(found, key=lambda way: (way != DEFAULT, is_baseline(way), found.index(way)))

    def sizes(self, name: str) -> list[int]:
        """Return the photos a class of a set, all of them last."""
        return sorted({row.each for row in self.rows if row.set == name}, key=lambda each: (each == ALL, each))

    def of(self, name: str, way: str, each: int) -> list[Row]:
        """Return the runs of all seeds that were not refused."""
        wanted = (name, way, each)
        return [row for row in self.rows if row.key[:3] == wanted and row.accuracy is not None]

    def accuracy(self, name: str, way: str, each: int) -> float | None:
        """Return the mean over the seeds, in per cent."""
        found = [row.accuracy for row in self.of(name, way, each) if row.accuracy is not None]
        return 100 * mean(found) if found else None


def make_report(rows: Sequence[Row]) -> Report:
    """Return tables of accuracy, seconds and calibration, and the limits that the default keeps or misses."""
    table = Table(rows)
    most = len({row.seed for row in rows})
    summary = (
        f"Mean of up to {most} runs ± standard deviation over them; each run draws its own photos. "
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, torch {torch.__version__}. Accuracy is "
        f"in per cent of the photos apart; seconds are those from the command to its end, in brackets CPU seconds and "
        f"peak memory."
    )
    sheets = []
    for name in table.sets:
        sheets.append(_sheet(table, name, f"{name}: accuracy", _show_accuracy))
        sheets.append(_sheet(table, name, f"{name}: seconds", _show_seconds))
    return Report("Own photos", summary, [*sheets, _calibration(table)], list(_checks(table)))


def draw_picture(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy and seconds by photos a class: a column for each set, a line for each way."""
    table = Table(rows)
    figure = Figure(figsize=(1 + 3.4 * len(table.sets), 6), layout="constrained")
    axes = figure.subplots(2, len(table.sets), sharex="col", sharey="row", squeeze=False)
    for column, name in enumerate(table.sets):
        sizes = table.sizes(name)
        for way in table.ways:
            found = [(each, table.of(name, way, each)) for each in sizes]
            points = [(sizes.index(each), runs) for each, runs in found if runs]
            style = {"marker": "o", "capsize": 3, "linewidth": 2.5 if way == DEFAULT else 1, "label": way}
            for axis, values in (
                (axes[0, column], [[100 * (run.accuracy or 0) for run in runs] for _, runs in points]),
                (axes[1, column], [[run.seconds for run in runs] for _, runs in points]),
            ):
                axis.errorbar([x for x, _ in points], [mean(v) for v in values], [_spread(v) for v in values], **style)
        axes[0, column].set_title(name)
        axes[1, column].set_yscale("log")
        axes[1, column].set_xticks(range(len(sizes)), [_name_size(each) for each in sizes])
        axes[1, column].set_xlabel("photos a class")
    axes[0, 0].set_ylabel("right, % of the photos apart")
    axes[1, 0].set_ylabel("seconds")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "own-photos"}):  # the same rows give the same bytes
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _sheet(table: Table, name: str, title: str, show: Callable[[Sequence[Row]], str]) -> Sheet:
    rows = [[_name_size(each), *(show(table.of(name, way, each)) for way in table.ways)] for each in table.sizes(name)]
    return Sheet(title, ["photos a class", *table.ways], rows)


def _calibration(table: Table) -> Sheet:
    """Return the calibration error of the default in per cent, beside what chance makes."""
    rows = []
    for name in table.sets:
        for each in table.sizes(name):
            runs = table.of(name, DEFAULT, each)
            errors = [100 * (run.calibration_error or 0) for run in runs]
            by_chance = [100 * (run.by_chance or 0) for run in runs]
            if runs:
                rows.append([name, _name_size(each), _show(errors, 1), f"{mean(by_chance):.1f}"])
    return Sheet("Calibration error of the default, %", ["set", "photos a class", "measured", "by chance"], rows)


def _checks(table: Table) -> Iterator[Check]:
    for name in table.sets:
        baselines = [way for way in table.ways if is_baseline(way)]
        behind = [(each, _behind(table, name, each, baselines)) for each in table.sizes(name)]
        yield from _check_distance(f"{name}: below the better baseline", behind, BEHIND_BASELINE)
        candidates = [way for way in table.ways if way != DEFAULT and not is_baseline(way)]
        behind = [(ALL, _behind(table, name, ALL, candidates))]
        yield from _check_distance(f"{name}: below the best candidate", behind, BEHIND_BEST)
        yield from _check_seconds(table, name)
        errors = [100 * (run.calibration_error or 0) for run in table.of(name, DEFAULT, ALL)]
        if errors:
            measured, by_chance = mean(errors), mean(100 * (run.by_chance or 0) for run in table.of(name, DEFAULT, ALL))
            text = f"{measured:.1f}% (chance: {by_chance:.1f}%)"
            yield Check(f"{name}: calibration error, all photos", text, f"{CALIBRATION:g}%", measured <= CALIBRATION)


def _behind(table: Table, name: str, each: int, others: Sequence[str]) -> float | None:
    """Return by how many points the default lies below the best of the others; None if either was not measured."""
    own = table.accuracy(name, DEFAULT, each)
    best = [value for way in others if (value := table.accuracy(name, way, each)) is not None]
    return max(best) - own if best and own is not None else None


def _check_distance(what: str, behind: Sequence[tuple[int, float | None]], limit: float) -> Iterator[Check]:
    measured = [(value, each) for each, value in behind if value is not None]
    if measured:
        worst, each = max(measured)
        text = f"{worst:+.1f} points, {_name_size(each)} photos a class"
        yield Check(what, text, f"{limit:g} points", worst <= limit)


def _check_seconds(table: Table, name: str) -> Iterator[Check]:
    for each in table.sizes(name):
        runs = table.of(name, DEFAULT, each)
        photos = runs[0].photos if runs else 0
        limits = [SECONDS_OF_TEN] * (each == 10) or [limit for most, limit in SECONDS.items() if photos <= most][:1]
        if runs and limits:
            slowest = max(run.seconds for run in runs)
            yield Check(
                f"{name}: seconds for {photos} photos", f"{slowest:.1f}", f"{limits[0]:g}", slowest <= limits[0]
            )


def _show_accuracy(runs: Sequence[Row]) -> str:
    return _show([100 * (run.accuracy or 0) for run in runs], 1)


def _show_seconds(runs: Sequence[Row]) -> str:
    if not runs:
        return "-"
    cpu_seconds, memory = mean(run.cpu_seconds for run in runs), max(run.memory_bytes for run in runs)
    return f"{_show([run.seconds for run in runs], 1)} ({cpu_seconds:.0f}, {memory / 1e9:.1f} GB)"


def _show(values: Sequence[float], digits: int) -> str:
    return f"{mean(values):.{digits}f} ± {_spread(values):.{digits}f}" if values else "-"


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _name_size(each: int) -> str:
    return "all" if each == ALL else str(each)
