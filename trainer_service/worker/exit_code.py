"""How a worker's work on a training ended: what a worker that does one and exits says by its exit status."""

from enum import IntEnum


class ExitCode(IntEnum):
    """0 done; 42 failed for good; 75 try again, here or elsewhere; 143 handed over."""

    DONE = 0
    FAILED = 42
    TRY_AGAIN = 75
    HANDED_OVER = 143
