"""The straight path of a training run: set up, train, finish.

Writes files, prints nothing: the command line shows what the callbacks report.
"""

import dataclasses
import errno
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchlight.model.canary import canary_answer
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.network import describe_backbone
from torchlight.model.versions import library_versions
from torchlight.model.views.kept_mistakes import mistakes_path, save_mistakes
from torchlight.training.config import RunOptions
from torchlight.training.data.held_out import select_held_out
from torchlight.training.data.loading import DataSet, LabelledImages
from torchlight.training.evaluation.classification_metrics import Metrics
from torchlight.training.evaluation.collect_mistakes import collect_mistakes
from torchlight.training.evaluation.evaluate_checkpoint import (
    calibrate,
    evaluate_checkpoint,
    measure_uncertainty,
    summarise_metrics,
)
from torchlight.training.optimisation.distributed import Processes, ProcessLost
from torchlight.training.optimisation.filter_history import select_frames
from torchlight.training.optimisation.loop import StepResult, Training, TrainingDiverged
from torchlight.training.report.report import make_report, write_report
from torchlight.training.run_folder import RunFolder, check_run_folder
from torchlight.training.run_setup import Observer, RunStopped, Setup, describe_data, held_out_share, set_up

# What the system says when a file cannot be written, and the way out.
WRITE_ERRORS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room") | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"
)


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


def train(
    options: RunOptions, device: torch.device, command: str, observer: Observer, processes: Processes | None = None
) -> RunResult | None:
    """Train, keep the best epoch by validation accuracy, evaluate it once, and write everything to ``options.out``.

    Writes ``checkpoint.safetensors``, ``metrics.jsonl``, ``report.html``, ``curves.png``, ``confusion.png`` and, in
    ``snapshots``, the network after epochs 0, 1, 2, 4, 8, ...; until it is finished also ``state.safetensors``. Nothing
    is written there before the data is read and found good; a run that exists is never overwritten.

    Args:
        device: of this process.
        command: the command line, kept in the checkpoint.
        processes: that train together; the first one writes the files. Without it, this one alone.

    Returns:
        None in all processes but the first, which also is the one to raise what ends all of them.

    Raises:
        CheckpointError, DataError, NetworkError, StateError, TrainingDiverged: see there.
        RunStopped: ``observer`` of some process asked for it, a file cannot be written or read, or a process has died.
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
        check_run_folder(options.out, resume=options.resume)
        setup = set_up(options, device, observer, processes.number)
        training = Training(
            setup.network,
            setup.dataset.splits["train"],
            setup.spec,
            setup.config,
            class_weights=setup.class_weights,
            processes=processes,
        )
        run = RunFolder(options.out, _describe_run(options, setup, device, command), training)
        if options.resume:
            run.resume()
    val = setup.dataset.splits["val"]
    ask = observer.should_stop
    observer = dataclasses.replace(observer, should_stop=lambda: processes.is_any(ask()))
    if processes.rank > 0:
        _follow(training, val, observer.should_stop)
        return None
    with _kept_when_stopped(run):
        with processes.watched():
            _train_epochs(run, training, val, observer)
        return _finish(run, training, setup.dataset, device, keep_mistakes=options.keep_mistakes)


def _train_epochs(run: RunFolder, training: Training, val: LabelledImages, observer: Observer) -> None:
    """Train to the end, saving on the way."""
    run.prepare()

    def on_step(result: StepResult) -> None:
        observer.on_step(result)
        if observer.should_stop():
            run.save()
            raise RunStopped(f"stopped after step {result.step}; repeat the command with --resume to continue")
        run.save_if_due()

    for result in training.epochs(val, on_step):
        run.add_epoch(result)
        observer.on_epoch(result)


def _follow(training: Training, val: LabelledImages, should_stop: Callable[[], bool]) -> None:
    """Compute this process's part to the end of the training; the first process reports how it ends."""

    def on_step(_result: StepResult) -> None:
        if should_stop():
            raise RunStopped

    with suppress(RunStopped, TrainingDiverged):
        deque(training.epochs(val, on_step), maxlen=0)


