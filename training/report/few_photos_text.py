"""A run on few photos in sentences for the one who took them: how good, how sure that is, what would help most.

Pure functions; nothing here knows HTML. Such runs have no images to spare for testing: figures are cross-validated.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torchlight.training.evaluation.classification_metrics import ClassMetrics, Interval, Metrics
from torchlight.training.evaluation.label_doubts import MIN_IMAGES
from torchlight.training.report.report_text import confused_pairs, count_noun, name_class, name_confusion

FEW, ENOUGH = 10, 20  # photos of a class: more are asked for below the first, and up to the second if some are mistaken
MOST_ADDED = 100  # photos of a class that one advice asks for
MAX_LISTED = 3  # classes within a sentence
CERTAINTIES = (  # widths of a 95% interval, at most
    (0.05, "That is well known"),
    (0.12, "That is known to within a few of 100"),
    (0.3, "With so few photos that is known only roughly"),
    (1.0, "With so few photos that is hardly known"),
)
LEADING_SHARE, LEADING_MISTAKES = 1 / 3, 3  # of all mistakes, at least, are between two classes worth a remark


class Advice(NamedTuple):
    """What would help: a few words, a sentence, and the id of the section of the report that shows it."""

    title: str
    sentence: str
    section: str


def of_hundred(share: float) -> str:
    """Return a share as ``93 of 100``; only 0 and 1 themselves are none and all."""
    rounded = round(100 * share)
    if rounded == 100 and share < 1:
        return "more than 99 of 100"
    return "fewer than 1 of 100" if rounded == 0 and share > 0 else f"{rounded} of 100"


def summarise_cross_validated(metrics: Metrics, num_folds: int, learnt: int) -> Iterator[str]:
    """Yield how good a cross-validated network is, how sure that is, and how it was measured.

    Args:
        metrics: of each photo's answer by a network that did not learn from it.
        learnt: photos that the network that is kept learnt from: all that were judged, and others if time was short.
    """
    number, right = metrics.images, round(metrics.accuracy * metrics.images)
    if right == number:
        yield f"The network was right in all of {number:,} photos."
    else:
        yield f"The network is right in about {of_hundred(metrics.accuracy)} photos: it was in {right:,} of {number:,}."
    yield f"{_describe_certainty(metrics.accuracy_interval)} {_compare_with_most_frequent(metrics)}"
    judged = "Each photo" if number == learnt else f"There was time to judge {number:,} of {learnt:,} photos. Each"
    yield (
        f"{judged} was judged by a network that had seen neither it nor its near-identical copies ({num_folds}-fold "
        f"cross-validation). The network that is kept learnt from all {learnt:,}."
    )


def describe_second_opinion(metrics: Metrics, num_folds: int) -> str:
    """Return what cross-validation says where other photos, that nothing learnt from, have already spoken."""
    low, high = _widen(metrics.accuracy_interval)
    return (
        f"In {num_folds}-fold cross-validation over {metrics.images:,} of the photos that it learnt from it was "
        f"right in {of_hundred(metrics.accuracy)} ({low} to {high} with 95% confidence), each judged by a network that "
        "had not seen it."
    )


def describe_learnt(source: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield why a network is not measured on the photos that it learnt from, and what was measured instead.

    Args:
        figures: the checkpoint's ``metrics["cross_validation"]``.
    """
    low, high = _widen(figures["interval"])
    yield f"The network learnt from every photo of {source}: its answers to them say nothing about others."
    yield (
        f"In {figures['folds']}-fold cross-validation it was right in {of_hundred(figures['accuracy'])} of these "
        f"{figures['images']:,} photos ({low} to {high} with 95% confidence), each judged by a network that had not "
        f"seen it; loss {figures['loss']:.4f}, calibration error {figures['calibration_error']:.2%}."
    )
    yield "To measure the network itself, give it a folder of photos that it has not seen."


def advise(metrics: Metrics, learnt: Sequence[int], num_doubts: int, num_warnings: int) -> Iterator[Advice]:
    """Yield what would help most, the most urgent first.

    Args:
        metrics: cross-validated.
        learnt: photos of each class that the network learnt from, judged or not.
        num_doubts: photos whose label is doubtful.
        num_warnings: about the data.
    """
    unknown = [one for one in metrics.per_class if 0 < one.images < MIN_IMAGES]
    if unknown:
        yield Advice("Nothing is known of", _describe_unknown(unknown), "classes")
    yield Advice("More photos", _ask_for_photos(metrics, learnt), "classes")
    if num_doubts:
        yield Advice(
            "Labels to check",
            f"{count_noun(num_doubts, 'photo')} may carry a wrong label or show two things; to correct what is "
            "wrong and train again is the cheapest way to a better network.",
            "doubts",
        )
    if metrics.accuracy < 1:
        sentence = name_confusion(metrics) + _remark_on_pair(metrics)
        yield Advice("Confusions", sentence[0].lower() + sentence[1:], "confusion")
    if num_warnings:
        yield Advice(
            "The data", f"{count_noun(num_warnings, 'warning')}, worth reading before you train again.", "data"
        )


