"""Around every request: its id and trace, one line in the log, its metrics, and the catch-all for unforeseen errors.

Pure ASGI: it sees every response, streamed or refused, and delays none. The log and the trace hold no image, no file
name, no query and no header.
"""

import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from torchlight.app.api.problems import INTERNAL_ERROR, respond_with_problem
from torchlight.app.security.response_headers import ENCODED, request_id_of
from torchlight.app.telemetry.logs import logger
from torchlight.app.telemetry.metrics import Metrics
from torchlight.app.telemetry.request_facts import ImageFacts, RequestFacts, set_request_facts
from torchlight.app.telemetry.trace_context import Exporter, RequestSpan, StageSpan, begin_span, parse_traceparent

CLIENT_LEFT = 499  # in the log and the metrics only, as proxies write it
UNMATCHED = "unmatched"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
OTHER_METHOD = "other"  # a label of the metrics: clients may invent methods without end
UNTRACED = ("/livez", "/readyz", "/metrics")  # asked every few seconds, by machines that trace nothing


class RequestLog:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, exporter: Exporter | None = None) -> None:
        """Surround the application.

        Args:
            exporter: takes the spans of requests; None if nobody collects them.
        """
        self._app = app
        self._metrics = metrics
        self._exporter = exporter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _LoggedRequest(scope, send, is_traced=self._exporter is not None)
        self._metrics.begin_request()
        try:
            await self._app(scope, receive, request.send)
        except ClientDisconnect:
            request.status = CLIENT_LEFT
        except Exception as error:
            request.exception = error
            logger.exception("unexpected error", extra={"facts": {"request_id": request.facts.request_id}})
            if request.has_started:
                raise
            detail = f"the server failed; its log says more under request id {request.facts.request_id}"
            await respond_with_problem(Request(scope), 500, INTERNAL_ERROR, detail)(scope, receive, request.send)
        finally:
            self._end(request)

    def _end(self, request: "_LoggedRequest") -> None:
        request.log()
        seconds, code = request.seconds, request.facts.code
        method = request.method if request.method in METHODS else OTHER_METHOD
        self._metrics.end_request(request.route, method, request.status, seconds, code)
        if request.status == CLIENT_LEFT:
            self._metrics.count_abandoned()
        if self._exporter is not None and request.route not in UNTRACED:
            self._exporter.export(request.span())


class _LoggedRequest:
    """One request and what became of it."""

    def __init__(self, scope: Scope, send: Send, *, is_traced: bool) -> None:
        headers = Headers(scope=scope)
        self.facts = RequestFacts(request_id_of(headers.get("x-request-id", "")))
        self.status = CLIENT_LEFT
        self.has_started = False
        self.exception: Exception | None = None
        self._parent = parse_traceparent(headers.getlist("traceparent"))
        self._context = begin_span(self._parent, is_sampled=is_traced)
        self._started = time.perf_counter()
        self._started_ns = time.time_ns()
        self._scope = scope
        self._send = send
        set_request_facts(scope, self.facts)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started, self.status = True, message["status"]
            headers = message.get("headers", ())
            own = {name for name, _ in headers}  # in lower case, as ASGI has them
            message["headers"] = [
                *headers,
                (b"x-request-id", self.facts.request_id.encode()),
                (b"traceresponse", str(self._context).encode()),
                *(pair for pair in ENCODED if pair[0] not in own),
            ]
        await self._send(message)

    @property
    def method(self) -> str:
        return str(self._scope["method"])

    @property
    def seconds(self) -> float:
        """How long ago it came."""
        return time.perf_counter() - self._started

    @property
    def route(self) -> str:
        """The template of its path: the path itself has no bound."""
        route = self._scope.get("route")
        if route is not None:
            return str(route.path)
        if "app_root_path" in self._scope:  # a mounted folder
            return f"{self._scope['root_path'].removeprefix(self._scope['app_root_path'])}/{{path}}"
        is_literal = "endpoint" in self._scope and not self._scope["path_params"]
        return str(self._scope["path"]) if is_literal else UNMATCHED

    def log(self) -> None:
        facts = {
            "method": self.method,
            "path": self._scope["path"],
            "status": self.status,
            "code": self.facts.code,
            "ms": round(1000 * self.seconds, 1),
            "request_id": self.facts.request_id,
            "trace_id": self._context.trace_id,
        }
        logger.info("request", extra={"facts": facts | self.facts.logged()})

    def span(self) -> RequestSpan:
        """Return its span, by OpenTelemetry's names for HTTP."""
        attributes = {
            "http.request.method": self.method,
            "http.route": self.route,
            "url.path": self._scope["path"],
            "url.scheme": self._scope.get("scheme", "http"),
            "http.response.status_code": self.status,
            "torchlight.request_id": self.facts.request_id,
        }
        return RequestSpan(
            context=self._context,
            parent=self._parent,
            name=f"{self.method} {self.route}",
            started_ns=self._started_ns,
            ended_ns=self._ns(time.perf_counter()),
            attributes=attributes | ({"error.type": self.facts.code} if self.facts.code else {}),
            stages=[stage for image in self.facts.images for stage in self._stages(image)],
            exception=self.exception,
        )

    def _stages(self, image: ImageFacts) -> list[StageSpan]:
        attributes: dict[str, str | int] = {
            "torchlight.image_id": image.id,
            "torchlight.batch_size": image.batch_size,
        }
        ended = image.ended
        stages = []
        for name, seconds in reversed(list(image.stages_s.items())):
            stages.append(StageSpan(name, self._ns(ended - seconds), self._ns(ended), attributes))
            ended -= seconds
        return stages[::-1]

    def _ns(self, moment: float) -> int:
        """Return the nanoseconds since 1970 of a moment by ``perf_counter``."""
        return self._started_ns + round(1e9 * (moment - self._started))
