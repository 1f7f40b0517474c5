"""A whole run on drawn pictures: what it writes, what it says of itself, and that errors write nothing."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from model import checkpoint
from model.checkpoint import Checkpoint
from model.errors import DataError, NetworkError, TorchlightError, UnknownArchitecture
from model.network import IMAGENET_MEAN, IMAGENET_STD, NetworkConfig, build
from training import data, loop, run
from training.evaluation import infer
from training.loop import EpochResult, TrainingDiverged
from training.run import Observer, RunOptions, RunResult, held_out

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
        return checkpoint.load(self.result.checkpoint)


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
    options = RunOptions(str(photos), folder / "out", "lenet5", epochs=4, batch_size=8, learning_rate=3.0)
    return train(options)


def small(photos: Path, out: Path, **options: object) -> RunOptions:
    return RunOptions(str(photos), out, **{"architecture": "lenet5", "epochs": 1, "batch_size": 8, **options})


def test_run_writes_its_four_files_and_nothing_else(finished: Finished) -> None:
    assert {path.name for path in finished.options.out.iterdir()} == {
        "checkpoint.safetensors",
        "metrics.jsonl",
        "curves.png",
        "confusion.png",
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
    dataset = data.load(finished.options.source, 32)
    assert header.network == NetworkConfig("lenet5", 3)
    assert header.class_names == ("apple", "leaf", "sky")
    assert header.image_spec.size == 32
    assert (header.image_spec.mean, header.image_spec.std) == data.statistics(dataset.splits["train"].images)
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


def test_header_has_the_figures_of_the_best_epoch_and_of_the_held_out_split(finished: Finished) -> None:
    metrics = finished.load().header.metrics
    best = finished.epochs[finished.result.best_epoch - 1]
    assert metrics["best_epoch"] == finished.result.best_epoch
    assert metrics["val"] == {"accuracy": best.val_accuracy, "loss": best.val_loss}
    assert metrics["test"]["accuracy"] == finished.result.metrics.accuracy
    assert metrics["test"]["images"] == 6
    assert metrics["test"]["recall"] == {"apple": 1, "leaf": 1, "sky": 1}


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


def scripted_fit(accuracies: list[float]) -> Callable[..., Iterator[EpochResult]]:
    """Return a stand-in for the loop: epoch k leaves the value k in every weight and reaches a given accuracy."""

    def fit(network: nn.Module, *_arguments: object) -> Iterator[EpochResult]:
        for index, accuracy in enumerate(accuracies, start=1):
            for parameter in network.parameters():
                parameter.data.fill_(index)
            network.eval()
            yield EpochResult(index, 1.0, 0.5, 1.0, accuracy, 0.1, 1.0)

    return fit


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5, 0.9, 0.7], 2), ([0.9, 0.5], 1), ([0.5, 0.6, 0.7], 3), ([0.4, 0.8, 0.8], 2), ([0.0, 0.0], 1)],
    ids=["middle", "first", "last", "first of equals", "never right"],
)
def test_weights_of_the_best_epoch_are_kept(
    accuracies: list[float], best: int, draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "fit", scripted_fit(accuracies))
    finished = train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out"))
    loaded = finished.load()
    assert finished.result.best_epoch == loaded.header.metrics["best_epoch"] == best
    assert {parameter.unique().item() for parameter in loaded.network.parameters()} == {best}


def test_run_that_diverges_keeps_the_best_epoch_before(
    draw_folder: DrawFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(network: nn.Module, *arguments: object) -> Iterator[EpochResult]:
        yield from scripted_fit([0.5, 0.75])(network)
        raise TrainingDiverged("loss is nan")

    monkeypatch.setattr(loop, "fit", fit)
    with pytest.raises(TrainingDiverged):
        train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out"))
    assert checkpoint.load(tmp_path / "out" / "checkpoint.safetensors").header.metrics["best_epoch"] == 2


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
    """Only the download is replaced: the published files cannot be fetched where tests have no internet."""
    published = build(NetworkConfig("resnet18", 1000)).state_dict()
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **options: published)
    seen: list[torch.Tensor] = []

    def fit(network: nn.Module, *_arguments: object) -> Iterator[EpochResult]:
        seen.append(network.conv1.weight.detach().clone())
        network.eval()
        yield EpochResult(1, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0)

    monkeypatch.setattr(loop, "fit", fit)
    photos = draw_folder(tmp_path / "photos", 10)
    finished = train(small(photos, tmp_path / "out", architecture="resnet18", pretrained=True, image_size=32))
    spec = finished.load().header.image_spec
    assert torch.equal(seen[0], published["conv1.weight"])
    assert (spec.size, spec.mean, spec.std) == (32, IMAGENET_MEAN, IMAGENET_STD)
    assert finished.load().header.training["optimizer"] == "sgd"


def test_evaluating_on_the_training_data_takes_only_what_was_held_out(finished: Finished) -> None:
    name, examples = held_out(finished.load(), finished.options.source)
    expected = data.load(finished.options.source, 32).splits["test"]
    assert name == "test (held out of its training data)"
    assert torch.equal(examples.images, expected.images)
    assert torch.equal(examples.labels, expected.labels)


def test_evaluating_again_gives_the_figures_of_the_run(finished: Finished) -> None:
    loaded = finished.load()
    _, examples = held_out(loaded, finished.options.source)
    logits = infer(loaded.network, examples.images, loaded.header.image_spec)
    loss = torch.nn.functional.cross_entropy(logits, examples.labels).item()
    assert loss == pytest.approx(loaded.header.metrics["test"]["loss"], rel=1e-4)


def test_evaluating_on_other_photos_takes_all_of_them(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path, 3, {"sky": (60, 90, 230), "apple": (220, 30, 40)}, seed=7)
    name, examples = held_out(finished.load(), str(photos))
    assert name == "all images"
    assert sorted(examples.labels.tolist()) == [0, 0, 0, 2, 2, 2]  # as the network counts its classes


def test_evaluating_on_other_photos_takes_their_test_split_if_there_is_one(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    draw_folder(tmp_path / "train", 3, seed=7)
    draw_folder(tmp_path / "test", 2, seed=8)
    name, examples = held_out(finished.load(), str(tmp_path))
    assert name == "test"
    assert len(examples) == 6


def test_evaluating_on_classes_the_network_does_not_know_is_refused(
    finished: Finished, draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path, 3, {"cloud": (200, 200, 200), "sky": (60, 90, 230)})
    with pytest.raises(DataError, match="does not know: cloud"):
        held_out(finished.load(), str(photos))


def test_run_without_a_test_split_is_evaluated_on_the_validation_images(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    finished = train(small(draw_folder(tmp_path / "photos", 10), tmp_path / "out", test_fraction=0.0))
    name, examples = held_out(finished.load(), finished.options.source)
    assert finished.result.split == "val"
    assert finished.result.metrics.images == 3
    assert (name, len(examples)) == ("val (held out of its training data)", 3)


def test_run_that_skipped_unreadable_files_can_be_evaluated_on_its_own_data(
    draw_folder: DrawFolder, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", 10)
    (photos / "sky" / "Thumbs.db").write_bytes(b"no picture")
    finished = train(small(photos, tmp_path / "out", skip_unreadable=True))
    name, examples = held_out(finished.load(), str(photos))
    assert finished.load().header.data["skipped"] == 1
    assert (name, len(examples)) == ("test (held out of its training data)", 3)
