"""The benchmark on people's own photos: what is drawn, measured, kept and told."""

import dataclasses
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from benchmarks import own_photos
from benchmarks.drawn_sets import Name, write_set
from benchmarks.own_photos import PhotoSet, draw_photos, measure_answers, measure_run
from benchmarks.own_photos_report import ALL, DEFAULT, Row, draw_picture, make_report
from stress.load.report import Report
from torchlight.training.evaluation.calibration import expected_calibration_error

BASELINE = "logistic regression, lite0"


def row(way: str, accuracy: float | None, seed: int = 0, **others: object) -> Row:
    """Return a run on ten photos of each of two classes."""
    known = Row("pets", way, 10, seed, 20, 5.0, 8.0, 900_000_000, accuracy, 0.04, 0.03, "")
    return dataclasses.replace(known, **others)


def table(report: Report, title: str) -> list[list[str]]:
    (sheet,) = (sheet for sheet in report.sheets if sheet.title == title)
    return [list(sheet.head), *map(list, sheet.rows)]


def verdicts(report: Report) -> dict[str, tuple[str, bool]]:
    return {check.what: (check.measured, check.is_kept) for check in report.checks}


@pytest.fixture
def photos(tmp_path: Path) -> PhotoSet:
    for part, number in (("train", 4), ("apart", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(number):
                (tmp_path / part / name / f"{index}.jpg").write_text(f"{part} {name} {index}")
    return PhotoSet("pets", tmp_path / "train", tmp_path / "apart")


@pytest.fixture
def answering() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def test_photos_of_each_class_are_drawn_by_the_seed(photos: PhotoSet, tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert draw_photos(photos.train, tmp_path / folder, 2, seed) == 4
    first, same, other = (sorted(p.read_text() for p in (tmp_path / f).rglob("*.jpg")) for f in "abc")
    assert first == same != other
    assert [text.split()[1] for text in first] == ["cat", "cat", "dog", "dog"]


def test_all_photos_are_taken_where_a_class_has_no_more(photos: PhotoSet, tmp_path: Path) -> None:
    assert draw_photos(photos.train, tmp_path / "more", 100, 0) == 8
    assert draw_photos(photos.train, tmp_path / "all", ALL, 0) == 8


def test_answers_as_sure_as_they_are_right_have_the_calibration_error_that_chance_makes() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = 0.5 + 0.5 * torch.rand(300, generator=generator)
    probabilities = torch.stack([confidence, 1 - confidence], 1)
    labels = (torch.rand(20, 300, generator=generator) >= confidence).long()
    figures = measure_answers(probabilities, labels[0])
    errors = [expected_calibration_error(probabilities, one) for one in labels]
    assert sum(errors) / 20 == pytest.approx(figures["by_chance"], rel=0.15)
    assert figures["calibration_error"] == errors[0]
    assert figures["accuracy"] == (labels[0] == 0).double().mean().item()


def test_answers_that_are_too_sure_have_a_larger_error_than_chance_makes() -> None:
    probabilities = torch.tensor([[0.99, 0.01]] * 100)
    figures = measure_answers(probabilities, torch.arange(100) % 2)
    assert figures["calibration_error"] == pytest.approx(0.49)
    assert figures["by_chance"] < 0.02


def test_tables_show_mean_and_spread_and_what_was_refused() -> None:
    report = make_report([row(DEFAULT, 0.9), row(DEFAULT, 0.94, 1), row(BASELINE, 0.9), row("from nothing", None)])
    assert table(report, "pets: accuracy") == [
        ["photos a class", DEFAULT, "from nothing", BASELINE],
        ["10", "92.0 ± 2.8", "-", "90.0 ± 0.0"],
    ]
    assert table(report, "pets: seconds")[1] == ["10", "5.0 ± 0.0 (8, 0.9 GB)", "-", "5.0 ± 0.0 (8, 0.9 GB)"]
    assert table(report, "Calibration error of the default, %")[1] == ["pets", "10", "4.0 ± 0.0", "3.0"]


def test_limits_compare_the_default_with_baseline_and_candidates() -> None:
    rows = [row(DEFAULT, 0.9, each=ALL), row(BASELINE, 0.905, each=ALL), row("from nothing", 0.93, each=ALL)]
    assert verdicts(make_report(rows)) == {
        "pets: below the better baseline": ("+0.5 points, all photos a class", True),
        "pets: below the best candidate": ("+3.0 points, all photos a class", False),
        "pets: seconds for 20 photos": ("5.0", True),
        "pets: calibration error, all photos": ("4.0% (chance: 3.0%)", True),
    }


@pytest.mark.parametrize(
    ("each", "photos", "limit"), [(10, 50, "10"), (10, 1000, "10"), (50, 200, "15"), (50, 201, "180")]
)
def test_limit_of_time_follows_from_the_photos(each: int, photos: int, limit: str) -> None:
    (check,) = make_report([row(DEFAULT, 0.9, each=each, photos=photos, seconds=11)]).checks
    assert (check.limit, check.is_kept) == (limit, float(limit) >= 11)


def test_picture_of_the_same_rows_has_the_same_bytes(tmp_path: Path) -> None:
    rows = [row(DEFAULT, 0.9), row(DEFAULT, 0.94, 1), row(BASELINE, 0.9, each=ALL)]
    for name in ("a.svg", "b.svg"):
        draw_picture(rows, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_runs_that_have_a_row_are_not_repeated(
    photos: PhotoSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def measure(photos: PhotoSet, way: str, each: int, seed: int, answering: Executor) -> Row:
        asked.append((way, seed))
        return row(way, 0.9, seed, each=each)

    monkeypatch.setattr(own_photos, "measure_run", measure)
    named = f"pets={photos.train},{photos.apart}"
    arguments = [named, "--each", "10", "--only", DEFAULT, BASELINE, "--rows", str(tmp_path / "rows.jsonl")]
    for seeds in ("1", "2"):
        monkeypatch.setattr(sys, "argv", ["own_photos", *arguments, "--seeds", seeds])
        own_photos.main()
    assert asked == [(DEFAULT, 0), (BASELINE, 0), (DEFAULT, 1), (BASELINE, 1)]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert rows == [dataclasses.asdict(row(way, 0.9, seed)) for way, seed in asked]


@pytest.mark.slow
def test_baseline_learns_in_a_process_of_its_own(tmp_path: Path, answering: Executor) -> None:
    write_set(Name.HANDS, tmp_path, each=3, apart=20)
    measured = measure_run(PhotoSet("hands", tmp_path / "photos", tmp_path / "apart"), BASELINE, ALL, 0, answering)
    assert measured.photos == 30
    assert measured.accuracy > 0.15  # one of ten by chance
    assert measured.cpu_seconds > 0
    assert 1e8 < measured.memory_bytes < 4e9


@pytest.mark.slow
def test_a_refused_run_leaves_a_row_that_says_why(photos: PhotoSet, answering: Executor) -> None:
    """The photos of this set are no images."""
    refused = measure_run(photos, DEFAULT, ALL, 0, answering)
    assert (refused.accuracy, refused.photos) == (None, 8)
    assert "8 of 8 files are unreadable" in refused.says
