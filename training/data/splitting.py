"""Which images are in train, val and test: by content, class by class, groups of near-identical images as one.

Knows nothing of pixels or files.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

HELD_OUT = ("val", "test")


class Example(NamedTuple):
    """A readable image, as far as splitting it is concerned.

    Attributes:
        name: its path within the source, for messages.
        split: the split it was found in; None if the source has no splits.
        digest: of its content: equal photos have equal digests.
        group: of the images that are near-identical to it, itself included; their smallest digest.
    """

    name: str
    label: str
    split: str | None
    digest: str
    group: str


def fractions_to_hold_out(given: set[str | None], val_fraction: float, test_fraction: float) -> dict[str, float]:
    """Return the share to take from the training images for each held-out split that the source does not have."""
    return {name: f for name, f in zip(HELD_OUT, (val_fraction, test_fraction), strict=True) if name not in given}


def divide(examples: Sequence[Example], val_fraction: float, test_fraction: float, seed: int) -> list[str | None]:
    """Return the split of each example: the one it came with, else one chosen by its content; None if it is left out.

    Groups are ordered by a hash of seed and content, and go through two passes:

    1. A group goes to the first held-out split that has room for all of it.
    2. Where a split still lacks images, a group larger than the room goes there if the counts are then no further from
       the asked ones than before, unless training would be left with no image of a class.

    The rest is trained on. Copies of one file count once. Neither names nor the order of the examples matter. Training
    images that are near-identical to ones that came as val or test are left out. So a group is on two sides only if the
    source itself has it in val and in test.
    """
    fractions = fractions_to_hold_out({example.split for example in examples}, val_fraction, test_fraction)
    held_out_as_given = {example.group for example in examples if example.split in HELD_OUT}
    pool = [x for x in examples if x.split not in HELD_OUT and x.group not in held_out_as_given]
    chosen = _hold_out(_count_images(pool), fractions, seed)

    def side(example: Example) -> str | None:
        if example.split in HELD_OUT:
            return example.split
        return None if example.group in held_out_as_given else chosen.get(example.group, "train")

    return [side(example) for example in examples]


def _count_images(pool: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Return for each group how many different images it has of each class."""
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for label, _, group in {(example.label, example.digest, example.group) for example in pool}:
        groups[group][label] = groups[group].get(label, 0) + 1
    return groups


def _hold_out(groups: Mapping[str, Mapping[str, int]], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the split of each group that is held out."""
    order = sorted(groups, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    left: dict[str, int] = defaultdict(int)
    for label, number in (item for counts in groups.values() for item in counts.items()):
        left[label] += number
    room = {name: {label: round(f * number) for label, number in left.items()} for name, f in fractions.items()}
    chosen: dict[str, str] = {}

    def take(group: str, name: str) -> None:
        chosen[group] = name
        for label, number in groups[group].items():
            room[name][label] -= number
            left[label] -= number

    for group in order:
        for name, free in room.items():
            if all(number <= free[label] for label, number in groups[group].items()):
                take(group, name)
                break
    for name, free in room.items():  # what fits is taken by now: only groups larger than the room are left
        for group in order if any(number > 0 for number in free.values()) else ():
            counts = groups[group]
            before = sum(abs(free[label]) for label in counts)
            after = sum(abs(free[label] - number) for label, number in counts.items())
            is_last = any(number == left[label] for label, number in counts.items())
            if group not in chosen and any(free[label] > 0 for label in counts) and after <= before and not is_last:
                take(group, name)
    return chosen
