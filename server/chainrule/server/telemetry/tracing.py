"""Spans of calls for OpenTelemetry, where its packages are installed and a collector is named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from chainrule.server.errors import StartupError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORT_TIMEOUT_S = 3.0
"""How long a batch of spans may take to be sent, with all that is tried again. The service waits for the last one."""


class Span(Protocol):
    """One call that is being answered."""

    def end(self, code: str, request_id: str) -> None:
        """It was answered with a gRPC code, as "NOT_FOUND"."""


def check_tracing(endpoint: str) -> None:
    """Raises StartupError if the packages are not installed, or the URL is none."""
    try:
        import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 — whether they are there
    except ImportError as error:
        raise StartupError(
            f"--otlp-endpoint needs packages that are not installed ({error}): pip install 'chainrule[telemetry]'"
        ) from error
    if not endpoint.startswith(("http://", "https://")):
        raise StartupError(f"--otlp-endpoint {endpoint} is no URL; one looks like http://localhost:4317")


class Tracing:
    """Makes spans and sends them, a batch at a time from a thread of its own. Close it when done.

    Args:
        endpoint: URL of the collector, as http://localhost:4317: OTLP over gRPC.
        exporter: what sends spans, in place of that.

    Raises StartupError as `check_tracing` does.
    """

    def __init__(self, endpoint: str, *, exporter: SpanExporter | None = None) -> None:
        check_tracing(endpoint)
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        resource = Resource.create({"service.name": "chainrule", "service.version": version("chainrule")})
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S))
        )
        self._tracer = self._provider.get_tracer("chainrule.server")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, metadata: Mapping[str, Any]) -> Span:
        """The span of a call, as JobService/GetJob, below the one that its metadata names (`traceparent`)."""
        from opentelemetry.trace import SpanKind

        carrier = {key: metadata[key] for key in ("traceparent", "tracestate") if isinstance(metadata.get(key), str)}
        service, _, name = method.partition("/")
        span = self._tracer.start_span(
            method,
            context=self._propagator.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": f"chainrule.v1.{service}", "rpc.method": name},
        )
        return _Open(span)

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)


class _Open:
    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, code: str, request_id: str) -> None:
        import grpc
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        self._span.set_attribute("chainrule.request_id", request_id)
        if code in _FAULTS:
            self._span.set_status(StatusCode.ERROR, code)
        self._span.end()


_FAULTS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))
"""Codes that OpenTelemetry's conventions count as errors of the server; the others are of who calls."""
