"""Published adapters: read, list, and the bytes of their files. Blocking; called from worker threads of the service."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from service_kit import schema
from service_kit.adapter_manifest import (
    ADAPTER_FILE,
    AdapterManifest,
    ArtifactEntry,
    read_latest,
    read_manifest,
)
from service_kit.document import Document
from service_kit.errors import DataLost, ResourceMissing, SequenceOutOfRange
from service_kit.names import AdapterName, AdapterVersionName, ProjectName
from service_kit.store import ObjectMissing, ObjectStore
from service_kit.tombstone import is_deleted
from trainer_service.paging import PageRequest, page_of_ids, readable

CHUNK_BYTES = 1024 * 1024
EXPORTS = "exports/"
EXPORTED = tuple(f"{EXPORTS}{name}" for name in ("diffusers.safetensors", "kohya.safetensors", "README.md"))
"""Artifact ids that ExportAdapter brings about."""


class ExportRecord(Document):
    """Which blob of a version an exported file is."""

    artifact: ArtifactEntry


@dataclass(frozen=True)
class OpenArtifact:
    """A file that is about to be read."""

    manifest: AdapterManifest
    entry: ArtifactEntry


class Adapters:
    """The published adapters of a bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def get(self, name: AdapterName | AdapterVersionName) -> AdapterManifest:
        """A version, or the latest. Raises ResourceMissing."""
        if isinstance(name, AdapterVersionName):
            manifest = read_manifest(self._store, name)
        else:
            manifest = read_latest(self._store, name)
        if manifest is None:
            raise ResourceMissing("Adapter", str(name))
        return manifest

    def page(self, parent: ProjectName | AdapterName, request: PageRequest) -> tuple[list[AdapterManifest], str]:
        """A page of a project's adapters, each as its latest version, or of an adapter's versions; the next token."""
        names: Iterator[AdapterName | AdapterVersionName]
        if isinstance(parent, AdapterName):
            page = page_of_ids(self._store, schema.adapter_versions_prefix(parent), request)
            names = (parent.version(int(version)) for version in page.ids)
        else:
            page = page_of_ids(self._store, schema.adapters_prefix(parent), request)
            names = (AdapterName(parent.project, adapter) for adapter in page.ids)
        return readable(names, self.get), page.next_token

    def open(self, name: AdapterName | AdapterVersionName, artifact_id: str, offset: int) -> OpenArtifact:
        """Find a file to read. Raises ResourceMissing, SequenceOutOfRange."""
        manifest = self.get(name)
        entry = manifest.artifact(artifact_id or ADAPTER_FILE) or read_export(self._store, manifest.name, artifact_id)
        if entry is None and artifact_id in EXPORTED:
            raise ResourceMissing("Artifact", f"{manifest.name}/artifacts/{artifact_id}", "ExportAdapter makes it")
        if entry is None:
            known = ", ".join(entry.artifact_id for entry in manifest.artifacts)
            raise ResourceMissing("Artifact", f"{manifest.name}/artifacts/{artifact_id[:80]}", f"there are {known}")
        if not 0 <= offset <= entry.size_bytes:
            raise SequenceOutOfRange("read_offset", offset, 0, entry.size_bytes)
        return OpenArtifact(manifest, entry)

    def read(self, artifact: OpenArtifact, offset: int) -> Iterator[bytes]:
        """Bytes from an offset, in chunks; the hash is checked when reading from the start.

        Raises DataLost, or ResourceMissing where the adapter is deleted meanwhile.
        """
        key = schema.adapter_blob(artifact.manifest.name, artifact.entry.digest)
        total, position = hashlib.sha256(), offset
        while position < artifact.entry.size_bytes:
            try:
                chunk = self._store.get_range(key, position, CHUNK_BYTES)
            except ObjectMissing:
                if is_deleted(self._store, artifact.manifest.name):
                    raise ResourceMissing("Adapter", str(artifact.manifest.name), "it was deleted meanwhile") from None
                chunk = b""
            if not chunk:
                raise DataLost(f"{artifact.manifest.name}: {artifact.entry.artifact_id} is missing or cut short")
            total.update(chunk)
            position += len(chunk)
            if position >= artifact.entry.size_bytes and offset == 0 and total.hexdigest() != artifact.entry.digest:
                raise DataLost(f"{artifact.manifest.name}: {artifact.entry.artifact_id} does not have its hash")
            yield chunk

    def whole(self, manifest: AdapterManifest, artifact_id: str) -> bytes:
        """All bytes of a published file. Raises DataLost."""
        entry = manifest.artifact(artifact_id)
        if entry is None:
            raise DataLost(f"{manifest.name} has no {artifact_id}")
        return b"".join(self.read(OpenArtifact(manifest, entry), 0))


def read_export(store: ObjectStore, name: AdapterVersionName, artifact_id: str) -> ArtifactEntry | None:
    """An exported file of a version, or None where it is none or was not exported yet."""
    if artifact_id not in EXPORTED:
        return None
    try:
        body = store.get(schema.adapter_export(name, artifact_id.removeprefix(EXPORTS))).body
    except ObjectMissing:
        return None
    return ExportRecord.from_json(body).artifact
