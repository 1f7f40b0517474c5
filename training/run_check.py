"""The straight path of a check: photos, features of a published network, held-out answers, findings, files.

Prints nothing, and changes nothing of the photos.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from torchlight.model.defaults import cache_folder
from torchlight.model.files.atomic import write_bytes
from torchlight.training.data.corrections import Correction, read_corrections, write_corrections
from torchlight.training.data.source_photos import read_source
from torchlight.training.evaluation.data_findings import DataFindings, find_in_data
from torchlight.training.report.check_page import render_check
from torchlight.training.run_setup import Observer, RunStopped
from torchlight.training.run_transfer import BACKBONE
from torchlight.training.transfer.feature_cache import compute_once, name_source
from torchlight.training.transfer.features import compile_features, extract_features, load_backbone
from torchlight.training.transfer.label_check import answer_held_out

PAGE, CORRECTIONS = "check.html", "corrections.csv"


@dataclass(frozen=True)
class CheckFiles:
    """The files that a check wrote: the page to look at, and the decisions."""

    page: Path
    corrections: Path


def run_check(source: str, device: torch.device, observer: Observer) -> DataFindings:
    """Return what may be wrong with a source, read as ``torchlight train`` would.

    Raises:
        DataError: see :func:`training.data.source_photos.read_source`.
        NetworkError: the backbone's weights are not installed or damaged; nothing is decoded then.
        RunStopped: ``observer`` asked for it.
    """
    backbone = load_backbone(BACKBONE)
    found = read_source(source, backbone.spec.resizing, on_image=observer.on_image)
    photos = found.photos
    features = compute_once(
        cache_folder(),
        name_source(source),
        photos.images,
        backbone.digest,
        lambda: extract_features(
            compile_features(backbone, device), photos.images, partial(_report_stage, observer, "looking at photos")
        ),
    )  # (N, D)
    logits = None
    if len(found.class_names) > 1:
        report = partial(_report_stage, observer, "checking labels")
        logits = answer_held_out(features, photos.labels, photos.groups, backbone.blocks, report)  # (N, K)
    return find_in_data(found, features[:, backbone.blocks["last"]], logits)


def _report_stage(observer: Observer, name: str, done: int, total: int) -> None:
    observer.on_stage(name, done, total)
    if observer.should_stop():
        raise RunStopped(f"stopped while {name}; what was computed is kept for the next check")


def read_earlier_decisions(folder: Path) -> dict[str, Correction]:
    """Return the decisions that an earlier check's folder holds, by file; none if there is no such folder.

    Raises:
        DataError: see :func:`training.data.corrections.read_corrections`.
    """
    path = folder / CORRECTIONS
    rows = read_corrections(path) if path.exists() else {}
    return {file: one for file, one in rows.items() if one.action}


def write_check(folder: Path, findings: DataFindings, source: str, earlier: Mapping[str, Correction]) -> CheckFiles:
    """Write ``check.html`` with the photos that are listed, and ``corrections.csv`` with a row for each.

    The actions are those of ``earlier`` and open for all others.

    Raises:
        OSError: the folder cannot be written; older files are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = CheckFiles(folder / PAGE, folder / CORRECTIONS)
    write_bytes(files.page, render_check(findings, source, earlier).encode())
    write_corrections(files.corrections, [*earlier.values(), *_list_undecided(findings, earlier)])
    return files


def _list_undecided(findings: DataFindings, earlier: Mapping[str, Correction]) -> Iterator[Correction]:
    """Yield a row for each listed photo and each unreadable file that nobody has decided about."""
    names, class_names = findings.source.photos.names, findings.source.class_names
    for index, found in findings.by_photo().items():
        if names[index] not in earlier:
            suggested = next((class_names[one.suggestion] for one in found if one.suggestion is not None), "")
            yield Correction(names[index], "", suggested, "; ".join(one.reason for one in found))
    for note in findings.source.unreadable:
        if note.file not in earlier:
            yield Correction(note.file, "", "", f"cannot be read: {note.reason}")
