"""What an engine counts of its own work, so that a benchmark can say how well it fills its forward passes."""

from dataclasses import dataclass
from typing import Protocol

from inference_service.engine import Engine


class EngineCounters(Protocol):
    """Totals since the engine was made; written by its own thread, read by any."""

    @property
    def forwards(self) -> int:
        """Forward passes of the denoiser."""
        ...

    @property
    def rows(self) -> int:
        """Rows of all forward passes together; an image with guidance has two."""
        ...

    @property
    def distinct_adapters(self) -> int:
        """Over all forward passes, the adapters that took part in each."""
        ...

    @property
    def adapter_bytes(self) -> int:
        """What one resident adapter takes on the device; 0 before there was one."""
        ...


class CountingEngine(Engine, Protocol):
    """An engine that counts, and can be stopped."""

    @property
    def counters(self) -> EngineCounters: ...

    def close(self) -> None:
        """Wait for the step that is running and stop."""
        ...


@dataclass
class Counted:
    """See EngineCounters."""

    forwards: int = 0
    rows: int = 0
    distinct_adapters: int = 0
    adapter_bytes: int = 0

    def since(self, before: "Counted") -> "Counted":
        """What was added after `before` was taken."""
        return Counted(
            self.forwards - before.forwards,
            self.rows - before.rows,
            self.distinct_adapters - before.distinct_adapters,
            self.adapter_bytes,
        )


def taken(counters: EngineCounters) -> Counted:
    """The totals as they are now."""
    return Counted(counters.forwards, counters.rows, counters.distinct_adapters, counters.adapter_bytes)
