"""The report of a run on few photos: what it says first, the ways compared, what may be wrong, and how it looks."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.report.test_report import HEADINGS, HOSTILE, headings, make_report, read, text_of, tooltips, visit
from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.images import ImageSpec
from torchlight.model.network import NetworkConfig
from torchlight.training.data.held_out import select_held_out
from torchlight.training.data.loading import DataSet, LabelledImages
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.evaluation.calibration import measure_calibration
from torchlight.training.evaluation.classification_metrics import Metrics, compute_metrics
from torchlight.training.evaluation.cross_validation import CandidateResult, CrossValidation
from torchlight.training.evaluation.data_findings import Finding, find_in_data
from torchlight.training.evaluation.evaluate_checkpoint import Evaluation
from torchlight.training.report import charts, report
from torchlight.training.report.few_photos import choose_found
from torchlight.training.report.few_photos_text import (
    advise,
    describe_learnt,
    of_hundred,
    suggest_photos,
    summarise_cross_validated,
)
from torchlight.training.report.report import Report, render_report, summarise_run

ANIMALS = ("cat", "dog", "owl")
CANDIDATES = (
    CandidateResult("Lite0, last + earlier layers", 0.9, 60, 0.3, 1.4, True, "Earlier layers know where things are."),
    CandidateResult("from nothing: torchlight, 32 pixels", 0.6, 12, 1.1, 41.0, False),
    CandidateResult("Lite2, last layer", None, 0, None, None, False, "It needs about 40 s, and 12 s were left."),
)
FEW_PHOTOS_HEADINGS = [
    "What would help most",
    "What may be wrong with the photos",
    "What it confuses",
    "Class by class",
    "Most confident mistakes",
    "Ways to learn that were compared",
    "Does it know when it is right?",
    "The data",
    "How it was made",
]


def photos(counts: tuple[int, ...], side: int = 8) -> LabelledImages:
    """Return noise, so many pictures of each class."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(labels), 3, side, side), generator=generator, dtype=torch.uint8)
    names = tuple(f"photos/{k}.jpg" for k in range(len(labels)))
    return LabelledImages(images, labels, names, names, names, (100,) * len(labels))


def describe(labels: Tensor, num_classes: int) -> Tensor:
    """Return features that put the photos of a class together."""
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(1))
    return torch.eye(num_classes, 8)[labels] + 0.05 * noise


def answers(labels: Tensor, num_classes: int, mistaken: dict[int, int]) -> Tensor:
    """Return logits that are right but for the photos mistaken, by their position, for a class; of those surest."""
    given, sureness = labels.clone(), torch.full((len(labels), 1), 4.0)
    for position, predicted in mistaken.items():
        given[position], sureness[position] = predicted, 6.0
    noise = torch.rand(len(labels), num_classes, generator=torch.Generator().manual_seed(0))
    return sureness * torch.nn.functional.one_hot(given, num_classes) + 0.5 * noise


