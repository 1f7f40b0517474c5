"""Hostile files, sent to a running service: each gets its right answer. `python -m stress.hostile` sends all."""

from collections.abc import Iterable

import httpx2
import pytest

from stress import hostile_images
from stress.hostile_images import FORMATS, Sample

LARGE = ("40 MP", "39 MP", "million")  # take seconds each; only the command sends them


def status(client: httpx2.Client, one: Sample) -> int:
    answer = client.post("/v1/predict", content=one.content, headers={"Content-Type": "image/png"})
    return answer.status_code


def wrong(client: httpx2.Client, samples: Iterable[Sample]) -> dict[str, int]:
    """Return the samples that got another answer than a right one, with it."""
    sent = {one: status(client, one) for one in samples}
    assert sent
    return {one.name: answer for one, answer in sent.items() if answer not in one.answers}


KINDS = {
    "formats and modes": hostile_images.modes,
    "declared bombs": hostile_images.declared_bombs,
    "animations": hostile_images.animations,
    "one row or one column": hostile_images.strips,
    "other files under an image's name": hostile_images.foreign,
    "polyglots": hostile_images.polyglots,
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_gets_its_right_answer(client: httpx2.Client, kind: str) -> None:
    assert wrong(client, KINDS[kind]()) == {}


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_cut_off_anywhere_is_answered_or_refused(client: httpx2.Client, image_format: str) -> None:
    assert wrong(client, hostile_images.truncations(image_format)) == {}


def test_bits_turned_over_are_answered_or_refused(client: httpx2.Client) -> None:
    assert wrong(client, hostile_images.bit_flips(400, seed=1)) == {}


def test_metadata_does_not_become_a_bomb(client: httpx2.Client) -> None:
    bombs = [one for one in hostile_images.metadata_bombs() if not any(word in one.name for word in LARGE)]
    assert len(bombs) > 8
    assert wrong(client, bombs) == {}


def test_millions_of_blocks_end_after_the_time_that_a_small_image_may_take(client: httpx2.Client) -> None:
    (bomb,) = [one for one in hostile_images.metadata_bombs() if one.name == "JPEG of 4.7 million comments"]
    answer = client.post("/v1/predict", content=bomb.content, headers={"Content-Type": "image/jpeg"})
    assert (answer.status_code, answer.json()["code"]) == (422, "decoder_failed")
    assert "far longer to decode than images of its size" in answer.json()["detail"]


@pytest.mark.slow
def test_pictures_as_large_as_is_let_in_are_answered(client: httpx2.Client) -> None:
    assert wrong(client, hostile_images.compressed_bombs()) == {}


def test_the_eight_orientations_of_one_picture_get_equal_probabilities(client: httpx2.Client) -> None:
    answers = [
        client.post("/v1/predict", content=one.content, headers={"Content-Type": "image/png"}).json()["predictions"]
        for one in hostile_images.orientations()
    ]
    assert len(answers) == 8
    assert all(answer == answers[0] for answer in answers)


def test_turning_the_picture_does_change_its_probabilities(client: httpx2.Client) -> None:
    turned = hostile_images.encode(hostile_images.draw().rotate(90, expand=True), "PNG")
    upright = hostile_images.encode(hostile_images.draw(), "PNG")
    first, other = (client.post("/v1/predict", files={"file": one}).json()["predictions"] for one in (upright, turned))
    assert first != other
