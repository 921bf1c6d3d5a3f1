"""Adapter files on this machine's disk, named by their SHA-256: a bounded cache in front of the bucket.

Its one rule: bytes leave it only if they have their hash, whether they come from the bucket or from the disk. A disk
that is full or broken makes it slower, never wrong: no generation fails by it, since what is read is in memory before
it is written. On a full disk the longest unused files make room.
"""

import errno
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from service_kit.errors import DataLost
from service_kit.store import ObjectMissing, ObjectStore

# The folder is listed again after this share of the bound was written, so each file written costs looks at some 16
# others, however many there are.
_LISTINGS_IN_A_BOUND = 16
# What says that a disk, or our share of it, is full.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Files begin so while they are written; one that is older than this was left by a process that died.
_SCRATCH, _SCRATCH_LIFE_S = ".", 3600.0
_logger = logging.getLogger(__name__)

T = TypeVar("T")


class AdapterCache:
    """Safe for use by several threads, and by several processes that share the folder.

    What others write there is seen when the folder is listed, so each of them may carry it beyond the bound by a
    sixteenth for a while.
    """

    def __init__(self, store: ObjectStore, folder: Path, max_bytes: int) -> None:
        self._store = store
        self._folder = folder
        self.max_bytes = max_bytes
        self.reads: Counter[str] = Counter()
        """Files that came from the `disk`, and from the `bucket`."""
        self._lock = threading.Lock()
        # As of the last listing and what happened here since; the longest unused first.
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total_bytes = 0
        self._until_listing_bytes = 0

    def read(self, key: str, digest: str, parse: Callable[[bytes], T]) -> tuple[bytes, T]:
        """The bytes stored under `key`, which have this SHA-256, and what `parse` makes of them.

        Raises DataLost where the bucket lacks them, else what `parse` raises. It is called with bytes whose hash is not
        known yet, because hashing takes as long. What comes from the bucket is not written to the disk before `keep`.
        """
        body = self._from_disk(digest)
        if body is not None:
            parsed = _parse_if(digest, body, parse)
            if parsed is not None:
                self._count("disk")
                return body, parsed[0]
            _logger.warning("%s is damaged and is fetched again", self._folder / digest)
            self.drop(digest)
        body = self._from_bucket(key, digest)
        parsed = _parse_if(digest, body, parse)
        if parsed is None:
            _logger.error("%s: %d bytes with another SHA-256", key, len(body))
            raise DataLost(f"the adapter file {digest} is damaged in the bucket; train the adapter again")
        self._count("bucket")
        return body, parsed[0]

    def keep(self, digest: str, body: bytes) -> None:
        """Write bytes that `read` gave to the disk, where they are not there yet."""
        if self.holds(digest):
            return
        try:
            try:
                self._write(digest, body)
            except OSError as error:
                if error.errno not in _DISK_FULL or not self._free(len(body)):
                    raise
                self._write(digest, body)
            self._make_room(digest, len(body))
        except OSError as error:
            _logger.warning("the adapter cache cannot be written: %s", error)

    def holds(self, digest: str) -> bool:
        """Whether the disk has a file of this name."""
        return (self._folder / digest).exists()

    def drop(self, digest: str) -> None:
        """Delete a file; a missing one is no error."""
        with self._lock:
            self._total_bytes -= self._sizes.pop(digest, 0)
        try:
            (self._folder / digest).unlink(missing_ok=True)
        except OSError as error:
            _logger.warning("the adapter cache cannot be written: %s", error)

    @property
    def known_bytes(self) -> int:
        """Bytes on the disk, as of the last listing and what happened here since."""
        return self._total_bytes

    def _count(self, place: str) -> None:
        with self._lock:
            self.reads[place] += 1

    def _write(self, digest: str, body: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=self._folder, prefix=_SCRATCH)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            os.replace(scratch, self._folder / digest)
        except OSError:
            os.unlink(scratch)
            raise

    def _free(self, size_bytes: int) -> bool:
        """Delete the longest unused files that together have so many bytes; False where all of them have fewer."""
        with self._lock:
            self._list()
            if self._total_bytes < size_bytes:
                return False
            self._shrink_to(self._total_bytes - size_bytes)
        return True

    def _shrink_to(self, max_bytes: int) -> None:
        while self._total_bytes > max_bytes:
            oldest, freed_bytes = self._sizes.popitem(last=False)
            self._total_bytes -= freed_bytes
            (self._folder / oldest).unlink(missing_ok=True)

    def _from_disk(self, digest: str) -> bytes | None:
        path = self._folder / digest
        try:
            body = path.read_bytes()
            # The modification time says when a file was last used, to other processes too.
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            _logger.warning("the adapter cache cannot be read: %s", error)
            return None
        with self._lock:
            self._note(digest, len(body))
        return body

    def _from_bucket(self, key: str, digest: str) -> bytes:
        try:
            return self._store.get(key).body
        except ObjectMissing as error:
            raise DataLost(f"the adapter file {digest} is missing from the bucket; train the adapter again") from error

    def _make_room(self, digest: str, size_bytes: int) -> None:
        """Take a new file into account, and delete the longest unused until the rest is within the bound."""
        with self._lock:
            self._until_listing_bytes -= size_bytes
            if self._until_listing_bytes < 0:
                self._list()
                self._until_listing_bytes = self.max_bytes // _LISTINGS_IN_A_BOUND
            self._note(digest, size_bytes)
            self._shrink_to(self.max_bytes)

    def _list(self) -> None:
        files = []
        written_before_s = time.time() - _SCRATCH_LIFE_S
        for path in self._folder.iterdir():
            try:
                stat = path.stat()
            except FileNotFoundError:
                # Another process makes room too.
                continue
            if not path.name.startswith(_SCRATCH) or stat.st_mtime < written_before_s:
                files.append((path.name, stat))
        files.sort(key=lambda file: file[1].st_mtime_ns)
        self._sizes = OrderedDict((name, stat.st_size) for name, stat in files)
        self._total_bytes = sum(self._sizes.values())

    def _note(self, digest: str, size_bytes: int) -> None:
        self._total_bytes += size_bytes - self._sizes.get(digest, 0)
        self._sizes[digest] = size_bytes
        self._sizes.move_to_end(digest)


def _parse_if(digest: str, body: bytes, parse: Callable[[bytes], T]) -> tuple[T] | None:
    """What `parse` makes of the bytes, or raises; None where their SHA-256 is another."""
    with ThreadPoolExecutor(1) as beside:
        parsed = beside.submit(parse, body)
        is_right = hashlib.sha256(body).hexdigest() == digest
    try:
        return (parsed.result(),) if is_right else None
    finally:
        # The future has the error, and the error this frame: they would keep each other, and the bytes with them.
        del parsed
