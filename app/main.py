"""Puts the service together."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI

from app import access, errors
from app.application import Application
from app.bodies import Bodies
from app.inspector import Inspector
from app.metrics import Metrics
from app.observability import Observability
from app.routes import docs, evidence, examples, health, images, inspect, layers, metrics, model, page, predict
from app.service import Service
from app.settings import Settings, StartError
from app.store import StoreUnavailable
from app.tracing import Exporter
from model import checkpoint
from model.classifier import Classifier, choose_device


def create_app(settings: Settings, metrics_dir: Path | None = None) -> FastAPI:
    """Return the application with its network loaded; threads start with its lifespan.

    Args:
        metrics_dir: empty at first, and shared by the processes of one service, whose metrics are added up through it.

    Raises:
        CheckpointError: the checkpoint cannot be served.
        DeviceUnavailable: the device is not there.
        EngineUnavailable: the engine that was asked for cannot compute this network.
        InvalidKeys: the file of API keys cannot be used.
        StartError: the folder for uploads cannot be used.
    """
    loaded = checkpoint.load(settings.checkpoint)
    service = Service(settings, Classifier(loaded, choose_device(settings.device)), Metrics(metrics_dir))
    service.metrics.expect(errors.CODES)
    app = Application(
        direct=predict.router,
        title="Torchlight",
        summary="An image classifier you can see inside.",
        version=version("torchlight"),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    app.state.service = service
    app.state.inspector = _inspector(service)
    app.add_middleware(Bodies, settings=settings)
    access.install(app, settings)
    app.state.exporter = _exporter(settings, loaded.digest)
    # The outermost: what access refuses has an id and a line in the log too.
    app.add_middleware(Observability, metrics=service.metrics, exporter=app.state.exporter)
    errors.install(app)
    for module in (predict, inspect, images, evidence, layers, examples, model, metrics):
        app.include_router(module.router, dependencies=access.schemes(settings), responses=access.documented(settings))
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
    if find_spec("opentelemetry") is None:
        raise StartError("TORCHLIGHT_OTLP_ENDPOINT is set, but OpenTelemetry is not installed; add the extra `otel`")
    from app import telemetry

    resource = {"service.name": "torchlight", "service.version": version("torchlight"), "torchlight.model": digest}
    return telemetry.connect(settings.otlp_endpoint, resource)


def _inspector(service: Service) -> Inspector:
    try:
        return Inspector(service)
    except StoreUnavailable as error:
        raise StartError(str(error)) from error
