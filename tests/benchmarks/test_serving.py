import io
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import serving
from benchmarks.serving import Contestant, Measured, Result
from torchlight.model.defaults import PRETRAINED


@pytest.mark.parametrize(
    ("kind", "size", "kilobytes"), [("small", (32, 32), (0.5, 2)), ("photo", (900, 600), (70, 160))]
)
def test_files_are_drawn_as_large_as_they_are_called(
    kind: str, size: tuple[int, int], kilobytes: tuple[float, float], tmp_path: Path
) -> None:
    files = serving.draw_files(tmp_path, kind)
    assert len({file.read_bytes() for file in files}) == serving.FILES
    for file in files:
        assert Image.open(io.BytesIO(file.read_bytes())).size == size
        assert kilobytes[0] < file.stat().st_size / 1000 < kilobytes[1]


HALF_SURE = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"predictions": [{"probability": 0.5}]}).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_contestant_with_other_answers_is_not_measured(tmp_path: Path) -> None:
    (file, *_) = serving.draw_files(tmp_path, "small")
    contestant = Contestant("half", "", (sys.executable, "-c", HALF_SURE, "PORT"))
    with serving._running(contestant, PRETRAINED, {file: 0.51}):
        pass
    with pytest.raises(SystemExit, match=r"half says 0\.5000 for small-0\.jpg, not 0\.9000"):  # noqa: SIM117
        with serving._running(contestant, PRETRAINED, {file: 0.9}):
            pytest.fail("it must not come so far")


def measured(*services: tuple[str, float, float]) -> Measured:
    """Return what a benchmark of these would find: name, requests/s and p99 in ms over each number of connections."""
    rounds = {
        (name, connections): [Result(rate, 2.0, p99_ms, 1, 0.02)]
        for name, rate, p99_ms in services
        for connections in serving.CONNECTIONS
    }
    return Measured("photo", 100.0, 400.0, rounds)


def test_a_median_is_that_of_each_figure_and_errors_are_added_up() -> None:
    results = [Result(rate, 2.0, 5.0, errors, 0.02) for rate, errors in ((100, 0), (300, 1), (200, 2))]
    assert serving._median_of(results) == Result(200, 2.0, 5.0, 3, 0.02)


def test_the_table_holds_ratios_to_the_ceiling() -> None:
    sheet = serving._sheet(measured(("ours", 200.0, 5.0)), [Contestant("ours", "2 workers", ())])
    assert sheet.rows[0] == ("ours", "2 workers", "1", "0.50", "200", "2.0", "5.0", "1", "2%")
    assert "the ceiling is 400 images/s" in sheet.title


def test_limits_are_against_the_peer_that_answers_most() -> None:
    found = measured(
        ("ours", 330.0, 40.0), ("ours, int8", 500.0, 9.0), ("LitServe", 100.0, 10.0), ("BentoML", 260.0, 90.0)
    )
    kept = {check.what.removeprefix("photo: "): (check.measured, check.is_kept) for check in serving._checks(found)}
    assert kept == {
        "of the ceiling": ("0.82", True),
        "of BentoML, 32 connections": ("1.27", True),
        "of BentoML, 1 connection": ("1.27", True),
        "int8, of BentoML": ("1.92", False),
        "p99, half of BentoML's": ("40 ms", True),
    }


def test_without_peers_only_the_ceiling_is_a_limit() -> None:
    (check,) = serving._checks(measured(("ours", 100.0, 40.0)))
    assert (check.what, check.is_kept) == ("photo: of the ceiling", False)


def test_the_chart_has_a_bar_for_each_service() -> None:
    found = measured(("ours", 200.0, 5.0), ("LitServe", 100.0, 10.0))
    figure = serving._chart([found, found], [Contestant("ours", "", ()), Contestant("LitServe", "", ())])
    assert [[bar.get_width() for bar in axis.patches] for axis in figure.axes] == [[0.25, 0.5]] * 2


def test_another_checkout_runs_in_its_own_folder_with_our_settings() -> None:
    other = serving._other_checkout(f"before={serving.ROOT}")
    assert (other.name, other.folder) == ("before", serving.ROOT)
    assert (other.command, other.settings) == (serving.OURS[0].command, serving.OURS[0].settings)


@pytest.mark.parametrize("named", ["before", "before=", "before=/nowhere"])
def test_a_folder_without_torchlight_is_refused(named: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"'{named}' is not NAME=DIR"):
        serving._other_checkout(named)


def test_ratios_to_another_checkout_are_medians_of_the_rounds() -> None:
    rounds = {
        ("ours", 32): [Result(rate, 2.0, 5.0, 0, 0.02) for rate in (100, 300, 400)],
        ("before", 32): [Result(rate, 2.0, 10.0, 0, 0.02) for rate in (100, 200, 200)],
    }
    sheet = serving._ratio_sheet(Measured("photo", 100.0, 400.0, rounds), [Contestant("before", "", ())])
    assert sheet.rows == [("before", "32", "1.50 (1.00 to 2.00)", "0.50 (0.50 to 0.50)")]
