"""A whole run on drawn pictures: what it writes, what it says of itself, and that errors write nothing."""

import dataclasses
import errno
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from torchlight.model import network
from torchlight.model.canary import canary_answer
from torchlight.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.engines.engine import pytorch_engine
from torchlight.model.errors import DataError, NetworkError, TorchlightError, UnknownArchitecture
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkConfig,
    build_network,
    published_image_spec,
)
from torchlight.model.uncertainty.novelty import to_tensors
from torchlight.model.views.kept_mistakes import MistakesSource, load_mistakes, mistakes_path
from torchlight.training import run, run_folder
from torchlight.training.config import RunOptions, TrainingConfig
from torchlight.training.data import loading
from torchlight.training.data.held_out import load_held_out
from torchlight.training.evaluation import evaluate_checkpoint
from torchlight.training.evaluation.calibration import divide_crosswise, error_by_chance, expected_calibration_error
from torchlight.training.evaluation.classification_metrics import infer
from torchlight.training.optimisation import resume_state
from torchlight.training.optimisation.loop import EpochResult, Training, TrainingDiverged
from torchlight.training.run import RunResult, RunStopped
from torchlight.training.run_calibrate import calibrate_checkpoint
from torchlight.training.run_setup import Observer

CPU = torch.device("cpu")
DrawFolder = Callable[..., Path]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run, and what it told while it went on."""

    options: RunOptions
    result: RunResult
    told: list[str]
    epochs: list[EpochResult]

    def load(self) -> Checkpoint:
        return load_checkpoint(self.result.checkpoint)


def train(options: RunOptions) -> Finished:
    told: list[str] = []
    epochs: list[EpochResult] = []

    def on_epoch(result: EpochResult) -> None:
        told.append("epoch")
        epochs.append(result)

    observer = Observer(
        on_image=lambda done, total: told.append("image"),
        on_data=lambda dataset, config: told.append("data"),
        on_step=lambda step: told.append("step"),
        on_epoch=on_epoch,
    )
    return Finished(options, run.train(options, CPU, "torchlight train photos --out run", observer), told, epochs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, draw_folder: DrawFolder) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    photos = draw_folder(folder / "photos", 20)
    return train(small(photos, folder / "out", epochs=4, learning_rate=3.0))


SETTINGS = {field.name for field in dataclasses.fields(TrainingConfig)}


def small(photos: Path, out: Path, **given: object) -> RunOptions:
    """Return options of a run that takes a second; ``given`` are fields of them, or settings."""
    settings = {"epochs": 1, "batch_size": 8} | {name: value for name, value in given.items() if name in SETTINGS}
    fields = {"architecture": "lenet5"} | {name: value for name, value in given.items() if name not in SETTINGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    return RunOptions(source=str(photos), out=out, **fields, settings=settings)


def test_run_writes_its_five_files_and_snapshots_and_nothing_else(finished: Finished) -> None:
    assert {path.name for path in finished.options.out.iterdir()} == {
        "checkpoint.safetensors",
        "metrics.jsonl",
        "curves.png",
        "confusion.png",
        "report.html",
        "snapshots",
    }


@pytest.mark.parametrize("name", ["curves.png", "confusion.png"])
def test_figures_open_as_pictures(name: str, finished: Finished) -> None:
    with Image.open(finished.options.out / name, formats=["PNG"]) as image:
        image.load()
        assert min(image.size) > 200


def test_metrics_file_has_one_line_for_each_epoch(finished: Finished) -> None:
    lines = (finished.options.out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dataclasses.asdict(epoch) for epoch in finished.epochs]
    assert len(lines) == 4


def test_run_learns_what_colours_tell(finished: Finished) -> None:
    assert finished.result.metrics.accuracy == 1
    assert finished.result.split == "test"
    assert finished.result.metrics.images == 6


def test_run_tells_what_it_does_in_order(finished: Finished) -> None:
    assert finished.told == ["image"] * 60 + ["data"] + (["step"] * 6 + ["epoch"]) * 4


def test_header_says_what_was_trained_how_on_what_and_how_well(finished: Finished) -> None:
    header = finished.load().header
    dataset = loading.load_dataset(finished.options.source, Resizing(32))
    assert header.network == NetworkConfig("lenet5", 3)
    assert header.golden == canary_answer(finished.load().network, header.image_spec)
    assert header.class_names == ("apple", "leaf", "sky")
    assert header.image_spec.size == 32
    assert (header.image_spec.mean, header.image_spec.std) == loading.statistics(dataset.splits["train"].images)
    assert header.data["source"] == "photos"
    assert header.data["fingerprint"] == dataset.fingerprint
    assert header.data["images"] == {"train": 48, "val": 6, "test": 6}
    assert header.training["command"] == "torchlight train photos --out run"
    assert header.training["epochs"] == 4
    assert header.training["device"] == "cpu"
    assert header.training["multiply_adds_per_image"] == 784 * 450 + 100 * 2400 + 48_000 + 120 * 84 + 84 * 3
    assert header.training["flops"] == 6 * header.training["multiply_adds_per_image"] * 4 * 48
    assert header.versions["torch"] == torch.__version__.split("+")[0]
    assert {"torchlight", "torchvision", "pillow", "safetensors", "python"} <= header.versions.keys()


def test_checkpoint_tells_other_images_from_those_that_it_knows(finished: Finished) -> None:
    checkpoint = finished.load()
    assert checkpoint.novelty is not None
    assert (checkpoint.novelty.images, checkpoint.novelty.measured_on) == (6, "val")
    noise = torch.randint(0, 256, (8, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    known = loading.load_dataset(finished.options.source, Resizing(32)).splits["test"].images
    answer = pytorch_engine(Classifier(checkpoint, CPU)).answer
    strange, usual = (answer(images).strangeness for images in (noise, known))
    assert strange is not None
    assert usual is not None
    assert strange.distances.min() > usual.distances.max()


def test_a_checkpoint_of_an_older_program_can_be_taught_to_tell(finished: Finished, tmp_path: Path) -> None:
    trained, old, new = finished.load(), tmp_path / "old", tmp_path / "new"
    save_checkpoint(old, trained.network, trained.header, trained.filmstrip)
    calibrate_checkpoint(load_checkpoint(old), finished.options.source, new)
    given, expected = load_checkpoint(new).novelty, trained.novelty
    assert given is not None
    assert expected is not None
    assert given.facts == pytest.approx(expected.facts)
    torch.testing.assert_close(to_tensors(given), to_tensors(expected))
    with pytest.raises(DataError, match="new exists; choose another name"):
        calibrate_checkpoint(load_checkpoint(old), finished.options.source, new)


def test_only_images_that_were_held_out_teach_it_to_tell(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    trained = finished.load()
    with pytest.raises(DataError, match="has no validation images beside training images"):
        calibrate_checkpoint(trained, str(draw_folder(tmp_path / "others", 4)), tmp_path / "new")
    metrics = {**trained.header.metrics, "cross_validation": {}}
    learnt = dataclasses.replace(trained, header=dataclasses.replace(trained.header, metrics=metrics))
    with pytest.raises(DataError, match=r"the network learnt from every photo of .*photos"):
        calibrate_checkpoint(learnt, finished.options.source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_header_has_the_figures_of_the_best_epoch_and_of_the_held_out_split(finished: Finished) -> None:
    metrics = finished.load().header.metrics
    best = finished.epochs[finished.result.best_epoch - 1]
    assert metrics["best_epoch"] == finished.result.best_epoch
    assert metrics["val"] == {"accuracy": best.val_accuracy, "loss": best.val_loss}
    assert metrics["test"]["accuracy"] == finished.result.metrics.accuracy
    assert metrics["test"]["images"] == 6
    assert metrics["test"]["recall"] == {"apple": 1, "leaf": 1, "sky": 1}


def test_header_has_the_scores_of_the_validation_images(finished: Finished) -> None:
    checkpoint = finished.load()
    header = checkpoint.header
    val = loading.load_dataset(finished.options.source, Resizing(32)).splits["val"]
    probabilities = Classifier(checkpoint, torch.device("cpu")).probabilities(val.images)
    scores = sorted(1 - probabilities[torch.arange(6), val.labels].double().numpy())
    assert header.answer_sets is not None
    assert header.answer_sets.images == 6
    assert header.answer_sets.scores == pytest.approx(scores, abs=2e-6)
    assert "Sets that hold the truth in 9 of 10" in (finished.options.out / "report.html").read_text()


def test_header_names_no_folder_of_this_machine(finished: Finished) -> None:
    header = finished.load().header
    assert str(finished.options.out.parent) not in json.dumps(
        [header.data, header.training, header.metrics, header.versions]
    )


def test_same_seed_gives_the_same_weights_and_other_seed_gives_others(draw_folder: DrawFolder, tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", 10)
    runs = [train(small(photos, tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    first, same, other = (finished.load().network.state_dict()["conv1.weight"] for finished in runs)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def script(
    monkeypatch: pytest.MonkeyPatch,
    accuracies: list[float],
    error: Exception | None = None,
    losses: Iterable[float] = itertools.repeat(1.0),
) -> None:
    """Replace the loop: epoch k leaves the value k in every weight and reaches a given accuracy and validation loss."""

    def epochs(training: Training, *_arguments: object) -> Iterator[EpochResult]:
        for index, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=False), start=1):
            for parameter in training.network.parameters():
                parameter.data.fill_(index)
            training.network.eval()
            yield EpochResult(index, 1.0, 0.5, loss, accuracy, 0.1, 1.0)
        if error is not None:
            raise error

    monkeypatch.setattr(Training, "epochs", epochs)


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5, 0.9, 0.7], 2), ([0.9, 0.5], 1), ([0.5, 0.6, 0.7], 3), ([0.4, 0.8, 0.8], 2), ([0.0, 0.0], 1)],
    ids=["middle", "first", "last", "first of equals", "never right"],
)
def test_weights_of_the_best_epoch_are_kept(
    accuracies: list[float], best: int, draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, accuracies)
    monkeypatch.setattr(
        evaluate_checkpoint, "fit_temperature", lambda logits, labels: 1.0
    )  # else the head would be divided
    finished = train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out"))
    loaded = finished.load()
    assert finished.result.best_epoch == loaded.header.metrics["best_epoch"] == best
    assert {parameter.unique().item() for parameter in loaded.network.parameters()} == {best}


def test_of_epochs_with_the_same_accuracy_the_one_with_the_lowest_loss_is_kept(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [0.8, 0.8, 0.8, 0.7], losses=[0.5, 0.3, 0.4, 0.1])
    finished = train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out"))
    assert finished.result.best_epoch == finished.load().header.metrics["best_epoch"] == 2
    page = (finished.options.out / "report.html").read_text()
    assert "epoch 2, with 80.0% of the validation images right, was kept" in page
    assert (
        "epoch 2, with 80.0% of the validation images right, was kept"
        in (finished.options.out / "report.html").read_text()
    )


def test_run_that_diverges_keeps_the_best_epoch_before(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [0.5, 0.75], TrainingDiverged("loss is nan"))
    with pytest.raises(TrainingDiverged, match=r"loss is nan; .*checkpoint.safetensors holds epoch 2, with 75.00%"):
        train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out"))
    assert load_checkpoint(tmp_path / "out" / "checkpoint.safetensors").header.metrics["best_epoch"] == 2


def test_existing_checkpoint_is_never_overwritten(draw_folder: DrawFolder, tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", 10)
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"weeks of work")
    with pytest.raises(DataError, match=r"checkpoint.safetensors exists already; choose another --out"):
        train(small(photos, out))
    assert [path.name for path in out.iterdir()] == ["checkpoint.safetensors"]
    assert (out / "checkpoint.safetensors").read_bytes() == b"weeks of work"


def good(photos: Path, draw: DrawFolder) -> None:
    draw(photos, 10)


@pytest.mark.parametrize(
    ("prepare", "options", "error", "words"),
    [
        pytest.param(lambda photos, draw: None, {}, DataError, "neither a folder", id="no such source"),
        pytest.param(
            lambda photos, draw: draw(photos, 10, {"sky": (0, 0, 255)}), {}, DataError, "at least 2", id="one class"
        ),
        pytest.param(lambda photos, draw: draw(photos, 3), {}, DataError, "--val-fraction", id="nothing to validate"),
        pytest.param(good, {"val_fraction": 0.0}, DataError, "--val-fraction", id="no validation asked for"),
        pytest.param(good, {"batch_size": 1000}, DataError, "fewer than one batch of 1000", id="batch too large"),
        pytest.param(
            good, {"val_fraction": 0.5, "test_fraction": 0.5}, DataError, "0 training images", id="nothing to train on"
        ),
        pytest.param(
            good,
            {"val_fraction": 0.5, "test_fraction": 0.5, "epochs": None, "batch_size": None},
            DataError,
            "0 training images",
            id="nothing to train on, by default",
        ),
        pytest.param(good, {"architecture": "lenet6"}, UnknownArchitecture, "lenet6", id="unknown architecture"),
        pytest.param(
            good, {"architecture": "lenet6", "image_size": 32}, UnknownArchitecture, "lenet6", id="unknown with a size"
        ),
        pytest.param(good, {"pretrained": True}, NetworkError, "lenet5", id="no published weights"),
        pytest.param(good, {"image_size": 16}, TorchlightError, "16", id="size the network cannot take"),
        pytest.param(
            good, {"architecture": "guide", "image_size": 48}, TorchlightError, "48", id="size its head cannot take"
        ),
    ],
)
def test_errors_write_nothing(
    prepare: Callable[[Path, DrawFolder], None],
    options: dict[str, object],
    error: type[TorchlightError],
    words: str,
    draw_folder: DrawFolder,
    tmp_path: Path,
) -> None:
    prepare(tmp_path / "photos", draw_folder)
    with pytest.raises(error, match=words):
        train(small(tmp_path / "photos", tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_pretrained_run_starts_from_the_published_weights_and_their_statistics(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the fetching is replaced: the published files cannot be had where tests have no internet."""
    published = build_network(NetworkConfig("resnet18", 1000)).state_dict()
    torch.save(published, tmp_path / "resnet18.pth")
    monkeypatch.setattr(network, "_fetch_weights", lambda architecture: tmp_path / "resnet18.pth")
    seen: list[torch.Tensor] = []

    def epochs(training: Training, *_arguments: object) -> Iterator[EpochResult]:
        seen.append(training.network.conv1.weight.detach().clone())
        training.network.eval()
        yield EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0)

    monkeypatch.setattr(Training, "epochs", epochs)
    photos = draw_folder(tmp_path / "photos", 10)
    finished = train(small(photos, tmp_path / "out", architecture="resnet18", pretrained=True, image_size=32))
    spec = finished.load().header.image_spec
    assert torch.equal(seen[0], published["conv1.weight"])
    assert (spec.size, spec.mean, spec.std) == (32, IMAGENET_MEAN, IMAGENET_STD)
    assert finished.load().header.training["optimizer"] == "sgd"
    assert finished.load().header.training["backbone"]["name"] == "resnet18"


