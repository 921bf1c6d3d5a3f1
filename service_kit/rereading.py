"""A value that is read from files, and read again when they change: how certificates, tokens and keys are rotated.

Its one rule: what cannot be used is logged once and changes nothing; the value that was read before stays.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class FileUnusable(Exception):
    """A file does not hold what it should. The text is for the operator and repeats nothing of what the file holds."""


def read_bytes(path: Path) -> bytes:
    """The file's bytes. Raises FileUnusable."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileUnusable(f"{path} cannot be read ({error.strerror})") from None


class Reread(Generic[T]):
    """The value of `read`, which raises FileUnusable, now and at the first; safe for use by several threads.

    To look costs a stat of each file, so it is done at every use.
    """

    def __init__(self, files: Sequence[Path], read: Callable[[], T]) -> None:
        self._files, self._read = files, read
        self._lock = threading.Lock()
        # Taken before reading: a file that changes in between is read once more than needed.
        self._seen = self._state()
        self._value = read()

    def value(self) -> T:
        """What the files say now, or said when they were last usable."""
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                names = ", ".join(map(str, self._files))
                try:
                    self._value = self._read()
                    _logger.info("read again: %s", names)
                except FileUnusable as error:
                    _logger.error("%s changed and cannot be used; what was read before stays: %s", names, error)
            return self._value

    def _state(self) -> list[tuple[int, ...]]:
        return [_state_of(path) for path in self._files]


def _state_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
