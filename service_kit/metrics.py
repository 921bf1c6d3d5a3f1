"""What both services count and time: calls, the store, the process. Each service has a file of its own for the rest.

Its one rule: no label ever holds what callers choose: no project, adapter or training. Names follow
https://prometheus.io/docs/practices/naming/.
"""

import platform
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServiceMetrics:
    """The metrics that every service has, in a registry of their own to which a service adds its others."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        method = ("service", "method")
        self.rpcs = Counter(
            "personae_rpc_requests",
            "Calls that have ended, by status code, and by the reason (google.rpc.ErrorInfo) of those that failed.",
            (*method, "code", "reason"),
            registry=self.registry,
        )
        self.rpc_seconds = Histogram(
            "personae_rpc_duration_seconds",
            "Seconds from a call's arrival to its last byte.",
            method,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.rpcs_in_flight = Gauge(
            "personae_rpc_in_flight", "Calls that have arrived and not ended.", method, registry=self.registry
        )
        self.streams_open = Gauge(
            "personae_rpc_streams_open", "Those of them that stream, either way.", method, registry=self.registry
        )
        self.store_seconds = Histogram(
            "personae_store_call_seconds",
            "Seconds that the object store took for a call, repeats included, by what came of it.",
            ("operation", "outcome"),
            buckets=_STORE_SECONDS,
            registry=self.registry,
        )
        build = Gauge(
            "personae_build_info", "1; what is running.", ("service", "version", "python"), registry=self.registry
        )
        build.labels(service, _version(), platform.python_version()).set(1)
        ProcessCollector(registry=self.registry)

    def note_store_call(self, operation: str, outcome: str, seconds: float) -> None:
        """See observed_store.Noted."""
        self.store_seconds.labels(operation, outcome).observe(seconds)


class MetricsServer:
    """Serves a registry over HTTP under /metrics, in plaintext, from a thread of its own."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Raises OSError where the address cannot be had. address: `host:port`, port 0 for any free one."""
        host, _, port = address.rpartition(":")
        self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        self.address = f"{host}:{self._server.server_port}"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _version() -> str:
    try:
        return version("personae")
    except PackageNotFoundError:
        # A source tree that nobody installed, as in the images.
        return "unknown"
