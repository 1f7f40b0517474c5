"""Around every request: its id, one line in the log, and the catch-all for what nobody foresaw.

Pure ASGI: it sees every response, streamed or refused, and delays none. The log holds no image, no query and no header.
"""

import json
import logging
import re
import sys
import time
import uuid
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import respond

CLIENT_LEFT = 499  # in the log only, as proxies write it
logger = logging.getLogger("torchlight")


class Observability:
    """The outermost middleware of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            await self._app(scope, receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_LEFT
        except Exception:
            logger.exception("unexpected error", extra={"facts": {"request_id": exchange.request_id}})
            if exchange.has_started:
                raise
            detail = f"the server failed; its log says more under request id {exchange.request_id}"
            await respond(Request(scope), 500, "internal_error", detail)(scope, receive, exchange.send)
        finally:
            exchange.log()


class _Exchange:
    """One request and what became of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get("x-request-id", "")
        self.request_id = given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else uuid.uuid4().hex
        self.status = CLIENT_LEFT
        self.has_started = False
        self._started = time.perf_counter()
        self._scope = scope
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started, self.status = True, message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)

    def log(self) -> None:
        facts = {
            "method": self._scope["method"],
            "path": self._scope["path"],
            "status": self.status,
            "code": self._scope["state"].get("code"),
            "ms": round(1000 * (time.perf_counter() - self._started), 1),
            "request_id": self.request_id,
        }
        logger.info("request", extra={"facts": facts})


def configure_logging(log_format: Literal["text", "json"]) -> None:
    """Send our own events, and other libraries' warnings, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _time(record), "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Time, level, event, and its facts as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", {})  # values as JSON, so that a path cannot forge a line
        pairs = " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items() if value is not None)
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()} {pairs}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
