"""Spans of an application with OpenTelemetry and of the server, in one form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from collector import values


class Application:
    """The OpenTelemetry of this process, as an application configures it."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        trace.set_tracer_provider(tracers)
        delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
        self.reader = InMemoryMetricReader(preferred_temporality=delta)
        metrics.set_meter_provider(MeterProvider([self.reader]))
        self.tracer = trace.get_tracer("application")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans.get_finished_spans() if span.name == name]

    def points(self) -> dict[str, list[Any]]:
        """What the meters have counted since the last look."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else []) for scope in resource.scope_metrics]
        assert {scope.scope.name for scope in scopes} <= {"mas_agent"}
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@dataclass(frozen=True)
class Seen:
    """A span of either side."""

    by: str
    kind: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    attributes: dict[str, Any]


def of_sdk(span: ReadableSpan) -> Seen:
    assert span.context is not None and span.instrumentation_scope is not None
    return Seen(
        span.instrumentation_scope.name,
        span.kind.name,
        span.name,
        f"{span.context.trace_id:032x}",
        f"{span.context.span_id:016x}",
        f"{span.parent.span_id:016x}" if span.parent else "",
        tuple(f"{link.context.span_id:016x}" for link in span.links),
        dict(span.attributes or {}),
    )


def of_server(span: OtlpSpan) -> Seen:
    return Seen(
        "server",
        OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        tuple(link.span_id.hex() for link in span.links),
        values(span.attributes),
    )


def tree(spans: list[Seen], parent: str = "") -> list[Any]:
    """Spans as (kind, name, children), in the order of their texts."""
    children = [span for span in spans if span.parent == parent]
    return sorted(([f"{one.by} {one.kind} {one.name}", *tree(spans, one.id)] for one in children), key=str)
