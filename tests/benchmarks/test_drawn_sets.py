"""The drawn sets: the same for the same seed, larger ones contain smaller ones, and no two pictures are alike."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drawn_sets import HANDS, SIDES, Name, draw_picture, write_set
from torchlight.model.images import Resizing
from torchlight.training.data.loading import load_dataset


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}


def test_set_is_class_folders_of_photos_to_learn_from_and_photos_apart(tmp_path: Path) -> None:
    write_set(Name.HANDS, tmp_path, each=1, apart=19)  # 2 of each of 10 classes
    assert contents(tmp_path).keys() == {
        *(f"photos/{name}/0000.jpg" for name in HANDS),
        *(f"apart/{name}/{number:04}.jpg" for name in HANDS for number in range(2)),
    }
    assert len(set(contents(tmp_path).values())) == 30


def test_same_seed_draws_the_same_files_and_a_larger_set_contains_the_smaller(tmp_path: Path) -> None:
    write_set(Name.DIALS, tmp_path / "small", each=1, apart=8)
    write_set(Name.DIALS, tmp_path / "large", each=2, apart=8)
    small, large = contents(tmp_path / "small"), contents(tmp_path / "large")
    assert small.items() < large.items()


def test_another_seed_draws_other_pictures(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_set(Name.DIALS, tmp_path / str(seed), each=1, apart=0, seed=seed)
    assert not set(contents(tmp_path / "0").values()) & set(contents(tmp_path / "1").values())


@pytest.mark.parametrize("name", list(Name))
def test_no_picture_is_a_near_copy_of_another(name: Name, tmp_path: Path) -> None:
    write_set(name, tmp_path, each=4, apart=0)
    dataset = load_dataset(str(tmp_path / "photos"), Resizing(32), cache_folder=tmp_path / "cache")
    assert [warning for warning in dataset.warnings if "identical" in warning or "alike" in warning] == []


def test_pictures_are_as_large_as_people_shrink_theirs() -> None:
    sizes = [draw_picture(Name.DIALS, "reading-0", np.random.default_rng(seed)).size for seed in range(20)]
    assert all(SIDES[0] <= side <= SIDES[1] for size in sizes for side in size)
    assert len({width > height for width, height in sizes}) == 2


@pytest.mark.parametrize("seed", range(3))
def test_dials_point_where_their_class_says(seed: int) -> None:
    """With the same seed only the pointer differs: where two pictures do tells where the pointers are."""
    up, right, down, left = (dial(reading, seed) for reading in (0, 2, 4, 6))
    assert middle(right, up)[0] > middle(left, up)[0]
    assert middle(up, right)[1] < middle(down, right)[1]


def dial(reading: int, seed: int) -> np.ndarray:
    return np.asarray(draw_picture(Name.DIALS, f"reading-{reading}", np.random.default_rng(seed)), float)


def middle(picture: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Return x and y of the middle of where two pictures differ."""
    y, x = np.nonzero(np.abs(picture - other).sum(2) > 30)
    return x.mean(), y.mean()
