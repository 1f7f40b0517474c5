"""Folders and named sets become splits: every image once, on one side only, under the right label."""

import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from torchlight.model.errors import DataError
from torchlight.model.images import Resizing, prepare_image
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet

DrawFolder = Callable[..., Path]
DrawPicture = Callable[..., None]
RED, GREEN, BLUE = (220, 30, 40), (40, 200, 60), (60, 90, 230)


def rows(dataset: DataSet, split: str) -> set[tuple[bytes, str]]:
    """Return the content of each image of a split with its label; no two drawn pictures are alike."""
    part = dataset.splits[split]
    return {
        (image.numpy().tobytes(), dataset.class_names[label])
        for image, label in zip(part.images, part.labels, strict=True)
    }


def sizes(dataset: DataSet) -> dict[str, int]:
    return {name: len(part) for name, part in dataset.splits.items()}


def test_training_and_serving_see_the_same_bits(tmp_path: Path) -> None:
    """Large and small, JPEG and PNG, upright and not, with and without transparency."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    for label, turn in (("a", 20), ("b", 30)):
        folder = tmp_path / label
        folder.mkdir()
        photo.resize((900, 700 + turn)).save(folder / "large.jpg", quality=80)
        photo.save(folder / "lying.jpg", exif=exif, quality=50 + turn)
        photo.resize((20, 10 + turn)).save(folder / "small.png")
        photo.convert("RGBA").rotate(turn).save(folder / "transparent.png")
        photo.convert("L").resize((40, 200 + turn)).save(folder / "grey.bmp")
    dataset = loading.load_dataset(str(tmp_path), Resizing(32), val_fraction=0, test_fraction=0)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    served = torch.stack([prepare_image(path.read_bytes(), Resizing(32))[0] for path in files])
    assert len(files) == 10
    assert torch.equal(dataset.splits["train"].images, served)
    assert [dataset.class_names[k] for k in dataset.splits["train"].labels] == [path.parent.name for path in files]


def test_every_image_is_in_one_split_under_its_label(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = loading.load_dataset(str(draw_folder(tmp_path, 20)), Resizing(12), seed=3)
    by_split = [rows(dataset, name) for name in loading.SPLITS]
    expected = {
        (prepare_image(path.read_bytes(), Resizing(12))[0].numpy().tobytes(), path.parent.name)
        for path in tmp_path.rglob("*.png")
    }
    assert set.union(*by_split) == expected
    assert sum(map(len, by_split)) == 60
    assert dataset.splits["train"].images.shape[1:] == (3, 12, 12)
    assert (dataset.splits["train"].images.dtype, dataset.splits["train"].labels.dtype) == (torch.uint8, torch.int64)


def test_split_holds_out_the_same_share_of_each_class(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path, 20)
    draw_folder(tmp_path, 60, {"extra": (90, 90, 90)}, seed=1)
    dataset = loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0.1, test_fraction=0.2)
    held_out = {
        name: Counter(dataset.class_names[k] for k in dataset.splits[name].labels.tolist()) for name in ("val", "test")
    }
    assert held_out["val"] == {"apple": 2, "leaf": 2, "sky": 2, "extra": 6}
    assert held_out["test"] == {"apple": 4, "leaf": 4, "sky": 4, "extra": 12}


def test_split_does_not_depend_on_names_or_order(draw_folder: DrawFolder, tmp_path: Path) -> None:
    first = draw_folder(tmp_path / "first", 20)
    second = tmp_path / "second"
    for index, path in enumerate(sorted(first.rglob("*.png"), reverse=True)):
        target = second / path.parent.name / f"renamed-{index}" / f"{index}.jpeg"
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    one, other = (
        loading.load_dataset(str(first), Resizing(12), seed=5),
        loading.load_dataset(str(second), Resizing(12), seed=5),
    )
    assert [rows(one, name) for name in loading.SPLITS] == [rows(other, name) for name in loading.SPLITS]
    assert one.fingerprint == other.fingerprint


def test_split_depends_on_the_seed(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = str(draw_folder(tmp_path, 20))
    first, second = (
        loading.load_dataset(folder, Resizing(12), seed=0),
        loading.load_dataset(folder, Resizing(12), seed=1),
    )
    assert rows(first, "test") != rows(second, "test")
    assert sizes(first) == sizes(second)
    assert first.fingerprint != second.fingerprint


def test_adding_a_photo_moves_few_others(draw_folder: DrawFolder, draw_picture: DrawPicture, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path, 40)
    before = loading.load_dataset(str(folder), Resizing(12))
    draw_picture(folder / "sky" / "new.png", BLUE, seed=999_999)
    after = loading.load_dataset(str(folder), Resizing(12))
    moved = sum(len(rows(before, name) - rows(after, name)) for name in loading.SPLITS)
    assert moved <= 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("train", "val", "test"), {"train": 30, "val": 15, "test": 15}),
        (("train", "test"), {"train": 24, "val": 6, "test": 15}),
        (("train", "val"), {"train": 24, "val": 15, "test": 6}),
        (("train",), {"train": 18, "val": 6, "test": 6}),
    ],
    ids=["all", "no val", "no test", "only train"],
)
def test_given_splits_are_kept_and_the_others_taken_from_train(
    given: tuple[str, ...], expected: dict[str, int], draw_folder: DrawFolder, tmp_path: Path
) -> None:
    for seed, name in enumerate(given):
        draw_folder(tmp_path / name, {"train": 10}.get(name, 5), seed=seed)
    dataset = loading.load_dataset(str(tmp_path), Resizing(12), val_fraction=0.2, test_fraction=0.2)
    assert sizes(dataset) == expected
    for name in given[1:]:
        files = (tmp_path / name).rglob("*.png")
        assert {content for content, _ in rows(dataset, name)} == {
            prepare_image(path.read_bytes(), Resizing(12))[0].numpy().tobytes() for path in files
        }


def test_class_may_be_absent_from_a_held_out_split(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 5)
    draw_folder(tmp_path / "val", 5, {"sky": BLUE}, seed=1)
    dataset = loading.load_dataset(str(tmp_path), Resizing(12), test_fraction=0)
    assert dataset.class_names == ("apple", "leaf", "sky")
    assert dataset.splits["val"].labels.tolist() == [2] * 5


@pytest.mark.parametrize(
    "names",
    [["owl", "cat", "dog"], ["dog", "cat", "owl"], ["10", "9", "2", "1"], ["2", "10", "1", "9"], ["Zebra", "ant", "Ü"]],
    ids=["letters", "letters again", "numbers", "numbers again", "capitals and accents"],
)
def test_classes_are_sorted_by_name_whatever_the_order_of_creation(
    names: list[str], draw_folder: DrawFolder, tmp_path: Path
) -> None:
    draw_folder(tmp_path, 2, {name: (40 * k, 90, 200 - 40 * k) for k, name in enumerate(names)})
    dataset = loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0, test_fraction=0)
    assert dataset.class_names == tuple(sorted(names))
    expected = {
        (prepare_image(path.read_bytes(), Resizing(8))[0].numpy().tobytes(), path.parent.name)
        for path in tmp_path.rglob("*.png")
    }
    assert rows(dataset, "train") == expected


def test_class_names_of_a_trained_network_decide_the_labels(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path, 2, {"leaf": GREEN, "apple": RED})
    dataset = loading.load_dataset(
        str(tmp_path), Resizing(8), val_fraction=0, test_fraction=0, class_names=["sky", "leaf", "apple"]
    )
    assert dataset.class_names == ("sky", "leaf", "apple")
    assert dataset.splits["train"].labels.tolist() == [2, 2, 1, 1]


def test_hidden_files_and_loose_files_do_not_count(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path, 3)
    before = loading.load_dataset(str(tmp_path), Resizing(8))
    (tmp_path / "README.txt").write_text("not in a class folder")
    (tmp_path / ".DS_Store").write_bytes(b"\x00")
    (tmp_path / "sky" / ".DS_Store").write_bytes(b"\x00")
    for hidden in (tmp_path / ".git", tmp_path / "sky" / ".thumbnails"):
        hidden.mkdir()
        (hidden / "0.png").write_bytes(b"\x00")
    after = loading.load_dataset(str(tmp_path), Resizing(8))
    assert after.class_names == ("apple", "leaf", "sky")
    assert after.fingerprint == before.fingerprint


def test_folder_inside_a_hidden_one_is_read(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = loading.load_dataset(str(draw_folder(tmp_path / ".cache" / "photos", 3)), Resizing(8))
    assert sum(sizes(dataset).values()) == 9


def test_photos_in_folders_below_a_class_belong_to_it(draw_picture: DrawPicture, tmp_path: Path) -> None:
    draw_picture(tmp_path / "sky" / "2024" / "may" / "1.png", BLUE, 1)
    draw_picture(tmp_path / "sky" / "2.png", BLUE, 2)
    draw_picture(tmp_path / "leaf" / "3.PNG", GREEN, 3)
    dataset = loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0, test_fraction=0)
    assert sorted(dataset.splits["train"].labels.tolist()) == [0, 1, 1]


def test_names_and_suffixes_of_files_do_not_matter(draw_picture: DrawPicture, tmp_path: Path) -> None:
    draw_picture(tmp_path / "sky" / "weiß 猫.jpg", BLUE, 1)
    draw_picture(tmp_path / "leaf" / "no suffix", GREEN, 2)
    assert sizes(loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0, test_fraction=0))["train"] == 2


def in_turn(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def remove_classes(*names: str) -> Callable[[Path], None]:
    return in_turn(*(lambda folder, name=name: shutil.rmtree(folder / name) for name in names))


def add(name: str, content: bytes) -> Callable[[Path], None]:
    """Return a change that adds a file."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return change