def test_run_from_installed_weights_keeps_their_crop_and_names_their_licence(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 10)
    options = {"architecture": "efficientnet_lite0", "image_size": 32, "epochs": 1}
    finished = train(small(photos, tmp_path / "out", pretrained=True, **options))
    header = finished.load().header
    assert header.image_spec == published_image_spec("efficientnet_lite0", 32)
    assert header.training["backbone"]["licence"] == "Apache-2.0"
    more = train(small(photos, tmp_path / "more", start_from=finished.result.checkpoint, epochs=1)).load()
    assert more.header.image_spec == header.image_spec
    assert more.header.training["backbone"] == header.training["backbone"]


def test_weights_out_of_reach_are_told_before_any_image_is_decoded(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # where nothing listens
    photos, decoded = draw_folder(tmp_path / "photos", 10), []
    options = small(photos, tmp_path / "out", architecture="resnet18", pretrained=True)
    with pytest.raises(NetworkError, match=r"fetched from https://\S+\.pth .*save them as /\S+\.pth "):
        run.train(options, CPU, "", Observer(on_image=lambda done, total: decoded.append(done)))
    assert decoded == []


def test_evaluating_on_the_training_data_takes_only_what_was_held_out(finished: Finished) -> None:
    found = load_held_out(finished.load(), finished.options.source)
    expected = loading.load_dataset(finished.options.source, Resizing(32)).splits["test"]
    assert str(found) == "test (held out of its training data)"
    assert found.exposure == "unseen"
    assert torch.equal(found.examples.images, expected.images)
    assert torch.equal(found.examples.labels, expected.labels)


def test_evaluating_again_gives_the_figures_of_the_run(finished: Finished) -> None:
    loaded = finished.load()
    examples = load_held_out(loaded, finished.options.source).examples
    logits = infer(loaded.network, examples.images, loaded.header.image_spec)
    loss = torch.nn.functional.cross_entropy(logits, examples.labels).item()
    assert loss == pytest.approx(loaded.header.metrics["test"]["loss"], rel=1e-4)


def test_evaluating_on_other_photos_takes_all_of_them(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path, 3, {"sky": (60, 90, 230), "apple": (220, 30, 40)}, seed=7)
    found = load_held_out(finished.load(), str(photos))
    assert (found.split, found.exposure) == ("all images", "unknown")
    assert sorted(found.examples.labels.tolist()) == [0, 0, 0, 2, 2, 2]  # as the network counts its classes


def test_evaluating_on_other_photos_takes_their_test_split_if_there_is_one(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "train", 3, seed=7)
    draw_folder(tmp_path / "test", 2, seed=8)
    found = load_held_out(finished.load(), str(tmp_path))
    assert (found.split, found.exposure) == ("test", "unknown")
    assert len(found.examples) == 6


def test_evaluating_on_classes_the_network_does_not_know_is_refused(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path, 3, {"cloud": (200, 200, 200), "sky": (60, 90, 230)})
    with pytest.raises(DataError, match="does not know: cloud"):
        load_held_out(finished.load(), str(photos))


def test_mistakes_are_kept_beside_the_checkpoint_if_asked_for(draw_folder: DrawFolder, tmp_path: Path) -> None:
    options = small(draw_folder(tmp_path / "photos", 10), tmp_path / "out", keep_mistakes=True, learning_rate=0.0)
    finished = train(options)
    figures = finished.result.metrics
    kept = load_mistakes(mistakes_path(finished.result.checkpoint), finished.load().digest)
    assert kept.source == MistakesSource("photos", "test", "unseen")
    assert sum(kept.cells.values()) == len(kept) == figures.images - figures.images * figures.accuracy > 0
    assert kept.cells == {
        (true, predicted): number
        for true, row in enumerate(figures.confusion)
        for predicted, number in enumerate(row)
        if number and true != predicted
    }
    assert not any("/" in name for name in kept.names)
    assert kept.photos.shape == (len(kept), 3, 32, 32)


def test_run_without_a_test_split_is_evaluated_on_the_validation_images(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    finished = train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out", test_fraction=0.0))
    found = load_held_out(finished.load(), finished.options.source)
    assert finished.result.split == "val"
    assert finished.result.metrics.images == 3
    assert (str(found), found.exposure, len(found.examples)) == (
        "val (held out of its training data)",
        "chose_epoch",
        3,
    )
    evaluation = evaluate_checkpoint.evaluate_checkpoint(finished.load(), found, torch.device("cpu"))
    assert evaluation.set_figures is None  # these images fixed the sets


def test_run_that_skipped_unreadable_files_can_be_evaluated_on_its_own_data(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 10)
    (photos / "sky" / "Thumbs.db").write_bytes(b"no picture")
    finished = train(small(photos, tmp_path / "out", skip_unreadable=True))
    found = load_held_out(finished.load(), str(photos))
    assert finished.load().header.data["skipped"] == 1
    assert (str(found), len(found.examples)) == ("test (held out of its training data)", 3)


def interrupted(options: RunOptions, stop_after: int) -> None:
    """Run until so many steps are done, then ask it to stop."""
    steps: list[object] = []
    observer = Observer(on_step=steps.append, should_stop=lambda: len(steps) >= stop_after)
    with pytest.raises(RunStopped, match="repeat the command with --resume"):
        run.train(options, CPU, "torchlight train photos --out run", observer)


@pytest.mark.parametrize("stop_after", [2, 9, 14], ids=lambda steps: f"after step {steps}")
def test_run_that_was_stopped_and_resumed_gives_the_same_weights(
    stop_after: int, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 20)
    whole = train(small(photos, tmp_path / "whole", epochs=3))
    interrupted(small(photos, tmp_path / "parts", epochs=3), stop_after)
    resumed = train(small(photos, tmp_path / "parts", epochs=3, resume=True))
    expected, found = (one.load().network.state_dict() for one in (whole, resumed))
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert torch.equal(whole.load().filmstrip, resumed.load().filmstrip)
    assert resumed.result.best_epoch == whole.result.best_epoch
    histories = [[one["train_loss"] for one in x.load().header.training["history"]] for x in (whole, resumed)]
    assert histories[0] == histories[1]
    assert not (tmp_path / "parts" / "state.safetensors").exists()


def test_resuming_a_run_that_had_not_begun_begins_it(draw_folder: DrawFolder, tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", 20)
    finished = train(small(photos, tmp_path / "out", resume=True))
    assert finished.result.best_epoch == 1


def test_run_under_way_is_neither_overwritten_nor_taken_for_another(draw_folder: DrawFolder, tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", 20)
    interrupted(small(photos, tmp_path / "out", epochs=3), 7)
    with pytest.raises(DataError, match="resume it with --resume, or choose another --out"):
        train(small(photos, tmp_path / "out", epochs=3))
    with pytest.raises(resume_state.StateError, match=r"another run \(epochs 3; now epochs 4\)"):
        train(small(photos, tmp_path / "out", epochs=4, resume=True))


DISK_FULL = OSError(errno.ENOSPC, "No space left on device")
QUOTA = OSError(errno.EDQUOT, "Disk quota exceeded")
DENIED = OSError(errno.EACCES, "Permission denied")
OF_SAFETENSORS = OSError("state.safetensors cannot be written (I/O error)")


@pytest.mark.parametrize(
    ("error", "reason", "way_out"),
    [
        (DISK_FULL, "out cannot be written (No space left on device)", "make room"),
        (QUOTA, "out cannot be written (Disk quota exceeded)", "make room"),
        (DENIED, "out cannot be written (Permission denied)", "make it writable"),
        (OF_SAFETENSORS, "state.safetensors cannot be written (I/O error)", "make room"),
    ],
    ids=["disk full", "quota", "not writable", "of safetensors"],
)
def test_file_that_cannot_be_written_ends_a_run_with_what_is_left_of_it(
    error: OSError, reason: str, way_out: str, draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise error

    photos = draw_folder(tmp_path / "photos", 20)
    monkeypatch.setattr(run_folder, "save_state", refuse)
    with pytest.raises(RunStopped) as caught:
        train(small(photos, tmp_path / "out", epochs=3))
    said = str(caught.value)
    assert f"{reason}; {tmp_path / 'out' / 'checkpoint.safetensors'} holds epoch 1, with" in said
    assert said.endswith(f"of the validation images right; {way_out} and repeat the command with --resume")
    assert load_checkpoint(tmp_path / "out" / "checkpoint.safetensors").header.metrics["best_epoch"] == 1


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES], ids=["missing", "not readable"])
def test_file_of_the_program_that_cannot_be_read_is_not_taken_for_a_full_disk(
    number: int, draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number), "/package/report.css")

    photos = draw_folder(tmp_path / "photos", 20)
    monkeypatch.setattr(run, "write_report", refuse)
    with pytest.raises(RunStopped, match=r"^/package/report.css cannot be used \(.*\); .*holds epoch 1") as caught:
        train(small(photos, tmp_path / "out"))
    assert "written" not in str(caught.value)
    assert "room" not in str(caught.value)


def kill(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_run_that_was_killed_before_its_report_writes_it_when_resumed(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = draw_folder(tmp_path / "photos", 20), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_report", kill)
        with pytest.raises(KeyboardInterrupt):
            train(small(photos, out))
    before = (out / "checkpoint.safetensors").read_bytes()
    assert not (out / "report.html").exists()
    resumed = train(small(photos, out, resume=True))
    assert resumed.told == ["image"] * 60 + ["data"]  # not one step more
    assert (out / "checkpoint.safetensors").read_bytes() == before
    temperature = resumed.load().header.metrics["calibration"]["temperature"]
    assert f"outputs are divided by {temperature:.3f}" in (out / "report.html").read_text()
    assert not (out / "state.safetensors").exists()


def test_run_stopped_after_the_last_step_of_its_only_epoch_still_has_that_epoch(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 20)
    interrupted(small(photos, tmp_path / "out"), 6)
    finished = train(small(photos, tmp_path / "out", resume=True))
    assert [epoch.epoch for epoch in finished.epochs] == [1]
    assert finished.result.best_epoch == 1


def test_what_a_killed_run_left_of_files_it_was_writing_is_removed(draw_folder: DrawFolder, tmp_path: Path) -> None:
    photos, out = draw_folder(tmp_path / "photos", 20), tmp_path / "out"
    interrupted(small(photos, out, epochs=3), 7)
    leftovers = [
        out / ".checkpoint.safetensors.ab12_x.part",
        out / ".state.safetensors.ab12_x.part",
        out / ".metrics.jsonl.ab12_x.part",
        out / ".report.html.ab12_x.part",
        out / "snapshots" / ".epoch-002.safetensors.ab12_x.part",
    ]
    for path in leftovers:
        path.write_bytes(b"half")
    (out / ".mine.part").write_bytes(b"not of a run")
    train(small(photos, out, epochs=3, resume=True))
    assert [path for path in leftovers if path.exists()] == []
    assert (out / ".mine.part").exists()


def test_metrics_file_survives_a_crash_while_it_is_written(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = draw_folder(tmp_path / "photos", 20), tmp_path / "out"
    interrupted(small(photos, out, epochs=3), 7)
    before = (out / "metrics.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in before.splitlines()] == [1]
    with monkeypatch.context() as patch:
        patch.setattr("torchlight.model.files.atomic.os.fsync", kill)
        with pytest.raises(KeyboardInterrupt):
            train(small(photos, out, epochs=3, resume=True))
    assert (out / "metrics.jsonl").read_text() == before
    train(small(photos, out, epochs=3, resume=True))
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_snapshots_are_checkpoints_of_early_epochs(finished: Finished) -> None:
    found = {path.name: load_checkpoint(path) for path in (finished.options.out / "snapshots").iterdir()}
    assert found.keys() == {f"epoch-{epoch:03d}.safetensors" for epoch in (0, 1, 2, 4)}
    assert found["epoch-000.safetensors"].header.metrics == {}
    assert found["epoch-002.safetensors"].header.metrics["val"]["accuracy"] == finished.epochs[1].val_accuracy


def test_checkpoint_carries_history_and_filmstrip(finished: Finished) -> None:
    loaded = finished.load()
    first = load_checkpoint(finished.options.out / "snapshots" / "epoch-000.safetensors")
    assert loaded.header.training["history"] == [dataclasses.asdict(epoch) for epoch in finished.epochs]
    assert loaded.filmstrip is not None
    assert loaded.filmstrip.shape == (5, 6, 3, 5, 5)
    torch.testing.assert_close(loaded.filmstrip[0], first.network.conv1.weight, atol=1e-3, rtol=1e-3)


def test_header_has_the_temperature_that_is_in_the_weights(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = draw_folder(tmp_path / "photos", 20)
    plain = train(small(photos, tmp_path / "plain")).load()
    monkeypatch.setattr(evaluate_checkpoint, "fit_temperature", lambda logits, labels: 2.0)
    divided = train(small(photos, tmp_path / "divided")).load()
    images = loading.load_dataset(str(photos), Resizing(32)).splits["val"].images
    logits = [
        infer(one.network, images, one.header.image_spec) * one.header.metrics["calibration"]["temperature"]
        for one in (plain, divided)
    ]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)


def test_without_a_test_split_calibration_is_measured_over_all_validation_images(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    dataset = loading.load_dataset(
        str(draw_folder(tmp_path / "photos", 20)), Resizing(32), val_fraction=0.5, test_fraction=0
    )
    val = dataset.splits["val"]
    network = build_network(NetworkConfig("lenet5", len(dataset.class_names))).eval()
    spec = ImageSpec(32, IMAGENET_MEAN, IMAGENET_STD)
    before = infer(network, val.images, spec)
    measured = evaluate_checkpoint.calibrate(network, spec, dataset)
    crosswise = divide_crosswise(before, val.labels).softmax(1)
    assert measured.images == len(val)
    assert measured.ece_after == expected_calibration_error(crosswise, val.labels)
    assert measured.ece_by_chance == error_by_chance(crosswise)
    torch.testing.assert_close(infer(network, val.images, spec), before / measured.temperature, atol=1e-4, rtol=1e-4)


def test_run_may_go_on_from_a_checkpoint(finished: Finished, tmp_path: Path) -> None:
    """With a learning rate of zero the weights stay: architecture, size, normalisation and weights are the start's."""
    options = small(
        Path(finished.options.source),
        tmp_path / "out",
        architecture="guide",
        start_from=finished.result.checkpoint,
        learning_rate=0.0,
        weight_decay=0.0,
    )
    start, more = finished.load(), train(options).load()
    assert more.header.network == start.header.network
    assert more.header.image_spec == start.header.image_spec
    assert more.header.training["start_from"] == start.digest
    torch.testing.assert_close(more.network.state_dict()["conv1.weight"], start.network.state_dict()["conv1.weight"])


def test_run_cannot_go_on_from_a_checkpoint_of_other_classes(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 10, {"cloud": (200, 200, 200), "sky": (60, 90, 230)})
    with pytest.raises(DataError, match="knows the classes apple, leaf, sky; the images are of cloud, sky"):
        train(small(photos, tmp_path / "out", start_from=finished.result.checkpoint))
    assert not (tmp_path / "out").exists()
