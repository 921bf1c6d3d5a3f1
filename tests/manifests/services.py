"""What the tests know of the two services: their settings, read from a rendered pod as the service itself would.

`settings_of` raises SettingsError where the pod would not start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_service.settings import InferenceSettings
from personae.v1 import inference_pb2, trainer_pb2
from service_kit.settings import read_settings
from tests.manifests.rendered import Workload
from trainer_service.settings import TrainerSettings


@dataclass(frozen=True)
class Cache:
    """Where a service keeps files, and how much of them."""

    folder: Path
    size_bytes: int


@dataclass(frozen=True)
class PodSettings:
    """Those settings that a manifest has to agree with."""

    address: str
    health_address: str
    metrics_address: str
    drain_s: float
    s3_patience_s: float
    s3_keys: tuple[str, str]
    cache: Cache | None


@dataclass(frozen=True)
class Service:
    """One service: its gRPC name and how its settings are read from an environment."""

    grpc_name: str
    read: Callable[[dict[str, str]], PodSettings]

    def settings_of(self, workload: Workload) -> PodSettings:
        """The settings that the workload's container would have."""
        return self.read(workload.environment())


def _trainer(environment: dict[str, str]) -> PodSettings:
    # No prefixes to pass over: a variable of the other service has no business in this pod.
    settings = read_settings(TrainerSettings, environment, others=())
    return PodSettings(
        address=settings.trainer_address,
        health_address=settings.trainer_health_address,
        metrics_address=settings.trainer_metrics_address,
        drain_s=settings.trainer_drain_s,
        s3_patience_s=settings.store.s3_patience_s,
        s3_keys=(settings.store.s3_access_key, settings.store.s3_secret_key.get_secret_value()),
        cache=None,
    )


def _inference(environment: dict[str, str]) -> PodSettings:
    settings = read_settings(InferenceSettings, environment, others=())
    return PodSettings(
        address=settings.inference_address,
        health_address=settings.inference_health_address,
        metrics_address=settings.inference_metrics_address,
        drain_s=settings.inference_drain_s,
        s3_patience_s=settings.store.s3_patience_s,
        s3_keys=(settings.store.s3_access_key, settings.store.s3_secret_key.get_secret_value()),
        cache=Cache(settings.inference_cache_dir, settings.inference_cache_bytes),
    )


SERVICES = {
    "trainer": Service(trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name, _trainer),
    "inference": Service(inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name, _inference),
}
