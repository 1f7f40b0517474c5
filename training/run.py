"""The straight path of a training run: data -> network -> epochs -> checkpoint -> evaluation -> report.

Writes files, prints nothing: the command line shows what the callbacks tell it.
"""

import dataclasses
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.model.canary import canary_answer
from torchlight.model.checkpoint import Checkpoint, Header, load_checkpoint, save_checkpoint
from torchlight.model.errors import DataError, TorchlightError
from torchlight.model.files.atomic import write_bytes
from torchlight.model.images import ImageSpec
from torchlight.model.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NetworkConfig,
    build_network,
    check_image_size,
    count_multiply_adds,
    default_image_size,
    first_convolution,
    load_pretrained,
)
from torchlight.model.versions import library_versions
from torchlight.training.config import TrainingConfig, default_batch_size, default_epochs, default_optimizer
from torchlight.training.data import loading
from torchlight.training.data.loading import DataSet
from torchlight.training.evaluation.calibration import (
    Calibration,
    divide_crosswise,
    divide_logits,
    fit_temperature,
    measure_calibration,
)
from torchlight.training.evaluation.classification_metrics import Metrics, evaluate, infer
from torchlight.training.optimisation import resume_state
from torchlight.training.optimisation.distributed import Processes, ProcessLost
from torchlight.training.optimisation.initialisation import whiten_first_layer
from torchlight.training.optimisation.loop import EpochResult, StepResult, Training, TrainingDiverged, best_precision
from torchlight.training.optimisation.resume_state import RunState
from torchlight.training.report import report
from torchlight.training.report.report import Report

CHECKPOINT, STATE, METRICS, SNAPSHOTS = "checkpoint.safetensors", "state.safetensors", "metrics.jsonl", "snapshots"
SAVE_EVERY_S = 60  # what a crash may cost, at most
MAX_FRAMES = 12  # of the filmstrip that the checkpoint carries
MAX_FILTER_NUMBERS = 40_000  # of one frame: the first layers of all convolutional networks, not those of transformers


class RunStopped(TorchlightError):
    """A run ended before its last epoch; what it has done is kept."""