def _finish(
    run: RunFolder, training: Training, dataset: DataSet, device: torch.device, *, keep_mistakes: bool
) -> RunResult:
    """Calibrate the best epoch, evaluate it on the test images (without any, on the validation images), and report.

    Each step may be repeated: a run that was killed between two of them finishes when it is resumed.
    """
    held_out, best = select_held_out(dataset), load_checkpoint(run.checkpoint)
    header, network = best.header, best.network.to(device)
    known = header.metrics.get("calibration", {}).get("temperature")  # else the checkpoint is not calibrated yet
    calibration = calibrate(network, header.image_spec, dataset, known)
    if known is None:
        sets, novelty = measure_uncertainty(network, header, dataset)
        header = dataclasses.replace(header, answer_sets=sets)
    evaluation = evaluate_checkpoint(dataclasses.replace(best, header=header), held_out, device)
    if known is None:
        figures = {name: value for name, value in vars(calibration).items() if name != "reliability"}
        history = [dataclasses.asdict(result) for result in run.history]
        header = dataclasses.replace(
            header,
            metrics={**header.metrics, held_out.split: summarise_metrics(evaluation.metrics), "calibration": figures},
            training={**header.training, **training.cost(run.history), "history": history},
            golden=canary_answer(network.cpu(), header.image_spec),
        )
        save_checkpoint(run.checkpoint, network, header, select_frames(run.filters), novelty)
    done = load_checkpoint(run.checkpoint)
    evaluation = dataclasses.replace(evaluation, checkpoint=done, calibration=calibration)
    if keep_mistakes:
        save_mistakes(mistakes_path(run.checkpoint), collect_mistakes(evaluation, done.header.data["source"]))
    report = make_report(
        evaluation,
        source=done.header.data["source"],
        command=done.header.training["command"],
        history=run.history,
        filters=run.filters,
    )
    write_report(run.path, report)
    run.close()
    return RunResult(
        checkpoint=run.checkpoint,
        best_epoch=done.header.metrics["best_epoch"],
        split=held_out.split,
        metrics=evaluation.metrics,
        seconds=done.header.training["seconds"],
        flops=done.header.training["flops"],
    )


@contextmanager
def _kept_when_stopped(run: RunFolder) -> Iterator[None]:
    """Say, when a run ends before its time, what is left of it and how to continue."""
    try:
        yield
    except TrainingDiverged as error:
        raise TrainingDiverged(f"{error}; {run.describe_rest()}") from error
    except ProcessLost as error:
        raise RunStopped(f"{error}; {run.describe_rest()}; repeat the command with --resume to continue") from error
    except OSError as error:
        reason, way_out = _explain_os_error(error, run.path)
        raise RunStopped(f"{reason}; {run.describe_rest()}; {way_out} and repeat the command with --resume") from error


def _explain_os_error(error: OSError, folder: Path) -> tuple[str, str]:
    """Return what happened to which file, and what to do: a file of the run that cannot be written, or any other."""
    if error.errno is None:  # safetensors gives only a text, which names file and reason
        return str(error), "make room"
    name, reason = error.filename or folder, error.strerror or error
    if error.errno in WRITE_ERRORS and Path(name).is_relative_to(folder):
        return f"{name} cannot be written ({reason})", WRITE_ERRORS[error.errno]
    return f"{name} cannot be used ({reason})", "mend that"


def _describe_run(options: RunOptions, setup: Setup, device: torch.device, command: str) -> Header:
    """Return the header of the run's checkpoints, without figures."""
    dataset = setup.dataset
    training: dict[str, Any] = dataclasses.asdict(setup.config) | {
        "command": command,
        "device": device.type,
        "start_from": setup.start and setup.start.digest,
    }
    if options.pretrained:
        training["backbone"] = describe_backbone(options.loop_architecture)
    elif setup.start is not None and "backbone" in setup.start.header.training:
        training["backbone"] = setup.start.header.training["backbone"]
    shares = (held_out_share(share) for share in (options.val_fraction, options.test_fraction))
    data = describe_data(options, dataset, *shares)
    return Header(
        network=setup.network_config,
        class_names=dataset.class_names,
        image_spec=setup.spec,
        metrics={},
        training=training,
        data=data,
        versions=library_versions("torch", "torchvision", "pillow", "safetensors"),
    )
