"""Sends the spans of requests to an OpenTelemetry collector. Imported only when the setting names one.

Spans are built when their request has ended: its trace and its times are known by then, so no code has to run inside a
span, and no global tracer is set.
"""

import traceback
from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from torchlight.app.telemetry import trace_context
from torchlight.app.telemetry.trace_context import RequestSpan, Stage

SCOPE = InstrumentationScope("torchlight")


class Telemetry:
    """Hands spans to a processor, which sends them from a thread of its own."""

    def __init__(self, processor: SpanProcessor, resource: Mapping[str, str]) -> None:
        self._processor = processor
        self._resource = Resource.create(dict(resource))

    def export(self, span: RequestSpan) -> None:
        """Hand on the request and its stages, if its trace is sampled."""
        if not span.context.is_sampled:
            return
        for stage in span.stages:
            self._processor.on_end(self._stage(stage, span.context))
        self._processor.on_end(self._request(span))

    def close(self) -> None:
        """Send what is left; returns when it is sent or the collector does not take it."""
        self._processor.shutdown()

    def _request(self, span: RequestSpan) -> ReadableSpan:
        is_failure = int(span.attributes["http.response.status_code"]) >= 500
        return ReadableSpan(
            name=span.name,
            context=_context(span.context),
            parent=_context(span.parent, is_remote=True) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            events=[_event(span.exception, span.ended_ns)] if span.exception else [],
            kind=SpanKind.SERVER,
            status=Status(StatusCode.ERROR) if is_failure else Status(),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=SCOPE,
        )

    def _stage(self, stage: Stage, parent: trace_context.SpanContext) -> ReadableSpan:
        return ReadableSpan(
            name=stage.name,
            context=_context(trace_context.begin(parent, is_sampled=True)),
            parent=_context(parent),
            resource=self._resource,
            attributes=stage.attributes,
            start_time=stage.started_ns,
            end_time=stage.ended_ns,
            instrumentation_scope=SCOPE,
        )


def connect(endpoint: str, resource: Mapping[str, str]) -> Telemetry:
    """Return what sends to the collector at ``endpoint``, by OTLP over HTTP.

    Args:
        endpoint: its address without a path, as in OTEL_EXPORTER_OTLP_ENDPOINT.
        resource: what all spans say of this service, by OpenTelemetry's names.
    """
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    return Telemetry(BatchSpanProcessor(exporter), resource)


def _context(context: trace_context.SpanContext, *, is_remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags)


def _event(error: Exception, when_ns: int) -> Event:
    attributes = {
        "exception.type": type(error).__qualname__,
        "exception.message": str(error),
        "exception.stacktrace": "".join(traceback.format_exception(error)),
    }
    return Event("exception", attributes, when_ns)
