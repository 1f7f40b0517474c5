"""The straight path from a few photos: features of a published network, a last layer, and honest figures.

Every photo is learnt from. What the figures say of a photo comes from networks that did not learn from it. Writes
files, prints nothing.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchlight.model.canary import add_canary_distance, canary_answer
from torchlight.model.checkpoint import Header, load_checkpoint, save_checkpoint
from torchlight.model.defaults import cache_folder
from torchlight.model.errors import DataError
from torchlight.model.images import ImageSpec, Resizing
from torchlight.model.network import NetworkConfig, count_multiply_adds, default_image_size, describe_backbone
from torchlight.model.uncertainty.answer_sets import measure_answer_sets
from torchlight.model.versions import library_versions
from torchlight.model.views.embedding import to_embeddings
from torchlight.model.views.kept_mistakes import mistakes_path, save_mistakes
from torchlight.training.config import DEFAULT_ARCHITECTURE, RunOptions, default_budget_s
from torchlight.training.data.held_out import HeldOut, select_cross_validated, select_held_out
from torchlight.training.data.loading import DataSet, LabelledImages, decode_again, load_dataset
from torchlight.training.data.source_photos import SourcePhotos
from torchlight.training.evaluation.calibration import Calibration, measure_calibration
from torchlight.training.evaluation.classification_metrics import compute_metrics, infer
from torchlight.training.evaluation.collect_mistakes import collect_mistakes
from torchlight.training.evaluation.cross_validation import CandidateResult, CrossValidation, summarise_cross_validation
from torchlight.training.evaluation.data_findings import find_in_data
from torchlight.training.evaluation.evaluate_checkpoint import Evaluation, evaluate_checkpoint, summarise_metrics
from torchlight.training.evaluation.fit_novelty import (
    KnownImages,
    choose_entropy_weight,
    distances_crosswise,
    fit_novelty,
)
from torchlight.training.report.report import make_report, summarise_run, write_report
from torchlight.training.run_folder import CHECKPOINT, check_run_folder
from torchlight.training.run_setup import Observer, RunStopped, describe_data
from torchlight.training.transfer.feature_cache import compute_once, name_source
from torchlight.training.transfer.features import (
    Backbone,
    attach_head,
    compile_features,
    extract_features,
    load_backbone,
)
from torchlight.training.transfer.folds import FOLDS, assign_folds
from torchlight.training.transfer.head_choice import (
    HeadChoice,
    choose_heads,
    describe_heads,
    fit_again,
    fit_all_heads,
    may_be_mirrored,
)
from torchlight.training.transfer.recipes import FROM_NOTHING, name_fine_tuned, recipe_fine_tuned, recipe_from_nothing
from torchlight.training.transfer.trained_candidates import Recipe, try_training, without_figures

BACKBONE = "efficientnet_lite2"  # right on 2 to 3 of 100 photos more than lite0, see docs/log.md
REPORT_S = 2.5  # of the budget are left for the report,
FINDING_S = 0.0015  # and for each photo, to find what may be wrong with it
MIRRORED = 300  # photos at most, spread evenly, that tell whether mirror images are of the same class
MIRRORING_S = 6.0  # with less time left no training would fit, so mirror images need not be looked at


@dataclass(frozen=True)
class TransferResult:
    """Where the checkpoint is, and what to say of it.

    Attributes:
        summary: sentences on how good it is.
        seconds: from the first photo to the report.
    """

    checkpoint: Path
    summary: Sequence[str]
    seconds: float


@dataclass(frozen=True)
class Learnt:
    """The network that won, and its answers to photos that it, or its like, did not learn from.

    Attributes:
        judged: (N,) bool, the photos that the logits are of.
        logits, undivided_logits: (M, K) of those, with and without a temperature that they had no part in.
        distances: (M, K) of those to each class, by embeddings that had not learnt from them.
        embeddings: (N, D) of all photos.
        is_frozen: whether the layers before the last one learnt from no photo.
    """

    architecture: str
    network: nn.Module
    spec: ImageSpec
    judged: Tensor
    logits: Tensor
    undivided_logits: Tensor
    distances: Tensor
    embeddings: Tensor
    is_frozen: bool
    temperature: float
    candidates: Sequence[CandidateResult]
    reason: str


def transfer(
    options: RunOptions, device: torch.device, command: str, observer: Observer, began: float | None = None
) -> TransferResult:
    """Let the photos choose how to learn, learn from all of them, and write everything to ``options.out``.

    Writes ``checkpoint.safetensors``, ``report.html`` and ``confusion.png``: the checkpoint as soon as heads on frozen
    features are fitted, and again if a trained network is better. A run that exists is never overwritten.

    Args:
        command: the command line, kept in the checkpoint.
        began: when the command did, by ``time.monotonic``; without it, now.

    Raises:
        DataError: see :func:`training.data.loading.load_dataset`.
        NetworkError: the backbone's weights are not installed or damaged; nothing is decoded then.
        RunStopped: ``observer`` asked for it before anything was learnt.
    """
    began = time.monotonic() if began is None else began
    check_run_folder(options.out, resume=False)
    backbone = load_backbone(options.architecture or BACKBONE)
    dataset = _load(options, backbone.spec.resizing, observer)
    photos = select_cross_validated(dataset)
    if not len(photos):
        raise DataError(f"{options.source} leaves nothing to learn from: all photos are held out, or copies of such")
    observer.on_data(dataset, None)
    budget_s = default_budget_s(len(photos)) if options.budget_s is None else options.budget_s
    deadline = began + budget_s - REPORT_S - FINDING_S * len(photos)

    folds = assign_folds(photos.labels, photos.groups, options.seed)
    compute = cache(partial(compile_features, backbone, device))  # at most once, and not if the features are cached
    features = _compute_features(options, backbone, photos.images, compute, observer)
    heads = fit_all_heads(
        features, photos.labels, folds, backbone.blocks, partial(_report_stage, observer, "fitting heads")
    )
    choice = choose_heads(heads, photos.labels, folds)
    learnt = _learn_heads(backbone, choice, photos, folds, features, time.monotonic() - began)
    path = options.out / CHECKPOINT
    header = _describe_run(options, dataset, device, command, backbone)
    check_run_folder(options.out, resume=False)  # another run may have been faster
    _save(path, learnt, header, photos, dataset, began)

    decode = cache(partial(_decode, options, dataset, backbone.spec.resizing, observer))
    with suppress(RunStopped):  # what is best so far is kept
        flip = True
        if time.monotonic() + MIRRORING_S < deadline:
            some = torch.linspace(0, len(photos) - 1, min(len(photos), MIRRORED)).long()
            mirrored = _compute_features(options, backbone, photos.images[some].flip(3), compute, observer, "-mirrored")
            flip = may_be_mirrored(choice, features[some], mirrored, photos.labels[some], folds[some], backbone.blocks)
        fit = partial(fit_again, choice.chosen[0], features, photos.labels, backbone.blocks)
        for name, make_recipe in _list_trials(options, backbone, photos, decode, flip, fit, device):
            if time.monotonic() > deadline:
                learnt = dataclasses.replace(learnt, candidates=[*learnt.candidates, without_figures(name)])
                continue
            best, learnt = learnt, _try(make_recipe(), learnt, folds, deadline, device, observer)
            if learnt.network is not best.network:
                _save(path, learnt, header, photos, decode(learnt.spec.resizing), began)
    source, dataset = Path(options.source).name, decode(learnt.spec.resizing)
    last = features[:, backbone.blocks["last"]]
    evaluation, cross_validation = _evaluate(path, learnt, photos, dataset, last)
    if options.keep_mistakes:
        kept = collect_mistakes(_show_as_answered(evaluation, learnt, dataset), source)
        save_mistakes(mistakes_path(path), kept)
    report = make_report(evaluation, source=source, command=command, cross_validation=cross_validation)
    write_report(options.out, report)
    return TransferResult(path, summarise_run(report), time.monotonic() - began)


def _load(options: RunOptions, resizing: Resizing, observer: Observer) -> DataSet:
    return load_dataset(
        options.source,
        resizing,
        val_fraction=0.0,
        test_fraction=options.test_fraction or 0.0,
        seed=options.seed,
        skip_unreadable=options.skip_unreadable,
        corrections=options.corrections,
        on_image=observer.on_image,
    )


def _report_stage(observer: Observer, name: str, done: int, total: int) -> None:
    """Report how far a stage is; raise RunStopped if somebody wants to stop."""
    observer.on_stage(name, done, total)
    if observer.should_stop():
        raise RunStopped(
            f"stopped while {name}; nothing was chosen yet, and what was computed is kept for the next run"
        )


def _compute_features(
    options: RunOptions,
    backbone: Backbone,
    images: Tensor,
    compile_once: Callable[[], Callable[[Tensor], Tensor]],
    observer: Observer,
    form: str = "",
) -> Tensor:
    """Return the features (N, D) of images, from the cache or into it; ``form`` tells mirror images apart there."""

    def compute() -> Tensor:
        return extract_features(compile_once(), images, partial(_report_stage, observer, "looking at photos"))

    return compute_once(cache_folder(), name_source(options.source) + form, images, backbone.digest, compute)


def _learn_heads(
    backbone: Backbone, choice: HeadChoice, photos: LabelledImages, folds: Tensor, features: Tensor, seconds: float
) -> Learnt:
    """Return the backbone with the chosen heads folded into its last layer."""
    embeddings = to_embeddings(features[:, backbone.blocks["last"]])  # (N, D)
    architecture, network = attach_head(backbone, choice.weight, choice.bias)
    candidates = describe_heads(choice, photos.labels, backbone.architecture, seconds)
    return Learnt(
        architecture=architecture,
        network=network,
        spec=backbone.spec,
        judged=torch.ones(len(photos), dtype=torch.bool),
        logits=choice.held_out_logits,
        undivided_logits=choice.undivided_logits,
        distances=distances_crosswise(embeddings, photos.labels, folds, photos.groups, choice.weight.shape[0]),
        embeddings=embeddings,
        is_frozen=True,
        temperature=choice.temperature,
        candidates=candidates,
        reason=f"The mean of the {len(choice.chosen)} heads with the lowest loss on photos they had not seen was kept.",
    )


def _try(
    recipe: Recipe,
    learnt: Learnt,
    folds: Tensor,
    deadline: float,
    device: torch.device,
    observer: Observer,
) -> Learnt:
    """Return what has learnt best so far: the recipe's network, if it is right more often."""
    rival = torch.zeros(len(folds), learnt.logits.shape[1])
    rival[learnt.judged] = learnt.logits
    result, trained = try_training(
        recipe,
        torch.where(learnt.judged, folds, -1),
        rival,
        deadline,
        device,
        partial(_report_stage, observer, f"trying {recipe.name}"),
    )
    if trained is None:
        return dataclasses.replace(learnt, candidates=[*learnt.candidates, result])
    others = [dataclasses.replace(one, is_chosen=False) for one in learnt.candidates]
    return Learnt(
        architecture=recipe.architecture,
        network=trained.network,
        spec=recipe.spec,
        judged=trained.judged,
        logits=trained.held_out_logits,
        undivided_logits=trained.undivided_logits,
        distances=trained.distances,
        embeddings=trained.embeddings,
        is_frozen=False,
        temperature=trained.temperature,
        candidates=[result, *others],
        reason=f"The network that was trained was {result.note}.",
    )


