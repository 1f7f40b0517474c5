"""One worker process: it runs the application on a socket that its parent opened, until its parent stops it."""

import asyncio
import contextlib
import gc
import json
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from torchlight.app.inference import cpu_quota
from torchlight.app.inference.service import Service
from torchlight.app.main import create_app
from torchlight.app.server.accept_loop import AcceptLoop, ConnectionCounts
from torchlight.app.server.http_protocol import Limits, limited_protocol
from torchlight.app.server.load_shedding import UploadLimit
from torchlight.app.settings import KEEP_ALIVE_S, Settings
from torchlight.app.telemetry.logs import configure_logging
from torchlight.model.classifier import Classifier
from torchlight.model.errors import TorchlightError

STDIN = 0
CHECK_S = 0.05  # between two checks whether the last connection is closed


def main() -> None:
    """Run one worker: on its command line two file descriptors, on standard input what :func:`serve` needs, pickled.

    The first is the socket. To the second it writes a report as JSON: what it serves once it does, or the reason why it
    cannot.
    """
    listener, report_fd = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    has_reported = False

    def report(**facts: str) -> None:
        nonlocal has_reported
        has_reported = True
        with open(report_fd, "w") as file:
            json.dump(facts, file)

    def on_ready(classifier: Classifier) -> None:
        loaded = classifier.checkpoint
        kind = f"{len(loaded.header.class_names)} classes, {loaded.header.network.architecture}"
        report(subject=f"{loaded.path.stem} ({kind}) on {classifier.device}", digest=loaded.digest)

    with open(STDIN, "rb", closefd=False) as parent:
        settings, metrics_dir = pickle.load(parent)
    try:
        serve(settings, listener, metrics_dir, on_ready)
    except (TorchlightError, OSError) as error:
        if has_reported:  # the pipe is closed, and the start is not what failed
            raise
        report(reason=str(error))
        sys.exit(1)


def serve(
    settings: Settings, listener: socket.socket, metrics_dir: Path, on_ready: Callable[[Classifier], None]
) -> None:
    """Answer until SIGTERM comes or standard input ends, then finish what was accepted and return.

    Args:
        listener: bound; others may accept from it too.
        metrics_dir: holds the counters that the processes of this service share.
        on_ready: called once the network is known to answer right and connections are accepted.

    Raises:
        TorchlightError, OSError: it cannot start; nothing was accepted.
    """
    configure_logging(settings.log_format)
    torch.set_num_threads(settings.threads or cpu_quota.cpus_per_process(settings.workers))
    app = create_app(settings, metrics_dir)
    service: Service = app.state.service
    uploads = UploadLimit(
        settings.queue_size + settings.max_batch_size,  # images that wait, and images that are computed
        on_shed=partial(service.metrics.count_request, "/v1/*", "POST", 503),
        is_draining=lambda: service.state == "stopping",
    )
    config = uvicorn.Config(
        _LastAnswers(app),
        interface="asgi3",
        lifespan="off",  # ours is around the server: nothing is accepted before the network has answered
        http=limited_protocol(Limits(settings.max_connections, uploads, service.metrics.count_problem)),
        ws="none",
        log_config=None,  # our own: one line for each request, with its id
        access_log=False,
        server_header=False,
        proxy_headers=settings.trusted_proxies is not None,  # uvicorn's default trusts every process of the machine
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    counts = ConnectionCounts(metrics_dir, service.metrics.process_number)
    server = _Server(config, service, counts, lambda: on_ready(service.classifier))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(app, server, listener))


async def _serve(app: FastAPI, server: "_Server", listener: socket.socket) -> None:
    service: Service = app.state.service
    async with app.router.lifespan_context(app):
        await service.warmed_up()
        gc.collect()
        gc.freeze()  # the network and the modules stay: without this, collections scan them, and nothing is answered
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.remove_reader(STDIN)
            server.stop()

        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_reader(STDIN, stop)  # standard input ends when the parent does, killed or not
        await server.serve(sockets=[listener])


class _LastAnswers:
    """ASGI: adds ``Connection: close`` to each answer while the service drains."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._app.state.service.state == "stopping":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_last)


class _Server(uvicorn.Server):
    """Uvicorn with our accept loop, which keeps idle connections for a while when it shuts down."""

    def __init__(
        self, config: uvicorn.Config, service: Service, counts: ConnectionCounts, on_listening: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._service = service
        self._counts = counts
        self._accept_loops: list[AcceptLoop] = []
        self._on_listening = on_listening

    def stop(self) -> None:
        """Stop being ready, and end when all is answered."""
        self._service.drain()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the event loop; uvicorn would raise them again in the end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections with :mod:`app.server.accept_loop`, and report it."""
        await super().startup([])
        protocol: Any = self.config.http_protocol_class
        make_protocol = partial(
            protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        for listener in sockets or []:
            listener.listen(self.config.backlog)
            listener.setblocking(False)
            loop = AcceptLoop(listener, make_protocol, self.server_state.connections, self._counts)
            self._accept_loops.append(loop)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, but answer on open connections for as long as clients may expect.

        Uvicorn closes idle connections at once, and a client that has just sent its request on one gets no answer. Here
        they stay for the time that they would have been kept anyway, and each answer says that it is the last one.
        """
        for accept_loop in self._accept_loops:
            accept_loop.close()
        for listener in sockets or []:
            listener.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + KEEP_ALIVE_S
        while self.server_state.connections and loop.time() < end:
            await asyncio.sleep(CHECK_S)
        await super().shutdown(sockets)