@dataclass(frozen=True)
class RunOptions:
    """What the user asked for.

    Attributes:
        image_size: None takes the network's own.
        start_from: a checkpoint to go on learning from; architecture, image size and classes are its own.
        resume: go on with the run in ``out``, if there is one.
        settings: fields of :class:`training.config.TrainingConfig`; those left out follow from network and data.
    """

    source: str
    out: Path
    architecture: str = "torchlight"
    pretrained: bool = False
    image_size: int | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    skip_unreadable: bool = False
    resume: bool = False
    start_from: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of the split, the initial weights and the augmentation."""
        seed: int = self.settings.get("seed", TrainingConfig.seed)
        return seed


@dataclass(frozen=True)
class Observer:
    """What a run tells while it goes on, and asks."""

    on_image: Callable[[int, int], None] = lambda done, total: None
    on_data: Callable[[DataSet, TrainingConfig], None] = lambda dataset, config: None
    on_step: Callable[[StepResult], None] = lambda result: None
    on_epoch: Callable[[EpochResult], None] = lambda result: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class RunResult:
    """Where the best epoch's checkpoint is, what it reaches on which held-out split, and what the run took.

    Attributes:
        seconds: of training and validation.
        flops: floating-point operations of all training steps.
    """

    checkpoint: Path
    best_epoch: int
    split: str
    metrics: Metrics
    seconds: float
    flops: int


@dataclass(frozen=True)
class Setup:
    """What training starts from.

    Attributes:
        network: untrained, or with published weights; on the device.
        class_weights: see :class:`training.optimisation.loop.Training`.
        start: the checkpoint that the weights are from, if any.
    """

    dataset: DataSet
    config: TrainingConfig
    network_config: NetworkConfig
    network: nn.Module
    spec: ImageSpec
    class_weights: Tensor | None
    start: Checkpoint | None


def set_up(options: RunOptions, device: torch.device, observer: Observer, num_processes: int = 1) -> Setup:
    """Read the data, settle what the user left open, and build the network; write nothing.

    Raises:
        DataError, NetworkError: see there.
    """
    start = None if options.start_from is None else load_checkpoint(options.start_from)
    if start is not None:
        known = start.header
        options = dataclasses.replace(
            options, architecture=known.network.architecture, image_size=known.image_spec.size
        )
    size = options.image_size or default_image_size(options.architecture)
    check_image_size(options.architecture, size)
    dataset = loading.load(
        options.source,
        size,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
        seed=options.seed,
        skip_unreadable=options.skip_unreadable,
        on_image=observer.on_image,
    )
    config = _configure(options, dataset, size, device, num_processes)
    observer.on_data(dataset, config)

    torch.manual_seed(config.seed)
    network_config = NetworkConfig(options.architecture, len(dataset.class_names))
    network = build_network(network_config)
    train = dataset.splits["train"]
    if options.pretrained:
        load_pretrained(network, options.architecture)
        spec = ImageSpec(size, IMAGENET_MEAN, IMAGENET_STD)
    elif start is not None:
        _check_classes(start, dataset)
        network.load_state_dict(start.network.state_dict())
        spec = start.header.image_spec
    else:
        spec = ImageSpec(size, *loading.statistics(train.images))
    if config.whitening:
        whiten_first_layer(network, train.images, spec)
    weights = loading.class_weights(train.labels, network_config.num_classes) if config.balance else None
    return Setup(dataset, config, network_config, network.to(device), spec, weights, start)


def train(
    options: RunOptions, device: torch.device, command: str, observer: Observer, processes: Processes | None = None
) -> RunResult | None:
    """Train, keep the best epoch by validation accuracy, evaluate it once, and write everything to ``options.out``.

    Writes ``checkpoint.safetensors``, ``metrics.jsonl``, ``report.html``, ``curves.png``, ``confusion.png`` and, in
    ``snapshots``, the network after epochs 0, 1, 2, 4, 8, ...; while it goes on also ``state.safetensors``. Nothing is
    written before the data is read and found good; a run that exists is never overwritten.

    Args:
        device: of this process.
        command: the command line, kept in the checkpoint.
        processes: that train together; the first one writes the files. Without it, this one alone.

    Returns:
        None in all processes but the first, which also is the one to raise what ends all of them.

    Raises:
        DataError, NetworkError, StateError, TrainingDiverged: see there.
        RunStopped: ``observer`` of some process asked for it, the files cannot be written, or a process has died.
    """
    processes = processes or Processes()
    try:
        with processes.watched():
            return _train(options, device, command, observer, processes)
    except ProcessLost:
        if processes.rank > 0:
            return None
        raise


def _train(
    options: RunOptions, device: torch.device, command: str, observer: Observer, processes: Processes
) -> RunResult | None:
    with processes.in_turn():
        _check_folder(options)
        setup = set_up(options, device, observer, processes.number)
        header = Header(
            network=setup.network_config,
            class_names=setup.dataset.class_names,
            image_spec=setup.spec,
            metrics={},
            training=dataclasses.asdict(setup.config)
            | {"command": command, "device": device.type, "start_from": setup.start and setup.start.digest},
            data=_describe(options, setup.dataset),
            versions=library_versions("torch", "torchvision", "pillow", "safetensors"),
        )
        training = Training(
            setup.network,
            setup.dataset.splits["train"],
            setup.spec,
            setup.config,
            class_weights=setup.class_weights,
            processes=processes,
        )
        run = _Run(options.out, header, setup.network, training)
        if options.resume:
            run.resume()
    val = setup.dataset.splits["val"]
    observer = dataclasses.replace(observer, should_stop=_ask_all(processes, observer.should_stop))
    if processes.rank > 0:
        _follow(training, val, observer.should_stop)
        return None
    with run.kept_when_stopped():
        with processes.watched():
            run.go_on(val, observer)
        return run.finish(setup.dataset, device)


def _ask_all(processes: Processes, should_stop: Callable[[], bool]) -> Callable[[], bool]:
    return lambda: processes.any(should_stop())


def _follow(training: Training, val: loading.LabelledImages, should_stop: Callable[[], bool]) -> None:
    """Take part to the end of the training, whatever it is: what there is to tell, the first process tells."""

    def on_step(_result: StepResult) -> None:
        if should_stop():
            raise RunStopped

    with suppress(RunStopped, TrainingDiverged):
        deque(training.epochs(val, on_step), maxlen=0)


class _Run:
    """The files of a run, and what is in them.

    Attributes:
        history: the epochs that are done.
        filters: the first layer's, before training and after each of them; empty if they are too many to keep.
    """

    def __init__(self, folder: Path, header: Header, network: nn.Module, training: Training) -> None:
        self._folder, self._header, self._network, self._training = folder, header, network, training
        self._saved_at = time.monotonic()
        self.history: list[EpochResult] = []
        self.filters = [_first_filters(network)]

    def resume(self) -> None:
        """Take up the run that is in the folder, if it had come far enough to be saved.

        Raises:
            StateError: the folder's run is another one.
        """
        path = self._folder / STATE
        if path.exists():
            found = resume_state.load(path, self._identity())
            self.history, self.filters = list(found.history), list(found.filters)
            self._training.restore(found.training)

    def go_on(self, val: loading.LabelledImages, observer: Observer) -> None:
        """Train to the end, saving on the way."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self.history:
            self._snapshot(0)
        self._write_metrics()

        def on_step(result: StepResult) -> None:
            observer.on_step(result)
            if observer.should_stop():
                self._save_state()
                raise RunStopped(f"stopped after step {result.step}; repeat the command with --resume to go on")
            if time.monotonic() - self._saved_at > SAVE_EVERY_S:
                self._save_state()

        for result in self._training.epochs(val, on_step):
            self.history.append(result)
            self.filters.append(_first_filters(self._network))
            self._snapshot(result.epoch)
            if result is self._best():
                save_checkpoint(self._folder / CHECKPOINT, self._network, self._described(result))
            self._save_state()
            self._write_metrics()
            observer.on_epoch(result)

    def finish(self, dataset: DataSet, device: torch.device) -> RunResult:
        """Calibrate the best epoch, evaluate it on images it never saw, and write checkpoint and report."""
        path, split = self._folder / CHECKPOINT, held_out_split(dataset)
        best = load_checkpoint(path)
        network, spec, examples = best.network.to(device), best.header.image_spec, dataset.splits[split]
        calibration = None
        if "calibration" not in best.header.metrics:  # else a crash came between the last lines below
            calibration = calibrate(network, spec, dataset)
        logits = infer(network, examples.images, spec)
        metrics = evaluate(logits, examples.labels, dataset.class_names)
        if calibration is not None:
            header = self._finished(best.header, split, metrics, calibration)
            header = dataclasses.replace(header, golden=canary_answer(network.cpu(), spec))
            save_checkpoint(path, network, header, self._film())
        done = load_checkpoint(path)
        finished = Report(
            source=done.header.data["source"],
            split=split,
            exposure="unseen" if split == "test" else "chose_epoch",
            command=done.header.training["command"],
            header=done.header,
            digest=done.digest,
            metrics=metrics,
            images=examples.images,
            names=examples.names,
            counts=count_images(dataset),
            warnings=dataset.warnings,
            skipped=dataset.skipped,
            history=self.history,
            filters=list(enumerate(self.filters)),
            calibration=calibration or measure_calibration(logits, logits, examples.labels, 1.0),
        )
        report.write(self._folder, finished)
        (self._folder / STATE).unlink(missing_ok=True)
        cost = done.header.training
        return RunResult(path, done.header.metrics["best_epoch"], split, metrics, cost["seconds"], cost["flops"])

    @contextmanager
    def kept_when_stopped(self) -> Iterator[None]:
        """Say, when a run ends before its time, what is left of it and how to go on."""
        try:
            yield
        except TrainingDiverged as error:
            raise TrainingDiverged(f"{error}; {self._left()}") from error
        except ProcessLost as error:
            raise RunStopped(f"{error}; {self._left()}; repeat the command with --resume to go on") from error
        except OSError as error:
            raise RunStopped(
                f"{self._folder} cannot be written ({error.strerror or error}); {self._left()}; "
                "make room and repeat the command with --resume"
            ) from error

    def _best(self) -> EpochResult:
        """Return the epoch with the highest validation accuracy; among equals, of which few images give many, the one
        with the lowest loss."""
        return max(self.history, key=lambda result: (result.val_accuracy, -result.val_loss))

    def _described(self, result: EpochResult) -> Header:
        figures = {"accuracy": result.val_accuracy, "loss": result.val_loss}
        return dataclasses.replace(self._header, metrics={"best_epoch": result.epoch, "val": figures})

    def _finished(self, header: Header, split: str, metrics: Metrics, calibration: Calibration) -> Header:
        """Return the header with everything that is known at the end."""
        history = [dataclasses.asdict(result) for result in self.history]
        figures = {name: value for name, value in vars(calibration).items() if name != "reliability"}
        return dataclasses.replace(
            header,
            metrics={**header.metrics, split: summary(metrics), "calibration": figures},
            training={**header.training, **self._cost(), "history": history},
        )

    def _film(self) -> Tensor | None:
        """Return at most ``MAX_FRAMES`` frames of the filters, the first and the last among them, in half precision."""
        places = torch.linspace(0, len(self.filters) - 1, min(MAX_FRAMES, len(self.filters))).round().int().tolist()
        frames = torch.stack([self.filters[place] for place in places]).half()
        return frames if frames.numel() else None

    def _snapshot(self, epoch: int) -> None:
        """Keep the whole network at epochs 0, 1, 2, 4, 8, ...: early ones differ most."""
        if epoch & (epoch - 1) == 0:
            header = self._described(self.history[-1]) if self.history else self._header
            save_checkpoint(self._folder / SNAPSHOTS / f"epoch-{epoch:03d}.safetensors", self._network, header)

    def _save_state(self) -> None:
        found = RunState(self._identity(), self.history, torch.stack(self.filters), self._training.state())
        resume_state.save(self._folder / STATE, found)
        self._saved_at = time.monotonic()

    def _write_metrics(self) -> None:
        lines = [json.dumps(dataclasses.asdict(result)) + "\n" for result in self.history]
        write_bytes(self._folder / METRICS, "".join(lines).encode())

    def _identity(self) -> dict[str, Any]:
        """Return what tells this run from any other."""
        header = self._header
        config = {name: value for name, value in header.training.items() if name != "command"}
        return config | {
            "architecture": header.network.architecture,
            "classes": len(header.class_names),
            "image_size": header.image_spec.size,
            "data": header.data["fingerprint"],
        }

    def _cost(self) -> dict[str, Any]:
        """Return what the run took: seconds, and floating-point operations of all its steps."""
        multiply_adds = count_multiply_adds(self._network, self._header.image_spec.size)
        seen = len(self.history) * self._training.steps_per_epoch * self._header.training["batch_size"]
        return {
            "seconds": round(sum(result.seconds for result in self.history)),
            "multiply_adds_per_image": multiply_adds,
            "flops": 2 * 3 * multiply_adds * seen,  # forward, and about twice that backward
        }

    def _left(self) -> str:
        if not self.history:
            return "no epoch was finished"
        best = self._best()
        share = f"{best.val_accuracy:.2%} of the validation images right"
        return f"{self._folder / CHECKPOINT} holds epoch {best.epoch}, with {share}"


