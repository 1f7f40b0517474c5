"""What the service's processes write to standard output. Light: the parent process imports it."""

import json
import logging
import sys
import time
from typing import Literal

logger = logging.getLogger("torchlight")


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
        pairs = " ".join(f"{name}={_as_json(value)}" for name, value in facts.items() if value is not None)
        line = f"{_time(record)} {record.levelname.lower():7} {record.getMessage()} {pairs}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _as_json(value: object) -> str:
    return str(value) if type(value) in (int, float) else json.dumps(value)  # a number in a tenth of the time


def _time(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
