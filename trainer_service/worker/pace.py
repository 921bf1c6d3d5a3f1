"""How fast a stage goes, and when it will be finished. Pure: times come in as arguments.

Its one rule: nothing is left out of the time. Checkpoints, samples and validations take time that the caller waits for,
so the time left comes from the mean pace over the latter three quarters of what is done, pauses included: the slow
first steps are soon out of that, and a pause that comes round again is in it as often as it should be.
"""

from collections import deque

_SPEED_WINDOW_S = 5.0
_LEFT_OUT = 1 / 4
# Marks to count on at least: from fewer, noise would speak louder than a slow start.
_LEAST_MARKS = 8


class Pace:
    """The counts of one stage and when they were reached. Times are in seconds on any one clock."""

    def __init__(self) -> None:
        self._first_count: int | None = None
        self._long: deque[tuple[float, int]] = deque()
        self._recent: deque[tuple[float, int]] = deque()

    def mark(self, now_s: float, completed: int) -> None:
        """Note how many units are finished now. A repeated count says nothing; a lower one begins something new."""
        if self._long and completed == self._long[-1][1]:
            return
        if self._long and completed < self._long[-1][1]:
            self._first_count = None
            self._long.clear()
            self._recent.clear()
        if self._first_count is None:
            self._first_count = completed
        for marks in (self._long, self._recent):
            marks.append((now_s, completed))
        left_out = self._first_count + (completed - self._first_count) * _LEFT_OUT
        while len(self._long) > _LEAST_MARKS and self._long[1][1] <= left_out:
            self._long.popleft()
        while len(self._recent) > 2 and now_s - self._recent[0][0] > _SPEED_WINDOW_S:
            self._recent.popleft()

    @property
    def units_per_second(self) -> float:
        """Over the last few seconds; 0 until there are two counts."""
        return _units_per_second(self._recent)

    def time_left_s(self, total: int) -> float | None:
        """Until `total` units are finished; None until there are two counts, unless nothing is left."""
        left = total - self._long[-1][1] if self._long else total
        speed = _units_per_second(self._long)
        return left / speed if speed else 0.0 if left == 0 else None


def _units_per_second(marks: deque[tuple[float, int]]) -> float:
    if len(marks) < 2 or marks[-1][0] <= marks[0][0]:
        return 0.0
    return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
