"""The inference service's deployment settings: every `PERSONAE_…` variable it reads, with its meaning and default."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from base_models.traits.family_traits import PrecisionName
from service_kit.decoder import DecodingSettings
from service_kit.settings import AccessSettings, Address, AddressOrNone, StoreSettings, default_base_model_cache

OffloadSetting = Literal["automatic", "none", "model", "group"]

OTHER_PROCESSES = ("TRAINER_", "DINOV2_", "CLIP_", "EXECUTOR", "KUBERNETES_")


class InferenceSettings(BaseModel):
    """Field `inference_batch_size` is read from `PERSONAE_INFERENCE_BATCH_SIZE`, and so on."""

    model_config = ConfigDict(frozen=True)

    store: StoreSettings = StoreSettings()
    access: AccessSettings = AccessSettings()
    decoding: DecodingSettings = DecodingSettings()
    base_models: str = "toon-64"
    """Allow-list of base models, by commas: `name` of a bundled one, `name=/folder`, or `name=bucket:prefix` for one
    that lies in the bucket (docs/base-models.md). The first is the default."""
    base_model_cache: Path = Field(default_factory=default_base_model_cache)
    """Where base models from the bucket are kept, and those whose one checkpoint was brought into parts. Shared by all
    processes of this machine; may be deleted while none runs. Untouched where the list has neither."""
    inference_address: Address = "127.0.0.1:50052"
    """Where to serve."""
    inference_health_address: Address = "127.0.0.1:50062"
    """Where to serve gRPC health in plaintext, for probes."""
    inference_metrics_address: AddressOrNone = "127.0.0.1:50072"
    """Where to serve Prometheus metrics, in plaintext, under /metrics. Empty: nowhere."""
    inference_reflection: bool = True
    """Whether callers may list the services and messages."""
    inference_precision: Annotated[PrecisionName | None, BeforeValidator(lambda value: value or None)] = None
    """`float32`, `bfloat16` or `float16` for the base model, but for its autoencoder, which is float32 always. Default:
    float32 on a CPU, bfloat16 on a GPU."""
    inference_offload: OffloadSetting = "automatic"
    """Where base models' weights lie while a GPU serves them; of no account on a CPU. `none`: all on the GPU. `model`:
    text encoders and autoencoder in host memory, of which one at a time visits the GPU when it is used. `group`: of the
    denoiser and the text encoders too only what computes next: slowest by far, and for GPUs that hold no whole
    denoiser. `automatic`: the first of these that fits what is free when the model is loaded, one model after another
    in the order of the allow-list; with 4 GiB beside weights and adapters to compute in."""
    inference_batch_size: int = Field(default=16, ge=1, le=256)
    """Most images of the default size in one denoising step; fewer of larger ones. More is faster for all together, and
    takes more memory."""
    inference_slot_rank: int = Field(default=16, ge=1, le=128)
    """Largest rank of adapters that share steps with others. Those above it, and DoRA, run in steps of their own."""
    inference_slot_bytes: int = Field(default=1024**3, ge=0)
    """Memory on the device for adapters that are ready to use; there is room for at least those of one request."""
    inference_queue_cost: int = Field(default=40_000, ge=1_000)
    """Passes admitted and not yet done; beyond it Generate answers RESOURCE_EXHAUSTED. A pass is one run of the
    denoiser over one image of the base model's default size: an image takes two a step with guidance, one without, and
    two to be decoded. Memory for images grows with it, and so does the longest wait of a caller without a deadline."""
    inference_requests: int = Field(default=512, ge=1)
    """Generate calls open at once, waiting ones included; beyond it Generate answers RESOURCE_EXHAUSTED."""
    inference_project_share: float = Field(default=0.5, gt=0, le=1)
    """Share of both that one project may hold in this server process: each process counts for itself, so behind a load
    balancer a project may hold its share in every one. Beyond it Generate answers RESOURCE_EXHAUSTED with QuotaFailure.
    A request that costs more passes than that is refused as invalid."""
    inference_cache_dir: Path = Field(default_factory=lambda: Path.home() / ".cache" / "personae" / "adapters")
    """Where downloaded adapter files are kept, named by their SHA-256. May be shared and may be deleted at any time."""
    inference_cache_bytes: int = Field(default=4 * 1024**3, ge=0)
    """Most bytes kept there; the longest unused files go first."""
    inference_host_cache_bytes: int = Field(default=2 * 1024**3, ge=0)
    """Most bytes of adapters kept in host memory, beside those that running requests use; pins take at most half."""
    inference_checker: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """Folder of diffusers' StableDiffusionSafetyChecker with its preprocessor_config.json, for example of
    CompVis/stable-diffusion-safety-checker, with safetensors weights. Images that it refuses are answered as filtered;
    without it no image is checked."""
    inference_c2pa_certificates: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """PEM file of the certificates that images are signed with, as C2PA defines it: the signer's first, then those
    between it and the root. Together with the key; without them no image is signed (docs/provenance.md)."""
    inference_c2pa_key: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """PEM file of the signer's key, not encrypted: P-256, P-384, Ed25519, or RSA of at least 2048 bits."""
    inference_c2pa_timestamp_url: str = ""
    """An RFC 3161 timestamp authority, asked over the network for every image; empty for none."""
    inference_drain_s: float = Field(default=20.0, ge=0)
    """How long a stop waits for running generations, in seconds."""
