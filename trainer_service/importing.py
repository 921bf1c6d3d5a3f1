"""Imports: a LoRA file from elsewhere becomes an adapter version.

Its one rule: what can be refused is refused before anything is written, and the manifest is written last. A stream that
breaks leaves nothing; a service that is killed leaves what a repeat uses and what others pass by.

The file waits on disk, not in memory, while it comes; one file at a time is converted, which takes the memory of what
comes of it, in float32: up to three times the file.
"""

import asyncio
import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any, TypeVar

from base_models.adapters.adapter_import import ImportedAdapter, import_adapter
from base_models.adapters.adapter_rules import AdapterInvalid
from base_models.adapters.layer_shapes import LayerShapes, read_layer_shapes
from base_models.catalog import BaseModelEntry
from service_kit import schema
from service_kit.adapter_manifest import (
    ADAPTER_FILE,
    AdapterManifest,
    AdapterReservation,
    ArtifactEntry,
    read_manifest,
    read_reservation,
    versions,
)
from service_kit.document import Document
from service_kit.errors import InvalidRequest, ResourceExists, TryLater, Violation
from service_kit.names import AdapterName, AdapterVersionName, ProjectName
from service_kit.store import ObjectExists, ObjectMissing, ObjectStore
from trainer_service.consent import require_consent
from trainer_service.import_request import CheckedImport, ImportPart, ImportStream, invalid_file
from trainer_service.request_id import derived_id
from trainer_service.versions import free_version, reserve_version

T = TypeVar("T")

# Each may fill the disk with the largest file.
_MOST_AT_ONCE = 4
_FULL_RETRY_S = 15.0
_LONGEST_SILENCE_S = 60.0


class ImportRecord(Document):
    """What was asked for under a `request_id`."""

    request_digest: str


