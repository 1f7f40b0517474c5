"""The straight path of a check: photos, features of a published network, held-out answers, findings, files.

Or a trained network in place of the published one, which answers as it is.

Prints nothing, and changes nothing of the photos.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from torchlight.model.checkpoint import Checkpoint
from torchlight.model.classifier import Classifier
from torchlight.model.defaults import cache_folder
from torchlight.model.errors import DataError
from torchlight.model.files.atomic import write_bytes
from torchlight.training.data.corrections import Correction, read_corrections, write_corrections
from torchlight.training.data.held_out import load_as_divided_in_training
from torchlight.training.data.source_photos import SourcePhotos, read_source
from torchlight.training.data.sources import shorten
from torchlight.training.evaluation.data_findings import DataFindings, find_in_data
from torchlight.training.report.check_page import render_check
from torchlight.training.report.report_text import count_noun
from torchlight.training.run_setup import Observer, RunStopped
from torchlight.training.run_transfer import BACKBONE
from torchlight.training.transfer.checkpoint_judge import judge_photos
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


def run_check_by(trained: Checkpoint, source: str, device: torch.device, observer: Observer) -> DataFindings:
    """Return what may be wrong with a source, judged by a trained network as it is.

    Raises:
        DataError: see :func:`training.data.source_photos.read_source`; or the network does not know a class.
        RunStopped: ``observer`` asked for it.
    """
    classifier = Classifier(trained, device)
    found = read_source(source, classifier.spec.resizing, on_image=observer.on_image)
    judged = judge_photos(classifier, found, partial(_report_stage, observer, "looking at photos"))
    notes = [_describe_strange(found, judged.strange), _warn_of_learnt(trained, source)]
    found = replace(found, warnings=(*found.warnings, *filter(None, notes)))
    return find_in_data(found, judged.features, judged.logits if len(found.class_names) > 1 else None)


def _describe_strange(found: SourcePhotos, strange: Sequence[int]) -> str:
    """Return a note on photos that a network takes for classes that the source does not have; nothing without any."""
    if not strange:
        return ""
    listed = shorten([found.photos.names[index] for index in strange], 3)
    return f"{count_noun(len(strange), 'photo')} taken for classes that the source does not have: {listed}"


def _warn_of_learnt(trained: Checkpoint, source: str) -> str:
    """Return a note if a network learnt from the source, or may have: then it doubts too few labels."""
    is_training_data = False
    with suppress(DataError):  # what it cannot learn from as it lies there, it did not learn from
        _, is_training_data = load_as_divided_in_training(trained, source, skip_unreadable=True)
    if is_training_data:
        return (
            "the network learnt from these photos, so it doubts too few of their labels; without --with each photo is "
            "judged by layers that had not seen it"
        )
    if trained.header.data.get("source") == Path(source).name:
        return (
            "the network was trained on a source of this name; if it learnt from some of these photos, it doubts too "
            "few of their labels"
        )
    return ""


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