def few_photos(
    counts: tuple[int, ...] = (20, 20, 20),
    mistaken: dict[int, int] | None = None,
    *,
    class_names: tuple[str, ...] = ANIMALS,
    test: tuple[int, ...] = (),
    judged: int | None = None,
    temperature: float = 0.5,
    candidates: tuple[CandidateResult, ...] = CANDIDATES,
) -> Report:
    """Return the report of a run that learnt from so many photos of each class.

    Args:
        mistaken: photo -> class, in cross-validation; by default photos 0, 1 and 2, of the first class, for the second.
        test: photos of each class that were held out; by default none.
        judged: how many of the first photos were judged; by default all.
    """
    learnt, none = photos(counts), photos((0,) * len(class_names))
    splits = {"train": learnt, "val": none, "test": photos(test) if test else none}
    dataset = DataSet(class_names, splits, "sha256:da7a", (), ("cat has 3 images; add some.",))
    part = learnt.select(torch.arange(len(learnt)) < (judged or len(learnt)))
    logits = answers(part.labels, len(class_names), {0: 1, 1: 1, 2: 1} if mistaken is None else mistaken)
    fitted = measure_calibration(logits, logits / temperature, part.labels, temperature)
    findings = find_in_data(
        SourcePhotos(class_names, part), describe(part.labels, len(class_names)), logits / temperature
    )
    cross_validation = CrossValidation(
        5, part, logits / temperature, fitted, candidates, "It was right most often.", findings
    )
    held_out = select_held_out(dataset, is_cross_validated=True)
    labels = held_out.examples.labels
    tested = answers(labels, len(class_names), {0: 1}) if test else cross_validation.logits
    evaluation = Evaluation(
        Checkpoint(
            Header(
                network=NetworkConfig("guide", len(class_names)),
                class_names=class_names,
                image_spec=ImageSpec(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
                metrics={},
                training={"command": "torchlight train pets", "seconds": 9.1, "device": "cpu"},
                data={},
                versions={},
            ),
            torch.nn.Identity(),
            "sha256:c0ffee",
            Path("pets.safetensors"),
        ),
        held_out,
        compute_metrics(tested, labels, class_names),
        measure_calibration(tested, tested, labels, 1.0) if test else fitted,
    )
    return report.make_report(
        evaluation, source="pets", command="torchlight train pets", cross_validation=cross_validation
    )


def figures(right: dict[str, tuple[int, int]]) -> Metrics:
    """Return the metrics of a network that recognises so many of so many photos of each class, and calls the others
    what comes next in the list."""
    names = tuple(right)
    labels, predicted = [], []
    for k, (found, number) in enumerate(right.values()):
        labels += [k] * number
        predicted += [k] * found + [(k + 1) % len(names)] * (number - found)
    return compute_metrics(torch.eye(len(names))[predicted], torch.tensor(labels), names)


def judged(metrics: Metrics) -> list[int]:
    """Return how many photos of each class were judged."""
    return [one.images for one in metrics.per_class]


# What it says first


def test_the_first_lines_say_how_good_it_is_how_sure_that_is_and_how_it_was_measured() -> None:
    first, second, third = summarise_cross_validated(figures({"ant": (58, 61), "bee": (55, 61)}), 5, 122)
    assert first == "The network is right in about 93 of 100 photos: it was in 113 of 122."
    assert second == (
        "That is known to within a few of 100: shown many more of the same kind, it would be right in 86 to 97 of 100 "
        "(95% confidence). Guessing would be right in 50 of 100."
    )
    assert third == (
        "Each photo was judged by a network that had seen neither it nor its near-identical copies (5-fold "
        "cross-validation). The network that is kept learnt from all 122."
    )


@pytest.mark.parametrize(
    ("right", "number", "said"),
    [
        (1990, 2000, "That is well known: "),
        (280, 300, "That is known to within a few of 100: "),
        (24, 30, "With so few photos that is known only roughly: "),
        (6, 10, "With so few photos that is hardly known: "),
    ],
)
def test_how_sure_the_figure_is_depends_on_how_many_photos_there_are(right: int, number: int, said: str) -> None:
    half = number // 2
    _, second, _ = summarise_cross_validated(figures({"ant": (right - half, half), "bee": (half, half)}), 5, 122)
    assert second.startswith(said)


def test_a_network_that_may_be_no_better_than_one_answer_for_all_is_told_so() -> None:
    _, second, _ = summarise_cross_validated(figures({"ant": (28, 30), "guard bee": (2, 10)}), 5, 122)
    assert second.endswith(
        "So it may be no better than answering ant, the most frequent class, every time, which would be right in "
        "75 of 100."
    )


def test_all_right_is_told_with_the_range_and_not_as_certainty() -> None:
    first, second, _ = summarise_cross_validated(figures({"ant": (10, 10), "bee": (12, 12)}), 5, 122)
    assert first == "The network was right in all of 22 photos."
    assert "it would be right in 85 to 100 of 100" in second
    assert "<h1>All of 60 right on" in render_report(few_photos(mistaken={}))


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.934, "93 of 100"),
        (0.0, "0 of 100"),
        (1.0, "100 of 100"),
        (0.997, "more than 99 of 100"),
        (0.003, "fewer than 1 of 100"),
    ],
)
def test_shares_are_told_as_so_many_of_a_hundred(share: float, said: str) -> None:
    assert of_hundred(share) == said


# What would help most


