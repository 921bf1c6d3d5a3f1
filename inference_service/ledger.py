"""The output ledger: which generation made the picture with this hash. Prompts are in the file alone.

Its one rule: an entry is in the bucket before its picture leaves, and the first entry of a hash stays.
"""

import re
from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from service_kit import schema
from service_kit.document import Document, UnreadableDocument
from service_kit.errors import DataLost, ResourceMissing, Violations
from service_kit.names import DEFAULT_PROJECT, ID_PATTERN, MalformedName, ProjectName, check_id
from service_kit.store import ObjectExists, ObjectMissing, ObjectStore

_DIGEST = re.compile(r"[0-9a-f]{64}")


class LedgerAdapter(BaseModel):
    """An adapter version as it was applied; `digest` is the SHA-256 (hex) of its file."""

    model_config = ConfigDict(frozen=True)

    adapter: str
    weight: float
    digest: str


class Making(BaseModel):
    """How the images of one generation are made."""

    model_config = ConfigDict(frozen=True)

    generation: str
    adapters: tuple[LedgerAdapter, ...]
    base_model: str
    base_model_digest: str


class LedgerEntry(Document, Making):
    """Where one picture came from."""

    created_at: datetime


class Ledger:
    """The entries of all projects. All calls block; safe for use by several threads."""

    def __init__(self, store: ObjectStore, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def note(self, project: ProjectName, digest: str, making: Making) -> None:
        """Record an image's file by its SHA-256 (hex). Raises StoreUnavailable."""
        entry = LedgerEntry(created_at=self._clock(), **dict(making))
        try:
            self._store.create(schema.image_ledger_entry(project, digest), entry.to_json())
        except ObjectExists:
            # The same request was sent before and gave the same bytes.
            return

    def look_up(self, project: str, digest: str) -> LedgerEntry:
        """The entry of the picture in a project by its id; empty means the default.

        Raises InvalidRequest, ResourceMissing or DataLost.
        """
        violations = Violations()
        violations.check(_DIGEST.fullmatch(digest) is not None, "digest", digest, "64 lower-case hex digits")
        try:
            check_id(project or DEFAULT_PROJECT)
        except MalformedName:
            violations.check(False, "project", project, f"an id matching {ID_PATTERN}")
        violations.raise_if_any()
        name = ProjectName(project or DEFAULT_PROJECT)
        try:
            return LedgerEntry.from_json(self._store.get(schema.image_ledger_entry(name, digest)).body)
        except ObjectMissing:
            raise ResourceMissing("Image", f"{name}/images/{digest}") from None
        except UnreadableDocument as error:
            raise DataLost(f"the ledger's entry of {name}/images/{digest} cannot be read") from error
