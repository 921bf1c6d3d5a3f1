"""A full disk under the adapter cache, a real one: old files make room, and no generation fails by it."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_service.adapter_cache import AdapterCache
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.counting_store import CountingStore
from tests.small_disk import SMALL_DISK_BYTES, small_disk
from tests.unit.inference.fake_serving import FakeServing, ask_with_adapter, serve

A_QUARTER = SMALL_DISK_BYTES // 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as mounted:
        yield mounted


def _stored(store: CountingStore, number: int) -> str:
    body = bytes([number]) * A_QUARTER
    digest = hashlib.sha256(body).hexdigest()
    store.put(digest, body)
    return digest


def _keep(cache: AdapterCache, digest: str) -> None:
    body, _ = cache.read(digest, digest, len)
    cache.keep(digest, body)


def _fill(disk: Path) -> None:
    # As much of it as fits is written.
    with pytest.raises(OSError, match="No space left"):
        (disk / ".somebody-elses").write_bytes(bytes(2 * SMALL_DISK_BYTES))


def test_on_a_full_disk_the_longest_unused_files_make_room(disk: Path) -> None:
    store = CountingStore()
    # A bound that the disk cannot keep: somebody else's files are on it too.
    cache = AdapterCache(store, disk / "cache", 100 * SMALL_DISK_BYTES)
    digests = [_stored(store, number) for number in range(8)]
    for age, digest in enumerate(digests):
        _keep(cache, digest)
        os.utime(disk / "cache" / digest, (age, age))
    kept = [digest for digest in digests if cache.holds(digest)]
    assert kept == digests[-len(kept) :]
    assert len(kept) >= 3
    assert not [path for path in (disk / "cache").iterdir() if path.name.startswith(".")]


def test_where_nothing_can_make_room_files_are_served_from_the_bucket(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = CountingStore()
    cache = AdapterCache(store, disk / "cache", SMALL_DISK_BYTES)
    digest = _stored(store, 1)
    _fill(disk)
    for _ in range(2):
        _keep(cache, digest)
    assert not cache.holds(digest)
    assert store.calls == [("get", digest)] * 2
    assert "No space left" in caplog.text


def test_a_generation_does_not_fail_by_a_full_disk(disk: Path) -> None:
    names = [AdapterVersionName("default", "hero", version) for version in (1, 2)]

    async def scenario(serving: FakeServing) -> None:
        publish(serving.store, names[0], b"an adapter")
        await serving.generate(ask_with_adapter(names[0]))
        _fill(disk)
        publish(serving.store, names[1], bytes(A_QUARTER))
        answers = await serving.generate(ask_with_adapter(names[1]))
        assert answers[-1].HasField("done")

    serve(disk / "cache", scenario)
