"""Base models whose weights lie in one checkpoint: brought into diffusers' layout once, then folders as any. No torch.

Its one rule: the checkpoint is read by a child process, so that who asks needs no torch; what the folder has besides is
linked, not copied.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from base_models.catalog import BaseModelEntry, CatalogError, describe
from base_models.weights.weight_files import checkpoint_of, parts_in_checkpoint, problems

Keep = Callable[[str, str, Callable[[Path], None]], Path]
"""Given a subject, a version of it and what fills a folder: the folder of that version, filled once on this machine."""

# Pickles are not even linked.
_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja")
# Written last: which files the conversion made, as they were then.
_RECORD = ".converted.json"


def ready(entries: dict[str, BaseModelEntry], keep: Keep) -> dict[str, BaseModelEntry]:
    """The same models, in folders that hold the weights of every part. Raises CatalogError, and what `keep` raises.

    What has to be converted for that takes minutes for large models, and on the disk as much again as the checkpoint.
    """
    return {name: _ready(entry, keep) for name, entry in entries.items()}


def _ready(entry: BaseModelEntry, keep: Keep) -> BaseModelEntry:
    try:
        if found := "; ".join(problems(entry)):
            raise CatalogError(f"{entry.name}: {found}")
        if not parts_in_checkpoint(entry):
            return entry
        subject = f"converted-{_hash_of(entry.name)}"
        return describe(entry.name, keep(subject, _version(entry), lambda folder: _fill(entry, folder)))
    except (OSError, ValueError) as error:
        raise CatalogError(f"{entry.name}: {entry.folder}: {type(error).__name__}: {error}") from error


def _version(entry: BaseModelEntry) -> str:
    """Another one where any of the folder's files was replaced, or diffusers was: the names are its own."""
    seen = [[str(path.resolve()), *_as_it_is(path)] for path in _files(entry.folder)]
    return _hash_of(json.dumps([str(entry.folder), version("diffusers"), seen]))


def _fill(entry: BaseModelEntry, folder: Path) -> None:
    if _is_as_converted(folder):
        return
    checkpoint, converted = checkpoint_of(entry), parts_in_checkpoint(entry)
    for path in _files(entry.folder):
        if path != checkpoint:
            link = folder / path.relative_to(entry.folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    _convert(entry.name, checkpoint, folder, converted)
    made = [path for part in converted for path in sorted((folder / part).rglob("*")) if not path.is_symlink()]
    record = {str(path.relative_to(folder)): _as_it_is(path) for path in made if path.is_file()}
    unfinished = folder / f"{_RECORD}.part"
    unfinished.write_text(json.dumps(record))
    unfinished.rename(folder / _RECORD)


def _convert(name: str, checkpoint: Path, folder: Path, converted: list[str]) -> None:
    command = [sys.executable, "-m", "base_models.weights.checkpoint_conversion", "--end-with-input"]
    command += [str(checkpoint), str(folder), *converted]
    # Its input stays open for as long as this process lives: it ends with us.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = child.stdout.read()
    if child.returncode:
        problem = said.strip() or f"the conversion ended with exit status {child.returncode}"
        raise CatalogError(f"{name}: {checkpoint}: {problem}")


def _is_as_converted(folder: Path) -> bool:
    """Whether a conversion came to its end here, and nobody touched since what it made."""
    try:
        record = json.loads((folder / _RECORD).read_text())
        return all(_as_it_is(folder / path) == seen for path, seen in record.items())
    except FileNotFoundError:
        return False


def _files(folder: Path) -> list[Path]:
    """What a diffusers folder is made of: at the top, and in the parts' folders."""
    found = {path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix in _SUFFIXES}
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _as_it_is(path: Path) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns]


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
