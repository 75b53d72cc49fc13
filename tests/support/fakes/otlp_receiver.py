"""A receiver of OpenTelemetry on loopback: OTLP over HTTP, in the protobuf messages of its specification."""

import gzip
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.fakes.loopback import LoopbackServer


class OtlpReceiver:
    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.asked = threading.Event()
        self.answers = threading.Event()
        """While it is not set, requests get no answer."""
        self.answers.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self) -> list[Any]:
        """All spans that were received."""
        return [
            span
            for request in list(self.traces)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resources(self) -> list[dict[str, Any]]:
        return [attributes(each.resource) for request in self.traces for each in request.resource_spans]

    def points(self, metric: str) -> list[Any]:
        """All data points of the metric that were received."""
        return [
            point
            for request in list(self.metrics)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric
            for point in getattr(found, found.WhichOneof("data")).data_points
        ]

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = LoopbackServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answers.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def attributes(of: Any) -> dict[str, Any]:
    """Those of a span, a resource or a point."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


def traceparents(spans: Sequence[Any]) -> dict[str, Any]:
    """Spans by their W3C `traceparent`."""
    return {f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01": span for span in spans}


class _Handler(BaseHTTPRequestHandler):
    receiver: OtlpReceiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        receiver = self.receiver
        receiver.headers.append(dict(self.headers.items()))
        receiver.asked.set()
        receiver.answers.wait()
        if self.path == "/v1/traces":
            receiver.traces.append(ExportTraceServiceRequest.FromString(body))
        elif self.path == "/v1/metrics":
            receiver.metrics.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Says nothing: a test's output is its own."""
