"""The adapter manifest: what a worker publishes and both services read. Its existence is the adapter's."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from service_kit import schema
from service_kit.document import Document
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.store import ObjectMissing, ObjectStore
from service_kit.tombstone import is_deleted

ADAPTER_FILE = "adapter.safetensors"
REPORT_FILE = "report.html"
Targets = Literal["attention", "attention_and_convolution", "all"]


class ArtifactEntry(BaseModel):
    """A file of an adapter version, stored as a blob named by its digest."""

    model_config = ConfigDict(frozen=True)

    artifact_id: str
    media_type: str
    size_bytes: int
    digest: str


class EvaluationEntry(BaseModel):
    """What a judge measured of an adapter; `evaluation.proto` defines the numbers. None: it could not be measured."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    judge: str
    likeness: float | None = None
    obedience: float | None = None
    memorisation: float | None = None
    diversity: float | None = None


class ConsentEntry(BaseModel):
    """Who gave the right to learn from pictures, and for what; `dataset.proto` says more."""

    model_config = ConfigDict(frozen=True)

    given_by: str
    purpose: str
    evidence: str = ""


def _from_sentence(kept: object) -> object:
    return ConsentEntry(given_by="", purpose="", evidence=kept) if kept and isinstance(kept, str) else kept or None


KeptConsent = Annotated[ConsentEntry | None, BeforeValidator(_from_sentence)]
"""As it is kept in documents; those that are older than datasets' consents hold one sentence, which is its evidence."""


class AdapterReservation(Document):
    """Which training or import may publish an adapter version; the other of the two is empty."""

    training: str = ""
    import_id: str = ""
    reserved_at: datetime | None = None
    """When an import did, which publishes at once or never."""

    def is_of(self, claim: "AdapterReservation") -> bool:
        """Whether the same training or import makes this claim."""
        return (self.training, self.import_id) == (claim.training, claim.import_id)


class AdapterManifest(Document):
    """An adapter version; `adapter.proto` says what its fields mean.

    `artifacts` begins with the adapter file; samples follow as `samples/…`, then `report.html`. What has a default is
    not known of adapters that were published before it was recorded.
    """

    project: str
    adapter: str
    version: int
    base_model: str
    base_model_digest: str
    pipeline: str = "StableDiffusionPipeline"
    """The class that diffusers loads the base model with; before it was recorded, there was no other."""
    training: str
    dataset_digest: str
    trigger_word: str
    class_noun: str
    rank: int
    targets: Targets
    training_config: dict[str, Any]
    created_at: datetime
    artifacts: tuple[ArtifactEntry, ...]
    evaluation: EvaluationEntry | None = None
    image_count: int = 0
    """Pictures it was trained on."""
    chosen_step: int = 0
    validation_loss: float | None = None
    licence: str = ""
    consent: KeptConsent = None

    @property
    def name(self) -> AdapterVersionName:
        return AdapterVersionName(self.project, self.adapter, self.version)

    def artifact(self, artifact_id: str) -> ArtifactEntry | None:
        """The artifact with this id, if there is one."""
        return next((entry for entry in self.artifacts if entry.artifact_id == artifact_id), None)


def read_manifest(store: ObjectStore, name: AdapterVersionName) -> AdapterManifest | None:
    """The manifest of a version, or None where it is not published."""
    try:
        return AdapterManifest.from_json(store.get(schema.adapter_manifest(name)).body)
    except ObjectMissing:
        return None


def read_reservation(store: ObjectStore, name: AdapterVersionName) -> AdapterReservation | None:
    """The reservation of a version, or None where nobody made one."""
    try:
        return AdapterReservation.from_json(store.get(schema.adapter_reservation(name)).body)
    except ObjectMissing:
        return None


def is_abandoned(store: ObjectStore, name: AdapterVersionName) -> bool:
    """Whether a taken version will never exist, because its training failed or was cancelled, or it was deleted."""
    try:
        store.get(schema.adapter_abandonment(name))
    except ObjectMissing:
        return is_deleted(store, name)
    return True


def versions(store: ObjectStore, name: AdapterName) -> list[int]:
    """Version numbers that are reserved, published or deleted, ascending."""
    return sorted(schema.version_of_folder(folder) for folder in store.folders(schema.adapter_versions_prefix(name)))


def read_latest(store: ObjectStore, name: AdapterName) -> AdapterManifest | None:
    """The manifest of the highest published version, or None."""
    for version in reversed(versions(store, name)):
        manifest = read_manifest(store, name.version(version))
        if manifest is not None:
            return manifest
    return None