class Importing:
    """Takes in files. `base_models` are those that are allowed; `now` gives the time in UTC.

    require_consent: take none that nobody agreed to.
    """

    def __init__(
        self,
        store: ObjectStore,
        base_models: Mapping[str, BaseModelEntry],
        now: Callable[[], datetime],
        require_consent: bool = False,
    ) -> None:
        self._store = store
        self._base_models = base_models
        self._now = now
        self._require_consent = require_consent
        self._at_work = 0
        self._converting = threading.Lock()
        # Of base models, whose files are large and do not change.
        self._known: dict[str, tuple[LayerShapes, str]] = {}

    async def receive(
        self, parts: AsyncIterator[ImportPart], longest_silence_s: float = _LONGEST_SILENCE_S
    ) -> AdapterManifest:
        """The adapter version that a stream brought.

        longest_silence_s: how long to wait for the next message. Raises InvalidRequest, PreconditionUnmet,
        ResourceExists, TryLater.
        """
        stream, digest = ImportStream(self._base_models), hashlib.sha256()
        with self._place(), tempfile.TemporaryFile(prefix="import-", dir=_waiting_room()) as file:
            async for part in _spoken(parts, longest_silence_s):
                known = stream.checked is not None
                chunk = stream.feed(part)
                if stream.checked is not None and not known:
                    # Before the file, so that a name that is taken costs no upload.
                    await _carried_out(self._check_free, stream.checked)
                digest.update(chunk)
                await _carried_out(_append, file, chunk)
            return await _carried_out(self._publish, stream.finish(), file, digest.hexdigest())

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._at_work >= _MOST_AT_ONCE:
            raise TryLater("IMPORTS_FULL", f"{_MOST_AT_ONCE} imports are at work, which is the most", _FULL_RETRY_S)
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    def _check_free(self, checked: CheckedImport) -> None:
        if self._require_consent:
            require_consent(checked.consent, str(checked.adapter), "set header.consent")
        free_version(self._store, checked.adapter, self._claim(checked), checked.new_version, self._now())

    def _publish(self, checked: CheckedImport, file: IO[bytes], file_digest: str) -> AdapterManifest:
        claim, request_digest = self._claim(checked), checked.digest(file_digest)
        earlier = self._earlier(checked, claim, request_digest)
        if earlier is not None:
            return earlier
        with self._converting:
            shapes, base_model_digest = self._base_model(checked.entry)
            try:
                imported = _convert(file, shapes, checked.entry.pipeline)
            except AdapterInvalid as error:
                raise invalid_file(checked.adapter, str(error)) from error
            self._remember(checked, claim, request_digest)
            return self._birth(checked, claim, imported, base_model_digest)

    def _birth(
        self, checked: CheckedImport, claim: AdapterReservation, imported: ImportedAdapter, base_model_digest: str
    ) -> AdapterManifest:
        """Write the file, reserve the version, write the manifest; between the last two lies nothing slow."""
        digest = hashlib.sha256(imported.body).hexdigest()

        def keep(name: AdapterVersionName) -> None:
            self._store.put(schema.adapter_blob(name, digest), imported.body)

        version = reserve_version(self._store, checked.adapter, claim, checked.new_version, self._now(), keep)
        name = checked.adapter.version(version)
        manifest = AdapterManifest(
            project=name.project,
            adapter=name.adapter,
            version=version,
            base_model=checked.entry.name,
            base_model_digest=base_model_digest,
            pipeline=checked.entry.pipeline,
            training="",
            dataset_digest="",
            trigger_word=checked.trigger_word,
            class_noun=checked.class_noun,
            rank=imported.rank,
            targets=imported.targets,
            training_config={},
            created_at=self._now(),
            artifacts=(
                ArtifactEntry(
                    artifact_id=ADAPTER_FILE,
                    media_type="application/octet-stream",
                    size_bytes=len(imported.body),
                    digest=digest,
                ),
            ),
            licence=checked.licence,
            consent=checked.consent,
        )
        try:
            self._store.create(schema.adapter_manifest(name), manifest.to_json())
        except ObjectExists:
            # A repeat of the same request, at the same time.
            stored = read_manifest(self._store, name)
            if stored is None:
                raise
            return stored
        return manifest

    def _claim(self, checked: CheckedImport) -> AdapterReservation:
        import_id = derived_id("import", checked.adapter.project, checked.request_id)
        return AdapterReservation(import_id=import_id, reserved_at=self._now())

    def _record_key(self, checked: CheckedImport, claim: AdapterReservation) -> str:
        return schema.import_record(ProjectName(checked.adapter.project), claim.import_id)

    def _earlier(
        self, checked: CheckedImport, claim: AdapterReservation, request_digest: str
    ) -> AdapterManifest | None:
        """What an equal request published before; None where none did, or none came so far. Raises ResourceExists."""
        if not checked.request_id:
            return None
        try:
            body = self._store.get(self._record_key(checked, claim)).body
        except ObjectMissing:
            return None
        if ImportRecord.from_json(body).request_digest != request_digest:
            raise _reused(checked.adapter)
        for version in versions(self._store, checked.adapter):
            name = checked.adapter.version(version)
            reservation = read_reservation(self._store, name)
            if reservation is not None and reservation.is_of(claim):
                return read_manifest(self._store, name)
        return None

    def _remember(self, checked: CheckedImport, claim: AdapterReservation, request_digest: str) -> None:
        if not checked.request_id:
            return
        try:
            self._store.create(self._record_key(checked, claim), ImportRecord(request_digest=request_digest).to_json())
        except ObjectExists:
            raise _reused(checked.adapter) from None

    def _base_model(self, entry: BaseModelEntry) -> tuple[LayerShapes, str]:
        if entry.name not in self._known:
            self._known[entry.name] = read_layer_shapes(entry), entry.digest()
        return self._known[entry.name]


def _waiting_room() -> str:
    """Where temporary files go. `tempfile` tries whether it can write there, and on a full disk goes elsewhere."""
    return os.environ.get("TMPDIR") or "/tmp"


def _append(file: IO[bytes], chunk: bytes) -> None:
    file.write(chunk)
    # Here a full disk is told as what it is; at closing it would take the place of any other refusal.
    file.flush()


def _convert(file: IO[bytes], shapes: LayerShapes, pipeline: str) -> ImportedAdapter:
    if file.tell() == 0:
        # Nothing cannot be mapped.
        return import_adapter(b"", shapes, pipeline)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return import_adapter(body, shapes, pipeline)


async def _spoken(parts: AsyncIterator[ImportPart], longest_silence_s: float) -> AsyncIterator[ImportPart]:
    """The parts, as long as they keep coming: whoever falls silent would keep his place for ever."""
    while True:
        try:
            async with asyncio.timeout(longest_silence_s):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            silence = f"found nothing for {longest_silence_s:g} seconds; allowed is that; send the file again"
            raise InvalidRequest([Violation("part", silence)]) from None
        yield part


async def _carried_out(work: Callable[..., T], *arguments: Any) -> T:
    """What the work returns, in a thread. It is over when this is, also where this is cancelled: it uses the file."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            # Nobody asks for it any more.
            running.exception()
        raise


def _reused(adapter: AdapterName) -> ResourceExists:
    hint = "this request_id came with another body before; use a new one"
    return ResourceExists("Adapter", str(adapter), hint, "REQUEST_ID_REUSED")
