"""Puts the service together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI

from torchlight.app.api import problems
from torchlight.app.api.routes import (
    attributions,
    docs,
    exposition,
    health,
    layers,
    mistakes,
    model_facts,
    neighbours,
    page,
    predictions,
    stored_images,
    upload_activations,
)
from torchlight.app.errors import StartError
from torchlight.app.inference.service import Service, prepare_model
from torchlight.app.inspection.inspector import Inspector
from torchlight.app.middleware import authentication
from torchlight.app.middleware.body_limits import BodyLimits
from torchlight.app.middleware.request_log import RequestLog
from torchlight.app.settings import Settings
from torchlight.app.telemetry.metrics import Metrics
from torchlight.app.telemetry.trace_context import Exporter
from torchlight.model.checkpoint import load_checkpoint
from torchlight.model.classifier import Classifier, choose_device
from torchlight.model.named_checkpoints import find_checkpoint
from torchlight.model.versions import torchlight_version


def create_app(settings: Settings, metrics_dir: Path | None = None) -> FastAPI:
    """Return the application with its network loaded; threads start with its lifespan.

    Args:
        metrics_dir: empty at first, and shared by the processes of one service, whose metrics are added up through it.

    Raises:
        CheckpointError: the checkpoint cannot be served.
        DeviceUnavailable: the device is not there.
        EngineUnavailable: the engine that was asked for cannot compute this network.
        InvalidKeys: the file of API keys cannot be used.
        StoreUnavailable: the folder for uploads cannot be used.
        StartError: traces are wanted, but OpenTelemetry is not installed.
    """
    loaded = load_checkpoint(find_checkpoint(settings.checkpoint))
    model = prepare_model(Classifier(loaded, choose_device(settings.device)), settings)
    service = Service(settings, model, Metrics(metrics_dir))
    service.metrics.expect_codes(problems.CODES)
    app = FastAPI(
        title="Torchlight",
        summary="An image classifier you can see inside.",
        version=torchlight_version(),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    app.state.service = service
    app.state.inspector = Inspector(service)
    app.add_middleware(BodyLimits, settings=settings)
    authentication.install_authentication(app, settings)
    app.state.exporter = _exporter(settings, loaded.digest)
    # The outermost: a refused request has an id and a line in the log too.
    app.add_middleware(RequestLog, metrics=service.metrics, exporter=app.state.exporter)
    problems.install_handlers(app)
    for module in (
        predictions,
        upload_activations,
        stored_images,
        attributions,
        layers,
        neighbours,
        model_facts,
        mistakes,
        exposition,
    ):
        app.include_router(
            module.router,
            dependencies=authentication.schemes(settings),
            responses=authentication.document_refusals(settings),
        )
    for module in (health, docs, page):
        app.include_router(module.router)
    app.mount("/docs/assets", docs.assets())
    app.mount("/page", page.assets())
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    sweeping = asyncio.create_task(app.state.inspector.keep_sweeping())
    publishing = asyncio.create_task(service.keep_publishing())
    try:
        yield
    finally:
        sweeping.cancel()
        publishing.cancel()
        await service.stop()
        if app.state.exporter is not None:
            await asyncio.to_thread(app.state.exporter.close)
        service.metrics.close()


def _exporter(settings: Settings, digest: str) -> Exporter | None:
    """Return what takes the spans of requests, if they are wanted; else nothing of OpenTelemetry is imported."""
    if settings.otlp_endpoint is None:
        return None
    try:
        from torchlight.app.telemetry import otlp
    except ModuleNotFoundError as error:
        raise StartError(
            f"TORCHLIGHT_OTLP_ENDPOINT is set, but OpenTelemetry's exporter is not installed ({error}); "
            "install the extra `otel`"
        ) from error
    resource = {"service.name": "torchlight", "service.version": torchlight_version(), "torchlight.model": digest}
    return otlp.OtlpExporter(settings.otlp_endpoint, resource)
