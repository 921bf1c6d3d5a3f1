"""What this process holds of the machine's memory, files mapped into it included, and how far that went up. Linux."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_SELF = Path("/proc/self")


def peak_growth_bytes(work: Callable[[], object]) -> int:
    """How far above where it began the resident memory of this process rose while this was done."""
    # Else what nobody needs any more would leave, or be used anew, while we measure.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    # "5" forgets the highest that there was: proc_pid_clear_refs(5).
    (_SELF / "clear_refs").write_text("5")
    before = _resident_bytes("VmRSS")
    work()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(what: str) -> int:
    lines = (_SELF / "status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{what}:"))
    return 1024 * int(kilobytes)
