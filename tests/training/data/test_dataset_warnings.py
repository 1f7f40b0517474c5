"""Each doubt about the data is one sentence with figures and examples; good data gives none."""

from collections import Counter

import pytest

from torchlight.training.data import dataset_warnings
from torchlight.training.data.splitting import Example


def example(name: str, label: str, digest: str, group: str | None = None) -> Example:
    return Example(name, label, None, digest, group or digest)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"cat": 900, "dog": 90}, []),
        ({"cat": 900, "dog": 89}, ["class 'dog' has 89 images, 'cat' 900; --balance weights the loss"]),
        (
            {"cat": 30, "dog": 1},
            [
                "class 'dog' has 1 image, 'cat' 30; --balance weights the loss",
                "1 class of 2 with fewer than 10 images ('dog' 1); little is learnt from so few, "
                "and below 6 none is held out",
            ],
        ),
        (
            {"cat": 9, "dog": 10, "owl": 7},
            ["2 classes of 3 with fewer than 10 images ('cat' 9, 'owl' 7); little is learnt from so few"],
        ),
        ({"cat": 12}, []),
    ],
)
def test_numbers_of_images(counts: dict[str, int], expected: list[str]) -> None:
    assert list(dataset_warnings.in_classes(Counter(counts), 6)) == expected


def test_classes_that_a_held_out_split_lacks() -> None:
    examples = [example(f"{k}", label, f"{k}") for k, label in enumerate("aabbc")]
    sides = ["train", "val", "train", "test", "train"]
    assert list(dataset_warnings.in_splits(examples, sides, ["a", "b", "c"])) == [
        "val has no image of 2 classes of 3 ('b', 'c'); its figures say nothing of them",
        "test has no image of 2 classes of 3 ('a', 'c'); its figures say nothing of them",
    ]


def test_split_that_is_not_there_lacks_nothing() -> None:
    examples = [example(f"{k}", label, f"{k}") for k, label in enumerate("ab")]
    assert list(dataset_warnings.in_splits(examples, ["train", "train"], ["a", "b"])) == []


def test_pictures_on_two_sides() -> None:
    examples = [example(f"{k}.jpg", "a", f"{k}", group="0") for k in range(4)]
    assert list(dataset_warnings.in_splits(examples, [None, "val", "test", None], ["a"])) == [
        "2 training images left out, being near-identical to images held out (0.jpg like 1.jpg, 3.jpg like 1.jpg)",
        "1 picture in val and in test too (1.jpg like 2.jpg)",
    ]


def test_copies_and_near_copies() -> None:
    examples = [
        example("1.jpg", "a", "1"),
        example("2.jpg", "a", "1"),
        example("3.jpg", "a", "3", group="1"),
        example("4.jpg", "a", "4", group="1"),
        example("5.jpg", "a", "5"),
        example("6.jpg", "a", "6", group="5"),
    ]
    assert list(dataset_warnings.in_copies(examples)) == [
        "1 file copied from others byte for byte (2.jpg like 1.jpg)",
        "5 images in 2 groups of near-identical ones, each group kept on one side unless it came divided "
        "(1.jpg like 3.jpg, 5.jpg like 6.jpg)",
    ]


@pytest.mark.parametrize("digest", ["1", "2"], ids=["exact copy", "near copy"])
def test_same_picture_with_two_labels(digest: str) -> None:
    examples = [example("1.jpg", "cat", "1"), example("2.jpg", "dog", digest, group="1"), example("3.jpg", "dog", "3")]
    assert list(dataset_warnings.in_copies(examples))[-1] == (
        "1 picture with two labels (1.jpg 'cat' and 2.jpg 'dog'); one of the two is probably wrong"
    )


def test_images_with_little_to_see() -> None:
    assert list(dataset_warnings.in_pixels(["1", "2", "3", "4"], [15, 16, 1, 99], [False, False, True, True], 32)) == [
        "2 images smaller than half of the 32 pixels that are seen (1, 3)",
        "2 images of one colour all over (3, 4)",
    ]


def test_only_a_few_of_many_are_named() -> None:
    (sentence,) = dataset_warnings.in_pixels([str(k) for k in range(4000)], [1] * 4000, [False] * 4000, 32)
    assert sentence == "4,000 images smaller than half of the 32 pixels that are seen (0, 1, ...)"
