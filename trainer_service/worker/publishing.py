"""Publishing: blobs first, then the manifest with If-None-Match. That PUT is the adapter's birth; it happens once.

Its one rule: the lease is read immediately before. No store can make one PUT depend on another object, so a worker that
is frozen between the two for longer than the lease lasts may still publish: at most one adapter, whose training was
carried through.
"""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from service_kit import schema
from service_kit.adapter_manifest import (
    ADAPTER_FILE,
    AdapterManifest,
    ArtifactEntry,
    EvaluationEntry,
    read_manifest,
)
from service_kit.errors import ResourceMissing
from service_kit.store import ObjectExists, ObjectStore, StoreError
from service_kit.tombstone import wrote_too_late
from trainer_service.training_record import LeaseLost, TrainingDataset, TrainingRecord
from trainer_service.training_store import TrainingStore


@dataclass(frozen=True)
class PublishedFile:
    """A file that is published with an adapter. `artifact_id` is its name for ReadArtifact."""

    artifact_id: str
    media_type: str
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """What a training came to: the adapter file, and what is known of it."""

    body: bytes
    chosen_step: int
    """Optimizer steps behind the weights in the file."""
    validation_loss: float | None
    evaluation: EvaluationEntry | None
    samples: Sequence[PublishedFile]
    """Pictures that were drawn on the way; their ids begin with `samples/`."""
    report: PublishedFile | None = None
    """What a person looks at; None where it could not be made."""


def is_published(store: ObjectStore, record: TrainingRecord) -> bool:
    """Whether this training's adapter exists already: an earlier worker died after its birth."""
    manifest = read_manifest(store, record.adapter)
    return manifest is not None and manifest.training == str(record.name)


def publish(
    store: ObjectStore,
    record: TrainingRecord,
    dataset: TrainingDataset,
    base_model_digest: str,
    pipeline: str,
    outcome: Outcome,
    now: Callable[[], datetime],
) -> None:
    """Publish what a training came to as the version that it reserved.

    record: as it was taken. base_model_digest, pipeline: of the base model that it was trained on.

    Raises LeaseLost where somebody else holds the training by now, published the version, or deleted either.
    """
    files = [PublishedFile(ADAPTER_FILE, "application/octet-stream", outcome.body), *outcome.samples]
    if outcome.report is not None:
        files.append(outcome.report)
    manifest = AdapterManifest(
        project=record.project,
        adapter=record.adapter_id,
        version=record.adapter_version,
        base_model=record.base_model,
        base_model_digest=base_model_digest,
        pipeline=pipeline,
        training=str(record.name),
        dataset_digest=dataset.digest,
        trigger_word=record.trigger_word,
        class_noun=record.class_noun,
        rank=record.config.rank,
        targets=record.config.targets,
        training_config=record.config.model_dump(),
        created_at=now(),
        artifacts=tuple(_keep(store, record, file) for file in files),
        evaluation=outcome.evaluation,
        image_count=len(dataset.images),
        chosen_step=outcome.chosen_step,
        validation_loss=outcome.validation_loss,
        licence=record.licence,
        consent=record.consent,
    )
    try:
        TrainingStore(store).read(record.name)[0].held(record.holder, record.epoch)
    except ResourceMissing as error:
        raise LeaseLost(str(error)) from error
    try:
        store.create(schema.adapter_manifest(record.adapter), manifest.to_json())
    except ObjectExists:
        if not is_published(store, record):
            raise LeaseLost(f"{record.adapter} was published by another training") from None
    if wrote_too_late(store, record.adapter):
        store.delete(schema.adapter_manifest(record.adapter))
        raise LeaseLost(f"{record.adapter} was deleted before it was published")


def have_swept_if_deleted(store: ObjectStore, record: TrainingRecord) -> None:
    """Where the lease was lost to a deletion, what this worker wrote since then is late, however late that was."""
    with contextlib.suppress(StoreError):
        for written in (record.name, record.adapter):
            wrote_too_late(store, written)


def _keep(store: ObjectStore, record: TrainingRecord, file: PublishedFile) -> ArtifactEntry:
    digest = hashlib.sha256(file.body).hexdigest()
    store.put(schema.adapter_blob(record.adapter, digest), file.body)
    return ArtifactEntry(
        artifact_id=file.artifact_id, media_type=file.media_type, size_bytes=len(file.body), digest=digest
    )
