"""The same page for a network of another kind: branches, 224 pixels, other classes, and a history of its training."""

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from tests.page.conftest import Visit
from tests.page.test_walk import layers_of_each_kind


def test_its_classes_answer(other_visit: Visit, photo: Path) -> None:
    image = other_visit.upload(photo)
    best = other_visit.service.get(f"/v1/images/{image}/prediction")["predictions"]
    expect(other_visit.page.locator("#answers .bar")).to_have_count(10)
    expect(other_visit.page.locator("#answers .bar-label").first).to_have_text(best[0]["label"])
    other_visit.page.get_by_role("button", name="All 14 classes").click()
    labels = other_visit.page.locator("#answers .bar-label")
    expect(labels).to_have_count(14)
    assert labels.all_text_contents() == [one["label"] for one in best]
    expect(other_visit.page.locator("h2", has_text="what the network sees, 224 × 224")).to_be_visible()


def test_the_likely_classes_are_named_in_words(other_visit: Visit, photo: Path) -> None:
    image = other_visit.upload(photo)
    likely = other_visit.service.get(f"/v1/images/{image}/prediction")["set"]
    assert len(likely) > 5
    named = f"{', '.join(likely[:5])} or one of {len(likely) - 5} more"
    line = other_visit.page.locator("#answer-set")
    expect(line).to_have_text(f"{named} For 9 of 10 pictures, the truth is among the names given here.")
    other_visit.page.get_by_role("button", name="中文").click()
    expect(line).to_contain_text(f"、{likely[4]}或另外 {len(likely) - 5} 类之一")


@pytest.mark.parametrize(
    ("likely", "named"),
    [(["plant 3"], "plant 3"), (["plant 3", "plant 5"], "plant 3 or plant 5"), (None, "any of the 14 classes")],
)
def test_short_and_long_lines_read_well(
    other_visit: Visit, other_stored: str, likely: list[str] | None, named: str
) -> None:
    def change(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        route.fulfill(response=answer, json=body | {"set": likely or [one["label"] for one in body["predictions"]]})

    other_visit.page.route("**/prediction", change)
    other_visit.open("answer", image=other_stored)
    expect(other_visit.page.locator("#answer-set strong")).to_have_text(named)


def test_its_blocks_are_shown(other_visit: Visit, other_stored: str) -> None:
    other_visit.page.goto(f"{other_visit.service.url}/#/network?image={other_stored}")
    layers = other_visit.service.get("/v1/layers")["layers"]
    blocks = sum(layer["multiply_adds"] > 0 for layer in layers)
    expect(other_visit.page.locator(".column")).to_have_count(blocks + 2)  # the picture before, softmax after
    expect(other_visit.page.locator(".column").nth(3).locator("a.tile")).to_have_count(8)


def test_every_kind_of_its_layers_shows_its_arithmetic(other_visit: Visit, other_stored: str) -> None:
    for name in [*layers_of_each_kind(other_visit.service), "layer2.0.downsample.0", "layer4.1.add"]:
        other_visit.open("torch", image=other_stored, layer=name, channel=1, y=0, x=0)
        expect(other_visit.page.locator("#verdict")).to_have_class("verdict good")
        has_places = other_visit.page.locator("#y").count()
        place = "/0/0" if has_places else ""
        traced = other_visit.service.get(f"/v1/images/{other_stored}/trace/{name}/1{place}")
        assert (name, other_visit.value("#ours")) == (name, traced["total"])


def test_its_units_and_their_evidence_are_shown(other_visit: Visit, other_stored: str) -> None:
    other_visit.open("unit", image=other_stored, layer="layer3.0.conv1", channel=7)
    expect(other_visit.page.locator("#unit-filter .filter-tiles canvas")).to_have_count(16)
    expect(other_visit.page.locator("#unit-fired canvas")).to_have_count(2)
    other_visit.open("evidence", image=other_stored)
    expect(other_visit.page.locator(".overlay")).to_have_count(4)  # the others wait to be asked for: they take long
    expect(other_visit.page.get_by_role("button", name="Compute", exact=True)).to_have_count(2)


def test_its_training_is_told(other_visit: Visit) -> None:
    other_visit.open("training")
    expect(other_visit.page.locator("#curve polyline")).to_have_count(3)
    tested = other_visit.page.locator("#tested")
    expect(tested).to_contain_text("75.0 % of 400 pictures right (test)")
    expect(tested).to_contain_text(
        "80.0 % of 1,250 pictures right, each judged by a network that had not seen it (5-fold"
    )
    expect(tested).to_contain_text("77.7 % to 82.1 %, with 95% confidence")
    expect(tested).to_contain_text("the truth for 9 of 10 pictures. Of 19 held-out pictures they held it for 89.5 %")
    expect(tested).to_contain_text("6.50 names on average; of those of plant 3, the hardest, for 75.0 %.")
    film = other_visit.page.locator("#film")
    expect(film.locator("canvas")).to_have_count(64)
    expect(film).to_contain_text("Filters after epoch 3")
    other_visit.page.locator("#film-slider").fill("0")
    expect(film).to_contain_text("Filters after epoch 0")
    frames = other_visit.service.array("/v1/layers/conv1/filmstrip.npy")
    drawn = film.locator("canvas").first.evaluate(
        "one => Array.from(one.getContext('2d').getImageData(0, 0, one.width, one.height).data)"
    )
    expected = 127.5 + 127.5 * frames[0, 0] / np.abs(frames[0, 0]).max()
    np.testing.assert_allclose(np.array(drawn).reshape(7, 7, 4)[..., :3].transpose(2, 0, 1), expected, atol=0.51)


def test_a_cell_of_the_matrix_opens_photos_and_a_photo_opens_as_the_image(other_visit: Visit) -> None:
    other_visit.open("training")
    page, card = other_visit.page, other_visit.page.locator("#mistakes")
    expect(card).to_contain_text("This network has learnt from it since, and may answer it right.")
    assert card.locator("tbody tr").first.locator("td").all_text_contents() == ["4", "5", *[""] * 12]
    card.get_by_role("button", name="plant 0 taken for plant 1: 5").click()
    expect(card.get_by_role("button", name="plant 1 75.0 %, plant 0 12.5 % a.jpg")).to_be_visible()
    expect(card).to_contain_text("and 3 more, of which no photo is kept")
    page.reload()
    expect(card.locator("[aria-pressed=true]")).to_have_text("5")
    card.locator(".mistake").nth(1).click()
    expect(page.locator("#answers")).to_be_visible()
    image = re.search(r"image=(sha256:[0-9a-f]{64})", page.url)
    assert image
    seen = other_visit.service.array(f"/v1/images/{image[1]}/input.npy")
    np.testing.assert_array_equal(seen, other_visit.service.array("/v1/model/mistakes/2.npy"))


def test_without_mistakes_the_way_to_them_is_told(visit: Visit) -> None:
    visit.open("training")
    expect(visit.page.locator("#mistakes")).to_contain_text("torchlight train SOURCE --keep-mistakes")
