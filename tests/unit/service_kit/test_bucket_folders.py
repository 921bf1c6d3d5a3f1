"""Fetching base models from stores that misbehave, and what an entry of the list may look like. No real store."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from service_kit.bucket_folders import fetched_folder, prefix_of
from service_kit.etag import proves
from service_kit.folder_cache import FolderCache
from service_kit.minio_store import ListedObject
from service_kit.serving import StartError
from service_kit.store import ObjectChanged, StoreUnavailable

_MIB = 1024**2


class StrangeStore:
    """Lists one folder; its ETags say nothing of the bytes, as those of a store that encrypts. answers: what each GET
    of the weights gives, the last one for ever."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.listed = 0

    def listing(self, prefix: str) -> Iterator[ListedObject]:
        self.listed += 1
        index = hashlib.md5(b"{}").hexdigest()
        yield ListedObject(f"{prefix}model_index.json", 2, index)
        yield ListedObject(f"{prefix}unet/w.safetensors", 4, f"{self.listed:032d}")

    def get_part(self, key: str, etag: str, offset: int, length: int) -> bytes:
        if key.endswith(".json"):
            return b"{}"
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def fetch(store: StrangeStore, cache: Path) -> Path:
    return fetched_folder(store, "m/", "subject", FolderCache(cache))  # type: ignore[arg-type]


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_bytes_that_no_etag_proves_are_taken_when_they_come_twice(tmp_path: Path) -> None:
    store = StrangeStore(b"abcd")
    assert (fetch(store, tmp_path) / "unet" / "w.safetensors").read_bytes() == b"abcd"
    assert store.asked == 2


def test_bytes_that_come_in_two_ways_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="two fetches brought different bytes"):
        fetch(StrangeStore(b"abcd", b"abce"), tmp_path)
    assert files(tmp_path) == ["lock", "model_index.json"]


def test_a_part_that_the_store_could_not_give_is_asked_for_again(tmp_path: Path) -> None:
    store = StrangeStore(StoreUnavailable("cut"), StoreUnavailable("cut"), b"abcd")
    fetch(store, tmp_path)
    assert store.asked == 4


def test_a_store_that_stays_away_ends_the_start_and_leaves_what_came(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"could not be fetched .* is kept for the next start"):
        fetch(StrangeStore(StoreUnavailable("away")), tmp_path)
    assert files(tmp_path) == ["lock", "model_index.json"]


def test_a_file_that_changes_meanwhile_has_the_prefix_listed_again_a_few_times(tmp_path: Path) -> None:
    store = StrangeStore(ObjectChanged("m/unet/w.safetensors"), b"abcd")
    fetch(store, tmp_path)
    assert store.listed == 2
    with pytest.raises(StartError, match="changed 5 times"):
        fetch(StrangeStore(ObjectChanged("m/unet/w.safetensors")), tmp_path / "other")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="PERSONAE_BASE_MODEL_CACHE"):
        fetch(StrangeStore(b"abcd"), tmp_path / "file")


@pytest.mark.parametrize("item", ["toon-64", "sdxl=/models/sdxl", "x=s3://bucket/model", "x="])
def test_entries_of_other_kinds_have_no_prefix(item: str) -> None:
    assert prefix_of(item) is None


@pytest.mark.parametrize("item", ["sdxl=bucket:base-models/sdxl", " sdxl=bucket:base-models/sdxl/ "])
def test_a_prefix_ends_with_a_slash(item: str) -> None:
    assert prefix_of(item) == "base-models/sdxl/"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/base-models", "a//b", "../a", "a/../b", "a/./b", "a\\b", "a b", "projects/x", "projects", "a/.b"],
)
def test_a_prefix_that_cannot_be_a_models_is_refused(path: str) -> None:
    with pytest.raises(StartError, match="PERSONAE_BASE_MODELS: found"):
        prefix_of(f"sdxl=bucket:{path}")


def test_an_etag_proves_a_file_that_was_uploaded_whole_or_in_usual_parts(tmp_path: Path) -> None:
    path, body = tmp_path / "x", bytes(range(256)) * (50 * 1024)
    path.write_bytes(body)
    parts = {
        mib: [hashlib.md5(body[at : at + mib * _MIB]).digest() for at in range(0, len(body), mib * _MIB)]
        for mib in (5, 8, 7)
    }
    etags = {mib: f"{hashlib.md5(b''.join(hashes)).hexdigest()}-{len(hashes)}" for mib, hashes in parts.items()}
    assert proves(hashlib.md5(body).hexdigest(), path)
    assert proves(etags[5], path)
    assert proves(etags[8], path)
    assert not proves(etags[7], path)
    path.write_bytes(body[:-1] + b"?")
    assert not any(proves(etag, path) for etag in (hashlib.md5(body).hexdigest(), etags[5], etags[8]))
    path.write_bytes(b"")
    assert proves(hashlib.md5().hexdigest(), path)