def _save(path: Path, learnt: Learnt, header: Header, photos: LabelledImages, dataset: DataSet, began: float) -> None:
    """Write the checkpoint with its figures: of cross-validation, and of the test images if there are any."""
    test, names = dataset.splits["test"], dataset.class_names
    calibration, labels = _calibrate(learnt, photos), photos.labels[learnt.judged]
    cross_validated = summarise_cross_validation(compute_metrics(learnt.logits, labels, names), FOLDS)
    figures: dict[str, Any] = {"cross_validation": cross_validated}
    if len(test):
        logits = infer(learnt.network, test.images, learnt.spec)  # (N, K)
        figures["test"] = summarise_metrics(compute_metrics(logits, test.labels, names))
    figures["calibration"] = {name: value for name, value in vars(calibration).items() if name != "reliability"}
    cost = {
        "seconds": round(time.monotonic() - began),
        "multiply_adds_per_image": count_multiply_adds(learnt.network, learnt.spec.size),
    }
    training = {**header.training, **cost}
    if learnt.architecture == DEFAULT_ARCHITECTURE:
        del training["backbone"]  # it began from nothing
    known = KnownImages(learnt.distances, labels, learnt.logits, "photos, cross-validated", learnt.is_frozen)
    novelty = fit_novelty(learnt.embeddings, photos.labels, known, choose_entropy_weight(training))
    header = dataclasses.replace(
        header,
        network=NetworkConfig(learnt.architecture, len(names)),
        image_spec=learnt.spec,
        metrics=figures,
        training=training,
        golden=canary_answer(learnt.network, learnt.spec),
        answer_sets=measure_answer_sets(learnt.logits, labels, names),
    )
    novelty = add_canary_distance(novelty, learnt.network, learnt.spec)
    save_checkpoint(path, learnt.network, header, novelty=novelty)


