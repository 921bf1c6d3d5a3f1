"""What to do about steps whose loss or gradient is not finite. They changed nothing; but why did they come?

Its one rule: the verdict at a step is about older steps only, so that it is the same however late a GPU's numbers come.
Now and then one: skip it. Many: the weights have gone where nothing is finite, so go back to the last good ones, at
half the rate. Again and again: fail.
"""

from collections.abc import Iterable
from enum import Enum, auto

from trainer_service.worker.readings import Reading

EVERY = 10
_TOO_MANY = EVERY // 2
_MOST_LOWERED = 3


class Verdict(Enum):
    """What the steps of a window come to."""

    GOOD = auto()
    SKIPPED = auto()
    LOWER = auto()
    FAIL = auto()


class Guard:
    """`bad_steps` and `lowered` are what a resumed training needs to know."""

    def __init__(self, bad_steps: Iterable[int] = (), lowered: int = 0) -> None:
        self.bad_steps = set(bad_steps)
        self.lowered = lowered
        self._given_up = 0

    @property
    def rate_scale(self) -> float:
        """What the learning rate is multiplied with."""
        return 0.5**self.lowered

    def note(self, readings: Iterable[Reading]) -> None:
        """Take in what is known of finished steps."""
        self.bad_steps |= {reading.step for reading in readings if not reading.finite and reading.step > self._given_up}

    def verdict(self, step: int) -> Verdict:
        """Judge, after every tenth step, the ten steps that ended ten steps ago."""
        return self._judge(range(step - 2 * EVERY + 1, step - EVERY + 1), step)

    def last_verdict(self, step: int) -> Verdict:
        """Judge, after the last step, all that was not judged before; there is no time left to lower anything."""
        judged = max(0, step // EVERY - 1) * EVERY
        found = self._judge(range(judged + 1, step + 1), step)
        return Verdict.FAIL if found is Verdict.LOWER else found

    def _judge(self, window: range, step: int) -> Verdict:
        bad = self.bad_steps & set(window)
        self.bad_steps -= bad
        if not bad:
            return Verdict.GOOD
        if len(bad) < min(_TOO_MANY, len(window) // 2 + 1):
            return Verdict.SKIPPED
        if self.lowered == _MOST_LOWERED:
            return Verdict.FAIL
        self.lowered += 1
        # Steps after the window were taken with the weights that are now given up, whether or not their numbers have
        # come.
        self.bad_steps.clear()
        self._given_up = step
        return Verdict.LOWER
