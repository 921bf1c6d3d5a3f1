"""Datasets in the bucket: create, add pictures, read, list. Blocking; called from worker threads of the service.

Its one rule: an upload is one change of the record at its end, so half of one is never seen.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import PurePosixPath

from service_kit import schema
from service_kit.errors import ResourceExists, ResourceMissing, Violations, WriteConflict
from service_kit.names import DatasetName, MalformedName, ProjectName, check_id
from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from trainer_service.dataset_record import DatasetRecord, ImageEntry, image_entry
from trainer_service.paging import PageRequest, page_of_ids
from trainer_service.picture_doctor import examine
from trainer_service.request_id import check_request_id, derived_id
from trainer_service.upload import MAX_CAPTION_CHARACTERS, MAX_IMAGE_BYTES, UploadedImage

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_ATTEMPTS = 8


class Datasets:
    """The datasets of a bucket. `now` gives the time in UTC."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def create(self, parent: str, dataset_id: str, request_id: str, incoming_id: str) -> DatasetRecord:
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
        violations.raise_if_any()
        name = DatasetName(project.project, dataset_id or derived_id("dataset", project.project, request_id))
        record = DatasetRecord(
            project=name.project,
            dataset=name.dataset,
            request_id=request_id,
            created_at=self._now(),
            updated_at=self._now(),
        )
        if incoming_id:
            entries = [self.keep(name, image) for image in self._incoming(project, incoming_id)]
            record = record.with_images(entries, self._now())
        try:
            self._store.create(schema.dataset_record(name), record.to_json())
        except ObjectExists:
            stored = self.get(name)
            if request_id and stored.request_id == request_id:
                return stored
            raise ResourceExists("Dataset", str(name), "choose another dataset_id, or use this one") from None
        return record

    def get(self, name: DatasetName) -> DatasetRecord:
        """Read a dataset. Raises ResourceMissing."""
        return self._read(name)[0]

    def page(self, project: ProjectName, request: PageRequest) -> tuple[list[DatasetRecord], str]:
        """A page of datasets by id, and the token of the next."""
        page = page_of_ids(self._store, schema.datasets_prefix(project), request)
        records = []
        for dataset in page.ids:
            try:
                records.append(self.get(DatasetName(project.project, dataset)))
            except ResourceMissing:
                # Pictures of an upload whose dataset was never created, or is being created.
                continue
        return records, page.next_token

    def keep(self, name: DatasetName, image: UploadedImage) -> ImageEntry:
        """Examine an uploaded file and store its picture, which nothing refers to until `add` is called."""
        finding = examine(image.body)
        if finding.png:
            self._store.put(schema.dataset_image(name, finding.digest), finding.png)
        return image_entry(image.filename, image.caption, image.body, finding)

    def add(self, name: DatasetName, entries: list[ImageEntry]) -> DatasetRecord:
        """Add kept pictures, all at once. Raises ResourceMissing, WriteConflict."""
        for _ in range(_ATTEMPTS):
            record, etag = self._read(name)
            changed = record.with_images(entries, self._now())
            if changed.images == record.images:
                return record
            try:
                self._store.replace(schema.dataset_record(name), changed.to_json(), etag)
                return changed
            except ObjectChanged:
                continue
        raise WriteConflict(f"other uploads to {name} kept winning")

    def discard(self, name: DatasetName, entries: list[ImageEntry]) -> None:
        """Delete kept pictures that were not added and that the dataset does not use."""
        try:
            used = {image.digest for image in self.get(name).images}
        except ResourceMissing:
            used = set()
        for entry in entries:
            if entry.digest and entry.digest not in used:
                self._store.delete(schema.dataset_image(name, entry.digest))

    def _read(self, name: DatasetName) -> tuple[DatasetRecord, str]:
        try:
            stored = self._store.get(schema.dataset_record(name))
        except ObjectMissing:
            raise ResourceMissing("Dataset", str(name)) from None
        return DatasetRecord.from_json(stored.body), stored.etag

    def _incoming(self, project: ProjectName, incoming_id: str) -> list[UploadedImage]:
        prefix = schema.incoming_prefix(project, incoming_id)
        keys = [PurePosixPath(key) for key in self._store.keys(prefix)]
        pictures = [key for key in keys if key.suffix.lower() in _PICTURE_SUFFIXES]
        if not pictures:
            raise ResourceMissing("incoming folder", prefix, "put JPEG, PNG or WebP files there first")
        captions = {key for key in keys if key.suffix == ".txt"}
        return [self._incoming_image(key, key.with_suffix(".txt") in captions) for key in pictures]

    def _incoming_image(self, key: PurePosixPath, captioned: bool) -> UploadedImage:
        # One byte over the limit is enough to know; the doctor then finds the file cut short.
        body = self._store.get_range(str(key), 0, MAX_IMAGE_BYTES + 1)
        caption = ""
        if captioned:
            text = self._store.get_range(str(key.with_suffix(".txt")), 0, 4 * MAX_CAPTION_CHARACTERS)
            caption = text.decode("utf-8", errors="replace").strip()[:MAX_CAPTION_CHARACTERS]
        return UploadedImage(key.name, caption, body)
