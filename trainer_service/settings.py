"""The trainer service's deployment settings: every `PERSONAE_…` variable it reads, with its meaning and default."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from base_models.likeness.model_folder import ModelFolderError, ModelType, read_model_folder
from service_kit.decoder import DecodingSettings
from service_kit.settings import (
    PREFIX,
    AccessSettings,
    Address,
    AddressOrNone,
    File,
    StoreSettings,
    default_base_model_cache,
    variables,
)

OTHER_PROCESSES = ("INFERENCE_",)


def _holds(model_type: ModelType) -> Callable[[Path | None], Path | None]:
    def check(folder: Path | None) -> Path | None:
        try:
            if folder is not None:
                read_model_folder(folder, model_type)
        except ModelFolderError as error:
            raise ValueError(str(error)) from error
        return folder

    return check


_EMPTY_IS_NONE = BeforeValidator(lambda value: value or None)


class JudgeSettings(BaseModel):
    """Published models that judge the adapters of base models which bring no judge of their own, as `toon-64` does.

    Without either, such adapters get no evaluation. Each costs memory on the training's device while it judges.
    """

    model_config = ConfigDict(frozen=True)

    dinov2_folder: Annotated[Path | None, _EMPTY_IS_NONE, AfterValidator(_holds("dinov2"))] = None
    """Local transformers folder of a DINOv2, for example of facebook/dinov2-base, with safetensors weights: measures
    likeness, memorisation and diversity."""
    clip_folder: Annotated[Path | None, _EMPTY_IS_NONE, AfterValidator(_holds("clip"))] = None
    """Local transformers folder of a CLIP with its tokenizer, for example of openai/clip-vit-large-patch14, with
    safetensors weights: measures obedience."""


StagePatience = Annotated[float, Field(gt=0, le=100)]


class WorkerSettings(BaseModel):
    """What a worker reads of the services' environment."""

    model_config = ConfigDict(frozen=True)

    store: StoreSettings = StoreSettings()
    base_models: str = "toon-64"
    """As for the trainer service."""
    base_model_cache: Path = Field(default_factory=default_base_model_cache)
    """As for the trainer service."""
    judges: JudgeSettings = JudgeSettings()
    trainer_stage_patience: StagePatience = 1.0
    """As for the trainer service."""


class KubernetesSettings(BaseModel):
    """For the executor `kubernetes`; `docs/kubernetes-jobs.md` says what it needs in the cluster."""

    model_config = ConfigDict(frozen=True)

    kubernetes_job_template: File = None
    """YAML file of the Job that each training's Job is made of; what may and must be in it is in `job_template.py`.
    Read once, at the start."""
    kubernetes_image: str = ""
    """Image of the worker's container where the template names none: the trainer's own holds the worker too."""


class TrainerSettings(BaseModel):
    """Field `trainer_workers` is read from `PERSONAE_TRAINER_WORKERS`, and so on."""

    model_config = ConfigDict(frozen=True)

    store: StoreSettings = StoreSettings()
    access: AccessSettings = AccessSettings()
    base_models: str = "toon-64"
    """Allow-list, separated by commas: `name` of a bundled base model, `name=/folder`, or `name=bucket:prefix` for one
    that lies in the bucket (docs/base-models.md). The first is the default."""
    base_model_cache: Path = Field(default_factory=default_base_model_cache)
    """Where base models from the bucket are kept, and those whose one checkpoint was brought into parts. Shared by all
    processes of this machine, workers among them; may be deleted while none runs. Untouched where the list has
    neither."""
    trainer_address: Address = "127.0.0.1:50051"
    """Where to serve."""
    trainer_health_address: Address = "127.0.0.1:50061"
    """Where to serve gRPC health in plaintext, for probes."""
    trainer_metrics_address: AddressOrNone = "127.0.0.1:50071"
    """Where to serve Prometheus metrics, in plaintext, under /metrics. Empty: nowhere."""
    trainer_reflection: bool = True
    """Whether callers may list the services and messages."""
    executor: Literal["local", "kubernetes"] = "local"
    """What carries trainings out: warm worker processes of this service, or a Job for each training in the cluster of
    this pod's service account (outside of one: of the file that KUBECONFIG names)."""
    kubernetes: KubernetesSettings = KubernetesSettings()
    trainer_workers: int | None = Field(default=None, ge=0, le=64)
    """Trainings at a time: worker processes of this service, each on a GPU of its own, or in turn where they are more.
    Absent: as many as `CUDA_VISIBLE_DEVICES`, or else /dev, shows GPUs, and 1 where it shows none. 0 leaves the work to
    workers started elsewhere. Of no account where the executor is not `local`."""
    trainer_project_trainings: int = Field(default=0, ge=0)
    """Most trainings of one project that may be queued and running; beyond it CreateTraining answers RESOURCE_EXHAUSTED
    with QuotaFailure. 0: as many as it likes. Where several trainer processes share the bucket, creations that reach
    them within the same moment may go beyond it, by at most as many again for each further process."""
    trainer_drain_s: float = Field(default=20.0, ge=0)
    """How long a stop waits for running calls, and for workers to checkpoint and hand over, in seconds."""
    trainer_stage_patience: StagePatience = 1.0
    """Factor, above 0 and at most 100, on how long each stage of a training may give no sign of life before its worker
    is given up: 5 to 30 minutes, by stage (`worker/watchdog.py`). Raise it where a single step takes longer."""
    trainer_require_consent: bool = False
    """Whether a dataset must say who gave the right to learn from its pictures before a training may start on it."""
    decoding: DecodingSettings = DecodingSettings()
    judges: JudgeSettings = JudgeSettings()
    """For the workers, which inherit this environment; checked here so that a wrong folder stops the start."""


def workers_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a worker that does not inherit this service's environment must be told of it; of S3 keys nothing."""
    secret = {f"{PREFIX}S3_{key}{place}" for key in ("ACCESS_KEY", "SECRET_KEY") for place in ("", "_FILE")}
    return {name: environ[name] for name in variables(WorkerSettings).keys() - secret if name in environ}