def test_photos_are_asked_of_classes_with_few_and_of_those_recognised_less_often() -> None:
    measured = figures(
        {"ant": (12, 40), "bee": (40, 40), "cat": (9, 12), "dog": (2, 3), "eel": (12, 12), "fox": (120, 300)}
    )
    suggested = suggest_photos(measured, judged(measured))
    asked = [(one.label, number) for one, _, number in suggested]
    assert asked == [("ant", 40), ("dog", 20), ("fox", 100), ("cat", 20)]


def test_advice_names_numbers_of_photos_and_classes_of_which_nothing_is_known() -> None:
    measured = figures({"ant": (28, 30), "bee": (9, 16), "owl": (0, 1)})
    advice = {one.title: one.sentence for one in advise(measured, judged(measured), 2, 1)}
    assert list(advice) == ["Nothing is known of", "More photos", "Labels to check", "Confusions", "The data"]
    assert advice["Nothing is known of"] == "owl (1 photo); with fewer than 5 photos a figure is luck, good or bad."
    assert advice["More photos"] == (
        "about 20 of owl (it has one) and 20 of bee (it has 16, 9 of them recognised) would help most."
    )
    assert advice["Labels to check"].startswith("2 photos may carry a wrong label")
    assert advice["Confusions"].endswith(
        "7 of 16 images of bee were taken for owl, and 0 of 1 the other way round. These are 7 of its 10 mistakes: "
        "photos that show what tells the two apart would help."
    )
    assert advice["The data"] == "1 warning, worth reading before you train again."


def test_only_the_most_urgent_classes_are_listed_and_the_others_counted() -> None:
    advice = list(advise(figures({f"kind{k}": (2, 4) for k in range(8)}), [4] * 8, 0, 0))
    assert advice[0].sentence.startswith("kind0 (4 photos), kind1 (4 photos) and kind2 (4 photos) and 5 other classes;")
    assert advice[1].sentence.endswith(" would help most; then of 5 other classes.")


@pytest.mark.parametrize(("found", "said"), [(40, "it made no mistake;"), (39, "no class stands out;")])
def test_photos_are_not_asked_of_classes_that_are_known_well(found: int, said: str) -> None:
    (advice, *_) = advise(figures({"ant": (found, 40), "bee": (found, 40)}), [40, 40], 0, 0)
    assert (advice.title, advice.sentence.startswith(said)) == ("More photos", True)


def test_the_terminal_gets_the_first_lines_of_the_page() -> None:
    whole = few_photos()
    page = text_of(render_report(whole))
    lines = summarise_run(whole)
    assert lines[0] == "The network is right in about 95 of 100 photos: it was in 57 of 60."
    assert [line.partition(":")[0] for line in lines[3:]] == [
        "More photos",
        "Labels to check",
        "Confusions",
        "The data",
    ]
    assert all(line.rpartition(": ")[2].replace("'", "&#39;") in page for line in lines)


def test_a_run_without_cross_validation_ends_with_what_its_report_begins_with() -> None:
    ordinary = make_report()
    lines = summarise_run(ordinary)
    assert len(lines) == 2
    assert all(line in text_of(render_report(ordinary)) for line in lines)


# The page


def test_sections_come_with_what_to_do_before_how_it_was_done() -> None:
    assert headings_of_both_kinds(render_report(few_photos())) == FEW_PHOTOS_HEADINGS


def headings_of_both_kinds(page: str) -> list[str]:
    return headings(page.replace('<h2 class="plain">', "<h2>"))


def links(html: str) -> list[str]:
    """Return the places on the page that it leads to."""
    return [(attributes.get("href") or "").removeprefix("#") for tag, attributes in read(html).tags if tag == "a"]


def advice_links(page: str) -> list[str]:
    return links(page.partition('<ul class="advice">')[2].partition("</ul>")[0])


def test_advice_leads_to_the_section_that_shows_it() -> None:
    page = render_report(few_photos())
    assert advice_links(page) == ["classes", "doubts", "confusion", "data"]
    assert set(links(page)) <= {attributes.get("id") for _, attributes in read(page).tags}


def test_a_report_without_cross_validation_has_none_of_it() -> None:
    page = render_report(make_report())
    assert headings_of_both_kinds(page) == HEADINGS
    assert "cross-validation" not in page


def test_it_says_that_choosing_by_such_answers_may_flatter() -> None:
    text = text_of(render_report(few_photos()))
    assert "Measured on all photos. The way to learn was chosen by such answers, which may flatter the figures" in text


