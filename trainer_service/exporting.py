"""Exports: an adapter version in other programs' key names, and its model card. Blocking; called from worker threads.

Its one rule: what was exported once is what every later export answers, whoever asks and however many at once.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from base_models.adapters.adapter_export import (
    KeyNames,
    NotExportable,
    is_dora,
    renamed,
    stored_tensors,
    write_safetensors,
)
from base_models.catalog import BaseModelEntry
from service_kit import schema
from service_kit.adapter_manifest import ADAPTER_FILE, AdapterManifest, ArtifactEntry
from service_kit.errors import PreconditionUnmet, ResourceMissing
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.store import ObjectExists, ObjectStore
from service_kit.tombstone import wrote_too_late
from trainer_service.adapters import EXPORTS, Adapters, ExportRecord, read_export
from trainer_service.export_header import export_header
from trainer_service.model_card import model_card

_CARD = f"{EXPORTS}README.md"


@dataclass(frozen=True)
class Export:
    """What ExportAdapter answers: the version, the derived file, and its card."""

    name: AdapterVersionName
    file: ArtifactEntry
    card: ArtifactEntry


class Exporting:
    """Derives files from published adapters. `base_models` are those that are allowed now."""

    def __init__(self, store: ObjectStore, adapters: Adapters, base_models: Mapping[str, BaseModelEntry]) -> None:
        self._store = store
        self._adapters = adapters
        self._base_models = base_models

    def export(self, name: AdapterName | AdapterVersionName, key_names: KeyNames) -> Export:
        """Derive a file, or find the one that was derived before.

        Raises ResourceMissing; PreconditionUnmet where the adapter cannot be said in those names; DataLost.
        """
        manifest = self._adapters.get(name)
        artifact_id = f"{EXPORTS}{key_names}.safetensors"
        file = read_export(self._store, manifest.name, artifact_id)
        if file is None:
            body = self._derive(manifest, key_names)
            file = self._keep(manifest, artifact_id, "application/octet-stream", body)
        card = read_export(self._store, manifest.name, _CARD)
        if card is None:
            card = self._keep(manifest, _CARD, "text/markdown", model_card(manifest).encode())
        if wrote_too_late(self._store, manifest.name):
            raise ResourceMissing("Adapter", str(manifest.name), "it was deleted meanwhile")
        return Export(manifest.name, file, card)

    def _derive(self, manifest: AdapterManifest, key_names: KeyNames) -> bytes:
        tensors = stored_tensors(self._adapters.whole(manifest, ADAPTER_FILE))
        entry = self._base_models.get(manifest.base_model)
        architecture = entry and entry.architecture()
        header = export_header(manifest, architecture, key_names, is_dora(tensors))
        try:
            return write_safetensors(renamed(tensors, key_names, manifest.pipeline), header)
        except NotExportable as error:
            raise PreconditionUnmet("FORMAT_UNSUITABLE", str(manifest.name), f"{manifest.name}: {error}") from error

    def _keep(self, manifest: AdapterManifest, artifact_id: str, media_type: str, body: bytes) -> ArtifactEntry:
        """Store a file, and then the record by which it is found; of two at once the first record counts for both."""
        digest = hashlib.sha256(body).hexdigest()
        entry = ArtifactEntry(artifact_id=artifact_id, media_type=media_type, size_bytes=len(body), digest=digest)
        self._store.put(schema.adapter_blob(manifest.name, digest), body)
        key = schema.adapter_export(manifest.name, artifact_id.removeprefix(EXPORTS))
        try:
            self._store.create(key, ExportRecord(artifact=entry).to_json())
        except ObjectExists:
            return ExportRecord.from_json(self._store.get(key).body).artifact
        return entry
