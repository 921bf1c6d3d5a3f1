"""Times of peers that take turns, so that what else the machine does falls on all of them; and what they ran on."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch


@dataclass(frozen=True)
class Times:
    """Seconds a step: one number a round, by the clock, and of this process on its processors."""

    clock_s: list[float]
    processor_s: list[float]

    def in_words(self) -> str:
        """Two cells of a table: medians, with the range of the rounds."""
        return f"{spread(self.clock_s)} | {spread(self.processor_s)}"


def interleaved(peers: Mapping[str, Callable[[], object]], rounds: int, steps: int) -> dict[str, Times]:
    """Have each peer take `steps` steps, in turn, `rounds` times, after one round that is not counted."""
    times: dict[str, Times] = {name: Times([], []) for name in peers}
    for number in range(rounds + 1):
        for name, step in peers.items():
            began_s, busy_s = _clock_s(), time.process_time()
            for _ in range(steps):
                step()
            took = ((_clock_s() - began_s) / steps, (time.process_time() - busy_s) / steps)
            if number:
                times[name].clock_s.append(took[0])
                times[name].processor_s.append(took[1])
    return times


def ratio(one: list[float], other: list[float]) -> str:
    """How many times `other` goes into `one`: the median of the rounds' ratios, with their range."""
    return spread([a / b for a, b in zip(one, other, strict=True)], digits=2)


def hardware(device: torch.device) -> str:
    """When and on what this runs, in one line."""
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    parts = [
        datetime.now(UTC).strftime("%Y-%m-%d"),
        torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        f"{os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used",
        f"torch {torch.__version__}, Python {platform.python_version()}",
        f"load {load}",
    ]
    return "; ".join(parts)


def _clock_s() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The median, with the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
