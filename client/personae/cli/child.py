"""A child process that never outlives this one: started apart from the terminal, stopped in a bounded time.

It also runs as a program, `child.py COMMAND…`: it asks Linux to be killed with its parent, then becomes the command.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class Child:
    """A running command; `NAME.log` in `folder` gets its stderr, `NAME.out` its stdout."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], cwd: Path
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.output = folder / f"{name}.out"
        with self.log.open("wb") as log, self.output.open("wb") as output:
            # In a session of its own the terminal's Ctrl-C reaches only us, and we stop our children in order. A file
            # takes stdout because a pipe that nobody reads any more would block the child in the end.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def ask_to_stop(self) -> None:
        """Send SIGTERM; a child that has ended takes no harm."""
        self._process.terminate()

    def stop(self, patience_s: float) -> None:
        """Return once it is gone: SIGTERM, and after `patience_s` SIGKILL for it and for whatever it started."""
        self.ask_to_stop()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _become(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the line above could notice it.
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
