"""A source of photos and what heads say of them -> what may be wrong with it, photo by photo, the most urgent first.

Values and sentences only: nothing is written, and nothing here knows a terminal or HTML.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from torchlight.training.data.picture_quality import find_blurred, find_tiny, measure_detail, name_flat
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.evaluation.label_doubts import MIN_IMAGES, find_label_doubts, rank_labels
from torchlight.training.evaluation.strangers import find_far, find_far_from_class, measure_distances

Kind = Literal["two_labels", "label", "one_colour", "unlike_all", "unlike_class", "blurred", "tiny", "copy"]
# In the order of urgency; a photo with several findings is shown under the first.
TITLES: dict[Kind, str] = {
    "two_labels": "One picture under two labels",
    "label": "Labels that may be wrong",
    "one_colour": "One colour all over",
    "unlike_all": "Unlike all other photos",
    "unlike_class": "Unlike the other photos of their class",
    "blurred": "Blurred",
    "tiny": "Smaller than what the network sees",
    "copy": "Near-identical photos",
}
MOST_TINY = 0.5  # of the photos: if more are small, that is how they are, and said once
MIN_CONFUSED = 3  # photos, and
MIN_CONFUSED_SHARE = 0.15  # of the photos of two classes, for them to count as hard to tell apart


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong with one photo.

    Attributes:
        index: of the photo, in ``SourcePhotos.photos``.
        reason: why it is listed, as half a sentence.
        suggestion: index of the class that it may be of; None if nothing speaks for another one.
        like: index of the photo that it is near-identical to.
    """

    kind: Kind
    index: int
    reason: str
    suggestion: int | None = None
    like: int | None = None


@dataclass(frozen=True)
class ConfusedClasses:
    """Two classes, by index, that are taken for each other: ``mistakes`` of all ``photos`` of the two."""

    one: int
    other: int
    mistakes: int
    photos: int


@dataclass(frozen=True)
class DataFindings:
    """All that may be wrong with a source.

    Attributes:
        findings: by kind in the order of ``TITLES``, within a kind the most urgent first.
        label_order: (N,) positions of all photos, the least probable label first; None if labels were not judged.
        confused: pairs of classes, the most often mistaken first.
        notes: sentences on what could not be found out, and why.
    """

    source: SourcePhotos
    findings: Sequence[Finding]
    label_order: Tensor | None
    confused: Sequence[ConfusedClasses]
    notes: Sequence[str]

    def of_kind(self, kind: Kind) -> list[Finding]:
        """Return the findings of one kind."""
        return [one for one in self.findings if one.kind == kind]

    def by_photo(self) -> dict[int, list[Finding]]:
        """Return the findings of each photo that has any, photos and findings in the order of urgency.

        A CSV file may list one file twice; it is one photo then, under the first of its positions.
        """
        first: dict[str, int] = {}
        found: dict[int, list[Finding]] = {}
        for one in self.findings:
            listed = found.setdefault(first.setdefault(self.source.photos.names[one.index], one.index), [])
            if one.reason not in [other.reason for other in listed]:
                listed.append(one)
        return found


def find_in_data(source: SourcePhotos, features: Tensor, logits: Tensor | None) -> DataFindings:
    """Return what may be wrong with the photos of a source.

    Args:
        features: (N, D) float32 of a network's last layer.
        logits: (N, K) float32, each photo's from heads that did not learn from it; None with a single class.
    """
    labels = source.photos.labels
    findings = [
        *_find_copies(source),
        *([] if logits is None else _find_wrong_labels(source, logits)),
        *_find_strangers(source, features),
        *_find_poor_pictures(source),
    ]
    order = list(TITLES)
    return DataFindings(
        source=source,
        findings=sorted(findings, key=lambda one: order.index(one.kind)),
        label_order=None if logits is None else rank_labels(logits, labels),
        confused=[] if logits is None else _find_confused(logits, labels),
        notes=list(_find_limits(source)),
    )


def _find_copies(source: SourcePhotos) -> Iterator[Finding]:
    """Yield the photos of each near-identical group but its first; all of them if the group has two labels."""
    photos, labels = source.photos, source.photos.labels.tolist()
    members: dict[str, list[int]] = {}
    for index, group in enumerate(photos.groups):
        members.setdefault(group, []).append(index)
    for first, *others in members.values():
        if {labels[k] for k in others} <= {labels[first]}:
            for index in others:
                yield Finding("copy", index, f"{_likeness(source, index, first)} {photos.names[first]}", like=first)
            continue
        for index in (first, *others):
            other = next(k for k in (first, *others) if labels[k] != labels[index])
            reason = f"{_likeness(source, index, other)} {photos.names[other]}, which has another label"
            yield Finding("two_labels", index, reason, suggestion=labels[other], like=other)


