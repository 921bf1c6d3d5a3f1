"""The digest of weights: what it is, and that a file is hashed again when it was touched, and only then."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from base_models.weights.weights_digest import weights_digest

LONG_AGO_S = 1_000_000_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name in ("unet/weights.safetensors", "vae/weights.safetensors"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(name.encode())
    return folder


def later_ns() -> int:
    """A time at which what was just written counts as old."""
    return time.time_ns() + 3600 * 10**9


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.is_dir() else []


def test_it_covers_names_and_bytes_in_the_order_of_names(model: Path, tmp_path: Path) -> None:
    lines = "".join(
        f"{name}:{hashlib.sha256(name.encode()).hexdigest()}\n"
        for name in ("unet/weights.safetensors", "vae/weights.safetensors")
    )
    assert weights_digest(model, tmp_path / "cache") == hashlib.sha256(lines.encode()).hexdigest()


def test_what_was_just_written_is_hashed_and_not_remembered(model: Path, tmp_path: Path) -> None:
    before = weights_digest(model, tmp_path / "cache")
    (model / "vae" / "weights.safetensors").write_bytes(b"Vae/weights.safetensors")
    assert weights_digest(model, tmp_path / "cache") != before
    assert entries(tmp_path / "cache") == []


def test_another_process_takes_it_from_the_cache(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = weights_digest(model, cache, later_ns)
    for entry in entries(cache):
        known = json.loads(entry.read_text())
        entry.write_text(json.dumps(known | {"sha256": "0" * 64}))
    # This process remembers it too; under a cache of another name it has to look.
    cache.rename(tmp_path / "moved")
    assert weights_digest(model, cache, later_ns) == before
    assert weights_digest(model, tmp_path / "moved", later_ns) != before


def test_a_file_of_the_same_size_and_time_that_was_written_again_is_hashed_again(model: Path, tmp_path: Path) -> None:
    path = model / "vae" / "weights.safetensors"
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    before = weights_digest(model, tmp_path / "cache", later_ns)
    path.write_bytes(b"Vae/weights.safetensors")
    os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    assert weights_digest(model, tmp_path / "cache", later_ns) != before


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"standing": 1}', b"\xff"])
def test_a_damaged_cache_is_written_anew(model: Path, tmp_path: Path, damage: bytes) -> None:
    before = weights_digest(model, tmp_path / "cache", later_ns)
    for entry in entries(tmp_path / "cache"):
        entry.write_bytes(damage)
    (tmp_path / "cache").rename(tmp_path / "damaged")
    assert weights_digest(model, tmp_path / "damaged", later_ns) == before
    assert all(json.loads(entry.read_text())["sha256"] for entry in entries(tmp_path / "damaged"))


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(model: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert weights_digest(model, tmp_path / "cache", later_ns) == weights_digest(model, tmp_path / "other", later_ns)
