"""Tombstones: what is left of a deleted resource, and how those who write into one learn of it.

Its one rule: write, then look. A deletion sets the tombstone and then looks for what there is; so of a write and a
deletion at the same time, one sees the other, however long either is held up.
"""

import secrets
from datetime import datetime

from service_kit import schema
from service_kit.document import Document
from service_kit.schema import Deletable
from service_kit.store import ObjectMissing, ObjectStore


class Tombstone(Document):
    """That a resource was deleted. `request_id` is empty where the caller gave none."""

    name: str
    deleted_at: datetime
    request_id: str


def read_tombstone(store: ObjectStore, name: Deletable) -> Tombstone | None:
    """The tombstone of a resource, or None where it was not deleted."""
    try:
        return Tombstone.from_json(store.get(schema.tombstone(name)).body)
    except ObjectMissing:
        return None


def is_deleted(store: ObjectStore, name: Deletable) -> bool:
    """Whether a resource was deleted."""
    return read_tombstone(store, name) is not None


def enter_deletion(store: ObjectStore, name: Deletable) -> None:
    """Have a resource swept, from now on until some minutes from now. Without a tombstone it is left alone."""
    store.put(schema.deletion_entry(name, secrets.token_hex(8)), b"")


def wrote_too_late(store: ObjectStore, name: Deletable) -> bool:
    """Whether a resource is deleted into which the caller just wrote. What was written is then swept."""
    if not is_deleted(store, name):
        return False
    enter_deletion(store, name)
    return True
