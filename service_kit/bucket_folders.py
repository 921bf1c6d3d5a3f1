"""Base models that lie in the bucket: `name=bucket:some/prefix` on the operator's list becomes `name=/folder`.

Its one rule: a file gets its name once all of it is on the disk and was compared with the bucket. What is there stays,
so a fetch that was killed goes on where it was, and a prefix that changed costs the files that changed.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from service_kit.etag import proves
from service_kit.folder_cache import FolderCache
from service_kit.minio_store import ListedObject, MinioStore
from service_kit.serving import StartError, connect_store
from service_kit.settings import PREFIX, StoreSettings
from service_kit.store import ObjectChanged, ObjectMissing, StoreError, StoreUnavailable

SCHEME = "bucket:"
_VARIABLE = f"{PREFIX}BASE_MODELS"
# What the folder of a model is made of. Nothing that runs, and no pickles: they are not even fetched.
_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*/?")
# Callers may write below it.
_OF_CALLERS = "projects"
# Together they bound the memory that a fetch takes.
_PART_BYTES, _PARTS_AT_ONCE = 16 * 1024**2, 8
# Of a part, beside what the store's own client asks again.
_ATTEMPTS = 5
# How often somebody may change the prefix while it is fetched.
_ROUNDS = 5
_UNFINISHED = ".part"
_logger = logging.getLogger(__name__)


async def with_bucket_folders(items: Iterable[str], settings: StoreSettings, cache: FolderCache) -> list[str]:
    """The entries of an allow-list, those in the bucket replaced by local folders that are whole.

    Others are passed on as they are, and without any in the bucket the store is not asked. Raises StartError. It blocks
    the event loop while it fetches: for a start, when nothing else runs and a signal may end it at once.
    """
    listed = list(items)
    prefixes = {item: prefix for item in listed if (prefix := prefix_of(item))}
    if not prefixes:
        return listed
    store = await connect_store(settings)
    found = []
    for item in listed:
        if item in prefixes:
            where = f"{settings.s3_endpoint}/{settings.s3_bucket}/{prefixes[item]}"
            folder = fetched_folder(store, prefixes[item], _hash_of(where), cache)
            found.append(f"{item.partition('=')[0]}={folder}")
        else:
            found.append(item)
    return found


def prefix_of(item: str) -> str | None:
    """The prefix that `name=bucket:prefix` names, with a slash at its end; None for an entry of another kind.

    Raises StartError for one that cannot be the folder of a model.
    """
    _, _, place = item.strip().partition("=")
    if not place.startswith(SCHEME):
        return None
    path = place.removeprefix(SCHEME)
    if not _PATH.fullmatch(path):
        raise StartError(
            f"{_VARIABLE}: found {item.strip()!r}; allowed is name={SCHEME}some/prefix, of letters, digits and ._- "
            "between slashes, without one at its beginning"
        )
    if path.split("/")[0] == _OF_CALLERS:
        raise StartError(f"{_VARIABLE}: found {item.strip()!r}; below {_OF_CALLERS}/ is what callers own")
    return f"{path.rstrip('/')}/"


def files_below(store: MinioStore, prefix: str) -> dict[str, ListedObject]:
    """What the folder is made of, by relative path. Raises StoreError."""
    found = {entry.key.removeprefix(prefix): entry for entry in store.listing(prefix)}
    return {path: entry for path, entry in sorted(found.items()) if _belongs(path)}


def fetched_folder(store: MinioStore, prefix: str, subject: str, cache: FolderCache) -> Path:
    """A local folder with what lies below the prefix. subject: its name in the cache. Raises StartError."""
    try:
        for _ in range(_ROUNDS):
            files = files_below(store, prefix)
            if "model_index.json" not in files:
                raise StartError(
                    f"{_VARIABLE}: {SCHEME}{prefix} holds no model_index.json among {len(files)} files; upload the "
                    "diffusers folder to it (docs/base-models.md)"
                )
            version = _hash_of(json.dumps([[path, file.size_bytes, file.etag] for path, file in files.items()]))
            try:
                return cache.folder(subject, version, _Fetch(store, files).fill)
            except (ObjectChanged, ObjectMissing) as error:
                _logger.info("%s%s changes while it is fetched: %s", SCHEME, prefix, error)
    except StoreError as error:
        raise StartError(
            f"{_VARIABLE}: {SCHEME}{prefix} could not be fetched ({error}); what has come is kept for the next start"
        ) from error
    raise StartError(f"{_VARIABLE}: {SCHEME}{prefix} changed {_ROUNDS} times while it was fetched; start again later")


def _belongs(path: str) -> bool:
    """Whether it is a file of a kind that is fetched, in a folder of its own name: no `..`, nothing hidden."""
    return path.endswith(_SUFFIXES) and all(step and not step.startswith(".") for step in path.split("/"))


class _Fetch:
    """One fetch of these files, by relative path."""

    def __init__(self, store: MinioStore, files: dict[str, ListedObject]) -> None:
        self._store = store
        self._files = files

    def fill(self, folder: Path) -> None:
        """Bring what is not there. Raises StoreError, OSError, and StartError where the disk has too little room."""
        missing = {path: file for path, file in self._files.items() if not _is_there(folder, path, file)}
        if not missing:
            return
        needed, free = sum(file.size_bytes for file in missing.values()), shutil.disk_usage(folder).free
        if needed > free:
            raise StartError(
                f"{PREFIX}BASE_MODEL_CACHE: {needed:,} bytes are to be fetched, and {free:,} are free at {folder}; "
                "make room or name a folder on a larger disk"
            )
        _logger.info("fetching %d files, %.2f GB, to %s", len(missing), needed / 1e9, folder)
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as threads:
            for path, file in missing.items():
                self._fetch(threads, file, folder / path)

    def _fetch(self, threads: ThreadPoolExecutor, file: ListedObject, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}{_UNFINISHED}")
        try:
            self._bring(threads, file, part)
            if not proves(file.etag, part):
                # Of some stores ETags say nothing of the bytes. What comes twice is right.
                first = _sha256(part)
                self._bring(threads, file, part)
                if _sha256(part) != first:
                    raise StoreUnavailable(f"{file.key}: two fetches brought different bytes")
            os.utime(part, ns=(_stamp_ns(file), _stamp_ns(file)))
            part.rename(target)
        except BaseException:
            # A disk that is full shall not stay so because of a file that is of no use.
            part.unlink(missing_ok=True)
            raise
        _logger.info("%s: %d bytes", target, file.size_bytes)

    def _bring(self, threads: ThreadPoolExecutor, file: ListedObject, part: Path) -> None:
        with part.open("wb") as opened:

            def bring(offset: int) -> None:
                body = self._part(file, offset)
                if os.pwrite(opened.fileno(), body, offset) < len(body):
                    raise OSError(f"{part}: the disk took less than was written")

            offsets = range(0, file.size_bytes, _PART_BYTES)
            for begun in range(0, len(offsets), _PARTS_AT_ONCE):
                # A window at a time, so that what fails is not followed by the rest of the file; and all of it, since
                # nobody may write once the file is closed.
                bringing = [threads.submit(bring, offset) for offset in offsets[begun : begun + _PARTS_AT_ONCE]]
                wait(bringing)
                for brought in bringing:
                    brought.result()
            os.fsync(opened.fileno())

    def _part(self, file: ListedObject, offset: int) -> bytes:
        length = min(_PART_BYTES, file.size_bytes - offset)
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._store.get_part(file.key, file.etag, offset, length)
            except StoreUnavailable as error:
                _logger.warning("a part is asked for again: %s", error)
        return self._store.get_part(file.key, file.etag, offset, length)


def _is_there(folder: Path, path: str, file: ListedObject) -> bool:
    """Whether it is there as it was fetched, or lies so in the folder of another version, from where it is linked."""
    target = folder / path
    if _is_as_fetched(target, file):
        return True
    for other in folder.parent.iterdir():
        if _is_as_fetched(other / path, file):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.hardlink_to(other / path)
            return True
    return False


def _is_as_fetched(path: Path, file: ListedObject) -> bool:
    """Whether nobody touched it since: it has the size, and the time that it was given."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return (stat.st_size, stat.st_mtime_ns) == (file.size_bytes, _stamp_ns(file))


def _stamp_ns(file: ListedObject) -> int:
    """The time that a fetched file is given: it stands for the ETag, and lies years before any model."""
    return 10**18 + int(_hash_of(file.etag), 16) % 10**17


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
