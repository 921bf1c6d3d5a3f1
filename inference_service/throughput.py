"""How fast work goes, measured while there is some.

Its one rule: what is long past counts ever less, so that one bad minute is not held against the service for ever: when
too little is remembered, the speed is unknown again.
"""

import math
from collections.abc import Callable

# Long enough for the steps of many pictures, short enough to follow a change of what is asked for.
_FADING_S = 60.0
_ENOUGH_S = 1.0


class Throughput:
    """Passes a second."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._now_s = clock()
        # Both fade alike, so that their ratio changes only when something is measured.
        self._busy_s = 0.0
        self._passes = 0.0
        self._busy_since_s: float | None = None

    @property
    def passes_per_s(self) -> float | None:
        """None: not measured, or too long ago."""
        self._fade()
        return self._passes / self._busy_s if self._busy_s >= _ENOUGH_S and self._passes else None

    def advance(self, passes: int) -> None:
        """Note that `passes` have been finished since the last call; the first after `rest` only begins to measure."""
        self._fade()
        if self._busy_since_s is not None:
            self._busy_s += self._now_s - self._busy_since_s
            self._passes += passes
        self._busy_since_s = self._now_s

    def rest(self) -> None:
        """Note that there is no work: the time until the next `advance` does not count."""
        self._busy_since_s = None

    def _fade(self) -> None:
        now = self._clock()
        faded = math.exp((self._now_s - now) / _FADING_S)
        self._busy_s *= faded
        self._passes *= faded
        self._now_s = now
