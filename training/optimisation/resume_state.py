"""An unfinished run on disk: everything it needs to continue as if it had never stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from torchlight.model.errors import TorchlightError
from torchlight.model.files.tensor_file import FileKind, open_tensors, save_tensors
from torchlight.training.optimisation.loop import EpochResult


class StateError(TorchlightError):
    """The state of a run cannot be used."""


KIND = FileKind(
    noun="state of a run",
    command="torchlight train",
    format="torchlight-state",
    version="2",
    documents=("identity", "history"),
    error=StateError,
)


@dataclass(frozen=True)
class RunState:
    """Where a run is.

    Attributes:
        identity: what makes it this run and no other: network, configuration, fingerprint of the data.
        history: the finished epochs.
        filters: (E, C, 3, k, k) the first layer's filters before training and after each of these epochs.
        training: of :meth:`training.optimisation.loop.Training.state`.
    """

    identity: Mapping[str, Any]
    history: Sequence[EpochResult]
    filters: Tensor
    training: Mapping[str, Tensor]


def save_state(path: Path, state: RunState) -> None:
    """Write the file so that at every moment either the old or the new one is there, whole.

    Raises:
        OSError: it cannot be written; an older file at ``path`` is untouched.
    """
    tensors = {f"training/{name}": value.contiguous() for name, value in state.training.items()}
    documents = {"identity": state.identity, "history": [asdict(result) for result in state.history]}
    save_tensors(path, KIND, tensors | {"filters": state.filters.contiguous()}, documents)


def load_state(path: Path, identity: Mapping[str, Any]) -> RunState:
    """Return the state of the run with that identity.

    Raises:
        StateError: the file cannot be used, or belongs to another run; the message names what differs.
    """
    with open_tensors(path, KIND) as (file, documents):
        _check_identity(path, documents["identity"], identity)
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        filters = tensors.pop("filters")
        training = {name.removeprefix("training/"): value for name, value in tensors.items()}
        return RunState(identity, [EpochResult(**one) for one in documents["history"]], filters, training)


def _check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if differing:
        was, now = (", ".join(f"{name} {one.get(name)}" for name in differing) for one in (found, wanted))
        raise StateError(
            f"{path} is of another run ({was}; now {now}); repeat its command with --resume, or choose another --out"
        )
