"""A group that is divided here is never on two sides, the counts are those asked for, and only content decides."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchlight.training.data.splitting import Example, divide, fractions_to_hold_out


def example(digest: str, label: str = "a", side: str | None = None, group: str | None = None) -> Example:
    return Example(f"{label}/{digest}.jpg", label, side, digest, group or digest)


def grouped(sizes: list[int], label: str = "a") -> list[Example]:
    """Return groups of these sizes; no two images are equal."""
    return [
        example(f"{label}{g}-{k}", label, group=f"{label}{g}-0") for g, size in enumerate(sizes) for k in range(size)
    ]


def held_out(examples: list[Example], sides: list[str | None], label: str) -> Counter[str | None]:
    return Counter(side for one, side in zip(examples, sides, strict=True) if one.label == label)


EXAMPLES = st.lists(
    st.builds(
        lambda content, group, label: example(f"{group}-{content}", label, group=str(group)),
        st.integers(0, 5),
        st.integers(0, 30),
        st.sampled_from("abc"),
    ),
    min_size=1,
    max_size=80,
)
GIVEN = st.lists(
    st.builds(
        lambda group, label, side: example(str(group), label, side),
        st.integers(0, 20),
        st.sampled_from("ab"),
        st.sampled_from(["train", "val", "test"]),
    ),
    max_size=60,
)
FRACTION = st.floats(0, 0.5)


@given(EXAMPLES, FRACTION, FRACTION, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_group_is_never_on_two_sides_and_nothing_is_left_out(
    examples: list[Example], val_fraction: float, test_fraction: float, seed: int
) -> None:
    sides = divide(examples, val_fraction, test_fraction, seed)
    assert set(sides) <= {"train", "val", "test"}
    assert len({(one.group, side) for one, side in zip(examples, sides, strict=True)}) == len(
        {one.group for one in examples}
    )


@given(st.data(), EXAMPLES, FRACTION, FRACTION)
@settings(max_examples=100, deadline=None)
def test_order_of_the_files_does_not_matter(
    data: st.DataObject, examples: list[Example], val_fraction: float, test_fraction: float
) -> None:
    order = data.draw(st.permutations(range(len(examples))))
    sides = divide(examples, val_fraction, test_fraction, 0)
    assert divide([examples[k] for k in order], val_fraction, test_fraction, 0) == [sides[k] for k in order]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=40), st.lists(st.integers(1, 6), max_size=40), FRACTION)
@settings(max_examples=150, deadline=None)
def test_share_is_within_one_group_of_the_asked_in_each_class(
    sizes: list[int], others: list[int], fraction: float
) -> None:
    examples = grouped(sizes) + grouped(others, "b")
    sides = divide(examples, fraction, 0.0, 0)
    asked = round(fraction * sum(sizes))
    assert abs(held_out(examples, sides, "a")["val"] - asked) < max(max(sizes), 1)


@given(GIVEN)
@settings(max_examples=150, deadline=None)
def test_given_splits_are_kept_and_no_training_image_is_like_one_held_out(examples: list[Example]) -> None:
    sides = divide(examples, 0.2, 0.2, 0)
    assert [s for x, s in zip(examples, sides, strict=True) if x.split in ("val", "test")] == [
        x.split for x in examples if x.split in ("val", "test")
    ]
    trained = {x.group for x, side in zip(examples, sides, strict=True) if side == "train"}
    assert not trained & {x.group for x, side in zip(examples, sides, strict=True) if side in ("val", "test")}


@pytest.mark.parametrize("seed", range(3))
def test_single_images_fill_the_gaps_so_that_the_counts_are_exact(seed: int) -> None:
    """As the shipped network's data: pairs and larger groups among many single images, 10% of each class held out."""
    examples = [x for label in "abcde" for x in grouped([1] * 150 + [2] * 10 + [5] * 4 + [10], label)]
    sides = divide(examples, 0.1, 0.0, seed)
    assert [held_out(examples, sides, label)["val"] for label in "abcde"] == [20] * 5


def test_groups_larger_than_the_share_are_held_out_if_that_is_as_near_as_none() -> None:
    examples = grouped([2] * 5)
    assert Counter(divide(examples, 0.1, 0.1, 0)) == {"train": 6, "val": 2, "test": 2}


def test_last_group_of_a_class_is_trained_on() -> None:
    assert set(divide(grouped([8]), 0.5, 0.4, 0)) == {"train"}


@pytest.mark.parametrize("seed", range(5))
def test_same_photo_is_never_on_both_sides_whatever_its_name_or_label(seed: int) -> None:
    examples = [example(f"{k}", label) for label in "abc" for k in range(30)]  # each photo under three labels
    examples += [example(f"{k}", "a") for k in range(30)]  # and twice under one
    sides = divide(examples, 0.2, 0.2, seed)
    assert len({(one.digest, side) for one, side in zip(examples, sides, strict=True)}) == 30
    assert set(sides) == {"train", "val", "test"}


def test_training_copy_of_a_held_out_image_is_left_out() -> None:
    examples = [example("1", side="train"), example("2", side="train"), example("3", side="train", group="1")]
    assert divide([*examples, example("1", side="test")], 0.0, 0.0, 0) == [None, "train", None, "test"]


def test_what_is_left_out_does_not_count_for_the_share() -> None:
    train = [example(f"{k}", side="train") for k in range(20)]
    test = [example(f"{k}", side="test") for k in range(10)]
    sides = divide([*train, *test], 0.5, 0.0, 0)
    assert sides[:10] == [None] * 10
    assert Counter(sides[10:20]) == {"train": 5, "val": 5}
    assert sides[20:] == ["test"] * 10


def test_near_identical_images_in_both_given_splits_stay_where_they_are() -> None:
    examples = [example("1", side="train"), example("2", side="val"), example("3", side="test", group="2")]
    assert divide(examples, 0.1, 0.1, 0) == ["train", "val", "test"]


def test_copies_do_not_count_for_the_share() -> None:
    examples = [example("same") for _ in range(90)] + [example(f"{k}") for k in range(9)]
    sides = divide(examples, 0.1, 0.1, 0)
    assert len({one.digest for one, side in zip(examples, sides, strict=True) if side != "train"}) == 2


def test_other_seed_holds_out_others() -> None:
    examples = grouped([1] * 50)
    assert divide(examples, 0.2, 0.0, 0) != divide(examples, 0.2, 0.0, 1)


@pytest.mark.parametrize(
    ("given_splits", "expected"),
    [
        ({None}, {"val": 0.1, "test": 0.2}),
        ({"train", "val"}, {"test": 0.2}),
        ({"train", "test"}, {"val": 0.1}),
        ({"train", "val", "test"}, {}),
    ],
)
def test_only_missing_splits_are_taken_from_the_training_images(
    given_splits: set[str | None], expected: dict[str, float]
) -> None:
    assert fractions_to_hold_out(given_splits, 0.1, 0.2) == expected
