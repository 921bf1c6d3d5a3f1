"""Copy base models from the bucket to a volume: `python fill_weights.py /models`, in the trainer's image.

`base-models/{folder}/SHA256SUMS` says what a folder holds, in the form of `sha256sum`. Its one rule: a file gets its
name once all of it is on the disk and has that hash: a run that was killed is only run again, and what is there stays.
"""

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path

from service_kit.minio_store import MinioStore
from service_kit.serving import StartError, connect_store
from service_kit.settings import PREFIX, SettingsError, StoreSettings, read_settings
from service_kit.store import StoreError

_PREFIX = "base-models/"
_SUMS = "SHA256SUMS"
_PART_BYTES = 16 * 1024**2
_LINE = re.compile(r"([0-9a-f]{64})[ ][ *](\S.*)")


class BadSums(Exception):
    """A SHA256SUMS that is not one."""


def main() -> None:
    """Fill the folder that is named, or say in one line why not."""
    environ = {name: value for name, value in os.environ.items() if name.startswith(f"{PREFIX}S3_")}
    try:
        store = asyncio.run(connect_store(read_settings(StoreSettings, environ, others=())))
        fill(store, Path(sys.argv[1]))
    except (SettingsError, StartError, StoreError, BadSums, OSError) as error:
        sys.exit(f"cannot fill {sys.argv[1]}: {error}")


def fill(store: MinioStore, target: Path) -> None:
    """Bring every folder that has a list of its files."""
    sums = [key for key in store.keys(_PREFIX) if key.endswith(f"/{_SUMS}")]
    for key in sums:
        folder = key.removesuffix(f"/{_SUMS}")
        for sha256, name in listed(key, store.get(key).body.decode()):
            path = target / folder.removeprefix(_PREFIX) / name
            if path.exists() and hash_of(path) == sha256:
                print(f"{path}: is there", flush=True)
            else:
                fetch(store, f"{folder}/{name}", path, sha256)
    print(f"{len(sums)} folders of {_PREFIX} are in {target}", flush=True)


def listed(key: str, text: str) -> list[tuple[str, str]]:
    """The hash and relative path of each file. Raises BadSums, for a path that leads out of the folder too."""
    found = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[2].startswith("/") or ".." in Path(match[2]).parts:
            raise BadSums(
                f"{key}: found the line {line!r}; allowed is a SHA-256, two spaces and a path below the folder"
            )
        found.append((match[1], match[2].removeprefix("./")))
    return found


def fetch(store: MinioStore, key: str, path: Path, sha256: str) -> None:
    """Bring one file. Raises BadSums where the bucket has other bytes than the list says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    digest, size_bytes = hashlib.sha256(), 0
    with part.open("wb") as file:
        while body := store.get_range(key, size_bytes, _PART_BYTES):
            file.write(body)
            digest.update(body)
            size_bytes += len(body)
            if len(body) < _PART_BYTES:
                break
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256:
        part.unlink()
        raise BadSums(f"{key}: has SHA-256 {digest.hexdigest()}; its {_SUMS} says {sha256}")
    part.rename(path)
    print(f"{path}: {size_bytes} bytes", flush=True)


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
