"""Which trace a request belongs to (W3C Trace Context), and the spans it becomes when it has ended. Knows no exporter.

Source: https://www.w3.org/TR/trace-context/; the header of the answer is that group's draft
https://w3c.github.io/trace-context/#traceresponse-header.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1  # the only flag that version 00 defines for callers


@dataclass(frozen=True)
class SpanContext:
    """One operation of a trace, as hexadecimal digits."""

    trace_id: str
    span_id: str
    is_sampled: bool

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"


@dataclass(frozen=True)
class StageSpan:
    """A part of a request, in nanoseconds since 1970."""

    name: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int]


@dataclass(frozen=True)
class RequestSpan:
    """A request that has ended, for the trace it belongs to."""

    context: SpanContext
    parent: SpanContext | None
    name: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int]
    stages: Sequence[StageSpan]
    exception: Exception | None


class Exporter(Protocol):
    """Sends spans to where they are collected."""

    def export(self, span: RequestSpan) -> None:
        """Take the span, and return at once."""

    def close(self) -> None:
        """Send what is left."""


def parse_traceparent(values: Sequence[str]) -> SpanContext | None:
    """Return the caller's operation from the headers ``traceparent``; None if there is not exactly one good one.

    Later versions may add fields after those of version 00, which alone are read.
    """
    found = TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or (found[1] == "00" and found[5]):
        return None
    return SpanContext(found[2], found[3], is_sampled=bool(int(found[4], 16) & SAMPLED))


def begin_span(parent: SpanContext | None, *, is_sampled: bool) -> SpanContext:
    """Return an operation of the caller's trace, or the first of a new one, which is sampled as said."""
    span_id = f"{secrets.randbits(64) or 1:016x}"
    if parent is not None:
        return SpanContext(parent.trace_id, span_id, parent.is_sampled)
    return SpanContext(f"{secrets.randbits(128) or 1:032x}", span_id, is_sampled)
