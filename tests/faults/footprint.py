"""What a process holds, seen from outside: children, threads, descriptors, memory. For tests that look for leaks.

before = footprint(pid)
...
assert_no_larger(before, pid)
"""

import time
from dataclasses import dataclass
from pathlib import Path

# grpc, the store's pool and the executors let go of what is idle by and by.
_SETTLES_WITHIN_S = 20.0
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Footprint:
    """Counts, and memory in kB."""

    children: int
    threads: int
    descriptors: int
    rss_kb: int


def footprint(pid: int) -> Footprint:
    """What the process holds now."""
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Footprint(
        # A child is its thread's that started it.
        sum(len(children.read_text().split()) for children in process.glob("task/*/children")),
        int(status["Threads"]),
        len(list((process / "fd").iterdir())),
        int(status["VmRSS"].split()[0]),
    )


def assert_no_larger(before: Footprint, pid: int, memory: float = 1.05, more_threads: int = 0) -> Footprint:
    """Fail unless the process soon has no more children, threads and descriptors than before. Returns what it has.

    memory: it may have so many times as much. more_threads: so many may have come nevertheless.
    """
    give_up_s = time.monotonic() + _SETTLES_WITHIN_S
    while True:
        now = footprint(pid)
        if (
            now.children <= before.children
            and now.threads <= before.threads + more_threads
            and now.descriptors <= before.descriptors
            and now.rss_kb <= memory * before.rss_kb
        ):
            return now
        assert time.monotonic() < give_up_s, f"before {before}, now {now}"
        time.sleep(_LOOK_EVERY_S)
