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
    def images(self) -> int:
        """Images that went through them, summed over the passes."""
        ...

    @property
    def adapters(self) -> int:
        """Distinct adapters that took part, summed likewise."""
        ...


class CountingEngine(Engine, Protocol):
    """An engine that counts, and can be stopped."""

    @property
    def counters(self) -> EngineCounters: ...

    def close(self) -> None:
        """Stop after the step that is running."""
        ...


@dataclass
class Counted:
    """See EngineCounters."""

    forwards: int = 0
    images: int = 0
    adapters: int = 0

    def since(self, before: "Counted") -> "Counted":
        """What was added after `before` was taken."""
        return Counted(self.forwards - before.forwards, self.images - before.images, self.adapters - before.adapters)


def taken(counters: EngineCounters) -> Counted:
    """The totals as they are now."""
    return Counted(counters.forwards, counters.images, counters.adapters)
