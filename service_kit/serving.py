"""Server boot and drain: one gRPC server with callers checked, errors mapped, health and reflection, until SIGTERM.

The drain goes one way: health says NOT_SERVING, then nothing new is taken (HTTP/2 GOAWAY), unary calls and streams run
on, shortly before the time is up the streams that are left are told to come back, last everything closes.

Health is served on the main port and, in plaintext, on one of its own for probes. When both ports listen, one JSON line
on standard output says where: `{"event": "serving", "address": …, "health_address": …, "metrics_address": …}`.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from service_kit.access import Access
from service_kit.error_status import ErrorInterceptor
from service_kit.lingering import LingerInterceptor
from service_kit.metrics import MetricsServer, ServiceMetrics
from service_kit.minio_store import MinioStore, open_store
from service_kit.naming import NamingInterceptor
from service_kit.observing import ObservingInterceptor
from service_kit.settings import PREFIX, SettingsError, StoreSettings
from service_kit.store import StoreForbidden, StoreUnavailable
from service_kit.streams import DrainInterceptor, UnreadInterceptor
from service_kit.traces import Traces

_logger = logging.getLogger(__name__)

_OPTIONS = [
    # Without this a second server would share the port silently, and calls would go to either.
    ("grpc.so_reuseport", 0),
    # Clients ping to notice a dead server; let them.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
_STORE_RETRY_S = 0.5
_STOPPING = (signal.SIGTERM, signal.SIGINT)
# What is left of the drain for streams to end in: at most this, and at most half of it.
_ENDING_S = 2.0


class StartError(Exception):
    """The service cannot start; the text names the variable to change."""


@dataclass(frozen=True)
class Endpoint:
    """What is served where. `variable` names the setting that `address` came from."""

    address: str
    variable: str
    health_address: str
    health_variable: str
    reflection: bool
    metrics_address: str = ""
    """Empty: no metrics are served."""
    metrics_variable: str = ""


@dataclass(frozen=True)
class Watched:
    """How the calls of a server are watched."""

    metrics: ServiceMetrics
    traces: Traces


async def connect_store(settings: StoreSettings) -> MinioStore:
    """The object store, once it answers. Raises StartError when it refuses us, or is silent beyond `s3_patience_s`."""
    try:
        store = open_store(settings)
    except ValueError as error:
        raise StartError(f"{PREFIX}S3_ENDPOINT: {error}") from error
    give_up = asyncio.get_running_loop().time() + settings.s3_patience_s
    while True:
        try:
            await asyncio.to_thread(store.ensure_bucket, settings.s3_create_bucket)
            return store
        except StoreForbidden as error:
            raise StartError(
                f"{PREFIX}S3_ENDPOINT={settings.s3_endpoint} answers, but refuses ({error}); check "
                f"{PREFIX}S3_ACCESS_KEY, {PREFIX}S3_SECRET_KEY, {PREFIX}S3_BUCKET and {PREFIX}S3_CREATE_BUCKET"
            ) from error
        except StoreUnavailable as error:
            if asyncio.get_running_loop().time() >= give_up:
                raise StartError(
                    f"{PREFIX}S3_ENDPOINT={settings.s3_endpoint} is not reachable ({error}); start the object store or "
                    "correct the address"
                ) from error
            _logger.warning("waiting for the object store at %s: %s", settings.s3_endpoint, error)
            await asyncio.sleep(_STORE_RETRY_S)


async def serve_until_stopped(
    endpoint: Endpoint,
    add_services: Callable[[grpc.aio.Server], None],
    service_names: Sequence[str],
    drain_s: float,
    stopping: asyncio.Event,
    access: Access,
    watched: Watched | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stopping` is set by the caller), then drain for at most `drain_s` seconds.

    `stopping` is set as the drain begins, so that streams that would never end can do so at once; a second signal
    changes nothing. Raises StartError when a port is taken.
    """
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, stopping.set)
    health, drain = HealthServicer(), DrainInterceptor()
    # The outermost first: it writes the messages of streams itself; then what sees every call as its caller does. What
    # the drain and the check of the caller raise is mapped like what a handler raises, which sees requests parsed.
    observing = [ObservingInterceptor(watched.metrics, watched.traces.tracer)] if watched else []
    checking = [access.interceptor] if access.interceptor else []
    interceptors = [
        UnreadInterceptor(),
        *observing,
        ErrorInterceptor(),
        LingerInterceptor(),
        drain,
        NamingInterceptor(),
        *checking,
    ]
    main = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    add_services(main)
    health_pb2_grpc.add_HealthServicer_to_server(health, main)
    if endpoint.reflection:
        reflection.enable_server_reflection([*service_names, reflection.SERVICE_NAME], main)
    probes = grpc.aio.server(options=_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health, probes)
    address = _listen(main, endpoint.address, endpoint.variable, access.credentials)
    health_address = _listen(probes, endpoint.health_address, endpoint.health_variable, None)
    metrics_server = _serve_metrics(endpoint, watched)
    await main.start()
    await probes.start()
    for name in ("", *service_names):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    where = {"address": address, "health_address": health_address}
    if metrics_server:
        where["metrics_address"] = metrics_server.address
    print(json.dumps({"event": "serving", **where}), flush=True)
    _logger.info("serving on %s, health on %s", address, health_address)
    access.warn(address)
    await stopping.wait()
    _logger.info("draining for at most %.0f s", drain_s)
    await health.enter_graceful_shutdown()
    ending = loop.call_later(drain_s - min(_ENDING_S, drain_s / 2), drain.end_streams)
    await main.stop(drain_s)
    ending.cancel()
    await probes.stop(0)
    if metrics_server:
        metrics_server.close()


def check_ports(endpoint: Endpoint) -> None:
    """Raise StartError at once where a port is taken: for a service that loads for long before it listens."""
    for address, variable in (
        (endpoint.address, endpoint.variable),
        (endpoint.health_address, endpoint.health_variable),
        (endpoint.metrics_address, endpoint.metrics_variable),
    ):
        if not address:
            continue
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            socket.create_server((host.strip("[]"), int(port)), family=family).close()
        except OSError as error:
            raise _port_taken(address, variable) from error


def _listen(server: grpc.aio.Server, address: str, variable: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise _port_taken(address, variable)
    return f"{address.rpartition(':')[0]}:{port}"


def _serve_metrics(endpoint: Endpoint, watched: Watched | None) -> MetricsServer | None:
    if watched is None or not endpoint.metrics_address:
        return None
    try:
        return MetricsServer(watched.metrics.registry, endpoint.metrics_address)
    except OSError as error:
        raise _port_taken(endpoint.metrics_address, endpoint.metrics_variable) from error


def _port_taken(address: str, variable: str) -> StartError:
    return StartError(f"{variable}={address}: the port is taken or the host is not ours; choose another")


def run_service(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a service's `main`; a StartError or SettingsError ends the process with its text alone, exit status 1."""

    async def run() -> None:
        for number in _STOPPING:
            asyncio.get_running_loop().add_signal_handler(number, _end_start)
        await main()

    try:
        asyncio.run(run())
    except (StartError, SettingsError) as error:
        sys.exit(f"cannot start: {error}")


def _end_start() -> None:
    """What a signal does until `serve_until_stopped` has its own for it: nothing is held yet that must be freed.

    The first process of a container has no other way to be stopped, and a thread that loads a model could not be.
    """
    _logger.info("stopped during the start")
    os._exit(0)
