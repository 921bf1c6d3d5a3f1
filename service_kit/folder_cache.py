"""Folders that are made once on this machine and shared by its processes: what was fetched, what was converted.

Its one rule: a folder has its name only once all of it is there. Where several processes want one, the first makes it
and the others wait; one that was killed over it leaves its work to the next.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from service_kit.serving import StartError
from service_kit.settings import PREFIX

_LOCK = "lock"
# Names of unfinished folders begin so.
_UNFINISHED = "."
_logger = logging.getLogger(__name__)


class FolderCache:
    """Of each subject it keeps one version, and older ones for as long as a process that was given them lives.

    The folder may be deleted as a whole while no process of ours runs.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, subject: str, version: str, fill: Callable[[Path], None]) -> Path:
        """The folder of this version, in which `fill` has found or made everything.

        subject, version: names of folders. fill: called with the folder, which may be new, half filled by a process
        that died, or whole; what is there and right stays. Beside it lie those of other versions. Raises what `fill`
        raises, and StartError where the disk cannot be used.
        """
        try:
            return self._locked(self._root / subject, version, fill)
        except OSError as error:
            raise StartError(
                f"{PREFIX}BASE_MODEL_CACHE={self._root} cannot be used ({type(error).__name__}: {error}); name a "
                "folder that can be written and has room for every base model that is fetched or converted"
            ) from error

    def _locked(self, shelf: Path, version: str, fill: Callable[[Path], None]) -> Path:
        shelf.mkdir(parents=True, exist_ok=True)
        whole, unfinished = shelf / version, shelf / f"{_UNFINISHED}{version}"
        with (shelf / _LOCK).open("a") as lock:
            _wait_for(lock.fileno(), shelf)
            if not whole.exists():
                unfinished.mkdir(exist_ok=True)
                fill(unfinished)
                unfinished.rename(whole)
            else:
                fill(whole)
            # Never closed: the end of this process is what frees the folder for deletion.
            fcntl.flock(os.open(whole, os.O_RDONLY), fcntl.LOCK_SH)
            for other in shelf.iterdir():
                if other.is_dir() and other != whole:
                    _delete_unless_in_use(other)
        return whole


def _wait_for(lock: int, shelf: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _logger.info("waiting for another process that fills %s", shelf)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _delete_unless_in_use(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except OSError as error:
        # In use, or on a file system that locks only what is open for writing.
        _logger.info("%s is kept: %s", folder, error)
    finally:
        os.close(descriptor)
