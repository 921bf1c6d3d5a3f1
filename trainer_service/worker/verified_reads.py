"""Reads of objects whose SHA-256 is known from elsewhere: what does not have it is never used.

Its one rule: a wrong hash is read again before it is believed, since it may have come about on the way.
"""

import hashlib

from service_kit.store import ObjectStore

_ATTEMPTS = 3


class DamagedObject(Exception):
    """What is stored does not have its hash."""


def read_verified(store: ObjectStore, key: str, digest: str) -> bytes:
    """The bytes of an object with this SHA-256 (hex). Raises DamagedObject, ObjectMissing."""
    for _ in range(_ATTEMPTS):
        body = store.get(key).body
        if hashlib.sha256(body).hexdigest() == digest:
            return body
    raise DamagedObject(f"{key} does not have its hash")
