"""Puts the service together and runs it."""

import asyncio
import contextlib
import math
import signal
import socket
import sys
from collections.abc import AsyncIterator
from importlib.metadata import version
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app import errors
from app.inspector import Inspector
from app.observability import Observability, configure_logging
from app.routes import docs, evidence, examples, health, images, inspect, layers, model, page, predict
from app.service import Service
from app.settings import Settings
from app.store import StoreUnavailable
from model import checkpoint
from model.classifier import Classifier, choose_device
from model.errors import TorchlightError

BACKLOG = 2048


class StartError(TorchlightError):
    """The service cannot start on this machine."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application with its network loaded; threads start with its lifespan.

    Raises:
        CheckpointError: the checkpoint cannot be served.
        DeviceUnavailable: the device is not there.
        StartError: the folder for uploads cannot be used.
    """
    service = Service(settings, Classifier(checkpoint.load(settings.checkpoint), choose_device(settings.device)))
    app = FastAPI(
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
    app.add_middleware(Observability)
    errors.install(app)
    for module in (predict, inspect, images, evidence, layers, examples, model, health, docs, page):
        app.include_router(module.router)
    app.mount("/docs/assets", docs.assets())
    app.mount("/page", page.assets())
    return app


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl+C, then answer what was accepted and return.

    Raises:
        CheckpointError, StartError: before anything listens.
    """
    app = create_app(settings)
    listener = _listen(settings.host, settings.port)
    configure_logging(settings.log_format)
    print(_greeting(app.state.service, settings.host, listener.getsockname()[1]), file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app,
        workers=1,
        ws="none",
        log_config=None,  # our own: one line for each request, with its id
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.deadline_s) + 5,  # answers, and a little for slow uploads
    )
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn drains, then raises it again: that must not be a failure
    with contextlib.suppress(KeyboardInterrupt):
        _Server(config, app.state.service).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says that it is not ready as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.drain()
        super().handle_exit(sig, frame)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    sweeping = asyncio.create_task(app.state.inspector.keep_sweeping())
    yield
    sweeping.cancel()
    await service.stop()


def _inspector(service: Service) -> Inspector:
    try:
        return Inspector(service)
    except StoreUnavailable as error:
        raise StartError(str(error)) from error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise StartError(f"cannot listen on {host}:{port} ({reason}); choose with --host and --port") from error


def _greeting(service: Service, host: str, port: int) -> str:
    loaded = service.classifier.checkpoint
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    return (
        f"torchlight: serving {loaded.path.stem} ({len(loaded.header.class_names)} classes, "
        f"{loaded.header.network.architecture}) on {service.classifier.device}; look at {address}"
    )
