"""The disk in front of the bucket: never wrong bytes, never more than the bound."""

import hashlib
import os
from pathlib import Path

import pytest

from inference_service.adapter_cache import AdapterCache
from service_kit.errors import DataLost
from service_kit.memory_store import MemoryStore
from service_kit.store import StoredObject


class CountingStore(MemoryStore):
    """Knows how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def get(self, key: str) -> StoredObject:
        self.reads += 1
        return super().get(key)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def _stored(store: MemoryStore, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    store.put(digest, body)
    return digest


def test_the_bucket_is_read_once(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    for _ in range(2):
        assert AdapterCache(store, tmp_path / "cache", 100).read(digest, digest) == b"body"
    assert store.reads == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


def test_a_damaged_file_is_fetched_again(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    (tmp_path / digest).write_bytes(b"bod")
    assert AdapterCache(store, tmp_path, 100).read(digest, digest) == b"body"
    assert (tmp_path / digest).read_bytes() == b"body"


def test_bytes_without_their_hash_are_lost_and_not_kept(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    store.put(digest, b"other")
    cache = AdapterCache(store, tmp_path, 100)
    with pytest.raises(DataLost, match="damaged"):
        cache.read(digest, digest)
    store.delete(digest)
    with pytest.raises(DataLost, match="missing"):
        cache.read(digest, digest)
    assert list(tmp_path.iterdir()) == []


def test_the_longest_unused_files_make_room(store: CountingStore, tmp_path: Path) -> None:
    cache = AdapterCache(store, tmp_path, max_bytes=10)
    old, used, new = (_stored(store, body) for body in (b"old..", b"used.", b"new.."))
    for moment, digest in enumerate((old, used)):
        cache.read(digest, digest)
        os.utime(tmp_path / digest, (moment, moment))
    cache.read(old, old)
    os.utime(tmp_path / old, (5, 5))
    cache.read(new, new)
    assert {path.name for path in tmp_path.iterdir()} == {old, new}


def test_a_disk_that_cannot_be_written_only_costs_time(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    (tmp_path / "file").write_bytes(b"")
    cache = AdapterCache(store, tmp_path / "file", 100)
    assert cache.read(digest, digest) == b"body"
    assert cache.read(digest, digest) == b"body"
