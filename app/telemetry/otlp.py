"""Sends the spans of requests to an OpenTelemetry collector. Imported only when the setting names one.

A request's spans are made when it has ended, from the times that are known by then, so no code has to run inside a
span, and no global tracer is set.
"""

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, set_span_in_context

from torchlight.app.telemetry import trace_context
from torchlight.app.telemetry.trace_context import RequestSpan


class _RequestIds(RandomIdGenerator):
    """Gives the next span the ids that the request's answer has named already, then random ones."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, 0
        return given or super().generate_span_id()


class OtlpExporter:
    """Makes spans and hands them to the SDK, which sends them from a thread of its own. For one thread: the loop's."""

    def __init__(self, endpoint: str, resource: Mapping[str, str]) -> None:
        """Send to the collector at ``endpoint``, by OTLP over HTTP.

        Args:
            endpoint: its address without a path, as in OTEL_EXPORTER_OTLP_ENDPOINT.
            resource: what all spans say of this service, by OpenTelemetry's names.
        """
        self._ids = _RequestIds()
        self._provider = TracerProvider(
            ALWAYS_ON, Resource.create(dict(resource)), shutdown_on_exit=False, id_generator=self._ids
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("torchlight")

    def export(self, span: RequestSpan) -> None:
        """Hand on the request and its stages, if its trace is sampled."""
        if not span.context.is_sampled:
            return
        self._ids.trace_id, self._ids.span_id = int(span.context.trace_id, 16), int(span.context.span_id, 16)
        request = self._tracer.start_span(
            span.name, _as_parent(span.parent), SpanKind.SERVER, span.attributes, start_time=span.started_ns
        )
        inside = set_span_in_context(request)
        for stage in span.stages:
            part = self._tracer.start_span(stage.name, inside, attributes=stage.attributes, start_time=stage.started_ns)
            part.end(stage.ended_ns)
        if span.exception:
            request.record_exception(span.exception, timestamp=span.ended_ns)
        if int(span.attributes["http.response.status_code"]) >= 500:
            request.set_status(StatusCode.ERROR)
        request.end(span.ended_ns)

    def close(self) -> None:
        """Send what is left; returns when it is sent or the collector does not take it."""
        self._provider.shutdown()


def _as_parent(caller: trace_context.SpanContext | None) -> Context:
    if caller is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if caller.is_sampled else TraceFlags.DEFAULT)
    context = SpanContext(int(caller.trace_id, 16), int(caller.span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), Context())
