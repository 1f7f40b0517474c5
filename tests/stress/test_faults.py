"""What the faults and the lifecycle are judged by is what it says."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from stress import faults, lifecycle
from stress.faults import Asked
from stress.lifecycle import Stop


def load(*ended: tuple[float, str]) -> faults.Load:
    return faults.Load([Asked(moment - 0.1, moment, 5000, answer) for moment, answer in ended])


def test_the_longest_gap_is_between_good_answers_after_the_fault() -> None:
    seen = load((1, "200"), (9, "200"), (11, "200"), (12, "closed"), (14, "200"))
    assert seen.longest_gap(since=10) == 3
    assert [one.answer for one in seen.failed] == ["closed"]


@pytest.mark.parametrize(
    ("told", "broken"),
    [
        (Stop(50, Counter({"200": 50}), 0, 1.0), []),
        (Stop(50, Counter({"200": 49, "closed": 1}), 0, 1.0), ["SIGTERM, 1 worker: answered"]),
        (Stop(49, Counter({"200": 50}), 0, 1.0), ["SIGTERM, 1 worker: answered"]),  # one was not under way any more
        (Stop(50, Counter({"200": 50}), -15, 1.0), ["SIGTERM, 1 worker: exit code"]),
    ],
)
def test_a_stop_that_loses_an_answer_or_ends_in_failure_breaks_its_limit(told: Stop, broken: list[str]) -> None:
    assert [check.what for check in lifecycle._stop_checks({1: told}) if not check.is_kept] == broken


def test_a_request_that_the_metrics_lost_breaks_its_limit() -> None:
    assert lifecycle._count_check({"predict": (200, 200), "404": (50, 50)}).is_kept
    assert not lifecycle._count_check({"predict": (200, 201), "404": (50, 49)}).is_kept


def test_the_clock_jumps_for_one_process_and_its_monotonic_clock_does_not(tmp_path: Path) -> None:
    variables = faults.fake_clock(tmp_path)
    faults.turn(tmp_path / faults.OFFSET, faults.DAY)
    command = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    printed = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=True).stdout
    wall, monotonic = map(float, printed.split())
    assert wall - time.time() == pytest.approx(faults.DAY, abs=60)
    assert monotonic == pytest.approx(time.monotonic(), abs=60)
