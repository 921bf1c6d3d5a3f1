"""The command as a process of its own: with pipes, so that it can be sent a real signal, or on a terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_PATIENCE_S = 120.0


def environment(**changed: str) -> dict[str, str]:
    """Ours, without what says who calls, where services are, and what terminal this is."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONAE_", "TERM", "LC_TERM"))}
    for name in ("KITTY_WINDOW_ID", "TMUX", "STY", "COLORTERM", "NO_COLOR", "FORCE_COLOR"):
        ours.pop(name, None)
    return ours | changed


@contextmanager
def command(*arguments: object, env: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Runs `personae …`; it is gone when the block is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "personae.cli", *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def on_a_terminal(*arguments: object, env: Mapping[str, str], until: str = "") -> tuple[int, str]:
    """Runs `personae …` on a terminal of 100 x 40 cells; its exit code and all that the terminal was sent.

    until: what it is interrupted at, once it was written.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "personae.cli", *map(str, arguments)],
        env=dict(env) | {"COLUMNS": "100", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    give_up = time.monotonic() + _PATIENCE_S
    try:
        while time.monotonic() < give_up:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                chunk = os.read(ours, 65536)
            except OSError:
                # Linux's word for a terminal that nobody has open any more.
                break
            if not chunk:
                break
            said += chunk
            if until and until.encode() in said:
                process.send_signal(signal.SIGINT)
                until = ""
        return process.wait(10), said.decode(errors="replace")
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
