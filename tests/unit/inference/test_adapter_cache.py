"""The disk in front of the bucket: never wrong bytes, never more than the bound, no slower for what it holds."""

import hashlib
import os
from pathlib import Path

import pytest

from inference_service.adapter_cache import AdapterCache
from service_kit.errors import DataLost
from tests.counting_store import CountingStore


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def _stored(store: CountingStore, body: bytes) -> str:
    digest = hashlib.sha256(body).hexdigest()
    store.put(digest, body)
    return digest


def _read(cache: AdapterCache, digest: str) -> bytes:
    body, length = cache.read(digest, digest, len)
    assert length == len(body)
    return body


def _read_and_keep(cache: AdapterCache, digest: str) -> bytes:
    body = _read(cache, digest)
    cache.keep(digest, body)
    return body


def test_the_bucket_is_read_once(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    for _ in range(2):
        assert _read_and_keep(AdapterCache(store, tmp_path / "cache", 100), digest) == b"body"
    assert store.calls == [("get", digest)]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest]


def test_a_damaged_file_is_fetched_again(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    (tmp_path / digest).write_bytes(b"bod")
    assert _read_and_keep(AdapterCache(store, tmp_path, 100), digest) == b"body"
    assert (tmp_path / digest).read_bytes() == b"body"


def test_bytes_without_their_hash_are_lost_and_not_kept(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    store.put(digest, b"other")
    cache = AdapterCache(store, tmp_path, 100)
    with pytest.raises(DataLost, match="damaged"):
        _read_and_keep(cache, digest)
    store.delete(digest)
    with pytest.raises(DataLost, match="missing"):
        _read_and_keep(cache, digest)
    assert list(tmp_path.iterdir()) == []


def test_what_parsing_says_of_bytes_without_their_hash_does_not_count(store: CountingStore, tmp_path: Path) -> None:
    def refuse_others(body: bytes) -> int:
        if body != b"body":
            raise ValueError(body)
        return 1

    digest = _stored(store, b"body")
    (tmp_path / digest).write_bytes(b"bod")
    cache = AdapterCache(store, tmp_path, 100)
    assert cache.read(digest, digest, refuse_others) == (b"body", 1)
    store.put(digest, b"other")
    with pytest.raises(DataLost):
        cache.read(digest, digest, refuse_others)
    other = _stored(store, b"other")
    with pytest.raises(ValueError, match="other"):
        cache.read(other, other, refuse_others)


def test_the_longest_unused_files_make_room(store: CountingStore, tmp_path: Path) -> None:
    cache = AdapterCache(store, tmp_path, max_bytes=10)
    old, used, new = (_stored(store, body) for body in (b"old..", b"used.", b"new.."))
    for moment, digest in enumerate((old, used)):
        _read_and_keep(cache, digest)
        os.utime(tmp_path / digest, (moment, moment))
    _read(cache, old)
    os.utime(tmp_path / old, (5, 5))
    _read_and_keep(cache, new)
    assert {path.name for path in tmp_path.iterdir()} == {old, new}


def test_a_use_counts_between_two_listings_too(store: CountingStore, tmp_path: Path) -> None:
    cache = AdapterCache(store, tmp_path, max_bytes=320)
    digests = [_stored(store, b"%010d" % number) for number in range(33)]
    for digest in digests[:32]:
        _read_and_keep(cache, digest)
    _read(cache, digests[0])
    _read_and_keep(cache, digests[32])
    assert {path.name for path in tmp_path.iterdir()} == {digests[0], *digests[2:]}


def test_a_write_does_not_get_slower_with_the_files_that_are_there(
    store: CountingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    iterate = Path.iterdir

    def counted(folder: Path):  # type: ignore[no-untyped-def]
        files = list(iterate(folder))
        looked_at.append(len(files))
        return iter(files)

    monkeypatch.setattr(Path, "iterdir", counted)
    cache = AdapterCache(store, tmp_path, max_bytes=8_000)
    for number in range(1_600):
        body = b"%010d" % number
        cache.keep(hashlib.sha256(body).hexdigest(), body)
    # The second 800 find a full folder of 800; looking at all of it at each write would be 640,000.
    assert sum(looked_at) < 20 * 1_600
    assert len(list(iterate(tmp_path))) == 800


def test_processes_that_share_the_folder_keep_the_bound_together(store: CountingStore, tmp_path: Path) -> None:
    processes = [AdapterCache(store, tmp_path, max_bytes=1_600) for _ in range(4)]
    digests = [_stored(store, b"%010d" % number) for number in range(400)]
    largest = 0
    for number, digest in enumerate(digests):
        _read_and_keep(processes[number % 4], digest)
        largest = max(largest, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert 1_500 < largest <= 1_600 + 4 * 100
    # What one of them fetched serves all; what another deleted is fetched again.
    del store.calls[:]
    assert all(_read(process, digests[-1]) for process in processes)
    assert store.calls == []
    assert _read(processes[0], digests[0]) == b"%010d" % 0
    assert store.calls == [("get", digests[0])]


def test_a_file_that_is_being_written_is_left_alone_and_one_left_behind_is_not(
    store: CountingStore, tmp_path: Path
) -> None:
    for name in (".fresh", ".left"):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / ".left", (0, 0))
    AdapterCache(store, tmp_path, max_bytes=5).keep("digest", b"body.")
    assert {path.name for path in tmp_path.iterdir()} == {".fresh", "digest"}


def test_a_disk_that_cannot_be_written_only_costs_time(store: CountingStore, tmp_path: Path) -> None:
    digest = _stored(store, b"body")
    (tmp_path / "file").write_bytes(b"")
    cache = AdapterCache(store, tmp_path / "file", 100)
    assert _read_and_keep(cache, digest) == b"body"
    assert _read_and_keep(cache, digest) == b"body"
    cache.drop(digest)
