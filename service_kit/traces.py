"""Where spans go: to the OpenTelemetry collector that the standard OTEL_… variables name, or nowhere.

Its one rule: without an endpoint nothing of the SDK is even imported. The rest of its settings (sampler, headers,
certificates, batch sizes) are the SDK's own variables; see
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from opentelemetry.trace import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True)
class Traces:
    """tracer: None where nobody collects. close: sends what has not been sent yet, for ten seconds at most."""

    tracer: Tracer | None
    close: Callable[[], None]


def open_traces(service: str, environ: Mapping[str, str]) -> Traces:
    """Spans of this process as the environment wants them. service: its name, unless OTEL_SERVICE_NAME says another."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(environ.get(name) for name in _ENDPOINTS):
        return Traces(None, lambda: None)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({SERVICE_NAME: environ.get("OTEL_SERVICE_NAME") or service})
    provider = TracerProvider(resource=Resource.create().merge(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider.get_tracer("personae"), provider.shutdown)
