"""What the trainer leaves in the bucket for an adapter version: a reservation, then blobs and a manifest."""

import hashlib
from datetime import UTC, datetime

from service_kit import schema
from service_kit.adapter_manifest import ADAPTER_FILE, AdapterManifest, AdapterReservation, ArtifactEntry
from service_kit.names import AdapterVersionName
from service_kit.store import ObjectStore

BASE_MODEL_DIGEST = "d" * 64


def reserve(store: ObjectStore, name: AdapterVersionName) -> None:
    """What CreateTraining leaves in the bucket."""
    reservation = AdapterReservation(training=f"projects/{name.project}/trainings/of-{name.adapter}")
    store.create(schema.adapter_reservation(name), reservation.to_json())


def publish(
    store: ObjectStore,
    name: AdapterVersionName,
    body: bytes = b"an adapter",
    base_model: str = "toon-64",
    base_model_digest: str = BASE_MODEL_DIGEST,
) -> str:
    """What a worker leaves in the bucket; returns the file's digest."""
    digest = hashlib.sha256(body).hexdigest()
    store.put(schema.adapter_blob(name, digest), body)
    file = ArtifactEntry(
        artifact_id=ADAPTER_FILE, media_type="application/octet-stream", size_bytes=len(body), digest=digest
    )
    manifest = AdapterManifest(
        project=name.project,
        adapter=name.adapter,
        version=name.version,
        base_model=base_model,
        base_model_digest=base_model_digest,
        training=f"projects/{name.project}/trainings/of-{name.adapter}",
        dataset_digest="0" * 64,
        trigger_word="zxq",
        class_noun="character",
        rank=4,
        targets="attention",
        training_config={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        artifacts=(file,),
    )
    store.create(schema.adapter_manifest(name), manifest.to_json())
    return digest
