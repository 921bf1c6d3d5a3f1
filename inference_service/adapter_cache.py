"""Adapter files on this machine's disk, named by their SHA-256: a bounded cache in front of the bucket.

Its one rule: bytes leave it only if they have their hash, whether they come from the bucket or from the disk. A disk
that is full or broken makes it slower, never wrong.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

from service_kit.errors import DataLost
from service_kit.store import ObjectMissing, ObjectStore

_logger = logging.getLogger(__name__)


class AdapterCache:
    """Safe for use by several threads, and by several processes that share the folder."""

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes

    def read(self, key: str, digest: str) -> bytes:
        """The bytes stored under `key`, which have this SHA-256. Raises DataLost where the bucket lacks them."""
        body = self._from_disk(digest)
        if body is None:
            body = self._from_bucket(key, digest)
            self._to_disk(digest, body)
        return body

    def _from_disk(self, digest: str) -> bytes | None:
        path = self._folder / digest
        try:
            body = path.read_bytes()
            if _sha256(body) != digest:
                _logger.warning("%s is damaged and is fetched again", path)
                path.unlink(missing_ok=True)
                return None
            # The modification time says when a file was last used.
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.warning("the adapter cache cannot be read: %s", error)
            return None
        return body

    def _from_bucket(self, key: str, digest: str) -> bytes:
        try:
            body = self._store.get(key).body
        except ObjectMissing as error:
            raise DataLost(f"the adapter file {digest} is missing from the bucket; train the adapter again") from error
        found = _sha256(body)
        if found != digest:
            _logger.error("%s: %d bytes with SHA-256 %s", key, len(body), found)
            raise DataLost(f"the adapter file {digest} is damaged in the bucket; train the adapter again")
        return body

    def _to_disk(self, digest: str, body: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, scratch = tempfile.mkstemp(dir=self._folder, prefix=".")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(body)
                os.replace(scratch, self._folder / digest)
            except OSError:
                os.unlink(scratch)
                raise
            self._evict()
        except OSError as error:
            _logger.warning("the adapter cache cannot be written: %s", error)

    def _evict(self) -> None:
        """Delete the longest unused files until the rest is within the bound."""
        files = []
        for path in self._folder.iterdir():
            try:
                files.append((path, path.stat()))
            except FileNotFoundError:
                # Another process evicts too.
                continue
        total = sum(stat.st_size for _, stat in files)
        for path, stat in sorted(files, key=lambda file: file[1].st_mtime_ns):
            if total <= self._max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
