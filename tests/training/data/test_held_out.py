"""What a cross-validated checkpoint is measured on: never, as if they were new, the photos that it learnt from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import DrawFolder
from torchlight.model.checkpoint import Checkpoint, Header
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import NetworkConfig
from torchlight.training.data.held_out import (
    load_as_divided_in_training,
    load_held_out,
    select_cross_validated,
    select_held_out,
)
from torchlight.training.data.loading import DataSet, load_dataset
from torchlight.training.evaluation.classification_metrics import compute_metrics
from torchlight.training.evaluation.cross_validation import summarise_cross_validation


def load_all(source: Path) -> DataSet:
    return load_dataset(str(source), Resizing(8), val_fraction=0.0, test_fraction=0.0)


def cross_validated(dataset: DataSet) -> Checkpoint:
    """Return what a cross-validated run leaves."""
    learnt = select_cross_validated(dataset)
    logits = torch.nn.functional.one_hot(learnt.labels, len(dataset.class_names)).float()
    metrics = compute_metrics(logits, learnt.labels, dataset.class_names)
    header = Header(
        network=NetworkConfig("guide", len(dataset.class_names)),
        class_names=dataset.class_names,
        image_spec=ImageSpec(8, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        metrics={"cross_validation": summarise_cross_validation(metrics, 5)},
        training={},
        data={"fingerprint": dataset.fingerprint, "val_fraction": 0.0, "test_fraction": 0.0},
        versions={},
    )
    return Checkpoint(header, torch.nn.Identity(), "sha256:c0ffee", Path("checkpoint.safetensors"))


def test_all_photos_of_a_cross_validated_run_are_measured(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = load_all(draw_folder(tmp_path, 4))
    found = select_held_out(dataset, is_cross_validated=True)
    assert (found.split, found.exposure, str(found)) == (
        "all photos",
        "cross_validated",
        "all photos (cross-validated)",
    )
    assert found.examples is dataset.splits["train"]  # not copied


def test_its_own_photos_are_known_to_be_learnt_from(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = load_all(draw_folder(tmp_path, 4))
    found = load_held_out(cross_validated(dataset), str(tmp_path))
    assert (found.split, found.exposure, str(found)) == ("all photos", "learnt", "all photos (it learnt from them)")
    assert len(found.examples) == 12


def test_other_photos_are_not_taken_for_its_own(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = load_all(draw_folder(tmp_path / "own", 4))
    draw_folder(tmp_path / "others", 4, seed=1)
    found = load_held_out(cross_validated(dataset), str(tmp_path / "others"))
    assert (found.split, found.exposure) == ("all images", "unknown")


def test_a_test_folder_was_not_learnt_from_and_is_what_is_measured(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 4)
    draw_folder(tmp_path / "test", 2, seed=1)
    dataset = load_all(tmp_path)
    for found in (
        select_held_out(dataset, is_cross_validated=True),
        load_held_out(cross_validated(dataset), str(tmp_path)),
    ):
        assert (found.split, found.exposure, len(found.examples)) == ("test", "unseen", 6)


def test_a_val_folder_is_learnt_from_too(draw_folder: DrawFolder, tmp_path: Path) -> None:
    draw_folder(tmp_path / "train", 4)
    draw_folder(tmp_path / "val", 2, seed=1)
    dataset = load_all(tmp_path)
    learnt = select_cross_validated(dataset)
    parts = [dataset.splits["train"], dataset.splits["val"]]
    assert torch.equal(learnt.images, torch.cat([part.images for part in parts]))
    assert torch.equal(learnt.labels, torch.cat([part.labels for part in parts]))
    assert learnt.names == parts[0].names + parts[1].names
    found = load_held_out(cross_validated(dataset), str(tmp_path))
    assert (found.exposure, len(found.examples)) == ("learnt", 18)


def test_an_index_of_its_own_photos_is_of_all_of_them(draw_folder: DrawFolder, tmp_path: Path) -> None:
    dataset = load_all(draw_folder(tmp_path, 4))
    found, is_training_data = load_as_divided_in_training(cross_validated(dataset), str(tmp_path))
    assert is_training_data
    assert {name: len(part) for name, part in found.splits.items()} == {"train": 12, "val": 0, "test": 0}


@pytest.mark.parametrize("class_names", [("ant", "bee"), ("ant", "bee", "none of it")])
def test_figures_for_the_checkpoint_name_folds_interval_and_classes_that_were_seen(
    class_names: tuple[str, ...],
) -> None:
    logits, labels = torch.eye(len(class_names))[[0, 0, 0, 1]], torch.tensor([0, 0, 1, 1])
    metrics = replace(compute_metrics(logits, labels, class_names), calibration_error=0.25)
    made = summarise_cross_validation(metrics, 5)
    assert made == {
        "images": 4,
        "accuracy": 0.75,
        "interval": list(metrics.accuracy_interval),
        "loss": metrics.loss,
        "calibration_error": 0.25,
        "recall": {"ant": 1.0, "bee": 0.5},
        "folds": 5,
    }
