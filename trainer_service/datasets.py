"""Datasets in the bucket: create, add pictures, read, list. Blocking; called from worker threads of the service.

Its one rule: an upload is one change of the record at its end, so half of one is never seen.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import PurePosixPath

from service_kit import schema
from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import ResourceExists, ResourceMissing, Violations, WriteConflict
from service_kit.names import DatasetName, MalformedName, ProjectName, check_id
from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from service_kit.tombstone import is_deleted, wrote_too_late
from trainer_service.consent import check_consent
from trainer_service.dataset_record import MAX_IMAGES, DatasetRecord
from trainer_service.decoder import Doctor
from trainer_service.image_entry import ImageEntry, image_entry, is_mask
from trainer_service.paging import PageRequest, page_of_ids, readable
from trainer_service.picture_doctor import FORMATS_IN_WORDS
from trainer_service.request_id import check_request_id, derived_id
from trainer_service.upload import MAX_CAPTION_CHARACTERS, MAX_IMAGE_BYTES, UploadedImage

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif"}
_ATTEMPTS = 8


class Datasets:
    """The datasets of a bucket. `now` gives the time in UTC."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime], doctor: Doctor) -> None:
        self._store = store
        self._now = now
        self._doctor = doctor

    def create(
        self, parent: str, dataset_id: str, request_id: str, incoming_id: str, consent: ConsentEntry | None = None
    ) -> DatasetRecord:
        """Make a dataset: empty, or from the pictures under an incoming folder."""
        violations = Violations()
        project = ProjectName("")
        try:
            project = ProjectName.parse(parent)
        except MalformedName as error:
            violations.add("parent", str(error))
        for field, text in (("dataset_id", dataset_id), ("incoming_id", incoming_id)):
            try:
                if text:
                    check_id(text)
            except MalformedName as error:
                violations.add(field, str(error))
        check_request_id(request_id, violations)
        check_consent(consent, "consent", violations)
        violations.raise_if_any()
        name = DatasetName(project.project, dataset_id or derived_id("dataset", project.project, request_id))
        if is_deleted(self._store, name):
            raise _deleted(name)
        record = DatasetRecord(
            project=name.project,
            dataset=name.dataset,
            request_id=request_id,
            created_at=self._now(),
            updated_at=self._now(),
            consent=consent,
        )
        entries = [self.keep(name, image) for image in self._incoming(project, incoming_id)] if incoming_id else []
        record = record.with_images(entries, self._now())
        try:
            self._store.create(schema.dataset_record(name), record.to_json())
        except ObjectExists:
            stored = self.get(name)
            if request_id and stored.request_id == request_id:
                if stored.consent != consent:
                    hint = "this request_id came with another body before; use a new one"
                    raise ResourceExists("Dataset", str(name), hint, "REQUEST_ID_REUSED") from None
                return stored
            raise ResourceExists("Dataset", str(name), "choose another dataset_id, or use this one") from None
        if wrote_too_late(self._store, name):
            self._store.delete(schema.dataset_record(name))
            raise _deleted(name)
        self._discard_unused(record, entries)
        return record

    def get(self, name: DatasetName) -> DatasetRecord:
        """Read a dataset. Raises ResourceMissing."""
        return self._read(name)[0]

    def page(self, project: ProjectName, request: PageRequest) -> tuple[list[DatasetRecord], str]:
        """A page of datasets by id, and the token of the next."""
        page = page_of_ids(self._store, schema.datasets_prefix(project), request)
        names = (DatasetName(project.project, dataset) for dataset in page.ids)
        return readable(names, self.get), page.next_token

    def keep(self, name: DatasetName, image: UploadedImage) -> ImageEntry:
        """Examine an uploaded file and store its picture or mask, which nothing refers to until `add` is called."""
        examine = self._doctor.examine_mask if is_mask(image.filename) else self._doctor.examine
        finding = examine(image.body)
        entry = image_entry(image.filename, image.caption, image.body, finding)
        if finding.png:
            self._store.put(_key(name, entry), finding.png)
        return entry

    def add(self, name: DatasetName, entries: list[ImageEntry]) -> DatasetRecord:
        """Add kept pictures, all at once. Raises InvalidRequest, ResourceMissing, WriteConflict."""
        for _ in range(_ATTEMPTS):
            record, etag = self._read(name)
            changed = record.with_images(entries, self._now())
            violations = Violations()
            violations.check(
                len(changed.images) <= MAX_IMAGES, "image", len(changed.images), f"at most {MAX_IMAGES:,} in a dataset"
            )
            violations.raise_if_any()
            if changed.images == record.images:
                changed = record
            else:
                try:
                    self._store.replace(schema.dataset_record(name), changed.to_json(), etag)
                except ObjectChanged:
                    continue
            self._discard_unused(changed, entries)
            return changed
        raise WriteConflict(f"other uploads to {name} kept winning")

    def discard(self, name: DatasetName, entries: list[ImageEntry]) -> None:
        """Delete kept pictures that were not added and that the dataset does not use."""
        try:
            used = self.get(name).stored_digests
        except ResourceMissing:
            used = frozenset()
        for entry in entries:
            if entry.digest and entry.digest not in used:
                self._store.delete(_key(name, entry))

    def _discard_unused(self, record: DatasetRecord, entries: list[ImageEntry]) -> None:
        used = record.stored_digests
        unused = [entry for entry in entries if entry.digest and entry.digest not in used]
        if unused:
            self.discard(record.name, unused)

    def _read(self, name: DatasetName) -> tuple[DatasetRecord, str]:
        try:
            stored = self._store.get(schema.dataset_record(name))
        except ObjectMissing:
            raise ResourceMissing("Dataset", str(name)) from None
        return DatasetRecord.from_json(stored.body), stored.etag

    def _incoming(self, project: ProjectName, incoming_id: str) -> Iterator[UploadedImage]:
        """The files of an incoming folder, read one by one. Raises ResourceMissing, InvalidRequest."""
        prefix = schema.incoming_prefix(project, incoming_id)
        keys = [PurePosixPath(key) for key in self._store.keys(prefix)]
        pictures = [key for key in keys if key.suffix.lower() in _PICTURE_SUFFIXES]
        if not pictures:
            raise ResourceMissing("incoming folder", prefix, f"put {FORMATS_IN_WORDS} files there first")
        violations = Violations()
        violations.check(len(pictures) <= MAX_IMAGES, "incoming_id", len(pictures), f"at most {MAX_IMAGES:,} pictures")
        violations.raise_if_any()
        captions = {key for key in keys if key.suffix == ".txt"}
        for key in pictures:
            yield self._incoming_image(key, key.with_suffix(".txt") in captions)

    def _incoming_image(self, key: PurePosixPath, captioned: bool) -> UploadedImage:
        # One byte over the limit is enough to know; the doctor then finds the file cut short.
        body = self._store.get_range(str(key), 0, MAX_IMAGE_BYTES + 1)
        caption = ""
        if captioned:
            text = self._store.get_range(str(key.with_suffix(".txt")), 0, 4 * MAX_CAPTION_CHARACTERS)
            caption = text.decode("utf-8", errors="replace").strip()[:MAX_CAPTION_CHARACTERS]
        return UploadedImage(key.name, caption, body)


def _deleted(name: DatasetName) -> ResourceExists:
    return ResourceExists("Dataset", str(name), "it was deleted, so its id stays taken; choose another", "DELETED")


def _key(name: DatasetName, entry: ImageEntry) -> str:
    of = schema.dataset_mask if entry.is_mask else schema.dataset_image
    return of(name, entry.digest)
