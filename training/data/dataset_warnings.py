"""Warnings about a data set that can be trained on, in sentences for the person who took the photos."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from torchlight.training.data.sources import shorten
from torchlight.training.data.splitting import HELD_OUT, Example

IMBALANCE = 10  # times as many images in the largest class as in the smallest
FEW_IMAGES = 10  # in a class


def in_classes(counts: Counter[str], needed: int) -> Iterator[str]:
    """Yield what the numbers of images per class give cause for.

    Args:
        counts: images of each class.
        needed: images that a class needs so that one of it is held out.
    """
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] > IMBALANCE * counts[smallest]:
        yield (
            f"class '{smallest}' has {_number(counts[smallest], 'image')}, '{largest}' {counts[largest]:,}; "
            f"--balance weights the loss"
        )
    few = sorted(label for label, number in counts.items() if number < FEW_IMAGES)
    if few:
        listed = shorten([f"'{label}' {counts[label]}" for label in few])
        held_out = f", and below {needed} none is held out" if counts[smallest] < needed else ""
        yield (
            f"{_number(len(few), 'class', 'classes')} of {len(counts):,} with fewer than {FEW_IMAGES} images "
            f"({listed}); little is learnt from so few{held_out}"
        )


def in_splits(examples: Sequence[Example], sides: Sequence[str | None], class_names: Sequence[str]) -> Iterator[str]:
    """Yield which classes a held-out split lacks, and which pictures are, or would be, on two sides."""
    sorted_out = list(zip(examples, sides, strict=True))
    for name in HELD_OUT:
        labels = {example.label for example, side in sorted_out if side == name}
        missing = [label for label in class_names if label not in labels]
        if labels and missing:
            yield (
                f"{name} has no image of {_number(len(missing), 'class', 'classes')} of {len(class_names):,} "
                f"({shorten([repr(label) for label in missing])}); its figures say nothing of them"
            )
    val, test = ({example.group: example for example, side in sorted_out if side == name} for name in HELD_OUT)
    left_out = [
        (example, val.get(example.group) or test[example.group]) for example, side in sorted_out if side is None
    ]
    across = [(val[group], test[group]) for group in val if group in test]
    if left_out:
        yield (
            f"{_number(len(left_out), 'training image')} left out, being near-identical to images held out "
            f"({_pairs(left_out)})"
        )
    if across:
        yield f"{_number(len(across), 'picture')} in val and in test too ({_pairs(across)})"


def in_copies(examples: Sequence[Example]) -> Iterator[str]:
    """Yield how many images are copies of others, and which are there under two labels."""
    first: dict[str, Example] = {}
    copies = [(x, first[x.digest]) for x in examples if first.setdefault(x.digest, x) is not x]
    if copies:
        yield f"{_number(len(copies), 'file')} copied from others byte for byte ({_pairs(copies)})"
    leader: dict[str, Example] = {}
    alike = [(leader[x.group], x) for x in first.values() if leader.setdefault(x.group, x) is not x]
    if alike:
        groups = {one.group: (one, other) for one, other in reversed(alike)}
        yield (
            f"{len(alike) + len(groups):,} images in {_number(len(groups), 'group')} of near-identical ones, each "
            f"group kept on one side unless it came divided ({_pairs(reversed(groups.values()))})"
        )
    torn = {x.group: (leader[x.group], x) for x in examples if x.label != leader[x.group].label}
    if torn:
        listed = shorten([f"{a.name} '{a.label}' and {b.name} '{b.label}'" for a, b in torn.values()], 2)
        yield f"{_number(len(torn), 'picture')} with two labels ({listed}); one of the two is probably wrong"


def in_pixels(names: Sequence[str], shorter_sides: Sequence[int], flat: Sequence[bool], size: int) -> Iterator[str]:
    """Yield which images have little to see in them."""
    tiny = [name for name, side in zip(names, shorter_sides, strict=True) if 2 * side < size]
    if tiny:
        yield f"{_number(len(tiny), 'image')} smaller than half of the {size} pixels that are seen ({shorten(tiny, 2)})"
    empty = [name for name, is_flat in zip(names, flat, strict=True) if is_flat]
    if empty:
        yield f"{_number(len(empty), 'image')} of one colour all over ({shorten(empty, 2)})"


def _pairs(pairs: Iterable[tuple[Example, ...]]) -> str:
    return shorten([f"{one.name} like {other.name}" for one, other in pairs], 2)


def _number(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