def _check_folder(options: RunOptions) -> None:
    """Refuse a folder where there is something to lose, or nothing can be written."""
    path = options.out / CHECKPOINT
    if options.out.exists() and not options.out.is_dir():
        raise DataError(f"{options.out} is a file; choose another --out")
    is_under_way = (options.out / STATE).exists()
    if is_under_way and not options.resume:
        raise DataError(f"{options.out} holds a run that is not finished; go on with --resume, or choose another --out")
    if path.exists() and not is_under_way:
        raise DataError(f"{path} exists already; choose another --out, so that nothing you trained is lost")


def _configure(
    options: RunOptions, dataset: DataSet, size: int, device: torch.device, num_processes: int
) -> TrainingConfig:
    number = len(dataset.splits["train"])
    if not len(dataset.splits["val"]):
        raise DataError(f"{options.source} leaves no image for validation; add images or raise --val-fraction")
    if not number:
        raise DataError(f"{options.source} leaves 0 training images; lower --val-fraction and --test-fraction")
    defaults: dict[str, Any] = {
        "epochs": default_epochs(number),
        "batch_size": default_batch_size(number, num_processes),
        "optimizer": default_optimizer(options.architecture, options.pretrained),
        "whitening": options.architecture == "torchlight" and not options.pretrained and options.start_from is None,
        "frozen_epochs": 1 if options.pretrained else 0,
        "shift": size // 8,
        "cutout": size // 4,
        "precision": best_precision(device),
    }
    config = TrainingConfig(**(defaults | dict(options.settings)))
    if config.batch_size > number:
        raise DataError(f"{options.source} has {number} training images, fewer than one batch of {config.batch_size}")
    if config.batch_size % num_processes:
        lower = config.batch_size // num_processes * num_processes
        raise DataError(
            f"a batch of {config.batch_size} images cannot be divided equally among {num_processes} processes; "
            f"pass --batch-size {lower or num_processes}"
        )
    return config


