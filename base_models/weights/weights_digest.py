"""The digest of a base model's weights: files are hashed side by side, each once for as long as it stands still.

Its one rule: what was hashed before counts only for a file that has not been touched since: same path, inode, size and
both times. Hashing takes several times as long as loading what is hashed, so it is remembered beyond the process too.
"""

import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

# More would wait for the disk.
_SIDE_BY_SIDE = 4
# A file that is written twice within a tick of its clock looks the same both times; no clock in use ticks this slowly.
_TICK_S = 3.0
_FILES_REMEMBERED = 4096

_Standing = tuple[int, int, int, int]
"""Inode, size, and the times of the last change of its bytes and of anything, in nanoseconds."""


def weights_digest(folder: Path, cache: Path | None = None, now_ns: Callable[[], int] = time.time_ns) -> str:
    """SHA-256 (hex) over the weight files of a folder and their relative paths.

    cache: where the digests of files are kept, one small file for each; None: below the user's `.cache`. A cache that
    cannot be read or written costs the time of hashing, and nothing else.
    """
    paths = sorted(folder.rglob("*.safetensors"))
    with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="weights-digest") as pool:
        found = pool.map(lambda path: _digest(path.absolute(), cache, now_ns()), paths)
        total = hashlib.sha256()
        for path, digest in zip(paths, found, strict=True):
            total.update(f"{path.relative_to(folder)}:{digest}\n".encode())
    return total.hexdigest()


def _digest(path: Path, cache: Path | None, now_ns: int) -> str:
    *_, changed_ns, touched_ns = standing = _standing(path)
    if now_ns - max(changed_ns, touched_ns) < _TICK_S * 1e9:
        return _hashed(path)
    return _remembered(path, standing, cache)


@lru_cache(_FILES_REMEMBERED)
def _remembered(path: Path, standing: _Standing, cache: Path | None) -> str:
    """From the cache, or else hashed and put there."""
    entry = None
    # No home, no right to it, or something else at its place.
    with suppress(OSError, RuntimeError, ValueError):
        folder = cache or Path.home() / ".cache" / "personae" / "digests"
        entry = folder / f"{hashlib.sha256(bytes(path)).hexdigest()}.json"
        match json.loads(entry.read_text()):
            case {"standing": [*known], "sha256": str(digest)} if tuple(known) == standing:
                return digest
    digest = _hashed(path)
    if entry is not None and _standing(path) == standing:
        with suppress(OSError):
            _put(entry, json.dumps({"path": str(path), "standing": standing, "sha256": digest}))
    return digest


def _put(entry: Path, text: str) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    # Under a name of its own first: several processes may hash the same model.
    written = entry.with_suffix(f".{time.monotonic_ns()}")
    try:
        written.write_text(text)
        written.replace(entry)
    except OSError:
        # On a full disk a file can be begun, and not be written.
        written.unlink(missing_ok=True)
        raise


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _standing(path: Path) -> _Standing:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
