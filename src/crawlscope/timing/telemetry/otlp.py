"""Exports over OTLP by OpenTelemetry's SDK. Only a process that exports imports this module.

Export runs on threads of the SDK with a bounded queue: a receiver that is slow or down costs spans, never
time of a page.
"""

import logging
import os
import socket
from collections.abc import Sequence
from threading import Thread
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace import SpanContext as OtelContext

from crawlscope import __version__
from crawlscope.timing.telemetry import conventions
from crawlscope.timing.telemetry.conventions import Metric
from crawlscope.timing.telemetry.meters import Labels
from crawlscope.timing.telemetry.traces import Kind, Span, SpanContext

STOP_SECONDS = 3.0
KINDS = {kind: SpanKind[kind.name] for kind in Kind}

log = structlog.get_logger(__name__)


class OtlpExporter:
    """Gets what the process counts, and its spans."""

    def __init__(self, endpoint: str, kind: str) -> None:
        """`kind` of process. The signals have paths below the endpoint, unless the environment has their own.

        Other standard variables, such as for headers, are read by the SDK.
        """
        # The SDK logs each retry, with the receiver's address, which may contain a secret.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._resource = Resource(conventions.resource_attributes(kind, __version__, _instance())).merge(
            OTELResourceDetector().detect()
        )
        self._scope = InstrumentationScope("crawlscope", __version__)
        self._tracers = TracerProvider(resource=self._resource, shutdown_on_exit=False)
        self._spans = BatchSpanProcessor(_NotedSpans(OTLPSpanExporter(endpoint=_url(endpoint, "traces"))))
        exporter = _NotedMetrics(OTLPMetricExporter(endpoint=_url(endpoint, "metrics")))
        self._meters = MeterProvider(
            [PeriodicExportingMetricReader(exporter)], self._resource, shutdown_on_exit=False
        )
        meter = self._meters.get_meter("crawlscope", __version__)
        self._record: dict[Metric, Any] = {
            metric: meter.create_histogram(
                metric.otel, metric.unit, metric.help, explicit_bucket_boundaries_advisory=metric.buckets
            ).record
            if metric.buckets
            else meter.create_counter(metric.otel, metric.unit, metric.help).add
            for metric in conventions.COUNTED
        }
        self._show: dict[Metric, Any] = {
            gauge: meter.create_gauge(gauge.otel, gauge.unit, gauge.help).set for gauge in conventions.GAUGES
        }

    def add(self, metric: Metric, labels: Labels, amount: float) -> None:
        self._record[metric](amount, conventions.metric_attributes(metric, labels))

    def show(self, gauge: Metric, labels: Labels, value: float) -> None:
        self._show[gauge](value, conventions.metric_attributes(gauge, labels))

    def samples(self, trace_id: int) -> bool:
        """By the sampler of the environment (`OTEL_TRACES_SAMPLER`)."""
        decision = self._tracers.sampler.should_sample(None, trace_id, "").decision
        return decision is Decision.RECORD_AND_SAMPLE

    def export(self, span: Span) -> None:
        failed = Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET)
        self._spans.on_end(
            ReadableSpan(
                span.name,
                _otel(span.context, remote=False),
                parent=_otel(span.parent, remote=True) if span.parent else None,
                resource=self._resource,
                attributes=span.attributes,
                links=[Link(_otel(link, remote=True)) for link in span.links],
                kind=KINDS[span.kind],
                status=failed,
                start_time=int(span.began * 1e9),
                end_time=int(max(span.began, span.ended) * 1e9),
                instrumentation_scope=self._scope,
            )
        )

    def stop(self) -> None:
        """Sends what is left, if the receiver takes it soon."""
        ending = [
            Thread(target=end, name="otlp-end", daemon=True)
            for end in (self._spans.shutdown, self._meters.shutdown)
        ]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join(STOP_SECONDS)


class _Noted:
    """Logs once when an export failed, and when one succeeds again."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._failing = False

    def note(self, *, failed: bool) -> None:
        if failed and not self._failing:
            log.warning("otlp_export_failed", signal=self._signal, reason="the receiver did not take it")
        elif self._failing and not failed:
            log.info("otlp_export_restored", signal=self._signal)
        self._failing = failed


class _NotedSpans(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._noted = _Noted("traces")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self._noted.note(failed=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _NotedMetrics(MetricExporter):
    def __init__(self, exporter: MetricExporter) -> None:
        super().__init__()
        self._exporter = exporter
        self._noted = _Noted("metrics")

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
        self._noted.note(failed=result is not MetricExportResult.SUCCESS)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self._exporter.shutdown(timeout_millis, **kwargs)


def _url(endpoint: str, signal: str) -> str:
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return own or f"{endpoint.rstrip('/')}/v1/{signal}"


def _instance() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _otel(context: SpanContext, *, remote: bool) -> OtelContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return OtelContext(context.trace_id, context.span_id, remote, flags)
