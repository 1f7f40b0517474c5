"""What the served model says of itself."""

from fastapi import APIRouter

from torchlight.app.api.dependencies import RunningInspector, RunningService
from torchlight.app.api.schemas import (
    EngineBody,
    ModelResponse,
    PrecisionAccuracy,
    Preprocessing,
    SelfTestBody,
    Versions,
)
from torchlight.app.api.summaries import summarise_model
from torchlight.model.checks.self_test import SelfTest
from torchlight.model.engines.engine import Engine
from torchlight.model.network import count_parameters
from torchlight.model.versions import library_versions

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
        has_filmstrip=classifier.checkpoint.filmstrip is not None,
        has_index=inspector.has_index,
        has_mistakes=inspector.has_mistakes,
        self_test=service.self_test and _self_test(service.self_test),
        versions=Versions(training=dict(header.versions), serving=library_versions("torch", "pillow", "fastapi")),
    )


def _engine(engine: Engine) -> EngineBody:
    quantisation = engine.quantisation
    return EngineBody(
        name=engine.name,
        difference=engine.difference,
        reason=engine.reason,
        precision="float32" if quantisation is None else "int8",
        accuracy=quantisation and PrecisionAccuracy(**vars(quantisation.accuracy)),
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
