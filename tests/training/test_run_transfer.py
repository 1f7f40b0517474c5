"""A few photos, from the folder to a checkpoint that answers: by the real command, on the real backbone."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import pytorch_engine
from torchlight.model.errors import DataError
from torchlight.model.images import Resizing, prepare_image
from torchlight.model.network import embedding_size
from torchlight.model.views.kept_mistakes import MistakesSource, load_mistakes, mistakes_path
from torchlight.training import run_transfer
from torchlight.training.config import RunOptions, default_budget_s
from torchlight.training.data.held_out import load_held_out
from torchlight.training.data.loading import load_dataset
from torchlight.training.evaluation.classification_metrics import infer_with_embeddings
from torchlight.training.evaluation.cross_validation import CandidateResult
from torchlight.training.evaluation.evaluate_checkpoint import evaluate_checkpoint
from torchlight.training.run_setup import Observer, RunStopped
from torchlight.training.run_transfer import TransferResult, transfer
from torchlight.training.transfer.trained_candidates import Recipe, Trained, without_figures

DrawFolder = Callable[..., Path]


def run(source: Path, out: Path, observer: Observer | None = None, **options: object) -> TransferResult:
    fields = {"budget_s": 0.0} | options
    asked = RunOptions(source=str(source), out=out, **fields)
    return transfer(asked, torch.device("cpu"), "torchlight train photos", observer or Observer())


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_folder: DrawFolder) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"), 6)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> TransferResult:
    return run(photos, tmp_path_factory.mktemp("run") / "out")


def test_the_checkpoint_answers_and_says_what_it_is_made_of(finished: TransferResult, photos: Path) -> None:
    checkpoint = load_checkpoint(finished.checkpoint)
    header = checkpoint.header
    assert header.network.architecture.startswith("efficientnet_lite2")
    assert header.training["backbone"]["name"] == "efficientnet_lite2"
    assert header.image_spec.size == 260
    dataset = load_dataset(str(photos), header.image_spec.resizing, val_fraction=0, test_fraction=0)
    assert header.data["images"] == {"train": 18}
    assert header.data["fingerprint"] == dataset.fingerprint
    images, labels = dataset.splits["train"].images, dataset.splits["train"].labels
    probabilities = Classifier(checkpoint, torch.device("cpu")).probabilities(images)
    assert (probabilities.argmax(1) == labels).all()


def test_the_checkpoint_tells_other_images_from_those_that_it_knows(finished: TransferResult, photos: Path) -> None:
    checkpoint = load_checkpoint(finished.checkpoint)
    assert checkpoint.novelty is not None
    assert (checkpoint.novelty.images, checkpoint.novelty.measured_on) == (18, "photos, cross-validated")
    dataset = load_dataset(str(photos), checkpoint.header.image_spec.resizing, val_fraction=0, test_fraction=0)
    noise = torch.randint(0, 256, (4, 3, 260, 260), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    engine = pytorch_engine(Classifier(checkpoint, torch.device("cpu")))
    strange, known = (engine.answer(images).strangeness for images in (noise, dataset.splits["train"].images))
    assert strange is not None
    assert known is not None
    assert strange.distances.min() > known.distances.max()


def test_figures_are_of_photos_that_were_not_learnt_from(finished: TransferResult) -> None:
    figures = load_checkpoint(finished.checkpoint).header.metrics["cross_validation"]
    assert (figures["images"], figures["folds"]) == (18, 5)
    assert 0.8 < figures["accuracy"] <= 1
    assert "18" in finished.summary[0]


def test_sets_are_fixed_by_answers_to_photos_that_were_not_learnt_from(finished: TransferResult) -> None:
    header = load_checkpoint(finished.checkpoint).header
    assert header.answer_sets is not None
    assert header.answer_sets.images == len(header.answer_sets.scores) == 18
    loss = sum(-math.log(1 - score) for score in header.answer_sets.scores) / 18
    assert loss == pytest.approx(header.metrics["cross_validation"]["loss"], abs=1e-4)


def test_the_report_compares_ways_to_learn(finished: TransferResult) -> None:
    report = (finished.checkpoint.parent / "report.html").read_text()
    assert not mistakes_path(finished.checkpoint).exists()
    for row in (
        "EfficientNet-Lite2, last layer",
        "from nothing: torchlight, 32 pixels",
        "EfficientNet-Lite2, fine-tuned",
    ):
        assert row in report
    assert "not tried: there was not enough time" in report


def test_the_same_photos_and_seed_give_the_same_checkpoint(
    finished: TransferResult, photos: Path, tmp_path: Path
) -> None:
    again = run(photos, tmp_path / "out")
    weights = [load_checkpoint(path).network.state_dict() for path in (finished.checkpoint, again.checkpoint)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_test_folder_is_never_learnt_from(tmp_path: Path, draw_folder: DrawFolder) -> None:
    for name, seed in (("train", 1), ("test", 2)):
        draw_folder(tmp_path / "photos" / name, 4, seed=seed)
    result = run(tmp_path / "photos", tmp_path / "out")
    header = load_checkpoint(result.checkpoint).header
    assert header.data["images"] == {"train": 12, "test": 12}
    assert header.metrics["test"]["images"] == header.metrics["cross_validation"]["images"] == 12
    report = (result.checkpoint.parent / "report.html").read_text()
    assert re.search(r"images that fixed the sets, each by others\s*<small>12 images", report)
    assert re.search(r"the test split\s*<small>12 images", report)


def win_from_nothing(recipe: Recipe, folds: Tensor, rival: Tensor, *_: object) -> tuple[CandidateResult, object]:
    """Judge half of the photos only, as if time had been short."""
    if not recipe.name.startswith("from nothing"):
        return without_figures(recipe.name), None
    judged = torch.arange(len(folds)) % 2 == 0
    network = recipe.build(torch.ones_like(judged)).eval()
    result = CandidateResult(recipe.name, 1.0, 6, 0.1, 1.0, True)
    size = embedding_size(network, recipe.architecture)
    _, embeddings = infer_with_embeddings(network, recipe.photos.images, recipe.spec, size)
    answers, distances = rival[judged], 1 - rival[judged].softmax(1)
    return result, Trained(recipe, network, embeddings, judged, answers, answers, distances, 1.0)


def test_a_network_of_another_size_is_tested_on_images_of_that_size(
    tmp_path: Path, draw_folder: DrawFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("train", 1), ("test", 2)):
        draw_folder(tmp_path / "photos" / name, 4, seed=seed)
    monkeypatch.setattr(run_transfer, "try_training", win_from_nothing)
    result = run(tmp_path / "photos", tmp_path / "out", budget_s=600.0)
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.header.image_spec.size == 32
    assert "backbone" not in checkpoint.header.training
    held_out = load_held_out(checkpoint, str(tmp_path / "photos"))
    assert (held_out.exposure, held_out.examples.images.shape[-1]) == ("unseen", 32)
    evaluation = evaluate_checkpoint(checkpoint, held_out, torch.device("cpu"))
    assert checkpoint.header.metrics["test"]["loss"] == pytest.approx(evaluation.metrics.loss)
    report = (result.checkpoint.parent / "report.html").read_text()
    assert "over 6 of the photos that it learnt from" in report


def test_mistakes_are_kept_only_if_asked_for_as_the_network_that_won_gets_them(
    tmp_path: Path, draw_folder: DrawFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_wrongly(recipe: Recipe, folds: Tensor, rival: Tensor, *others: object) -> tuple[CandidateResult, object]:
        return win_from_nothing(recipe, folds, -rival, *others)

    photos = draw_folder(tmp_path / "photos", 4)
    monkeypatch.setattr(run_transfer, "try_training", answer_wrongly)
    checkpoint = run(photos, tmp_path / "out", budget_s=600.0, keep_mistakes=True).checkpoint
    kept = load_mistakes(mistakes_path(checkpoint), load_checkpoint(checkpoint).digest)
    assert kept.source == MistakesSource("photos", "6 of 12 photos", "cross_validated")
    assert sum(kept.cells.values()) == len(kept) == sum(kept.images) == 6
    assert kept.photos.shape == (6, 3, 32, 32)
    assert (kept.probabilities[:, 1] > kept.probabilities[:, 0]).all()
    for name, photo, (true, _) in zip(kept.names, kept.photos, kept.classes.tolist(), strict=True):
        content = (photos / kept.class_names[true] / name).read_bytes()
        assert torch.equal(prepare_image(content, Resizing(32))[0], photo)


def test_two_photos_a_class_give_a_network_although_no_training_can_be_tried(
    tmp_path: Path, draw_folder: DrawFolder
) -> None:
    result = run(draw_folder(tmp_path / "photos", 2), tmp_path / "out", budget_s=8.0)
    assert "fewer than a batch of" in (result.checkpoint.parent / "report.html").read_text()


def test_photos_that_are_all_held_out_leave_nothing_to_learn_from(tmp_path: Path, draw_folder: DrawFolder) -> None:
    for name in ("train", "test"):
        draw_folder(tmp_path / "photos" / name, 3)
    with pytest.raises(DataError, match="leaves nothing to learn from"):
        run(tmp_path / "photos", tmp_path / "out")


@pytest.mark.slow  # the command's own test is quick
def test_one_photo_a_class_is_enough_to_answer_and_the_report_says_that_nothing_is_known(
    tmp_path: Path, draw_folder: DrawFolder
) -> None:
    draw_folder(tmp_path / "photos", 1)
    result = run(tmp_path / "photos", tmp_path / "out")
    assert load_checkpoint(result.checkpoint).header.metrics["cross_validation"]["accuracy"] == 0
    assert "nothing is known" in " ".join(result.summary).lower()


@pytest.mark.slow  # the same
def test_two_classes_with_the_same_photos_are_said_to_be_at_chance(tmp_path: Path, draw_folder: DrawFolder) -> None:
    colours = {"first": (200, 30, 30), "second": (200, 30, 30)}
    draw_folder(tmp_path / "photos", 5, colours)
    for file in (tmp_path / "photos" / "first").iterdir():
        (tmp_path / "photos" / "second" / file.name).write_bytes(file.read_bytes())
    result = run(tmp_path / "photos", tmp_path / "out")
    assert load_checkpoint(result.checkpoint).header.metrics["cross_validation"]["accuracy"] <= 0.5


def test_a_run_that_exists_is_not_overwritten(finished: TransferResult, photos: Path) -> None:
    with pytest.raises(DataError, match="exists already; choose another --out"):
        run(photos, finished.checkpoint.parent)


def test_stopping_before_anything_is_chosen_leaves_nothing_behind(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match="nothing was chosen yet"):
        run(photos, tmp_path / "out", Observer(should_stop=lambda: True))
    assert not (tmp_path / "out").exists()


def test_stopping_while_trainings_are_tried_keeps_the_heads(photos: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    observer = Observer(
        on_stage=lambda name, done, total: stages.append(name), should_stop=lambda: stages[-1].startswith("trying")
    )
    result = run(photos, tmp_path / "out", observer, budget_s=3600.0)
    assert stages[-1].startswith("trying from nothing")
    assert (result.checkpoint.parent / "report.html").exists()


@pytest.mark.parametrize(("photos", "seconds"), [(20, 10), (250, 10), (251, 120), (20_000, 120)])
def test_few_photos_have_seconds_and_many_two_minutes(photos: int, seconds: float) -> None:
    assert default_budget_s(photos) == seconds


@pytest.mark.parametrize(
    ("options", "asks"),
    [
        ({}, False),
        ({"settings": {"seed": 3}}, False),
        ({"test_fraction": 0.2}, False),
        ({"architecture": "efficientnet_lite0", "pretrained": True}, False),
        ({"architecture": "efficientnet_lite0"}, True),
        ({"architecture": "resnet18", "pretrained": True}, True),
        ({"from_scratch": True}, True),
        ({"settings": {"epochs": 3}}, True),
        ({"image_size": 64}, True),
        ({"val_fraction": 0.2}, True),
        ({"start_from": Path("x")}, True),
    ],
    ids=str,
)
def test_options_of_a_training_loop_ask_for_one(options: dict[str, object], asks: bool) -> None:
    assert RunOptions(source="photos", out=Path("out"), **options).asks_for_loop == asks
