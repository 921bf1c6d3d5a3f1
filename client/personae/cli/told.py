"""A program of the source checkout, run as a child: the JSON lines that it prints, as they come.

Its one rule: what a program of ours knows is asked of it, so that the client never imports a service.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from personae.cli import local_stack
from personae.cli.child import Child
from personae.cli.local_stack import StackError

_STOP_S = 30.0
"""Longest wait for a child to undo what it did."""
_LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class Telling:
    """A started program."""

    _child: Child

    def lines(self) -> Iterator[dict[str, Any]]:
        """Each object that it prints, until it ends by itself."""
        with self._child.output.open() as output:
            while True:
                # Before the read: what it wrote before its end is read then.
                ended = self._child.exit_code is not None
                while (line := _whole_line(output)) is not None:
                    yield json.loads(line)
                if ended:
                    return
                time.sleep(_LOOK_AGAIN_S)

    def failure(self) -> StackError:
        """What to raise where it ended before it had said everything: its own last word, of its standard error."""
        return StackError(self._child.last_lines(1) or "it ended without a word")


@contextmanager
def started(module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> Iterator[Telling]:
    """Run `python -m module`, with the environment but for its PERSONAE_… variables, of which it gets `settings`.

    It is gone when the context is left. Raises StackError where there is no checkout.
    """
    root = local_stack.checkout()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PERSONAE_")}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, *arguments]
        child = Child(module.rpartition(".")[2], command, Path(folder), inherited | dict(settings), root)
        try:
            yield Telling(child)
        finally:
            child.stop(_STOP_S)


def store_settings() -> dict[str, str]:
    """The variables that say where the object store is."""
    return {name: value for name, value in os.environ.items() if name.startswith("PERSONAE_S3_")}


def _whole_line(output: IO[str]) -> str | None:
    """The next line, once it is whole."""
    place = output.tell()
    line = output.readline()
    if line.endswith("\n"):
        return line
    output.seek(place)
    return None