def move_below(*names: str) -> Callable[[Path], None]:
    """Return a change that puts all classes below each of these folders."""

    def change(folder: Path) -> None:
        classes = list(folder.iterdir())
        for name in names:
            shutil.copytree(folder, folder / name, ignore=shutil.ignore_patterns(*names))
        for path in classes:
            shutil.rmtree(path)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(remove_classes("leaf", "sky"), ["has 1 class (apple)", "at least 2"], id="one class"),
        pytest.param(remove_classes("apple", "leaf", "sky"), ["no class folders with images"], id="empty folder"),
        pytest.param(
            in_turn(remove_classes("apple", "leaf", "sky"), add("1.png", b"x"), add("2.png", b"x")),
            ["<class>/<photo>"],
            id="files without classes",
        ),
        pytest.param(
            lambda folder: (folder / "cloud").mkdir(),
            ["cloud has no images", "fill it or remove it"],
            id="empty class folder",
        ),
        pytest.param(add("cloud/.hidden", b"x"), ["cloud has no images"], id="only hidden files"),
        pytest.param(add("sky/notes.txt", b"hello"), ["1 of 10", "notes.txt", "--skip-unreadable"], id="text file"),
        pytest.param(add("sky/empty.jpg", b""), ["empty.jpg", "0 bytes"], id="empty file"),
        pytest.param(add("sky/cut.jpg", b"\xff\xd8\xff\xe0abc"), ["cut.jpg", "JPEG"], id="broken JPEG"),
        pytest.param(move_below("val", "test"), ["has val, test but no train folder"], id="no train folder"),
        pytest.param(
            in_turn(move_below("train", "val"), add("val/cloud/1.png", b"x")),
            ["classes the network does not know: cloud"],
            id="unknown class in val",
        ),
        pytest.param(
            in_turn(move_below("train", "test"), add("test/cloud/1.png", b"x")),
            ["classes the network does not know: cloud"],
            id="unknown class in test",
        ),
    ],
)
def test_folder_that_cannot_be_trained_on_says_why(
    change: Callable[[Path], None], words: list[str], draw_folder: DrawFolder, tmp_path: Path
) -> None:
    folder = draw_folder(tmp_path / "photos", 3)
    change(folder)
    with pytest.raises(DataError) as caught:
        loading.load_dataset(str(folder), Resizing(8))
    assert [word for word in words if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["no/such/folder", "cifar11", "MNIST"], ids=["path", "name", "case"])