def _evaluate(
    path: Path, learnt: Learnt, photos: LabelledImages, dataset: DataSet, features: Tensor
) -> tuple[Evaluation, CrossValidation]:
    """Return what the report is of: the test images if there are any, else the photos that were judged.

    Args:
        features: (N, D) of the backbone's last layer, of ``photos``, which has the backbone's size.
        dataset: the same photos and others in the size of the network that is kept.
    """
    checkpoint = load_checkpoint(path)
    calibration = _calibrate(learnt, photos)
    judged = photos.select(learnt.judged)
    as_source = SourcePhotos(dataset.class_names, judged, too_alike=dataset.too_alike)
    findings = find_in_data(as_source, features[learnt.judged], learnt.logits)
    cross_validation = CrossValidation(
        FOLDS, judged, learnt.logits, calibration, learnt.candidates, learnt.reason, findings
    )
    if len(dataset.splits["test"]):
        return evaluate_checkpoint(checkpoint, select_held_out(dataset), torch.device("cpu")), cross_validation
    metrics = compute_metrics(learnt.logits, judged.labels, dataset.class_names)
    split = "all photos" if len(judged) == len(photos) else f"{len(judged):,} of {len(photos):,} photos"
    held_out = HeldOut(split, "cross_validated", judged, dataset)
    return Evaluation(checkpoint, held_out, metrics, calibration), cross_validation


