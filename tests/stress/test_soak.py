"""The soak sees what it is there to see: a leak, a wrong answer, a service that refuses too many."""

import asyncio
import contextlib
import io
from collections import Counter
from collections.abc import Callable

import pytest
from PIL import Image
from rich.console import Console

from stress import soak
from stress.load import drawings, visitors
from stress.load.client import Answer, Client, Closed, build
from stress.load.report import Report
from stress.load.samples import Sample, after_warm_up, draw_chart, memory_slope
from stress.load.service import Reading, running
from stress.load.world import SHOWN_MISTAKES, Tally, World
from stress.soak import Run, judge
from torchlight.model.errors import ImageTooLarge
from torchlight.model.images import decode_image

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REQUEST = build("GET", "/")
Figure = Callable[[int], float]


def level(_: int) -> float:
    return 40.0


def samples(rss_mb: Figure = level, descriptors: Figure = level, threads: Figure = level) -> list[Sample]:
    """Return 40,000 requests in two minutes; each figure is a function of the requests so far."""
    return [
        Sample(requests / 1000, requests, (Reading(7, "parent", rss_mb(requests), *map(int, rest)),))
        for requests in range(0, 40_001, 1000)
        for rest in [(descriptors(requests), threads(requests))]
    ]


def tally(**answers: int) -> Tally:
    return Tally(Counter({("predict", status.removeprefix("status_")): count for status, count in answers.items()}))


def report(seen: list[Sample], told: Tally | None = None, errors: tuple[str, ...] = ()) -> Report:
    return judge(Run(seen, seen[-1], told or tally(status_200=40_000), errors), "a run")


def broken(given: Report) -> list[str]:
    return [check.what.partition(",")[0] for check in given.checks if not check.is_kept]


def test_a_run_without_faults_is_success() -> None:
    assert (report(samples()).exit_code, broken(report(samples()))) == (0, [])


def test_memory_that_rises_by_more_than_a_megabyte_for_1000_requests_is_failure() -> None:
    leaking = report(samples(rss_mb=lambda requests: 500 + 1.1 * requests / 1000))
    assert (leaking.exit_code, broken(leaking)) == (1, ["memory"])
    assert report(samples(rss_mb=lambda requests: 500 + 0.9 * requests / 1000)).exit_code == 0


def test_memory_may_rise_while_the_service_warms_up() -> None:
    assert report(samples(rss_mb=lambda requests: min(requests, 10_000) / 10)).exit_code == 0


def test_the_slope_is_that_of_the_line_and_the_error_tells_how_well_it_fits() -> None:
    even = memory_slope(samples(rss_mb=lambda requests: 3 + 0.25 * requests / 1000))
    assert (even.mb_per_1000, even.error) == pytest.approx((0.25, 0), abs=1e-9)
    uneven = memory_slope(samples(rss_mb=lambda requests: 3 + 0.25 * requests / 1000 + requests // 1000 % 2))
    assert uneven.error > 0.001


def test_warm_up_is_a_quarter_of_the_requests() -> None:
    assert after_warm_up(samples())[0].requests == 10_000


@pytest.mark.parametrize("name", ["descriptors", "threads"])
def test_descriptors_and_threads_that_grow_are_failure(name: str) -> None:
    growing: dict[str, Figure] = {name: lambda requests: 40 + requests / 2000}
    grown = report(samples(**growing))
    assert (grown.exit_code, broken(grown)) == (1, [name])


def test_one_answer_that_was_not_intended_is_failure_and_is_shown() -> None:
    told = tally(status_200=40_000)
    told.note("predict", "500", "intended was 200")
    wrong = report(samples(), told)
    assert (wrong.exit_code, broken(wrong)) == (1, ["answers that were not intended"])
    assert "predict: 500: intended was 200" in wrong.markdown("a command")


def test_an_unforeseen_failure_in_the_log_is_failure() -> None:
    assert broken(report(samples(), errors=("Traceback",))) == ["failures in the service's log"]


def test_turning_away_more_than_one_in_twenty_is_failure() -> None:
    assert broken(report(samples(), tally(status_200=94, status_503=6))) == ["good requests refused"]
    assert broken(report(samples(), tally(status_200=95, status_503=5))) == []


def test_a_mistake_is_told_a_few_times_and_counted_each_time() -> None:
    told = Tally()
    for _ in range(10):
        told.note("predict", "500", "why")
    assert (len(told.mistakes), told.unintended["predict", "500"]) == (SHOWN_MISTAKES, 10)


def test_another_probability_than_in_the_first_answer_is_a_mistake() -> None:
    world = World("127.0.0.1", 0)
    first = [{"index": 0, "probability": 0.9}, {"index": 1, "probability": 0.1}]
    assert world.compare("owl", first) == ""
    assert world.compare("owl", first[::-1]) == ""
    assert "from that of the first answer" in world.compare("owl", [first[0], {"index": 1, "probability": 0.1001}])
    assert world.compare("cat", [first[0], {"index": 1, "probability": 0.1001}]) == ""


def test_the_picture_shows_all_processes_together_and_each_alone() -> None:
    axes = draw_chart(samples()).axes
    assert [axis.get_ylabel() for axis in axes] == ["resident memory, MB", "file descriptors", "threads"]
    assert [line.get_label() for line in axes[0].lines] == ["all", "parent 7"]


def test_variants_of_a_photo_are_other_files_of_the_same_picture() -> None:
    (photo,) = drawings.photos(1).values()
    variants = drawings.variants(photo)
    files = {photo, next(variants), next(variants)}
    assert len(files) == 3
    assert len({Image.open(io.BytesIO(file)).tobytes() for file in files}) == 1


def test_the_picture_with_too_many_pixels_is_refused_for_that() -> None:
    with pytest.raises(ImageTooLarge):
        decode_image(drawings.too_many_pixels())


async def ask_twice(*services: bytes, resends: bool = True) -> tuple[list[Answer], int]:
    """Ask twice on a kept connection; each connection gives one of these answers and is closed at the next request."""
    remaining = iter(services)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(next(remaining))
            await reader.readuntil(b"\r\n\r\n")

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = Client("127.0.0.1", server.sockets[0].getsockname()[1], resends=resends)
        with contextlib.closing(client):
            answers = [await client.ask(REQUEST), await client.ask(REQUEST)]
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    return answers, client.resent


def test_a_request_on_a_kept_connection_that_was_closed_goes_out_again() -> None:
    answers, resent = asyncio.run(ask_twice(OK, OK))
    assert ([answer.body for answer in answers], resent) == ([b"ok", b"ok"], 1)


def test_a_request_that_is_not_to_be_sent_again_fails() -> None:
    with pytest.raises(Closed):
        asyncio.run(ask_twice(OK, OK, resends=False))


def test_chunks_are_one_body() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
    answers, _ = asyncio.run(ask_twice(chunked, OK))
    assert answers[0].body == b"ok"


@pytest.mark.slow
def test_everybody_comes_to_a_real_service_and_gets_what_is_intended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SETTLING_S", 0)
    with running(1, **visitors.SETTINGS) as service:
        run = asyncio.run(soak.soak(service, Console(quiet=True), minutes=0.1, workers=1, clients=4))
    assert (run.tally.mistakes, run.errors) == ([], [])
    kinds = {kind.partition(":")[0].partition(",")[0] for kind, _ in run.tally.answers}
    assert {"predict", "bad", "vanishing", "crowd"} <= kinds
    assert {one.role for one in run.samples[-1].readings} >= {"parent", "worker"}
    assert run.samples[-1].requests > 50
