"""What the served model says of itself."""

from dataclasses import asdict

from fastapi import APIRouter

from torchlight.app.api.dependencies import RunningInspector, RunningService
from torchlight.app.api.schemas import (
    AnswerSetsBody,
    EngineBody,
    ModelResponse,
    PrecisionAccuracy,
    Preprocessing,
    SelfTestBody,
    SetFiguresBody,
    Versions,
)
from torchlight.app.api.summaries import summarise_model
from torchlight.app.inference.service import Service
from torchlight.model.checkpoint import explain_absent_sets
from torchlight.model.checks.self_test import SelfTest
from torchlight.model.engines.engine import Engine
from torchlight.model.network import count_parameters
from torchlight.model.uncertainty.novelty import Novelty
from torchlight.model.versions import library_versions

OLD = (
    "this checkpoint was made before networks could tell; train again, or run `torchlight calibrate` on it if it has "
    "validation images"
)
FEW = "this checkpoint was measured on fewer than 19 known images, too few to call one unknown; train with more"
router = APIRouter(prefix="/v1", tags=["model"])


@router.get("/model")
async def model(service: RunningService, inspector: RunningInspector) -> ModelResponse:
    """Describe the served model: classes, preprocessing, size, how it was trained and how well it did."""
    classifier = service.classifier
    header = classifier.checkpoint.header
    spec = classifier.spec
    return ModelResponse(
        **dict(summarise_model(service)),
        classes=list(classifier.class_names),
        preprocessing=Preprocessing(size=spec.size, mean=spec.mean, std=spec.std, resize=spec.resize),
        parameters=count_parameters(classifier.network),
        multiply_adds=service.multiply_adds,
        metrics=dict(header.metrics),
        training={name: value for name, value in header.training.items() if name != "command"},  # it holds paths
        device=str(classifier.device),
        engine=_engine(service.engine),
        answer_sets=_answer_sets(service),
        has_filmstrip=classifier.checkpoint.filmstrip is not None,
        has_index=inspector.has_index,
        no_unknown=_explain_no_unknown(classifier.checkpoint.novelty),
        has_mistakes=inspector.has_mistakes,
        self_test=service.self_test and _self_test(service.self_test),
        versions=Versions(training=dict(header.versions), serving=library_versions("torch", "pillow", "fastapi")),
    )


def _explain_no_unknown(novelty: Novelty | None) -> str | None:
    if novelty is None:
        return OLD
    return None if novelty.can_tell else FEW


def _engine(engine: Engine) -> EngineBody:
    quantisation = engine.quantisation
    return EngineBody(
        name=engine.name,
        difference=engine.difference,
        reason=engine.reason,
        precision="float32" if quantisation is None else "int8",
        accuracy=quantisation and PrecisionAccuracy(**vars(quantisation.accuracy)),
    )


def _answer_sets(service: Service) -> AnswerSetsBody:
    classifier = service.classifier
    sets = classifier.checkpoint.header.answer_sets
    return AnswerSetsBody(
        coverage=service.settings.coverage,
        measured=sets and SetFiguresBody(**asdict(sets.measured)),
        reason=explain_absent_sets(classifier.checkpoint),
    )


def _self_test(result: SelfTest) -> SelfTestBody:
    outcomes = [check.outcome for check in result.checks]
    return SelfTestBody(
        passed=outcomes.count("pass"),
        failed=outcomes.count("fail"),
        not_applicable=outcomes.count("not applicable"),
        seconds=result.seconds,
        checks=list(result.checks),
    )