def test_held_out_photos_speak_first_and_cross_validation_second() -> None:
    whole = few_photos(test=(10, 10, 10))
    text = text_of(render_report(whole))
    assert "96.7% right on pets The network classified 29 of 30 images correctly." in text
    assert "In 5-fold cross-validation over 60 of the photos that it learnt from it was right in 95 of 100" in text
    assert "Measured on the test split: images that had no part in training." in text
    assert "90 images of 3 classes: 60 to train on, 30 to test with." in text
    assert "What would help most As seen in cross-validation, over the photos that it learnt from." in text
    assert advice_links(render_report(whole)) == ["doubts", "data"]  # the other sections are of the test images


def test_photos_that_there_was_no_time_to_judge_are_counted_but_have_no_figures() -> None:
    whole = few_photos(test=(5, 5, 5), judged=24)
    assert whole.counts["train"] == [20, 20, 20]
    assert whole.cross_validated
    assert whole.cross_validated.metrics.images == 24
    assert {one.index for one in whole.cross_validated.result.findings.of_kind("label")} == {0, 1, 2}
    assert 'id="doubts"' in render_report(whole)


def test_photos_that_were_not_judged_count_as_photos_that_one_has() -> None:
    measured = figures({"ant": (8, 20), "bee": (20, 20)})
    _, _, third = summarise_cross_validated(measured, 5, 200)
    assert third.startswith("There was time to judge 40 of 200 photos. Each was judged by a network")
    (advice, *_) = advise(measured, [100, 100], 0, 0)
    assert advice.sentence == (
        "about 100 of ant (it has 100; of 20 that were judged 8 are recognised) would help most."
    )


def test_a_class_with_hardly_any_photos_is_marked() -> None:
    page = render_report(few_photos((20, 20, 3), {0: 1, 42: 1}))
    assert page.count("<small>too few to tell</small>") == 1
    assert "<td>3<small>too few to tell</small></td>" in page


def test_doubtful_labels_are_shown_once_and_at_most_twelve() -> None:
    whole = few_photos((40, 40, 40), dict.fromkeys(range(15), 1))
    page = render_report(whole)
    assert "12 of 15 are shown, the most urgent first." in text_of(page)
    assert "Labels that may be wrong 15" in text_of(page)
    assert "labelled cat (" in page
    assert "torchlight check pets" in page
    before, matrix, after = page.partition('<section id="confusion">')
    shown = before + after.partition('<section id="classes">')[2]
    assert matrix
    assert shown.count('alt="photos/') == 15
    assert all(shown.count(f'alt="photos/{k}.jpg:') == 1 for k in range(15))
    assert "The other images that it got wrong while being most sure." in page


def test_of_every_kind_of_finding_some_are_shown() -> None:
    whole = few_photos((40, 40, 40), dict.fromkeys(range(15), 1))
    assert whole.cross_validated
    found = whole.cross_validated.result.findings
    copies = [Finding("copy", 40 + k, "near-identical to photos/0.jpg", like=0) for k in range(20)]
    both = replace(found, findings=[*found.findings, *copies])
    shown = choose_found(both)
    assert Counter(ones[0].kind for ones in shown.values()) == {"label": 12, "copy": 12}


def test_mistakes_that_are_all_shown_as_doubts_are_not_told_to_be_none() -> None:
    text = text_of(render_report(few_photos()))
    assert "All of them are shown above." in text


def test_candidates_are_compared_and_the_way_to_try_more_is_told() -> None:
    text = text_of(render_report(few_photos()))
    assert "It was right most often. Each was measured by 5-fold cross-validation over 60 photos; a training" in text
    assert "Earlier layers know where things are. 90.0% 60 0.300 1.4 s yes" in text
    assert "from nothing: torchlight, 32 pixels 60.0% 12 1.100 41 s " in text
    assert "It needs about 40 s, and 12 s were left. not tried – – –" in text
    assert "1 way to learn was not tried. With more time, such as --budget 20m" in text


def test_where_every_way_was_tried_nothing_is_told_of_budgets() -> None:
    assert "--budget" not in render_report(few_photos(candidates=CANDIDATES[:2]))


