"""What a bench prints, kept in a file as well, line by line: a bench that is cut off leaves what it had found."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


class _Both:
    def __init__(self, *files: TextIO) -> None:
        self._files = files

    def write(self, text: str) -> int:
        return max(file.write(text) for file in self._files)

    def flush(self) -> None:
        for file in self._files:
            file.flush()


@contextlib.contextmanager
def printing_to(path: Path | None) -> Iterator[None]:
    """What is printed is added to a file too, where one is named: parts of a bench may run one by one."""
    if path is None:
        yield
        return
    with path.open("a", buffering=1) as file, contextlib.redirect_stdout(_Both(sys.stdout, file)):  # type: ignore[type-var]
        yield
