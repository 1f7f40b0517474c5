"""The benchmark of planted errors: what is planted, counted and told."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.label_errors import Found, copy_smaller, make_report, plant_labels, share_listed


def test_a_twentieth_of_the_labels_is_changed_to_another_class_by_the_seed() -> None:
    labels = torch.arange(200) % 4
    changed, planted = plant_labels(labels, 4, seed=1)
    assert len(planted) == 10
    assert (changed != labels).nonzero()[:, 0].tolist() == sorted(planted.tolist())
    assert int(changed.max()) == 3
    again, _ = plant_labels(labels, 4, seed=1)
    other, _ = plant_labels(labels, 4, seed=2)
    assert (again == changed).all()
    assert not (other == changed).all()


def test_only_the_head_of_the_list_counts() -> None:
    order = torch.arange(200)
    assert share_listed(order, torch.tensor([0, 14, 15, 199])) == 0.5


def test_copies_are_smaller_jpegs(tmp_path: Path) -> None:
    Image.new("RGB", (100, 60), (200, 10, 10)).save(tmp_path / "one.png")
    copy_smaller(tmp_path / "one.png", tmp_path / "two.jpg", 0.5)
    with Image.open(tmp_path / "two.jpg") as copied:
        assert (copied.format, copied.size) == ("JPEG", (50, 30))


@pytest.mark.parametrize(("copies", "kept"), [(1.0, True), (0.95, False)])
def test_report_has_means_over_the_seeds_and_keeps_its_limits(copies: float, kept: bool) -> None:
    found = [Found("pets", 100, share, 0.8, copies, None, 0) for share in (0.8, 1.0)]
    report = make_report(found)
    assert list(report.sheets[0].rows[0]) == ["pets", "100", "90.0%", "80.0%", f"{copies:.1%}", "–", "–"]
    assert [check.is_kept for check in report.checks] == [True, kept]
