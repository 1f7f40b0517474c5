"""The report: what it says, that nothing in it is markup but ours, and that a browser shows all of it by itself."""

import base64
import io
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from matplotlib.colors import to_hex
from PIL import Image
from playwright.sync_api import Page, Route
from torch import Tensor

from stress.load.browser import PATIENCE_MS
from torchlight.model.checkpoint import Header
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig
from torchlight.model.uncertainty.answer_sets import AnswerSets, ClassCoverage, SetFigures, measure_answer_sets
from torchlight.training.data.held_out import Exposure
from torchlight.training.evaluation.calibration import measure_calibration
from torchlight.training.evaluation.classification_metrics import Metrics, compute_metrics
from torchlight.training.optimisation import filter_history
from torchlight.training.optimisation.loop import EpochResult
from torchlight.training.report import charts, report, report_text
from torchlight.training.report.charts import draw_confusion, draw_curves, to_png
from torchlight.training.report.markup import clean, data_uri, percent
from torchlight.training.report.report import Report, describe_report, render_page, render_report, write_report

ANIMALS = ("cat", "dog", "owl")
HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"quoted\" & 'apostrophes' <!--",
    "猫 🐈 کلب\u202e",
    "nul \x00 and half a sign \ud83d",
    "$\\frac$ {braces} {{ 7 * 7 }} %s",
    "x" * 300,
)
HEADINGS = [
    "How it learned",
    "What it confuses",
    "Class by class",
    "Most confident mistakes",
    "Does it know when it is right?",
    "Sets that hold the truth in 9 of 10",
    "What the first layer looks for",
    "The data",
    "How it was made",
]


def history(epochs: int) -> list[EpochResult]:
    return [
        EpochResult(epoch, 2 / epoch, 1 - 0.5 / epoch, 3 / epoch, 1 - 0.6 / epoch, 0.1, 1.0)
        for epoch in range(1, epochs + 1)
    ]


def guesses(class_names: tuple[str, ...], images: int) -> tuple[Tensor, Tensor]:
    """Return logits that are right more often than not, and labels."""
    labels = torch.arange(images) % len(class_names)
    noise = torch.randn(images, len(class_names), generator=torch.Generator().manual_seed(0))
    return 2 * torch.nn.functional.one_hot(labels, len(class_names)) + noise, labels


def metrics(class_names: tuple[str, ...]) -> Metrics:
    return compute_metrics(*guesses(class_names, 4 * len(class_names)), class_names)