def test_bars_of_candidates_are_as_long_as_their_shares() -> None:
    figure = charts.draw_candidates(CANDIDATES[:2], 1 / 3)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.9, 0.6]
    assert tooltips(charts.to_svg(figure, "label")) == [
        "Lite0, last + earlier layers: 90.0%, 95% confidence 79.9 to 95.3%",
        "from nothing: torchlight, 32 pixels: 60.0%, 95% confidence 32.0 to 80.7%",
    ]


@pytest.mark.parametrize(
    ("temperature", "said"),
    [
        (0.5, "divided by 0.500, a temperature fitted in cross-validation: each photo is measured with one that other"),
        (1.0, "A temperature, by which its outputs could be divided, was left out"),
    ],
)
def test_the_temperature_is_told_as_cross_fitted_or_left_out(temperature: float, said: str) -> None:
    text = text_of(render_report(few_photos(temperature=temperature)))
    assert said in text
    assert ("before after" in text) == (temperature != 1)


def test_a_temperature_that_did_not_help_on_these_images_is_told_so() -> None:
    whole = make_report()
    assert whole.calibration
    worse = replace(whole.calibration, nll_before=0.5, nll_after=0.6)
    assert "On these images it did not help." in text_of(render_report(replace(whole, calibration=worse)))
    better = replace(whole.calibration, nll_before=0.6, nll_after=0.5)
    assert "did not help" not in text_of(render_report(replace(whole, calibration=better)))


def test_equal_reports_give_equal_pages() -> None:
    assert render_report(few_photos()) == render_report(few_photos())


def test_what_users_wrote_never_becomes_markup() -> None:
    candidates = tuple(replace(CANDIDATES[k % 3], name=text, note=text) for k, text in enumerate(HOSTILE))
    hostile = few_photos((10,) * len(HOSTILE), class_names=HOSTILE, candidates=candidates)
    harmless = few_photos((10,) * 7, class_names=(*"abcdef", "g" * 300), candidates=CANDIDATES * 3)
    ours = read(render_report(harmless))
    reader = read(render_report(hostile))
    assert {tag for tag, _ in reader.tags} == {tag for tag, _ in ours.tags}
    assert {name for _, attributes in reader.tags for name in attributes} <= {
        name for _, attributes in ours.tags for name in attributes
    }


@pytest.mark.parametrize("width", [360, 1200])
def test_a_browser_shows_all_of_it_asks_nobody_and_scrolls_down_only(browser: Any, tmp_path: Path, width: int) -> None:
    whole = few_photos((12, 9, 3), {0: 1, 1: 2, 13: 0})
    opened = visit(browser, tmp_path, whole, width=width)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    widths = opened.page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert whole.cross_validated
    found = choose_found(whole.cross_validated.result.findings)
    assert len(widths) == len(found) + 3  # a doubtful label is also a mistake of the matrix
    assert min(widths) > 0
    labels = opened.page.eval_on_selector_all(
        "svg[aria-label]", "all => all.map(one => one.getAttribute('aria-label'))"
    )
    assert [label.split()[0] for label in labels] == ["Confusion", "Share", "Reliability"]
    assert opened.page.locator("img:not([alt]), th:not([scope]), table:not(:has(caption)), script").count() == 0
    opened.page.get_by_role("link", name="Labels to check").click()
    assert opened.page.evaluate("document.querySelector('#doubts').getBoundingClientRect().top") < 5
    assert (opened.asked, opened.said) == ([], [])


# On what it learnt from


def test_on_its_own_photos_a_network_is_not_measured_but_its_cross_validation_told() -> None:
    measured = {"accuracy": 0.934, "interval": [0.896, 0.959], "loss": 0.21, "calibration_error": 0.047}
    first, second, third = describe_learnt("photos", measured | {"images": 244, "folds": 5})
    assert first == "The network learnt from every photo of photos: its answers to them say nothing about others."
    assert second == (
        "In 5-fold cross-validation it was right in 93 of 100 of these 244 photos (89 to 96 with 95% confidence), each "
        "judged by a network that had not seen it; loss 0.2100, calibration error 4.70%."
    )
    assert third.startswith("To measure the network itself")


def test_a_report_on_what_a_network_learnt_from_says_so() -> None:
    text = text_of(render_report(replace(make_report(), exposure="learnt")))
    assert "which the network learnt from: the figures say nothing about others." in text
