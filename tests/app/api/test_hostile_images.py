"""Hostile files: each gets its right answer from the decoders, and one of each kind also over HTTP.

``python -m stress.hostile`` sends them all to a service.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator

import httpx2
import pytest

from stress import hostile_images
from stress.hostile_images import ANSWERED, FORMATS, HostileFile
from torchlight.app.api import problems
from torchlight.app.inference.decoder_pool import DecoderPool
from torchlight.app.settings import Settings
from torchlight.model.errors import ImageError
from torchlight.model.images import Resizing

LARGE = ("40 MP", "39 MP", "million")  # take seconds each; only the command sends them
KINDS: dict[str, Callable[[], Iterable[HostileFile]]] = {
    "formats and modes": hostile_images.modes,
    **{f"{name} cut off": lambda name=name: hostile_images.truncations(name) for name in FORMATS},
    "bits turned over": lambda: hostile_images.bit_flips(400, seed=1),
    "declared bombs": hostile_images.declared_bombs,
    "animations": hostile_images.animations,
    "one row or one column": hostile_images.strips,
    "other files under an image's name": hostile_images.foreign,
    "polyglots": hostile_images.polyglots,
}


@pytest.fixture(scope="module")
def metadata_bombs() -> list[HostileFile]:
    return list(hostile_images.metadata_bombs())


@pytest.fixture(scope="module")
def decoded_status() -> Iterator[Callable[[HostileFile], int]]:
    """Return a function that sends a file to the decoders of a service, and returns the status of their answer."""
    limits = Settings()
    pool = DecoderPool(
        number=1, queue_size=1, time_limit_s=60, max_pixels=limits.max_pixels, max_bytes=limits.max_body_bytes
    )

    async def decode(one: HostileFile) -> int:
        try:
            await pool.prepare(one.content, Resizing(32), None)
        except ImageError as error:
            found = problems.find_problem(error)
            assert found is not None
            return found[0]
        return ANSWERED

    with asyncio.Runner() as runner:
        runner.run(pool.start())
        yield lambda one: runner.run(decode(one))
        runner.run(pool.close())


@pytest.fixture(scope="module")
def http_status(client: httpx2.Client) -> Callable[[HostileFile], int]:
    """Return a function that sends a file to a running service, and returns the status of its answer."""

    def post(one: HostileFile) -> int:
        answer = client.post("/v1/predict", content=one.content, headers={"Content-Type": "image/png"})
        return int(answer.status_code)

    return post


def wrong(status: Callable[[HostileFile], int], samples: Iterable[HostileFile]) -> dict[str, int]:
    """Return the samples that got another answer than a right one, with it."""
    sent = {one: status(one) for one in samples}
    assert sent
    return {one.name: answer for one, answer in sent.items() if answer not in one.answers}


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_gets_its_right_answer(decoded_status: Callable[[HostileFile], int], kind: str) -> None:
    assert wrong(decoded_status, KINDS[kind]()) == {}


def test_metadata_does_not_become_a_bomb(
    decoded_status: Callable[[HostileFile], int], metadata_bombs: list[HostileFile]
) -> None:
    bombs = [one for one in metadata_bombs if not any(word in one.name for word in LARGE)]
    assert len(bombs) > 8
    assert wrong(decoded_status, bombs) == {}


def test_one_file_of_each_kind_gets_its_right_answer_over_http(
    http_status: Callable[[HostileFile], int], metadata_bombs: list[HostileFile]
) -> None:
    middle = [(found := list(make()))[len(found) // 2] for make in KINDS.values()]
    assert wrong(http_status, [*middle, metadata_bombs[0]]) == {}


def test_millions_of_blocks_end_after_the_time_that_a_small_image_may_take(
    client: httpx2.Client, metadata_bombs: list[HostileFile]
) -> None:
    (bomb,) = [one for one in metadata_bombs if one.name == "JPEG of 4.7 million comments"]
    answer = client.post("/v1/predict", content=bomb.content, headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, answer.json()["code"]) == (422, "decoder_failed")
    assert "far longer to decode than images of its size" in answer.json()["detail"]


@pytest.mark.slow
def test_pictures_as_large_as_is_let_in_are_answered(http_status: Callable[[HostileFile], int]) -> None:
    assert wrong(http_status, hostile_images.compressed_bombs()) == {}


def test_a_picture_as_large_as_is_let_in_is_answered(http_status: Callable[[HostileFile], int]) -> None:
    assert wrong(http_status, [next(hostile_images.compressed_bombs())]) == {}


def test_the_eight_orientations_of_one_picture_get_equal_probabilities(client: httpx2.Client) -> None:
    answers = [
        client.post("/v1/predict", content=one.content, headers={"Content-Type": "image/png"}).json()["predictions"]
        for one in hostile_images.orientations()
    ]
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)


def test_turning_the_picture_does_change_its_probabilities(client: httpx2.Client) -> None:
    turned = hostile_images.encode(hostile_images.draw_image().rotate(90, expand=True), "PNG")
    upright = hostile_images.encode(hostile_images.draw_image(), "PNG")
    first, other = (client.post("/v1/predict", files={"file": one}).json()["predictions"] for one in (upright, turned))
    assert first != other
