"""Pictures as a browser sends them, laid down as the client reads them: `x.txt` beside `x.png` is its caption.

Names come from strangers and choose no path: a file is called by its number.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from fastapi import UploadFile

import personae

SUFFIXES = {".heic", ".heif", ".jpeg", ".jpg", ".png", ".txt", ".webp"}


def lay_down(files: Sequence[UploadFile], folder: Path) -> dict[str, str]:
    """Write the files into `folder`; return for each name there the one that it was sent under.

    Raises InvalidRequest, naming every file that is neither a picture nor a caption, or comes twice.
    """
    numbers: dict[str, int] = {}
    sent: dict[str, str] = {}
    violations = []
    for file in files:
        name = PurePosixPath((file.filename or "").replace("\\", "/"))
        suffix = name.suffix.lower()
        number = numbers.setdefault(name.stem, len(numbers))
        own = f"{number:03d}{suffix}"
        if suffix not in SUFFIXES:
            allowed = f"allowed are {', '.join(sorted(SUFFIXES))}"
            violations.append(personae.Violation("pictures", f"found {name.name!r}; {allowed}"))
        elif own in sent:
            violations.append(personae.Violation("pictures", f"{name.name!r} comes twice"))
        else:
            sent[own] = name.name
            with (folder / own).open("wb") as written:
                shutil.copyfileobj(file.file, written)
    if violations:
        raise personae.InvalidRequest(violations)
    return sent
