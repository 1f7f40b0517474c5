"""What the served model says of itself."""

import platform
from importlib.metadata import version

from fastapi import APIRouter

from app.dependencies import RunningInspector, RunningService
from app.schemas import (
    EngineBody,
    ModelResponse,
    ModelSummary,
    PrecisionAccuracy,
    Preprocessing,
    SelfTestBody,
    Versions,
)
from app.service import Service
from model.engine import Engine
from model.network import count_parameters
from model.selftest import SelfTest

router = APIRouter(prefix="/v1", tags=["model"])


@router.get("/model")
async def model(service: RunningService, inspector: RunningInspector) -> ModelResponse:
    """Describe the served model: classes, preprocessing, size, how it was trained and how well it did."""
    classifier = service.classifier
    header = classifier.checkpoint.header
    spec = classifier.spec
    return ModelResponse(
        **dict(summary(service)),
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
        self_test=service.self_test and _self_test(service.self_test),
        versions=Versions(training=dict(header.versions), serving=_versions()),
    )


def _engine(engine: Engine) -> EngineBody:
    eight_bits = engine.quantisation
    return EngineBody(
        name=engine.name,
        difference=engine.difference,
        reason=engine.reason,
        precision="float32" if eight_bits is None else "int8",
        accuracy=eight_bits and PrecisionAccuracy(**vars(eight_bits.accuracy)),
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


def summary(service: Service) -> ModelSummary:
    """Return what each answer says of the model."""
    checkpoint = service.classifier.checkpoint
    return ModelSummary(
        name=checkpoint.path.stem, digest=checkpoint.digest, architecture=checkpoint.header.network.architecture
    )


def _versions() -> dict[str, str]:
    libraries = {name: version(name) for name in ("torchlight", "torch", "pillow", "fastapi")}
    return {"python": platform.python_version(), **libraries}