def make_report(class_names: tuple[str, ...] = ANIMALS, images: int = 60, size: int = 8) -> Report:
    """Return a report of a training of three epochs."""
    logits, labels = guesses(class_names, images)
    generator = torch.Generator().manual_seed(0)
    return Report(
        source="pets",
        split="test",
        exposure="unseen",
        command="torchlight evaluate runs/pets/checkpoint.safetensors pets",
        header=Header(
            network=NetworkConfig("guide", len(class_names)),
            class_names=class_names,
            image_spec=ImageSpec(size, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            metrics={},
            training={
                "command": "torchlight train pets --out runs/pets",
                "epochs": 3,
                "seed": 7,
                "flops": 319_036_415_016_960,
                "seconds": 2869,
                "multiply_adds_per_image": 119_371_264,
                "device": "cpu",
                "flip": True,
            },
            data={"fingerprint": "sha256:da7a", "trained_at": "2026-01-02"},
            versions={"torch": "2.15.0", "python": "3.11.7"},
            answer_sets=measure_answer_sets(logits, labels, class_names),
        ),
        digest="sha256:c0ffee",
        metrics=compute_metrics(logits, labels, class_names),
        images=torch.randint(0, 256, (images, 3, size, size), generator=generator, dtype=torch.uint8),
        names=[f"pets/{k}.jpg" for k in range(images)],
        counts={"train": [30] * len(class_names), "val": [0] * len(class_names), "test": [7] * len(class_names)},
        warnings=("cat has 3 images; add some.",),
        skipped=("pets/broken.jpg: not an image",),
        history=history(3),
        filters=[(epoch, torch.randn(6, 3, 5, 5, generator=generator)) for epoch in range(4)],
        calibration=measure_calibration(logits, logits / 0.5, labels, 0.5),
    )


def plain(whole: Report) -> Report:
    """Return what ``torchlight evaluate`` knows of a checkpoint that somebody else made."""
    header = replace(whole.header, training={}, data={}, versions={}, answer_sets=None)
    return replace(
        whole, header=header, exposure="unknown", names=(), warnings=(), skipped=(), history=(), filters=(),
        calibration=None,
    )  # fmt: skip


def text_of(page: str) -> str:
    """Return what a reader reads, in one line."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<body>")[2]))


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the texts between them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


# What it says


def test_the_summary_names_the_share_its_range_and_what_is_confused() -> None:
    logits = torch.eye(3)[[0] * 9 + [1] + [1] * 10 + [2] * 10]
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 10)
    first, second = report_text.summarise(compute_metrics(logits, labels, ANIMALS))
    assert "classified 29 of 30 images correctly" in first
    assert "83.3% to 99.4%" in first
    assert "the most frequent class would be right in 33.3%" in first
    assert "knows dog best (100% found) and cat least (90.0%)" in second
    assert "confuses cat with dog most: 1 of 10 images of cat were taken for dog, and 0 of 10 the other way" in second


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.9, ", about 9 of 10"), (0.884, ", about 9 of 10"), (0.5, ", about 1 of 2"), (0.85, ""), (1.0, ""), (0.001, "")],
)
def test_a_share_is_said_in_small_numbers_only_if_one_is_near(share: float, said: str) -> None:
    right = round(1000 * share)
    logits = torch.eye(2)[[0] * right + [1] * (1000 - right)]
    (first, *_) = report_text.summarise(compute_metrics(logits, torch.zeros(1000, dtype=torch.int64), ("cat", "dog")))
    assert f"classified {right:,} of 1,000 images correctly{said}." in first


def test_a_faultless_network_confuses_nothing_and_has_no_mistakes() -> None:
    perfect = compute_metrics(torch.eye(3).repeat(5, 1), torch.arange(3).repeat(5), ANIMALS)
    text = text_of(render_report(replace(make_report(), metrics=perfect)))
    assert "100% right on pets" in text
    assert "It confuses no two classes." in text
    assert "There are none: every image was classified correctly." in text
    assert "Most frequent mistakes" not in text


def test_all_sections_are_there() -> None:
    assert headings(render_report(make_report())) == HEADINGS


def test_what_is_not_known_is_neither_shown_nor_spoken_of() -> None:
    page = render_report(plain(make_report()))
    assert headings(page) == [HEADINGS[k] for k in (1, 2, 3, 7, 8)]
    text = text_of(page).lower()
    assert not {word for word in ("epoch", "temperature", "filters", "seed", "flops", "left out") if word in text}
    assert "no warnings" in text


def test_a_name_of_several_words_is_quoted_within_a_sentence() -> None:
    figures = compute_metrics(torch.eye(2)[[0, 0, 1]], torch.tensor([0, 1, 1]), ("cat", "guard dog"))
    assert "images of “guard dog” were taken for cat, and 0 of 1 the other way round" in report_text.name_confusion(
        figures
    )


@pytest.mark.parametrize(
    ("split", "exposure", "said"),
    [
        ("test", "unseen", "Measured on the test split: images that had no part in training."),
        ("val", "chose_epoch", "Measured on the validation split. The network was not trained on these images, but"),
        ("all images", "unknown", "Measured on all images. Should the network have been trained on some of them"),
    ],
)
def test_it_says_how_far_the_figures_can_be_trusted(split: str, exposure: Exposure, said: str) -> None:
    assert said in text_of(render_report(replace(make_report(), split=split, exposure=exposure)))


def test_sets_are_told_with_their_share_its_range_and_the_weakest_class() -> None:
    measured = SetFigures(0.9, 300, 0.91, 1.04, 0.96, ClassCoverage("dog", 60, 0.8))
    tested = SetFigures(0.9, 100, 0.87, 1.5, 0.5, ClassCoverage("<owl>", 20, 0.75))
    whole = make_report()
    header = replace(whole.header, answer_sets=AnswerSets((0.1,) * 300, 300, measured))
    text = text_of(render_report(replace(whole, header=header, set_figures=tested)))
    assert "images that fixed the sets, each by others 300 images 91.0% 87.2 to 93.7% 1.04 96.0% 80.0% dog , 60" in text
    assert "the test split 100 images 87.0% 79.0 to 92.2% 1.50 50.0% 75.0% &lt;owl&gt; , 20 images" in text
    assert "too few of them" not in text


def test_too_few_images_to_rule_anything_out_are_told() -> None:
    text = text_of(render_report(make_report(images=6)))
    assert "There were too few of them (6) to show such a share, so each set is all labels." in text


def test_sets_of_a_network_that_is_right_more_often_hold_more_than_asked_for() -> None:
    said = "the best label alone is right more often than that, so a set holds more than asked for"
    labels, cats = torch.arange(3).repeat(5), torch.zeros(15, dtype=torch.int64)
    often, seldom = (compute_metrics(torch.eye(3)[answers], labels, ANIMALS) for answers in (labels, cats))
    assert said in text_of(render_report(replace(make_report(), metrics=often)))
    assert said not in text_of(render_report(replace(make_report(), metrics=seldom)))


def test_how_it_was_made_is_complete() -> None:
    text = text_of(render_report(make_report()))
    for fact in (
        "torchlight train pets --out runs/pets",
        "torchlight evaluate runs/pets/checkpoint.safetensors pets",
        "guide, 8x8 pixels in, 3 classes out, 119 million multiply-adds an image",
        "3 epochs, 48 min, 3.19e14 FLOPs, on cpu",
        "Seed 7 ",
        "sha256:c0ffee",
        "sha256:da7a",
        "python 3.11.7, torch 2.15.0",
    ):
        assert fact in text


def test_the_data_are_counted_and_their_warnings_shown() -> None:
    text = text_of(render_report(make_report()))
    assert "111 images of 3 classes: 90 to train on, 21 to test with. 1 warning. 1 unreadable file left out." in text
    assert "cat has 3 images; add some." in text
    assert "pets/broken.jpg: not an image" in text


def test_a_class_without_images_has_no_figures() -> None:
    figures = compute_metrics(torch.eye(3)[[0, 1, 0]], torch.tensor([0, 1, 1]), ANIMALS)
    page = render_report(replace(make_report(), metrics=figures))
    assert '<th scope="row"><bdi>owl</bdi></th><td>0</td><td>–</td><td>–</td><td>–</td>' in page
    assert "mean of the classes 3 75.0% 75.0% 66.7%" in text_of(page)


@pytest.mark.parametrize(
    ("temperature", "said"),
    [(2.0, "too sure of itself"), (0.5, "less sure than it could be"), (1.0, "it is off by")],
)
def test_calibration_is_told_in_words(temperature: float, said: str) -> None:
    logits, labels = guesses(ANIMALS, 60)
    measured = measure_calibration(logits, logits / temperature, labels, temperature)
    text = text_of(render_report(replace(make_report(), calibration=measured)))
    assert said in text
    assert ("before after" in text) == ("divided by" in text) == (temperature != 1)
    assert f"(over 60 images; with that many, chance alone makes {100 * measured.ece_by_chance:.1f})" in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (12, "12 s"), (252, "4 min 12 s"), (2869, "48 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_times_are_short(seconds: float, said: str) -> None:
    assert report_text.duration(seconds) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0, "0%"), (1e-5, "<0.1%"), (0.8844, "88.4%"), (0.99999, ">99.9%"), (1, "100%"), (0.999, "99.9%")],
)
def test_only_all_is_called_all_and_only_none_none(share: float, said: str) -> None:
    assert percent(share) == said


# Figures


@pytest.mark.parametrize("number", [2, 20, 40, 41, 100])
def test_confusion_is_a_matrix_up_to_forty_classes_and_a_list_beyond(number: int) -> None:
    page = render_report(make_report(tuple(f"class {k}" for k in range(number)), images=20 * number))
    assert ("Confusion matrix of" in page) == (number <= 40)
    assert "Most frequent mistakes" in page
    assert ("The other " in page) == (number > 40)
    assert page.count('<th scope="row"><bdi>class 7</bdi></th>') >= 2 * (number > 7)  # in the figures and in the data


def tooltips(drawn: Element) -> list[str | None]:
    return [node.text for node in drawn.iter("title")]


def test_confusion_shows_every_mistake_and_nothing_else() -> None:
    logits, labels = torch.eye(2)[[0, 0, 0, 1, 1, 1]], torch.tensor([0, 0, 0, 0, 1, 1])
    figure = charts.draw_confusion(compute_metrics(logits, labels, ("cat", "dog")))
    cells = figure.axes[0].patches
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "2"]
    assert tooltips(charts.to_svg(figure, "label")) == [
        "cat taken for cat: 3 of 4",
        "cat taken for dog: 1 of 4",
        "dog taken for dog: 2 of 2",
    ]
    assert [cell.get_alpha() for cell in cells] == pytest.approx([0.75, 0.15 + 0.85 * 0.5, 1])
    assert [to_hex(cell.get_facecolor()) for cell in cells] == [charts.RIGHT, charts.WRONG, charts.RIGHT]


@pytest.mark.parametrize(
    "values",
    [[2.0, 1.0, 0.5], [0.7], [0.5, 0.5], [1e-9, 1e9], [float("nan"), 1.0], [float("inf")], [0.0, 0.0]],
)
@pytest.mark.parametrize("kind", ["Loss", "Accuracy"])
def test_points_stay_on_the_picture_whatever_the_values(kind: str, values: list[float]) -> None:
    epochs = [EpochResult(k, value, value, value, value, 0.1, 1.0) for k, value in enumerate(values, start=1)]
    drawn = charts.to_svg(charts.draw_curves(epochs, [kind]), "label")
    _, _, width, height = map(float, drawn.get("viewBox", "").split())
    dots = [node for group in drawn.iter("g") if group.find("title") is not None for node in group.iter("use")]
    places = [(float(node.get("x", "")), float(node.get("y", ""))) for node in dots]
    assert len(places) == len(tooltips(drawn)) == 2 * sum(np.isfinite(values))
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_reliability_has_a_dot_for_each_bin_with_images() -> None:
    logits, labels = guesses(ANIMALS, 60)
    measured = measure_calibration(logits, logits, labels, 1.0)
    filled = [one for one in measured.reliability if one.count]
    figure = charts.draw_reliability(measured.reliability)
    assert tooltips(charts.to_svg(figure, "label")) == [
        f"{percent(one.mean_confidence)} sure: {round(one.accuracy * one.count)} of {one.count} right "
        f"({percent(one.accuracy)})"
        for one in filled
    ]
    assert [bar.get_height() for bar in figure.axes[1].patches] == [one.count for one in filled]


def test_figures_of_the_page_have_a_label_and_no_style_attribute_or_outer_name_space() -> None:
    drawn = charts.to_svg(charts.draw_curves(history(3), ["Loss"]), charts.label_curve(history(3), "Loss"))
    assert drawn.get("aria-label") == "Loss from epoch 1 to 3: training from 2 to 0.667, validation from 3 to 1."
    assert {name for node in drawn.iter() for name, _ in node.items()}.isdisjoint({"style", "font-family"})
    assert all("}" not in name for node in drawn.iter() for name in (node.tag, *dict(node.items())))
    colours = {node.get(name) for node in drawn.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert colours == {"var(--paper)", "var(--accent)", "var(--train)", "var(--line)", "var(--muted)"}


def test_a_long_filmstrip_keeps_its_first_and_its_last_picture() -> None:
    weights = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    page = render_report(replace(make_report(), filters=[(epoch, weights) for epoch in range(61)]))
    shown = re.findall(r"the filters of the first layer, ([a-z 0-9]*)", page)
    assert len(shown) == filter_history.MAX_FRAMES
    assert (shown[0], shown[-1]) == ("before training", "epoch 60")


def test_a_network_without_filters_to_look_at_has_no_filmstrip() -> None:
    page = render_report(replace(make_report(), filters=[(0, torch.empty(0)), (1, torch.empty(0))]))
    assert "What the first layer looks for" not in headings(page)


@pytest.mark.parametrize("is_whitened", [False, True])
def test_it_says_what_the_filters_began_as_if_that_was_not_noise(is_whitened: bool) -> None:
    whole = make_report()
    header = replace(whole.header, training={"whitening": is_whitened})
    said = "They began as the patterns that patches of the training images are made of."
    assert (said in text_of(render_report(replace(whole, header=header)))) == is_whitened


def test_mistakes_are_shown_as_they_are_and_large_ones_smaller() -> None:
    small, large = make_report(size=8), make_report(size=600)
    for whole, side in ((small, 8), (large, 200)):
        first = whole.metrics.mistakes[0]
        pixels = decode(describe_report(whole)["mistakes"][0]["image"])
        assert pixels.shape == (side, side, 3)
        expected = whole.images[first.index].permute(1, 2, 0).numpy().astype(float)
        step = expected.shape[0] // side
        expected = expected.reshape(side, step, side, step, 3).mean((1, 3))
        assert np.abs(pixels - expected).max() <= 0.5


def decode(uri: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content)), formats=["PNG"]) as image:
        return np.asarray(image)


def test_photos_behind_the_matrix_are_few_and_small_however_many_mistakes_there_are() -> None:
    names = tuple(f"class {k}" for k in range(12))
    labels = torch.arange(1200) % 12
    whole = replace(
        make_report(names, images=1200, size=260),
        metrics=compute_metrics(torch.eye(12)[(labels + 1) % 12], labels, names),
    )
    cells = describe_report(whole)["confusion"]["cells"]
    assert [len(cell["photos"]) for cell in cells] == [20] * 12
    assert {cell["count"] for cell in cells} == {100}
    kinds = {photo["image"].partition(",")[0] for cell in cells for photo in cell["photos"]}
    assert kinds == {"data:image/jpeg;base64"}
    assert "and 80 more" in render_report(whole)
    content = base64.b64decode(cells[0]["photos"][0]["image"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (130, 130)


def test_beyond_forty_classes_the_list_of_pairs_opens_photos() -> None:
    names = tuple(f"class {k}" for k in range(50))
    confusion = describe_report(make_report(names, images=1000))["confusion"]
    links = [link for *_, link in confusion["pairs"]]
    assert confusion["matrix"] is None
    assert sorted(links) == sorted(f"#{cell['id']}" for cell in confusion["cells"])


# Text is text


def test_what_users_wrote_never_becomes_markup() -> None:
    whole = replace(
        make_report(HOSTILE, images=70),
        source=HOSTILE[0],
        split=HOSTILE[1],
        command=HOSTILE[2],
        names=list(HOSTILE) * 10,
        warnings=HOSTILE,
        skipped=HOSTILE,
    )
    page = render_report(whole)
    reader = read(page)
    ours = read(render_report(make_report((*"abcdef", "g" * 300), images=70)))
    assert {tag for tag, _ in reader.tags} == {tag for tag, _ in ours.tags}
    assert {name for _, attributes in reader.tags for name in attributes} <= {
        name for _, attributes in ours.tags for name in attributes
    }
    assert all(
        (attributes["src"] or "").startswith("data:image/png") for tag, attributes in reader.tags if tag == "img"
    )
    assert [tag for tag, _ in reader.tags].count("style") == 1
    assert set(HOSTILE[:3]) <= set(reader.texts)
    assert "猫 🐈 کلب" in page
    assert "{{ 7 * 7 }}" in page
    assert page.encode().decode() == page


@settings(deadline=None, max_examples=200)
@given(st.text(), st.text())
def test_any_text_comes_back_from_the_page(text: str, attribute: str) -> None:
    values = {"text": text, "attribute": attribute}
    reader = read(render_page('<p title="{{ attribute }}">{{ text }}</p>', values))
    assert reader.tags == [("p", {"title": clean(attribute)})]
    assert "".join(reader.texts) == clean(text)


def test_missing_value_is_an_error_and_no_gap_on_the_page() -> None:
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        render_page("<p>{{ missing }}</p>", {})


def test_only_the_style_sheet_and_our_figures_pass_unescaped() -> None:
    template = report.TEMPLATE.read_text()
    passed = re.findall(r"([\w.]+) *\| *safe\b", template)
    assert passed == [
        "style", "curves.loss", "curves.accuracy", "confusion.matrix", "candidates.chart", "reliability",
    ]  # fmt: skip
    assert "autoescape" not in template


# Files


def test_writing_leaves_whole_files_and_nothing_else(tmp_path: Path) -> None:
    write_report(tmp_path / "new" / "folder", make_report())
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == {
        "report.html",
        "curves.png",
        "confusion.png",
    }
    assert (tmp_path / "new" / "folder" / "report.html").read_text(encoding="utf-8") == render_report(make_report())


def test_without_a_history_there_are_no_curves(tmp_path: Path) -> None:
    write_report(tmp_path, plain(make_report()))
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "confusion.png"}


def test_a_failed_write_leaves_the_older_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("older")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("torchlight.model.files.atomic.os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_report(tmp_path, make_report())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "older"


def test_equal_reports_give_equal_pages() -> None:
    assert render_report(make_report()) == render_report(make_report())


# The PNG figures


@pytest.mark.parametrize("epochs", [1, 12], ids=["one epoch", "twelve epochs"])
def test_figures_are_pictures_with_something_on_them(epochs: int, tmp_path: Path) -> None:
    write_report(tmp_path, replace(make_report(), history=history(epochs)))
    for name in ("curves.png", "confusion.png"):
        with Image.open(tmp_path / name, formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 200
        assert pixels.std() > 5


def test_curves_show_every_epoch_of_both_splits() -> None:
    loss, accuracy = draw_curves(history(5)).axes
    drawn = {line.get_label(): list(line.get_xdata()) for line in loss.lines}
    assert drawn["training"] == drawn["validation"] == [1, 2, 3, 4, 5]
    (validation,) = [line for line in accuracy.lines if line.get_label() == "validation"]
    assert list(validation.get_ydata()) == pytest.approx([0.40, 0.70, 0.80, 0.85, 0.88])
    assert "best: 88.00% in epoch 5" in accuracy.get_title("left")


def test_report_and_curves_name_the_epoch_that_was_kept_among_equals() -> None:
    first, second, third = history(3)
    equals = [replace(first, val_accuracy=0.75), replace(second, val_accuracy=0.75), replace(third, val_accuracy=0.5)]
    page = render_report(replace(make_report(), history=equals))
    assert "epoch 2, with 75.0% of the validation images right, was kept" in page
    assert "best: 75.00% in epoch 2" in draw_curves(equals).axes[1].get_title("left")


def test_confusion_names_both_axes_and_counts() -> None:
    figure = draw_confusion(
        compute_metrics(torch.eye(2).repeat(3, 1), torch.tensor([0, 1, 0, 0, 0, 1]), ("cat", "dog")), "val"
    )
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in axes.texts] == ["3", "1", "2"]
    assert "83.33% of 6 images right (val)" in axes.get_title("left")


@pytest.mark.parametrize(
    "class_names",
    [
        pytest.param(tuple(f"class {k}" for k in range(120)), id="many classes"),
        pytest.param(("$5 note", "$10 note"), id="dollars"),
        pytest.param(("a$\\frac$", "b$^^$"), id="broken formulas"),
        pytest.param(("snake_case", "100%", "a\\b"), id="signs"),
        pytest.param(("a" * 40, "b"), id="long name"),
        pytest.param(HOSTILE, id="hostile"),
    ],
)
def test_class_names_of_any_kind_can_be_drawn(class_names: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "confusion.png").write_bytes(to_png(draw_confusion(metrics(class_names), "test")))
    with Image.open(tmp_path / "confusion.png", formats=["PNG"]) as image:
        image.load()
        assert image.width > 100


# Colours


def luminance(colour: str) -> float:
    """Return the relative luminance of #rrggbb. Source: Web Content Accessibility Guidelines 2.2."""
    values = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(theme: int) -> None:
    style = Path(report.__file__).with_name("report.css").read_text()
    blocks = re.findall(r":root \{([^}]*)\}", style)
    colours = dict(re.findall(r"--(\w+): (#\w+);", blocks[theme]))
    by_day = {name: colour for colour, name in charts.VARIABLES.items()}
    assert theme == 1 or by_day.items() <= colours.items()  # figures are drawn by day; the page turns them to night
    text_on = [("ink", "paper"), ("muted", "paper"), ("accent", "paper"), ("ink", "card"), ("muted", "card")]
    text_on += [("ink", "right"), ("ink", "wrong")]  # counts in the strongest cells of the matrix
    assert {pair for pair in text_on if contrast(colours[pair[0]], colours[pair[1]]) < 4.5} == set()
    lines = [(name, "paper") for name in ("accent", "train", "test")]
    assert {pair for pair in lines if contrast(colours[pair[0]], colours[pair[1]]) < 3} == set()


# In a browser


@dataclass(frozen=True)
class Visit:
    """An open page, with what it asked for elsewhere and what its console said."""

    page: Page
    asked: list[str]
    said: list[str]


def visit(browser: Any, folder: Path, whole: Report, width: int = 1200, scheme: str = "light") -> Visit:
    """Open the report from the disk; every request but for the file itself is refused."""
    file = folder / "report.html"
    file.write_bytes(render_report(whole).encode())
    address = file.as_uri()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    said: list[str] = []

    def watch(route: Route) -> None:
        is_file = route.request.url == address
        asked.extend([] if is_file else [route.request.url])
        (route.continue_ if is_file else route.abort)()

    page.route("**/*", watch)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    return Visit(page, asked, said)


def test_a_browser_shows_every_figure_and_asks_nobody(browser: Any, tmp_path: Path) -> None:
    whole = make_report()
    opened = visit(browser, tmp_path, whole)
    widths = opened.page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == len(whole.metrics.mistakes) + len(whole.metrics.cell_mistakes) + len(whole.filters)
    assert min(widths) > 0
    labels = opened.page.eval_on_selector_all(
        "svg[aria-label]", "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert [label.split()[0] for label in labels] == ["Loss", "Accuracy", "Confusion", "Reliability"]
    assert opened.page.locator("svg[role=img] a").count() == 0  # a screen reader would not find them
    boxes = opened.page.eval_on_selector_all("svg", "all => all.map(one => one.getBoundingClientRect().width)")
    assert min(boxes) > 0
    assert opened.page.locator("h2").all_text_contents() == HEADINGS
    assert opened.page.locator("h1").text_content() == f"{percent(whole.metrics.accuracy)} right on pets"
    assert opened.page.locator("img:not([alt]), th:not([scope]), table:not(:has(caption))").count() == 0
    background = opened.page.evaluate("getComputedStyle(document.querySelector('.tiles div')).backgroundColor")
    assert background == "rgb(245, 247, 249)"  # the style sheet passed the page's own policy
    assert (opened.asked, opened.said) == ([], [])


def test_a_cell_of_the_matrix_opens_its_photos_and_closes_them(browser: Any, tmp_path: Path) -> None:
    whole = make_report(images=90)
    opened = visit(browser, tmp_path, whole)
    cells = opened.page.locator(".cell")
    first = whole.metrics.cell_mistakes[0]
    true, predicted = ANIMALS[first.true], ANIMALS[first.predicted]
    count = whole.metrics.confusion[first.true][first.predicted]
    shown = opened.page.locator(".cell:visible")
    assert (cells.count(), shown.count()) == (3, 0)
    link = opened.page.get_by_role("link", name=f"{true} taken for {predicted}: {count} of 30", exact=True)
    link.click()
    assert shown.locator("h3").text_content() == f"{true} taken for {predicted}: {count}"
    assert shown.locator("img").count() == count
    shown.get_by_role("link", name="Close").click()
    assert shown.count() == 0
    link.focus()
    opened.page.keyboard.press("Enter")
    assert shown.count() == 1
    assert (opened.asked, opened.said) == ([], [])


def test_the_page_is_dark_for_those_who_want_it_dark_and_light_on_paper(browser: Any, tmp_path: Path) -> None:
    opened = visit(browser, tmp_path, make_report(), scheme="dark")
    ask = "getComputedStyle(document.documentElement).backgroundColor"
    assert opened.page.evaluate(ask) == "rgb(20, 23, 28)"
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(ask) == "rgb(255, 255, 255)"
    assert opened.page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize(
    "class_names",
    [
        pytest.param(ANIMALS, id="three classes"),
        pytest.param(tuple(f"a class of its own {k}" for k in range(40)), id="forty classes"),
        pytest.param(HOSTILE, id="hostile names"),
    ],
)
def test_a_narrow_screen_scrolls_down_only(browser: Any, tmp_path: Path, class_names: tuple[str, ...]) -> None:
    whole = make_report(class_names, images=3 * len(class_names))
    whole = replace(whole, source=class_names[-1] * 9, names=[f"{name}/{'y' * 200}" for name in class_names] * 3)
    opened = visit(browser, tmp_path, whole, width=360)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.page.locator("script").count() == 0
    assert (opened.asked, opened.said) == ([], [])


def test_no_script_can_run_and_nothing_can_be_fetched_even_if_it_got_in(browser: Any, tmp_path: Path) -> None:
    opened = visit(browser, tmp_path, make_report())
    intruder = """() => {
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        const picture = document.createElement('img');
        picture.src = 'http://127.0.0.1:9/picture.png';
        document.body.append(script, picture);
        return window.ran === true;
    }"""
    assert opened.page.evaluate(intruder) is False
    assert opened.asked == []
    assert len(opened.said) >= 2  # the policy names both


def test_data_uris_hold_the_bytes() -> None:
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="
