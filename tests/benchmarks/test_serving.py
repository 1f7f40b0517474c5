import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import serving
from benchmarks.serving import Contestant, Result
from model.defaults import PRETRAINED


@pytest.mark.parametrize(
    ("kind", "size", "kilobytes"), [("small", (32, 32), (0.5, 2)), ("photo", (900, 600), (70, 160))]
)
def test_files_are_drawn_as_large_as_they_are_called(
    kind: str, size: tuple[int, int], kilobytes: tuple[float, float], tmp_path: Path
) -> None:
    files = serving._draw(tmp_path, kind)
    assert len({file.read_bytes() for file in files}) == serving.FILES
    for file in files:
        assert Image.open(io.BytesIO(file.read_bytes())).size == size
        assert kilobytes[0] < file.stat().st_size / 1000 < kilobytes[1]


def test_a_contestant_with_other_answers_is_not_measured(tmp_path: Path) -> None:
    (file, *_) = serving._draw(tmp_path, "small")
    ours = Contestant("ours", "", (sys.executable, "torchlight.py", "serve", "--port", "PORT"))
    with pytest.raises(SystemExit, match=r"ours says 0\.\d+ for small-0\.jpg, not 2\.0000"):  # noqa: SIM117
        with serving._running(ours, PRETRAINED, {file: 2.0}):
            pytest.fail("it must not come so far")


def test_the_table_holds_medians_and_ratios() -> None:
    one = Contestant("ours", "2 workers", ())
    results = [Result(rate, 2.0, 5.0, errors, 0.02) for rate, errors in ((100, 0), (300, 1), (200, 0))]
    found = {("ours", connections): results for connections in serving.CONNECTIONS}
    sheet = serving._sheet("photo", [PRETRAINED], [one], found, ceiling=400)
    assert sheet.rows[0] == ("ours", "2 workers", "1", "0.50", "200", "2.0", "5.0", "1", "2%")
    assert "the ceiling is 400 images/s" in sheet.title
