"""Base models that lie in the bucket, on a real S3 server: what is fetched, once, and kept whole whatever dies."""

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from base_models.catalog import BUNDLED, read_allow_list
from service_kit.bucket_folders import fetched_folder, with_bucket_folders
from service_kit.folder_cache import FolderCache
from service_kit.serving import StartError
from service_kit.settings import StoreSettings, read_settings
from tests.fetching_process import counting_store
from tests.real_store import RealStore
from tests.small_disk import SMALL_DISK_BYTES, small_disk

# Two parts, in the store five.
_LARGE = bytes(range(256)) * (24 * 4096)
_FILES = {
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    "unet/config.json": b"{}",
    "unet/large.safetensors": _LARGE,
}
_numbers = itertools.count(1)


@pytest.fixture
def prefix() -> str:
    return f"base-models/test-{next(_numbers)}/"


def upload(store: RealStore, prefix: str, files: dict[str, bytes]) -> None:
    for name, body in files.items():
        store.store.put(prefix + name, body)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def fetching(store: RealStore, prefix: str, cache: Path, dies_at: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.fetching_process", prefix, str(cache), *([dies_at] if dies_at else [])]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=inherited | store.environment(), text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> tuple[Path, int]:
    """The folder that it has, and how many parts it asked for."""
    assert process.stdout is not None
    answer = json.loads(process.stdout.readline())
    return Path(answer["folder"]), answer["parts"]


def fetched(store: RealStore, prefix: str, cache: Path) -> tuple[Path, int]:
    """The same in this process, which from then on uses the folder."""
    counting = counting_store(store.environment())
    return fetched_folder(counting, prefix, "subject", FolderCache(cache)), counting.parts


def test_an_entry_in_the_bucket_becomes_a_folder_of_what_a_model_is_made_of(
    real_store: RealStore, prefix: str, tmp_path: Path
) -> None:
    toon = BUNDLED["toon-64"]
    model = {
        str(path.relative_to(toon)): path.read_bytes()
        for path in toon.rglob("*")
        if path.suffix in (".json", ".txt", ".safetensors") and not {"sets", "recipe"} & set(path.parts)
    }
    strange = ["unet/model.bin", "unet/x.ckpt", "x.py", ".cache/x.json", "unet/.x.json", "README.md", "a//b.json"]
    upload(real_store, prefix, model | dict.fromkeys(strange, b"{}"))
    settings = read_settings(StoreSettings, real_store.environment(), others=())
    cache = FolderCache(tmp_path / "cache")
    items = asyncio.run(with_bucket_folders(["toon-64", f" mine=bucket:{prefix}"], settings, cache))
    entries = read_allow_list(items)
    assert list(entries) == ["toon-64", "mine"]
    # The store takes `a//b` for `a/b`.
    assert contents(entries["mine"].folder).keys() - {"a/b.json"} == model.keys()
    assert entries["mine"].digest() == entries["toon-64"].digest()


def test_without_an_entry_in_the_bucket_neither_store_nor_cache_is_asked(tmp_path: Path) -> None:
    settings = StoreSettings(s3_endpoint="http://127.0.0.1:1", s3_patience_s=0)
    cache = FolderCache(tmp_path / "cache")
    assert asyncio.run(with_bucket_folders(["toon-64", "x=/nowhere"], settings, cache)) == ["toon-64", "x=/nowhere"]
    assert not (tmp_path / "cache").exists()


def test_a_killed_fetch_leaves_no_folder_and_the_next_brings_only_what_is_missing(
    real_store: RealStore, prefix: str, tmp_path: Path
) -> None:
    upload(real_store, prefix, _FILES)
    with fetching(real_store, prefix, tmp_path, dies_at="large.safetensors") as killed:
        assert killed.wait(60) == -9
    shelf = tmp_path / "subject"
    assert [path.name for path in shelf.iterdir() if path.is_dir() and not path.name.startswith(".")] == []
    folder, parts = fetched(real_store, prefix, tmp_path)
    # The two small files had come.
    assert parts == 2
    assert contents(folder) == _FILES
    assert fetched(real_store, prefix, tmp_path) == (folder, 0)


def test_of_processes_that_start_at_once_one_fetches_and_all_have_the_folder(
    real_store: RealStore, prefix: str, tmp_path: Path
) -> None:
    upload(real_store, prefix, _FILES)
    with (
        fetching(real_store, prefix, tmp_path) as first,
        fetching(real_store, prefix, tmp_path) as second,
    ):
        answers = [said(first), said(second)]
    assert sorted(parts for _, parts in answers) == [0, 4]
    (folder,) = {folder for folder, _ in answers}
    assert contents(folder) == _FILES


def test_a_file_that_was_damaged_is_fetched_again(real_store: RealStore, prefix: str, tmp_path: Path) -> None:
    upload(real_store, prefix, _FILES)
    folder, _ = fetched(real_store, prefix, tmp_path)
    large = folder / "unet" / "large.safetensors"
    with large.open("r+b") as file:
        file.seek(1000)
        file.write(b"?")
    (folder / "unet" / "config.json").unlink()
    assert fetched(real_store, prefix, tmp_path) == (folder, 3)
    assert contents(folder) == _FILES


def test_a_changed_prefix_is_another_folder_and_the_old_one_stays_while_it_is_used(
    real_store: RealStore, prefix: str, tmp_path: Path
) -> None:
    upload(real_store, prefix, _FILES | {"unet/old.json": b"{}"})
    with fetching(real_store, prefix, tmp_path) as user:
        old, _ = said(user)
        inode = (old / "unet" / "large.safetensors").stat().st_ino
        real_store.store.put(f"{prefix}unet/config.json", b"[]")
        real_store.store.delete(f"{prefix}unet/old.json")
        new, parts = fetched(real_store, prefix, tmp_path)
        assert parts == 1
        assert contents(new) == _FILES | {"unet/config.json": b"[]"}
        assert (new / "unet" / "large.safetensors").stat().st_ino == inode
        assert contents(old) == _FILES | {"unet/old.json": b"{}"}
    assert fetched(real_store, prefix, tmp_path) == (new, 0)
    assert not old.exists()
    assert contents(new) == _FILES | {"unet/config.json": b"[]"}


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    real_store: RealStore, prefix: str, tmp_path: Path
) -> None:
    upload(real_store, prefix, {"model_index.json": b"{}", "unet/weights.safetensors": bytes(2 * SMALL_DISK_BYTES)})
    with (
        small_disk(tmp_path / "disk") as disk,
        pytest.raises(StartError, match=r"PERSONAE_BASE_MODEL_CACHE: 2,097,154 bytes are to be fetched"),
    ):
        fetched_folder(real_store.store, prefix, "subject", FolderCache(disk))


def test_a_prefix_that_is_no_model_is_named(real_store: RealStore, prefix: str, tmp_path: Path) -> None:
    upload(real_store, prefix, {"unet/config.json": b"{}"})
    with pytest.raises(StartError, match=f"PERSONAE_BASE_MODELS: bucket:{prefix} holds no model_index.json among 1"):
        fetched_folder(real_store.store, prefix, "subject", FolderCache(tmp_path))
