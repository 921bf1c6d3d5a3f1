"""Where the command writes, and how it spells names and times: results go to stdout, everything else to stderr.

With --json, stderr is kept for an error: `err` is quiet then.
"""

import sys
from datetime import datetime

from rich.console import Console

# A pipe has no width of its own; a wide one keeps names in one piece.
out = Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def beside_bars() -> Console:
    """Where results go while bars are drawn: stdout; by way of stderr where both are one terminal, above the bars."""
    return err if out.is_terminal and err.is_terminal else out


def short(name: str) -> str:
    """What a resource is called within its project and collection; every command takes it for the name."""
    return name.split("/", 3)[-1]


def local_time(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")