def _likeness(source: SourcePhotos, one: int, other: int) -> str:
    return "the same file as" if source.photos.digests[one] == source.photos.digests[other] else "near-identical to"


def _find_wrong_labels(source: SourcePhotos, logits: Tensor) -> Iterator[Finding]:
    names = source.class_names
    for doubt in find_label_doubts(logits, source.photos.labels):
        reason = (
            f"labelled {names[doubt.given]} ({_percent(doubt.given_probability)}), looks like {names[doubt.predicted]} "
            f"({_percent(doubt.predicted_probability)})"
        )
        yield Finding("label", doubt.index, reason, suggestion=doubt.predicted)


def _find_strangers(source: SourcePhotos, features: Tensor) -> Iterator[Finding]:
    photos = source.photos
    to_all, to_class = measure_distances(features, photos.labels, photos.groups)
    for index in find_far(to_all):
        yield Finding("unlike_all", index, "unlike all other photos")
    for index in find_far_from_class(to_class, photos.labels):
        yield Finding("unlike_class", index, f"unlike the other photos of {_class_of(source, index)}")


def _find_poor_pictures(source: SourcePhotos) -> Iterator[Finding]:
    images, size = source.photos.images, source.photos.images.shape[-1]
    for index, colour in enumerate(name_flat(images)):
        if colour:
            yield Finding("one_colour", index, f"{colour} all over")
    for index, factor in find_blurred(measure_detail(images)):
        yield Finding("blurred", index, f"blurred: a photo of this set usually has {factor:,.0f} times as much detail")
    tiny = find_tiny(source.photos.shorter_sides, size)
    for index in tiny if len(tiny) <= MOST_TINY * len(images) else ():
        side = source.photos.shorter_sides[index]
        yield Finding("tiny", index, f"its shorter side has {side} pixels, where the network sees {size}")


def _find_confused(logits: Tensor, labels: Tensor) -> list[ConfusedClasses]:
    number = logits.shape[1]
    counts = labels.bincount(minlength=number)
    matrix = torch.bincount(labels * number + logits.argmax(1), minlength=number**2).view(number, number)  # (K, K)
    mistakes = (matrix + matrix.T).triu(1)
    photos = counts[:, None] + counts  # (K, K), of both classes
    is_hard = (mistakes >= MIN_CONFUSED) & (mistakes >= MIN_CONFUSED_SHARE * photos) & (counts >= MIN_IMAGES)
    is_hard &= (counts >= MIN_IMAGES)[:, None]
    pairs = [
        ConfusedClasses(one, other, int(mistakes[one, other]), int(photos[one, other]))
        for one, other in is_hard.nonzero().tolist()
    ]
    return sorted(pairs, key=lambda pair: -pair.mistakes / pair.photos)


def _find_limits(source: SourcePhotos) -> Iterator[str]:
    """Yield what could not be found out about this source, and what is true of most of its photos."""
    yield from source.warnings
    size, number = source.photos.images.shape[-1], len(source.photos)
    tiny = len(find_tiny(source.photos.shorter_sides, size))
    if tiny > MOST_TINY * number:
        yield (
            f"{tiny} of {number} photos are smaller than the {size} pixels that the network sees; larger ones show more"
        )
    names, counts = source.class_names, source.photos.labels.bincount(minlength=len(source.class_names)).tolist()
    if source.empty_classes:
        yield f"nothing is readable of {_join(source.empty_classes)}; mend the files or remove the class"
    if len(names) == 1:
        yield f"there is one class, {names[0]}, so no label can be checked; add a folder for a second class"
        return
    few = [name for name, count in zip(names, counts, strict=True) if count < MIN_IMAGES]
    if few:
        yield f"labels of {_join(few)} were not checked: a class needs {MIN_IMAGES} photos for that; add some"
    if source.too_alike:
        yield "the photos are so alike throughout that only exact copies were taken for near-identical"


def _join(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more classes" if len(names) > most else "")


def _class_of(source: SourcePhotos, index: int) -> str:
    return source.class_names[source.photos.labels[index]]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
