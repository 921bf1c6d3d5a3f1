"""The layout in which the hub's own client keeps a repository: `models--org--name/{refs,snapshots,blobs}`. No network.

Its one rule: what a name means there is read from the files; nothing is ever fetched.
"""

import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class NoSnapshot(Exception):
    """A repository without the revision that is asked for."""


def folder_of(place: str) -> Path:
    """The folder that `/folder`, `/…/models--org--name` or `/…/models--org--name@REVISION` names.

    A revision is a commit, or what `refs/` has a file for; `main` where none is named. Raises NoSnapshot.
    """
    path = Path(place)
    if _is_repository(path):
        return _snapshot(path, "main")
    before, _, revision = place.rpartition("@")
    if before and not path.exists() and _is_repository(Path(before)):
        return _snapshot(Path(before), revision)
    return path


def looks_like_hub_id(text: str) -> bool:
    """Whether it has the form `org/name`, which no local folder is given by."""
    return _HUB_ID.fullmatch(text) is not None


def _is_repository(path: Path) -> bool:
    return (path / "snapshots").is_dir() and not (path / "model_index.json").exists()


def _snapshot(repository: Path, revision: str) -> Path:
    snapshots, refs = repository / "snapshots", repository / "refs"
    known = {path.name: path.name for path in snapshots.iterdir() if path.is_dir()}
    for ref in refs.rglob("*"):
        if ref.is_file():
            known[str(ref.relative_to(refs))] = ref.read_text().strip()
    folder = snapshots / known.get(revision, "")
    if revision not in known or not folder.is_dir():
        listed = ", ".join(sorted(known)) or "none"
        raise NoSnapshot(f"{repository}: found no snapshot of {revision!r}; there are {listed} (/folder@REVISION)")
    return folder
