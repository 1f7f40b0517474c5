"""What may be wrong with a source: each kind is found, said in words, and listed in the order of urgency."""

import dataclasses

import torch
from torch import Tensor

from torchlight.training.data.loading import LabelledImages
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.evaluation.data_findings import TITLES, DataFindings, find_in_data

NUMBER, SIDE = 40, 32


def make_source() -> SourcePhotos:
    """Return forty noisy pictures of two classes, none like another."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUMBER, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    names = tuple(f"{'cat' if k % 2 == 0 else 'dog'}/{k}.jpg" for k in range(NUMBER))
    digests = tuple(f"digest {k}" for k in range(NUMBER))
    photos = LabelledImages(images, torch.arange(NUMBER) % 2, names, digests, digests, (100,) * NUMBER)
    return SourcePhotos(("cat", "dog"), photos)


def replace_in_photos(source: SourcePhotos, **fields: object) -> SourcePhotos:
    return dataclasses.replace(source, photos=dataclasses.replace(source.photos, **fields))


def make_features() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.eye(8)[torch.arange(NUMBER) % 2] + 0.05 * torch.randn(NUMBER, 8, generator=generator)


def make_logits(source: SourcePhotos, wrong: tuple[int, ...] = ()) -> Tensor:
    """Return surely right answers but for some photos, which are answered with the other class."""
    answers = source.photos.labels.clone()
    answers[list(wrong)] = 1 - answers[list(wrong)]
    return 5.0 * torch.nn.functional.one_hot(answers, 2)


def find(source: SourcePhotos, wrong: tuple[int, ...] = ()) -> DataFindings:
    return find_in_data(source, make_features(), make_logits(source, wrong))


def regroup(source: SourcePhotos, *pairs: tuple[int, int]) -> SourcePhotos:
    """Return the source with photos near-identical to others."""
    groups = list(source.photos.groups)
    for one, other in pairs:
        groups[other] = groups[one]
    return replace_in_photos(source, groups=tuple(groups))


def test_nothing_is_found_in_photos_with_nothing_wrong() -> None:
    found = find(make_source())
    assert (list(found.findings), list(found.confused), list(found.notes)) == ([], [], [])
    assert found.label_order is not None
    assert sorted(found.label_order.tolist()) == list(range(NUMBER))


def test_a_doubtful_label_says_what_the_photo_looks_like() -> None:
    found = find(make_source(), wrong=(6,))
    (finding,) = found.findings
    assert (finding.kind, finding.index, finding.suggestion) == ("label", 6, 1)
    assert finding.reason == "labelled cat (1%), looks like dog (99%)"
    assert found.label_order is not None
    assert found.label_order[0] == 6


def test_copies_within_a_class_leave_the_first_alone_and_copies_across_list_all() -> None:
    found = find(regroup(make_source(), (0, 2), (5, 8)))
    (copy,) = found.of_kind("copy")
    assert (copy.index, copy.like, copy.reason) == (2, 0, "near-identical to cat/0.jpg")
    one, other = found.of_kind("two_labels")
    assert (one.index, one.suggestion, other.index, other.suggestion) == (5, 0, 8, 1)
    assert one.reason == "near-identical to cat/8.jpg, which has another label"


def test_equal_files_are_called_so() -> None:
    source = regroup(make_source(), (0, 2))
    digests = list(source.photos.digests)
    digests[2] = digests[0]
    (copy,) = find(replace_in_photos(source, digests=tuple(digests))).findings
    assert copy.reason == "the same file as cat/0.jpg"


def test_poor_pictures_are_listed_with_a_number() -> None:
    source = make_source()
    source.photos.images[3] = 0
    source = replace_in_photos(source, shorter_sides=(20, *source.photos.shorter_sides[1:]))
    found = find(source)
    assert [(one.index, one.reason) for one in found.findings] == [
        (3, "black all over"),
        (0, "its shorter side has 20 pixels, where the network sees 32"),
    ]


def test_a_photo_with_several_findings_is_listed_once_the_most_urgent_first() -> None:
    source = make_source()
    source.photos.images[6] = 0
    by_photo = find(source, wrong=(6, 9)).by_photo()
    assert list(by_photo) == [6, 9]
    assert [one.kind for one in by_photo[6]] == ["label", "one_colour"]
    assert list(TITLES).index("label") < list(TITLES).index("one_colour")


def test_classes_taken_for_each_other_are_named() -> None:
    found = find(make_source(), wrong=tuple(range(0, 16)))
    (pair,) = found.confused
    assert (pair.one, pair.other, pair.mistakes, pair.photos) == (0, 1, 16, 40)


def test_what_could_not_be_found_out_is_said() -> None:
    source = make_source()
    one = dataclasses.replace(
        source,
        class_names=("cat",),
        photos=dataclasses.replace(source.photos, labels=torch.zeros(NUMBER, dtype=torch.int64)),
        empty_classes=("cow",),
    )
    found = find_in_data(one, make_features(), None)
    assert found.label_order is None
    assert list(found.notes) == [
        "nothing is readable of cow; mend the files or remove the class",
        "there is one class, cat, so no label can be checked; add a folder for a second class",
    ]
    labels = torch.zeros(NUMBER, dtype=torch.int64)
    labels[:2] = 1
    few = replace_in_photos(source, labels=labels)
    assert "labels of dog were not checked: a class needs 5 photos for that; add some" in find(few).notes


def test_if_most_photos_are_small_that_is_said_once() -> None:
    found = find(replace_in_photos(make_source(), shorter_sides=(20,) * NUMBER))
    assert list(found.findings) == []
    assert list(found.notes) == [
        "40 of 40 photos are smaller than the 32 pixels that the network sees; larger ones show more"
    ]


def test_a_file_that_a_source_lists_twice_is_one_photo() -> None:
    source = regroup(make_source(), (4, 7))
    names = list(source.photos.names)
    names[7] = names[4]
    source = dataclasses.replace(source, photos=dataclasses.replace(source.photos, names=tuple(names)))
    by_photo = find(source).by_photo()
    assert list(by_photo) == [4]
    assert [one.reason for one in by_photo[4]] == ["near-identical to cat/4.jpg, which has another label"]