def suggest_photos(metrics: Metrics, learnt: Sequence[int]) -> list[tuple[ClassMetrics, int, int]]:
    """Return the classes that more photos would help most, how many each has, and how many to add.

    They come by the lower end of their recall's interval, which few photos and low recall pull down alike. Among them
    are classes with fewer than ``FEW`` photos, or ``ENOUGH`` if some are mistaken, and those that are surely recognised
    less often than the photos of all classes together.
    """
    poor = [
        (one, number, _count_to_add(number))
        for one, number in zip(metrics.per_class, learnt, strict=True)
        if one.images and _needs_photos(one, number, metrics.accuracy)
    ]
    return sorted(poor, key=lambda asked: asked[0].recall_interval[0])


def _needs_photos(one: ClassMetrics, number: int, accuracy: float) -> bool:
    wanted = ENOUGH if one.recall < 1 else FEW
    return number < wanted or one.recall_interval[1] < accuracy


def _count_to_add(images: int) -> int:
    """Return what makes them ``ENOUGH``, or twice as many; in tens."""
    wanted = min(max(ENOUGH, 2 * images) - images, MOST_ADDED)
    return max(10, math.ceil(wanted / 10) * 10)


def _ask_for_photos(metrics: Metrics, learnt: Sequence[int]) -> str:
    suggested = suggest_photos(metrics, learnt)
    if not suggested:
        if metrics.accuracy == 1:
            return "it made no mistake; more would only narrow the range."
        return "no class stands out; more of all of them, taken as those to come will be, help slowly."
    asked = [f"{add} of {name_class(one)} ({_describe_recall(one, has)})" for one, has, add in suggested[:MAX_LISTED]]
    rest = len(suggested) - len(asked)
    others = f"; then of {count_noun(rest, 'other class', 'other classes')}" if rest > 0 else ""
    return f"about {_join_names(asked)} would help most{others}."


def _describe_recall(one: ClassMetrics, number: int) -> str:
    """Return how many of a class's photos are recognised, and of how many judged if those were not all."""
    if number == 1:
        return "it has one"
    right = round(one.recall * one.images)
    if one.images < number:
        return f"it has {number:,}; of {one.images:,} that were judged {right:,} are recognised"
    return f"it has {number:,}, {right:,} of them recognised"


def _describe_unknown(unknown: Sequence[ClassMetrics]) -> str:
    listed = [f"{name_class(one)} ({count_noun(one.images, 'photo')})" for one in unknown[:MAX_LISTED]]
    rest = len(unknown) - len(listed)
    others = f" and {count_noun(rest, 'other class', 'other classes')}" if rest > 0 else ""
    return f"{_join_names(listed)}{others}; with fewer than {MIN_IMAGES} photos a figure is luck, good or bad."


def _remark_on_pair(metrics: Metrics) -> str:
    """Return a remark if a good part of all mistakes is between two classes."""
    together: Counter[frozenset[int]] = Counter()
    for true, predicted, count, _ in confused_pairs(metrics):
        together[frozenset((true, predicted))] += count
    most, total = max(together.values()), together.total()
    if most < LEADING_MISTAKES or most < LEADING_SHARE * total or len(metrics.per_class) == 2:
        return ""
    return f" These are {most:,} of its {total:,} mistakes: photos that show what tells the two apart would help."


def _describe_certainty(interval: Interval) -> str:
    low, high = _widen(interval)
    sure = next(words for limit, words in CERTAINTIES if interval[1] - interval[0] <= limit)
    return f"{sure}: shown many more of the same kind, it would be right in {low} to {high} of 100 (95% confidence)."


def _compare_with_most_frequent(metrics: Metrics) -> str:
    most = max(metrics.per_class, key=lambda one: one.images)
    share = most.images / metrics.images
    if share * len(metrics.per_class) == 1 and metrics.accuracy_interval[0] > share:
        return f"Guessing would be right in {of_hundred(share)}."
    answer = f"answering {name_class(most)}, the most frequent class, every time"
    if metrics.accuracy_interval[0] <= share:
        return f"So it may be no better than {answer}, which would be right in {of_hundred(share)}."
    return f"By {answer} one would be right in {of_hundred(share)}."


def _widen(interval: Interval) -> tuple[int, int]:
    """Return an interval of shares in whole numbers of a hundred, rounded outwards."""
    return math.floor(100 * interval[0]), math.ceil(100 * interval[1])


def _join_names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