def test_source_that_does_not_exist_lists_the_named_ones(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match="neither a folder, a CSV file nor one of cifar10, cifar100, mnist, fashion_mnist"
    ):
        loading.load_dataset(source, Resizing(8))


def test_many_unreadable_files_are_counted_and_a_few_named(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path, 3)
    for index in range(12):
        (folder / "sky" / f"broken{index:02}.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as caught:
        loading.load_dataset(str(folder), Resizing(8))
    assert "12 of 21 files are unreadable" in str(caught.value)
    assert str(caught.value).count("broken") == 5


def test_unreadable_files_are_left_out_on_request_and_listed(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path, 5)
    clean = loading.load_dataset(str(folder), Resizing(8))
    (folder / "sky" / "notes.txt").write_text("hello")
    (folder / "apple" / "cut.png").write_bytes((folder / "apple" / "0.png").read_bytes()[:100])
    dataset = loading.load_dataset(str(folder), Resizing(8), skip_unreadable=True)
    assert len(dataset.skipped) == 2
    assert "cut.png: PNG image cannot be read" in dataset.skipped[0]
    assert "notes.txt: file is of an unknown format" in dataset.skipped[1]
    assert dataset.fingerprint == clean.fingerprint
    assert [rows(dataset, name) for name in loading.SPLITS] == [rows(clean, name) for name in loading.SPLITS]


def test_class_of_which_nothing_is_readable_is_refused_even_if_skipping(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    folder = draw_folder(tmp_path, 3)
    add("cloud/1.png", b"no picture")(folder)
    with pytest.raises(DataError, match="cloud"):
        loading.load_dataset(str(folder), Resizing(8), skip_unreadable=True)


@pytest.mark.parametrize(
    ("options", "needed"),
    [({}, 6), ({"val_fraction": 0.2}, 6), ({"val_fraction": 0.3, "test_fraction": 0.0}, 2)],
    ids=["default shares", "a larger one", "only validation"],
)
def test_class_with_one_image_cannot_be_divided(
    options: dict[str, float], needed: int, draw_folder: DrawFolder, draw_picture: DrawPicture, tmp_path: Path
) -> None:
    draw_folder(tmp_path, 10)
    draw_picture(tmp_path / "cloud" / "1.png", (200, 200, 200), 1)
    with pytest.raises(DataError, match=r"1 of 4 classes have one image \('cloud'\)") as caught:
        loading.load_dataset(str(tmp_path), Resizing(8), **options)
    assert f"needs 2 images, and {needed} for one of them to be held out" in str(caught.value)
    assert len(loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0, test_fraction=0).splits["train"]) == 31
    assert (
        len(
            loading.load_dataset(str(tmp_path), Resizing(8), class_names=["apple", "cloud", "leaf", "sky"]).splits[
                "train"
            ]
        )
        == 25
    )


@pytest.mark.parametrize(("number", "expected"), [(5, 0), (6, 1)])
def test_number_that_the_message_names_is_the_one_from_which_images_are_held_out(
    number: int, expected: int, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    dataset = loading.load_dataset(str(draw_folder(tmp_path, number)), Resizing(8))
    assert sizes(dataset) == {"train": 3 * (number - 2 * expected), "val": 3 * expected, "test": 3 * expected}


def test_class_of_which_every_image_is_held_out_already_is_refused(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 4)
    shutil.copytree(tmp_path / "train" / "sky", tmp_path / "test" / "sky")
    with pytest.raises(DataError, match="no training image is left of class 'sky': all of them are held out, or near"):
        loading.load_dataset(str(tmp_path), Resizing(8), val_fraction=0)


def test_training_copies_of_given_test_images_are_left_out(draw_folder: DrawFolder, tmp_path: Path) -> None:
    """An exact copy, and one that was enlarged."""
    draw_folder(tmp_path / "train", 8)
    draw_folder(tmp_path / "test", 4, seed=1)
    shutil.copy(tmp_path / "test" / "sky" / "0.png", tmp_path / "train" / "sky" / "copy.png")
    with Image.open(tmp_path / "test" / "leaf" / "1.png") as image:
        image.resize((48, 48)).save(tmp_path / "train" / "leaf" / "enlarged.png")
    dataset = loading.load_dataset(str(tmp_path), Resizing(32), val_fraction=0)
    assert sizes(dataset) == {"train": 24, "val": 0, "test": 12}
    (told,) = (line for line in dataset.warnings if "left out" in line)
    assert told.startswith("2 training images left out, being near-identical to images held out (")
    assert "train/leaf/enlarged.png like test/leaf/1.png" in told


def test_edited_copies_of_a_photo_are_all_on_one_side(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path, 10)
    for path in list(folder.rglob("*.png")):
        with Image.open(path) as image:
            image.resize((60, 60)).save(path.with_name(f"{path.stem}-large.png"))
            image.point(lambda value: value * 4 // 5).save(path.with_name(f"{path.stem}-dark.png"))
    dataset = loading.load_dataset(str(folder), Resizing(32), val_fraction=0.2, test_fraction=0.2)
    assert sizes(dataset) == {"train": 54, "val": 18, "test": 18}
    assert any("90 images in 30 groups of near-identical ones" in line for line in dataset.warnings)


def test_thousands_of_classes_work_and_are_said_to_be_small(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(2000):
        (tmp_path / f"{index:04}").mkdir()
        for count in range(2):
            picture = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            picture.save(tmp_path / f"{index:04}" / f"{count}.bmp")
    dataset = loading.load_dataset(str(tmp_path), Resizing(8))
    assert len(dataset.class_names) == 2000
    assert dataset.warnings[0] == (
        "2,000 classes of 2,000 with fewer than 10 images ('0000' 2, '0001' 2, '0002' 2, '0003' 2, '0004' 2, ...); "
        "little is learnt from so few, and below 6 none is held out"
    )


def test_pictures_of_one_pixel_are_read_and_named(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = draw_folder(tmp_path, 12)
    Image.new("RGB", (1, 1), BLUE).save(folder / "sky" / "dot.png")
    dataset = loading.load_dataset(str(folder), Resizing(32))
    assert sum(sizes(dataset).values()) == 37
    (tiny,) = (line for line in dataset.warnings if "smaller than half" in line)
    assert tiny.startswith("37 images smaller than half of the 32 pixels that are seen (")
    (flat,) = (line for line in dataset.warnings if "one colour" in line)
    assert flat == "1 image of one colour all over (sky/dot.png)"


def test_good_photos_have_no_problems(draw_folder: DrawFolder, tmp_path: Path) -> None:
    assert loading.load_dataset(str(draw_folder(tmp_path, 20)), Resizing(12)).warnings == ()


def test_source_of_which_nothing_is_readable_is_refused_even_if_skipping(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        add(name, b"no picture")(tmp_path)
    with pytest.raises(DataError, match="no readable image"):
        loading.load_dataset(str(tmp_path), Resizing(8), skip_unreadable=True)


def test_progress_counts_every_file(draw_folder: DrawFolder, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    loading.load_dataset(
        str(draw_folder(tmp_path, 4)), Resizing(8), on_image=lambda done, total: told.append((done, total))
    )
    assert told == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "sky" / "0.png").rename(folder / "leaf" / "moved.png"),
        lambda folder: (folder / "sky" / "0.png").unlink(),
        lambda folder: shutil.copy(folder / "sky" / "0.png", folder / "sky" / "copy.png"),
        lambda folder: (folder / "sky").rename(folder / "air"),
        lambda folder: Image.new("RGB", (9, 9)).save(folder / "sky" / "0.png"),
    ],
    ids=["other label", "one less", "a copy more", "class renamed", "other content"],
)
def test_fingerprint_changes_with_labels_and_contents(
    change: Callable[[Path], object], draw_folder: DrawFolder, tmp_path: Path
) -> None:
    folder = draw_folder(tmp_path, 4)
    before = loading.load_dataset(str(folder), Resizing(8), val_fraction=0, test_fraction=0).fingerprint
    change(folder)
    assert loading.load_dataset(str(folder), Resizing(8), val_fraction=0, test_fraction=0).fingerprint != before


def test_fingerprint_does_not_depend_on_the_size_of_the_input(draw_folder: DrawFolder, tmp_path: Path) -> None:
    folder = str(draw_folder(tmp_path, 4))
    assert (
        loading.load_dataset(folder, Resizing(8)).fingerprint == loading.load_dataset(folder, Resizing(16)).fingerprint
    )


def test_statistics_are_numpys() -> None:
    images = torch.randint(0, 256, (20, 3, 9, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[:, 1] //= 4
    mean, std = loading.statistics(images)
    values = images.numpy() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)), rel=1e-9)
    assert std == pytest.approx(values.std((0, 2, 3)), rel=1e-9)


def test_statistics_of_flat_images_can_be_divided_by() -> None:
    mean, std = loading.statistics(torch.full((2, 3, 4, 4), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2))
    assert std == (1e-3, 1e-3, 1e-3)


def test_class_weights_let_each_class_count_the_same_and_keep_the_size_of_the_loss() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [3] * 10)
    weights = loading.class_weights(labels, 5)
    assert weights.dtype == torch.float32
    assert weights[[2, 4]].tolist() == [0, 0]
    sums = torch.zeros(5).index_add(0, labels, weights[labels])
    assert sums[[0, 1, 3]].tolist() == pytest.approx([100 / 3] * 3)
    assert weights[labels].mean().item() == pytest.approx(1)


def test_class_weights_of_balanced_classes_are_one() -> None:
    assert loading.class_weights(torch.arange(30) % 3, 3).tolist() == [1, 1, 1]


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write LeCun's idx format: two zero bytes, 8 for unsigned bytes, the number of sides, the sides, the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sides + values.tobytes())


@pytest.mark.parametrize(
    ("name", "folder", "labels"),
    [
        ("mnist", "MNIST", ("0 - zero", "1 - one", "2 - two")),
        ("fashion_mnist", "FashionMNIST", ("T-shirt/top", "Trouser", "Pullover")),
    ],
)
def test_named_set_comes_with_its_own_test_split(
    name: str, folder: str, labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files lie where the download would put them, so nothing is fetched."""
    monkeypatch.setenv("HOME", str(tmp_path))
    random = np.random.default_rng(0)
    raw = tmp_path / ".cache" / "torchlight" / folder / "raw"
    for prefix, number in (("train", 30), ("t10k", 6)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", random.integers(0, 256, (number, 28, 28), dtype=np.uint8))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", (np.arange(number) % 3).astype(np.uint8))
    dataset = loading.load_dataset(name, Resizing(28), val_fraction=0.2)
    assert dataset.class_names == tuple(sorted(labels))
    assert sizes(dataset) == {"train": 24, "val": 6, "test": 6}
    index = [dataset.class_names.index(label) for label in labels]
    assert dataset.splits["test"].labels.tolist() == [index[k] for k in (0, 1, 2, 0, 1, 2)]
    first = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784], np.uint8).reshape(28, 28)
    assert (dataset.splits["test"].images[0].numpy() == first).all()  # grey in all three channels


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("hash mismatch")], ids=["offline", "damaged"])
def test_named_set_that_cannot_be_fetched_says_where_to_put_it(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_options: object) -> None:
        raise error

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(torchvision.datasets, "MNIST", fail)
    with pytest.raises(DataError, match=rf"mnist cannot be fetched \({error}\); put its files into .*torchlight"):
        loading.load_dataset("mnist", Resizing(28))
