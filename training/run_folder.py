"""The files of a run: which there are, when they are written, and how a run is resumed from them."""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from torchlight.model.checkpoint import Header, save_checkpoint
from torchlight.model.errors import DataError
from torchlight.model.files.atomic import write_bytes
from torchlight.model.views.kept_mistakes import mistakes_path
from torchlight.training.optimisation.filter_history import first_filters
from torchlight.training.optimisation.loop import EpochResult, Training, best_epoch
from torchlight.training.optimisation.resume_state import RunState, load_state, save_state
from torchlight.training.report.report import REPORT_FILES

CHECKPOINT, STATE, METRICS, SNAPSHOTS = "checkpoint.safetensors", "state.safetensors", "metrics.jsonl", "snapshots"
SAVE_EVERY_S = 60  # a crash costs at most this much training, and the step or validation under way


def check_run_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that holds something to lose, and a file in its place.

    Raises:
        DataError: it is a file, or holds a finished run, or an unfinished one that is not to be resumed.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; choose another --out")
    is_under_way = (folder / STATE).exists()
    if is_under_way and not resume:
        raise DataError(f"{folder} holds a run that is not finished; resume it with --resume, or choose another --out")
    if (folder / CHECKPOINT).exists() and not is_under_way:
        raise DataError(
            f"{folder / CHECKPOINT} exists already; choose another --out, so that nothing you trained is lost"
        )


class RunFolder:
    """The files of one run, kept up to date while it trains.

    Attributes:
        checkpoint: path of the best epoch's network.
        history: the finished epochs.
        filters: the first layer's, before training and after each finished epoch; see
            :mod:`training.optimisation.filter_history`.
    """

    def __init__(self, path: Path, header: Header, training: Training) -> None:
        """Write nothing yet.

        Args:
            header: of the run's checkpoints, without figures.
        """
        self.path, self.checkpoint = path, path / CHECKPOINT
        self._header, self._training = header, training
        self._saved_at = time.monotonic()
        self.history: list[EpochResult] = []
        self.filters = [first_filters(training.network)]

    def resume(self) -> None:
        """Continue the run that is in the folder, if it had come far enough to be saved.

        Raises:
            StateError: the folder's run is another one.
        """
        if (self.path / STATE).exists():
            state = load_state(self.path / STATE, self._identity())
            self.history, self.filters = list(state.history), list(state.filters)
            self._training.restore(state.training)

    def prepare(self) -> None:
        """Make the folder ready for the first step: without what a killed run left of files it was writing."""
        self.path.mkdir(parents=True, exist_ok=True)
        mistakes = mistakes_path(self.checkpoint).name
        for name in (CHECKPOINT, STATE, METRICS, mistakes, *REPORT_FILES, f"{SNAPSHOTS}/epoch-*"):
            folder, _, pattern = f"/{name}".rpartition("/")
            for leftover in (self.path / folder.lstrip("/")).glob(f".{pattern}.*.part"):
                leftover.unlink(missing_ok=True)
        if not self.history:
            self._save_snapshot(0)
        self._write_metrics()

    def add_epoch(self, result: EpochResult) -> None:
        """Save what an epoch has changed, the checkpoint if it is the best one so far."""
        self.history.append(result)
        self.filters.append(first_filters(self._training.network))
        self._save_snapshot(result.epoch)
        if result is best_epoch(self.history):
            save_checkpoint(self.checkpoint, self._training.network, self._header_of(result))
        self.save()
        self._write_metrics()

    def save(self) -> None:
        """Save all that the rest of the run depends on."""
        state = RunState(self._identity(), self.history, torch.stack(self.filters), self._training.state())
        save_state(self.path / STATE, state)
        self._saved_at = time.monotonic()

    def save_if_due(self) -> None:
        """Save if the last time was more than ``SAVE_EVERY_S`` ago."""
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def close(self) -> None:
        """Remove what only an unfinished run needs."""
        (self.path / STATE).unlink(missing_ok=True)

    def describe_rest(self) -> str:
        """Return a clause that says what an interrupted run leaves behind."""
        if not self.history:
            return "no epoch was finished"
        best = best_epoch(self.history)
        share = f"{best.val_accuracy:.2%} of the validation images right"
        return f"{self.checkpoint} holds epoch {best.epoch}, with {share}"

    def _header_of(self, result: EpochResult) -> Header:
        figures = {"accuracy": result.val_accuracy, "loss": result.val_loss}
        return dataclasses.replace(self._header, metrics={"best_epoch": result.epoch, "val": figures})

    def _save_snapshot(self, epoch: int) -> None:
        """Keep the whole network at epochs 0, 1, 2, 4, 8, ...: early ones differ most."""
        if epoch & (epoch - 1) == 0:  # 0 or a power of two
            header = self._header_of(self.history[-1]) if self.history else self._header
            save_checkpoint(self.path / SNAPSHOTS / f"epoch-{epoch:03d}.safetensors", self._training.network, header)

    def _write_metrics(self) -> None:
        lines = [json.dumps(dataclasses.asdict(result)) + "\n" for result in self.history]
        write_bytes(self.path / METRICS, "".join(lines).encode())

    def _identity(self) -> Mapping[str, Any]:
        """Return what distinguishes this run from any other: the network, the configuration and the data."""
        config = {name: value for name, value in self._header.training.items() if name != "command"}
        return config | {
            "architecture": self._header.network.architecture,
            "classes": len(self._header.class_names),
            "image_size": self._header.image_spec.size,
            "data": self._header.data["fingerprint"],
        }
