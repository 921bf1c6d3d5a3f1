"""Starting the modelled service of `modelled_service.py`, and what its tests ask of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from base_models.catalog import read_allow_list
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

ANSWER_WITHIN_S = 60.0


@contextmanager
def modelled_service(
    store: RealStore, folder: Path, name: str = "inference", **environment: str
) -> Iterator[ServiceProcess]:
    """A process of its own with a cache of its own, gone when the block is left."""
    settings = {"PERSONAE_INFERENCE_CACHE_DIR": str(folder / f"{name}-cache")} | environment
    with running_service(
        "tests.faults.modelled_service", service_environment(store, **settings), folder / f"{name}.log"
    ) as service:
        yield service


def publish_for_the_model(store: RealStore, name: AdapterVersionName, body: bytes = b"an adapter") -> str:
    """An adapter that the modelled service takes; returns its file's digest."""
    return publish(store.store, name, body, base_model_digest=read_allow_list(["toon-64"])["toon-64"].digest())


def health(service: ServiceProcess) -> int:
    """What a probe is told."""
    with grpc.insecure_channel(service.health_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_WITHIN_S)
        return int(answer.status)


SERVING = health_pb2.HealthCheckResponse.SERVING
