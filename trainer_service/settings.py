"""The trainer service's deployment settings: every `PERSONAE_…` variable it reads, with its meaning and default."""

from pydantic import BaseModel, ConfigDict, Field

from service_kit.settings import Address, StoreSettings

OTHER_PROCESSES = ("INFERENCE_",)


class TrainerSettings(BaseModel):
    """Field `trainer_workers` is read from `PERSONAE_TRAINER_WORKERS`, and so on."""

    model_config = ConfigDict(frozen=True)

    store: StoreSettings = StoreSettings()
    base_models: str = "toon-64"
    """Allow-list, separated by commas: `name` of a bundled base model or `name=/folder`. The first is the default."""
    trainer_address: Address = "127.0.0.1:50051"
    """Where to serve."""
    trainer_health_address: Address = "127.0.0.1:50061"
    """Where to serve gRPC health in plaintext, for probes."""
    trainer_reflection: bool = True
    """Whether callers may list the services and messages."""
    trainer_workers: int = Field(default=1, ge=0, le=64)
    """Trainings at a time: worker processes of this service. 0 leaves the work to workers started elsewhere."""
    trainer_drain_s: float = Field(default=20.0, ge=0)
    """How long a stop waits for running calls, and for workers to checkpoint and hand over, in seconds."""
