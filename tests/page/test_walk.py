"""The walk from a picture to its answer, down to the arithmetic of one number, and back up to why."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.page.conftest import Service, Visit
from tests.server_process import PATIENCE_S

STEPS = ["Image", "Network", "Unit", "Torch", "Why", "Training"]


def layers_of_each_kind(service: Service) -> list[str]:
    """Return the first layer of each type that can be traced, and softmax."""
    first: dict[str, str] = {}
    for layer in service.get("/v1/layers")["layers"]:
        if "trace" in layer["views"]:
            first.setdefault(layer["type"], layer["name"])
    return [*first.values(), "softmax"]


def first_convolution(service: Service) -> dict:
    return next(layer for layer in service.get("/v1/layers")["layers"] if layer["type"] == "Conv2d")


def place_of(page: Page) -> tuple[int, int]:
    return int(page.locator("#y").input_value()), int(page.locator("#x").input_value())


def test_a_picture_is_answered_as_the_api_answers_it(visit: Visit, service: Service, photo: Path) -> None:
    image = visit.upload(photo)
    predictions = service.get(f"/v1/images/{image}/prediction")["predictions"][:10]
    labels = visit.page.locator("#answers .bar-label").all_text_contents()
    shares = visit.page.locator("#answers .bar-share").evaluate_all("all => all.map(one => Number(one.value))")
    assert labels == [one["label"] for one in predictions]
    assert shares == [one["probability"] for one in predictions]
    visit.page.get_by_label("Logits").check()
    logits = visit.page.locator("#answers .bar-logit data").evaluate_all("all => all.map(one => Number(one.value))")
    assert logits == [one["logit"] for one in predictions]


def test_the_likely_classes_are_named_and_how_often_they_hold_the_truth(
    visit: Visit, service: Service, photo: Path
) -> None:
    image = visit.upload(photo)
    labels = service.get(f"/v1/images/{image}/prediction")["set"]
    expect(visit.page.locator("#answer-set strong")).to_have_text(" or ".join(labels))


def test_a_picture_unlike_all_is_called_so_on_each_page(visit: Visit, noise: Path) -> None:
    visit.upload(noise)
    warning = visit.page.locator("#unknown")
    expect(warning).to_contain_text("This is unlike anything that the network was shown.")
    expect(warning).to_contain_text("Of 100 pictures of what it knows, at most 1 would be as strange")
    visit.page.get_by_role("link", name="Why").click()
    expect(visit.page.locator(".subject .unlike")).to_have_text("unlike anything it knows")


def test_a_picture_like_those_it_knows_is_not(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    visit.page.get_by_role("button", name="Drawing of a freighter").click()
    expect(visit.page.locator("#answers")).to_be_visible()
    expect(visit.page.locator("#unknown")).to_have_count(0)
    expect(visit.page.locator("#answer")).to_contain_text("That does not prove that it shows one of these")


def test_what_the_network_sees_is_drawn_pixel_by_pixel(visit: Visit, service: Service, photo: Path) -> None:
    image = visit.upload(photo)
    pixels = service.array(f"/v1/images/{image}/input.npy")
    canvas = visit.page.locator("canvas.pixels")
    drawn = canvas.evaluate("one => Array.from(one.getContext('2d').getImageData(0, 0, one.width, one.height).data)")
    assert np.array_equal(np.array(drawn).reshape(*pixels.shape[1:], 4)[..., :3].transpose(2, 0, 1), pixels)
    canvas.focus()
    visit.page.keyboard.press("ArrowDown")
    middle = pixels.shape[1] // 2
    values = visit.page.locator(".reading data").evaluate_all("all => all.map(one => Number(one.value))")
    assert values == pixels[:, middle + 1, middle].tolist()


def test_choosing_a_class_sets_the_target_on_every_page(visit: Visit, photo: Path) -> None:
    visit.upload(photo)
    third = visit.page.locator("#answers .bar").nth(2)
    label = third.locator(".bar-label").inner_text()
    third.click()
    expect(visit.page.locator("#answers .bar").nth(2)).to_have_attribute("aria-pressed", "true")
    visit.page.get_by_role("link", name="Why").click()
    visit.settled()
    expect(visit.page.locator("#target")).to_have_value(label)
    expect(visit.page.locator("#why")).to_have_value(label)


def test_the_most_active_maps_of_each_block_are_shown_with_their_ranges(
    visit: Visit, service: Service, stored: str
) -> None:
    name = first_convolution(service)["name"]
    visit.open("network", image=stored, show=name)
    maps = service.array(f"/v1/images/{stored}/activations/{name}.npy")
    order = np.argsort(-np.abs(maps).astype(np.float64).sum(axis=(1, 2)), kind="stable")[:8].tolist()
    column = visit.page.locator(".column").nth(1)
    tiles = column.locator("a.tile")
    expect(tiles).to_have_count(8)
    assert [int(one) for one in tiles.evaluate_all("all => all.map(one => one.dataset.channel)")] == order
    low, high = (f"{value:.2f}".replace("-", "−") for value in (maps[order[0]].min(), maps[order[0]].max()))
    expect(tiles.first.locator("canvas")).to_have_attribute(
        "aria-label", f"Map {order[0]} of {name}, from {low} to {high}"
    )


def test_a_map_shows_where_it_comes_from(visit: Visit, service: Service, stored: str) -> None:
    visit.open("network", image=stored)
    visit.page.locator(".column").nth(2).locator("a.tile").first.hover()
    expect(visit.page.locator(".sources a")).to_have_count(5)
    expect(visit.page.locator(".edge").first).to_be_attached()
    strongest = visit.page.locator(".sources a").first
    assert re.match(r".+ \d+ adds −?\d", str(strongest.locator("canvas").get_attribute("aria-label")))
    strongest.click()
    visit.settled()
    expect(visit.page.locator("h1")).to_have_text("One unit")


def test_all_maps_of_a_layer_open_in_a_drawer(visit: Visit, service: Service, stored: str) -> None:
    layer = first_convolution(service)
    visit.open("network", image=stored, show=layer["name"])
    visit.page.locator(".column").nth(1).get_by_role("button", name=re.compile("All")).click()
    expect(visit.page.locator(".drawer a.tile")).to_have_count(layer["out_shape"][0])
    assert "open=" in visit.page.url
    visit.page.keyboard.press("Escape")
    expect(visit.page.locator(".drawer")).to_be_hidden()
    expect(visit.page).not_to_have_url(re.compile("open="))


def test_one_brightness_for_all_layers_names_its_limit(visit: Visit, stored: str) -> None:
    visit.open("network", image=stored)
    visit.page.get_by_role("button", name="compare all").click()
    expect(visit.page.locator("#limit")).to_be_visible()
    assert float(visit.page.locator("#limit").input_value()) > 0
    assert "scale=fixed" in visit.page.url


def test_a_unit_shows_its_map_filter_numbers_and_what_fired_it(visit: Visit, service: Service, stored: str) -> None:
    layer = first_convolution(service)
    visit.open("unit", image=stored, layer=layer["name"], channel=5)
    facts = service.get(f"/v1/images/{stored}/activations/{layer['name']}/5.json")["statistics"]
    assert visit.value("#unit-histogram .ends data >> nth=0") == facts["min"]
    assert visit.value("#unit-histogram .ends data >> nth=1") == facts["max"]
    expect(visit.page.locator("#unit-filter .filter-tiles canvas")).to_have_count(3)
    expect(visit.page.locator("#unit-fired canvas")).to_have_count(2)
    fired = service.get(f"/v1/images/{stored}/reconstructions/{layer['name']}/5.json")
    expect(visit.page.locator("#unit-fired")).to_contain_text(f"row {fired['y']}, column {fired['x']}")
    expect(visit.page.locator("#unit-images")).not_to_be_empty()


def test_the_torch_shows_the_sum_that_the_service_checked(visit: Visit, service: Service, stored: str) -> None:
    name = first_convolution(service)["name"]
    visit.open("torch", image=stored, layer=name, channel=5, y=10, x=12)
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    traced = service.get(f"/v1/images/{stored}/trace/{name}/5/10/12")
    assert visit.value("#ours") == traced["total"]
    assert visit.value("#theirs") == traced["framework"]
    assert visit.value("#difference") == traced["difference"]


def test_moving_the_torch_makes_no_request(visit: Visit, service: Service, stored: str) -> None:
    name = first_convolution(service)["name"]
    visit.open("torch", image=stored, layer=name, channel=5, y=3, x=4)
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    maps = service.array(f"/v1/images/{stored}/activations/{name}/5.npy")
    visit.requests.clear()
    # All in one go, so that the torch never rests and asks for a check in between.
    shown = visit.page.locator("#torch-map").evaluate(
        """map => Array.from({length: 12}, () => {
            map.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
            return [Number(document.getElementById("ours").value), Number(document.getElementById("theirs").value)];
        })"""
    )
    assert visit.asked() == []
    assert [theirs for _, theirs in shown] == maps[3, 5:17].tolist()
    np.testing.assert_allclose([ours for ours, _ in shown], maps[3, 5:17], atol=1e-4)
    expect(visit.page.locator("#verdict")).to_have_class("verdict good")
    assert visit.asked() == [f"images/{stored}/trace/{name}/5/3/16"]
    assert place_of(visit.page) == (3, 16)
    assert "y=3&x=16" in visit.page.url


def test_the_torch_follows_the_pointer_and_plays_by_itself(visit: Visit, service: Service, stored: str) -> None:
    visit.open("torch", image=stored, layer=first_convolution(service)["name"], channel=5, y=0, x=0)
    box = visit.page.locator("#torch-map").bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] - 2)
    _, height, width = first_convolution(service)["out_shape"]
    assert place_of(visit.page) == (height - 1, width - 1)
    visit.page.locator("#torch-map").press(" ")
    expect(visit.page.locator("#play")).to_contain_text("Pause")
    expect(visit.page.locator("#x")).to_have_value("2")  # past the end it begins again
    visit.page.locator("#torch-map").press(" ")
    expect(visit.page.locator("#play")).to_contain_text("Play")


def test_every_kind_of_layer_shows_its_arithmetic(visit: Visit, service: Service, stored: str) -> None:
    for name in layers_of_each_kind(service):
        visit.open("torch", image=stored, layer=name, channel=1)
        expect(visit.page.locator("#verdict")).to_have_class("verdict good")
        place = "".join(f"/{field.input_value()}" for field in visit.page.locator("#y, #x").all())
        traced = service.get(f"/v1/images/{stored}/trace/{name}/1{place}")
        assert (name, visit.value("#ours")) == (name, traced["total"])
        assert (name, visit.value("#theirs")) == (name, traced["framework"])


def test_all_numbers_can_be_read_as_a_table_and_taken_away(visit: Visit, service: Service, stored: str) -> None:
    layer = first_convolution(service)
    visit.open("torch", image=stored, layer=layer["name"], channel=0, y=2, x=2)
    visit.page.get_by_text("All numbers as a table").click()
    products = int(np.prod(layer["kernel_size"])) * layer["in_shapes"][0][0]
    expect(visit.page.locator(".numbers tbody tr")).to_have_count(products)
    with visit.page.expect_download() as download:
        visit.page.locator("#export").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == products + 1
    traced = service.get(f"/v1/images/{stored}/trace/{layer['name']}/0/2/2")
    assert [float(line.split(",")[-1]) for line in lines[1:]] == np.array(traced["products"]).ravel().tolist()


def test_evidence_says_how_far_it_adds_up(visit: Visit, service: Service, stored: str) -> None:
    visit.open("evidence", image=stored)
    expect(visit.page.locator(".overlay")).to_have_count(6)
    found = service.get(f"/v1/images/{stored}/attributions/hires_cam.json")
    numbers = visit.page.locator("#method-hires_cam data").evaluate_all("all => all.map(one => Number(one.value))")
    bias, logit, residual = found["bias"], found["logit"], found["residual"]
    assert numbers == [found["sum"], bias, found["sum"] + bias, logit, residual]
    expect(visit.page.locator("#method-saliency")).to_contain_text("Does not claim to add up")


def test_one_class_is_compared_with_another(visit: Visit, service: Service, stored: str) -> None:
    visit.open("evidence", image=stored)
    second = service.get(f"/v1/images/{stored}/prediction")["predictions"][1]["label"]
    visit.page.locator("#versus").select_option(second)
    visit.settled()
    found = service.get(f"/v1/images/{stored}/attributions/hires_cam.json?target_vs={second}")
    assert visit.value("#method-hires_cam data >> nth=3") == found["logit"]


def test_hiding_a_part_moves_the_probabilities(visit: Visit, service: Service, stored: str) -> None:
    visit.open("evidence", image=stored)
    canvas = visit.page.locator("#hide-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.page.mouse.move(*middle)
    visit.page.mouse.down()
    visit.page.mouse.move(middle[0] - 60, middle[1] - 40, steps=4)
    visit.page.mouse.up()
    canvas.press("ArrowLeft")
    size = service.get("/v1/model")["preprocessing"]["size"]
    expect(visit.page.locator("#hide-place")).to_contain_text(f"{size // 4} × {size // 4} pixels hidden")
    expect(visit.page).to_have_url(re.compile("window="))

    def shown_and_true() -> tuple[list[float], list[float]]:
        """Return the bars' values, and the service's for the square that the address names."""
        state = dict(re.findall(r"(y|x|window)=(-?\d+)", visit.page.url))
        hidden = service.get(f"/v1/images/{stored}/occlusion?y={state['y']}&x={state['x']}&window={state['window']}")
        by_label = {one["label"]: one["probability"] for one in hidden["predictions"]}
        labels = visit.page.locator("#hide-bars .bar-label").all_text_contents()
        shown = visit.page.locator("#hide-bars .bar-share").evaluate_all("all => all.map(one => Number(one.value))")
        return shown, [by_label[label] for label in labels]

    end = time.monotonic() + PATIENCE_S
    while (found := shown_and_true())[0] != found[1] and time.monotonic() < end:
        visit.page.wait_for_timeout(50)  # address and bars follow the square, each in its time
    assert found[0] == found[1]


def test_the_first_filters_are_all_shown(visit: Visit, service: Service) -> None:
    layer = first_convolution(service)
    visit.open("training")
    expect(visit.page.locator("#filters canvas")).to_have_count(layer["out_shape"][0])
    weights = service.array(f"/v1/layers/{layer['name']}/filters.npy")
    drawn = visit.page.locator("#filters canvas").first.evaluate(
        "one => Array.from(one.getContext('2d').getImageData(0, 0, one.width, one.height).data)"
    )
    expected = 127.5 + 127.5 * weights[0] / np.abs(weights[0]).max()
    np.testing.assert_allclose(
        np.array(drawn).reshape(*weights.shape[2:], 4)[..., :3].transpose(2, 0, 1), expected, atol=0.51
    )


def test_an_example_that_ships_is_answered(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    examples = visit.page.locator(".example")
    expect(examples.first).to_be_visible()
    for number in range(examples.count()):
        visit.page.locator(".example").nth(number).click()
        expect(visit.page.locator("#answers")).to_be_visible()
        expect(visit.page.locator(".status")).to_have_text("")


def test_the_camera_takes_a_picture(visit: Visit) -> None:
    visit.page.goto(visit.service.url)
    visit.page.get_by_role("button", name="Use the camera").click()
    video = visit.page.locator("video")
    expect(video).to_be_visible()
    video.evaluate("one => one.videoWidth || new Promise(resolve => one.onloadeddata = resolve)")
    visit.page.get_by_role("button", name="Take the picture").click()
    expect(visit.page.locator("#answers")).to_be_visible()


def test_a_picture_can_be_pasted(visit: Visit, photo: Path) -> None:
    visit.page.goto(visit.service.url)
    expect(visit.page.locator("#file")).to_be_attached()
    visit.page.evaluate(
        """bytes => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "pasted.png", {type: "image/png"}));
            dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }""",
        list(photo.read_bytes()),
    )
    expect(visit.page.locator("#answers")).to_be_visible()


@pytest.mark.parametrize("view", ["network", "unit", "torch", "evidence"])
def test_a_view_without_a_picture_asks_for_one(visit: Visit, view: str) -> None:
    visit.page.goto(f"{visit.service.url}/#/{view}")
    expect(visit.page.locator("main")).to_contain_text("Choose a picture first")


def test_the_steps_lead_through_all_views(visit: Visit, photo: Path) -> None:
    visit.upload(photo)
    titles = set()
    for step in STEPS:
        visit.page.locator("nav").get_by_role("link", name=step).click()
        expect(visit.page.locator("nav [aria-current=page]")).to_contain_text(step)
        visit.settled()
        titles.add(visit.page.locator("h1").inner_text())
    assert len(titles) == len(STEPS)
