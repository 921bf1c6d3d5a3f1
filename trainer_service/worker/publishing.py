"""Publishing: blobs first, then the manifest with If-None-Match. That PUT is the adapter's birth; it happens once.

Its one rule: the lease is read immediately before. No store can make one PUT depend on another object, so a worker that
is frozen between the two for longer than the lease lasts may still publish: at most one adapter, whose training was
carried through.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime

from service_kit import schema
from service_kit.adapter_manifest import (
    ADAPTER_FILE,
    AdapterManifest,
    ArtifactEntry,
    EvaluationEntry,
    read_manifest,
)
from service_kit.store import ObjectExists, ObjectStore
from trainer_service.training_record import LeaseLost, TrainingDataset, TrainingRecord
from trainer_service.training_store import TrainingStore


def is_published(store: ObjectStore, record: TrainingRecord) -> bool:
    """Whether this training's adapter exists already: an earlier worker died after its birth."""
    manifest = read_manifest(store, record.adapter)
    return manifest is not None and manifest.training == str(record.name)


def publish(
    store: ObjectStore,
    record: TrainingRecord,
    dataset: TrainingDataset,
    base_model_digest: str,
    body: bytes,
    evaluation: EvaluationEntry | None,
    now: Callable[[], datetime],
) -> None:
    """Publish an adapter file as the version that the training reserved.

    record: as it was taken. Raises LeaseLost where somebody else holds the training by now, or published the version.
    """
    artifact = ArtifactEntry(
        artifact_id=ADAPTER_FILE,
        media_type="application/octet-stream",
        size_bytes=len(body),
        digest=hashlib.sha256(body).hexdigest(),
    )
    store.put(schema.adapter_blob(record.adapter, artifact.digest), body)
    manifest = AdapterManifest(
        project=record.project,
        adapter=record.adapter_id,
        version=record.adapter_version,
        base_model=record.base_model,
        base_model_digest=base_model_digest,
        training=str(record.name),
        dataset_digest=dataset.digest,
        trigger_word=record.trigger_word,
        class_noun=record.class_noun,
        rank=record.config.rank,
        targets=record.config.targets,
        training_config=record.config.model_dump(),
        created_at=now(),
        artifacts=(artifact,),
        evaluation=evaluation,
    )
    TrainingStore(store).read(record.name)[0].held(record.holder, record.epoch)
    try:
        store.create(schema.adapter_manifest(record.adapter), manifest.to_json())
    except ObjectExists:
        if not is_published(store, record):
            raise LeaseLost(f"{record.adapter} was published by another training") from None