def _check_classes(start: Checkpoint, dataset: DataSet) -> None:
    if start.header.class_names != dataset.class_names:
        known, found = (", ".join(names[:10]) for names in (start.header.class_names, dataset.class_names))
        raise DataError(f"{start.path} knows the classes {known}; the images are of {found}; both must be the same")


def _first_filters(network: nn.Module) -> Tensor:
    """Return a copy of the weights of the first convolution, on the CPU; none if there are very many."""
    convolution = first_convolution(network)
    if convolution is None or convolution.weight.numel() > MAX_FILTER_NUMBERS:
        return torch.empty(0)
    return convolution.weight.detach().cpu().clone()


def held_out_split(dataset: DataSet) -> str:
    """Return the name of the split that a run's final figures are of: ``test`` if there is one."""
    return "test" if len(dataset.splits["test"]) else "val"


def summary(metrics: Metrics) -> dict[str, Any]:
    """Return the figures that travel in the checkpoint."""
    return {
        "images": metrics.images,
        "accuracy": metrics.accuracy,
        "loss": metrics.loss,
        "calibration_error": metrics.calibration_error,
        "recall": {one.label: one.recall for one in metrics.per_class},
    }


def calibrate(network: nn.Module, spec: ImageSpec, dataset: DataSet) -> Calibration:
    """Divide the network's logits by the temperature that fits the validation images, and return what that changes.

    It is measured on the test images; without any, on the validation images, each with a temperature of others.
    """
    val, test = dataset.splits["val"], dataset.splits["test"]
    logits = infer(network, val.images, spec)
    temperature = fit_temperature(logits, val.labels)
    if len(test):
        unseen = infer(network, test.images, spec)
        measured = measure_calibration(unseen, unseen / temperature, test.labels, temperature)
    else:
        measured = measure_calibration(logits, divide_crosswise(logits, val.labels), val.labels, temperature)
    divide_logits(network, temperature)
    return measured


def count_images(dataset: DataSet) -> dict[str, list[int]]:
    """Return for each split how many images each class has."""
    number = len(dataset.class_names)
    return {name: torch.bincount(part.labels, minlength=number).tolist() for name, part in dataset.splits.items()}


def _describe(options: RunOptions, dataset: DataSet) -> Mapping[str, Any]:
    return {
        "source": Path(options.source).name,
        "fingerprint": dataset.fingerprint,
        "images": {name: len(examples) for name, examples in dataset.splits.items()},
        "skipped": len(dataset.skipped),
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
        "trained_at": time.strftime("%Y-%m-%d", time.gmtime()),
    }
