"""What the tests know of the services: their settings, read from a rendered pod as the service itself would.

`settings_of` raises SettingsError where the pod would not start.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from inference_service.settings import InferenceSettings
from personae.v1 import inference_pb2, trainer_pb2
from service_kit.settings import AccessSettings, read_settings
from tests.manifests.rendered import Workload
from trainer_service.settings import TrainerSettings

_READ_AT_START = {"PERSONAE_S3_ACCESS_KEY_FILE", "PERSONAE_S3_SECRET_KEY_FILE"}


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
    access: AccessSettings
    cache: Cache | None


@dataclass(frozen=True)
class Service:
    """One service: its gRPC name and how its settings are read from an environment."""

    grpc_name: str
    read: Callable[[dict[str, str]], PodSettings]

    def settings_of(self, workload: Workload) -> PodSettings:
        """The settings that the workload's container would have; a mounted key is the path of its file."""
        environment = workload.environment()
        with TemporaryDirectory() as folder:
            for name in _READ_AT_START & environment.keys():
                file = Path(folder, name)
                file.write_text(environment[name])
                environment[name] = str(file)
            return self.read(environment)


def _trainer(environment: dict[str, str]) -> PodSettings:
    # No prefixes to pass over: a variable of the other service has no business in this pod.
    settings = read_settings(TrainerSettings, environment, others=())
    return PodSettings(
        address=settings.trainer_address,
        health_address=settings.trainer_health_address,
        metrics_address=settings.trainer_metrics_address,
        drain_s=settings.trainer_drain_s,
        s3_patience_s=settings.store.s3_patience_s,
        s3_keys=settings.store.keys,
        access=settings.access,
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
        s3_keys=settings.store.keys,
        access=settings.access,
        cache=Cache(settings.inference_cache_dir, settings.inference_cache_bytes),
    )


_TRAINER = Service(trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name, _trainer)
SERVICES = {
    "trainer": _TRAINER,
    # The same program, kept for its workers.
    "workers": _TRAINER,
    "inference": Service(inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name, _inference),
}