def _show_as_answered(evaluation: Evaluation, learnt: Learnt, dataset: DataSet) -> Evaluation:
    """Return the evaluation with its photos as the network that is kept gets them, not the backbone."""
    if evaluation.held_out.exposure != "cross_validated":
        return evaluation
    judged = select_cross_validated(dataset).select(learnt.judged)
    return dataclasses.replace(evaluation, held_out=dataclasses.replace(evaluation.held_out, examples=judged))


def _calibrate(learnt: Learnt, photos: LabelledImages) -> Calibration:
    labels = photos.labels[learnt.judged]
    return measure_calibration(learnt.undivided_logits, learnt.logits, labels, learnt.temperature)


def _describe_run(
    options: RunOptions, dataset: DataSet, device: torch.device, command: str, backbone: Backbone
) -> Header:
    """Return the header of the run's checkpoint, without the network and its figures."""
    training: dict[str, Any] = {
        "command": command,
        "device": device.type,
        "seed": options.seed,
        "start_from": None,
        "backbone": describe_backbone(backbone.architecture),
    }
    data = describe_data(options, dataset, 0.0, options.test_fraction or 0.0)
    data["images"] = {name: number for name, number in data["images"].items() if number}
    return Header(
        network=NetworkConfig(backbone.architecture, len(dataset.class_names)),
        class_names=dataset.class_names,
        image_spec=backbone.spec,
        metrics={},
        training=training,
        data=data,
        versions=library_versions("torch", "torchvision", "pillow", "safetensors"),
    )


def _list_trials(
    options: RunOptions,
    backbone: Backbone,
    photos: LabelledImages,
    decode: Callable[[Resizing], DataSet],
    flip: bool,
    fit: Callable[[Tensor], tuple[Tensor, Tensor]],
    device: torch.device,
) -> Iterator[tuple[str, Callable[[], Recipe]]]:
    """Yield the name of each training to try, and what prepares it when its turn comes."""
    num_classes = int(photos.labels.max()) + 1
    resizing = Resizing(default_image_size(DEFAULT_ARCHITECTURE))

    def begin_from_nothing() -> Recipe:
        return recipe_from_nothing(select_cross_validated(decode(resizing)), num_classes, flip, device, options.seed)

    yield FROM_NOTHING, begin_from_nothing
    yield (
        name_fine_tuned(backbone),
        partial(recipe_fine_tuned, photos, backbone, fit, flip, device, options.seed),
    )


def _decode(options: RunOptions, dataset: DataSet, known: Resizing, observer: Observer, resizing: Resizing) -> DataSet:
    """Return the data set with its images resized for another network, unless they are already."""
    if resizing == known:
        return dataset
    return decode_again(options.source, dataset, resizing, partial(_report_stage, observer, "reading images again"))
