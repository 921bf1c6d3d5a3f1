"""Who is in the next forward pass: fair between projects and between the requests of one, whatever their length.

Pure, and knows no torch. Its one rule is weighted fair queueing (Demers, Keshav and Shenker 1989) in units of work:
were all projects served at once, and each request within its project at once too, a row would end when the virtual time
reaches its tag; rows with smaller tags go first. So a short request passes a long one, no stream of short ones starves
a long one, and who sends more waits longer only behind himself.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar


class QueuedRow(Protocol):
    """What must be known of a row to queue it."""

    @property
    def group(self) -> Any:
        """Only rows of one group go through one forward pass."""
        ...

    @property
    def remaining_work(self) -> float:
        """Of the steps before it; any unit, the same for all rows."""
        ...


R = TypeVar("R", bound=QueuedRow)


@dataclass(frozen=True)
class _Entry(Generic[R]):
    tag: float
    number: int
    project: str
    request: int
    row: R

    def __lt__(self, other: "_Entry[R]") -> bool:
        return (self.tag, self.number) < (other.tag, other.number)


class RowQueue(Generic[R]):
    """All rows that are not finished, running or not: which ones run is chosen anew for every step."""

    def __init__(self) -> None:
        self._entries: list[_Entry[R]] = []
        self._virtual_time = 0.0
        self._added = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, rows: Sequence[R], project: str) -> None:
        """Rows of one new request, in the order in which they are wanted."""
        work, request = sum(row.remaining_work for row in rows), self._added
        # While it is served, each of the project's other requests gets as much, or what it still needs.
        tag = self._virtual_time + sum(min(work, other) for other in self._requests_of(project))
        for row in rows:
            tag += row.remaining_work
            insort(self._entries, _Entry(tag, self._added, project, request, row))
            self._added += 1

    def choose(self, limit: Callable[[Any], int], fits: Callable[[Sequence[R], R], bool]) -> list[R]:
        """Rows for the next forward pass: the first, and those of its group that come next. Empty if there are none.

        limit: how many rows of a group go together. fits: whether a row can join those that were chosen so far.
        """
        chosen: list[R] = []
        for entry in self._entries:
            if chosen and entry.row.group != chosen[0].group:
                continue
            if not chosen or fits(chosen, entry.row):
                chosen.append(entry.row)
            if len(chosen) >= limit(chosen[0].group):
                break
        return chosen

    def served(self, work: float) -> None:
        """Note the work of a step that was made."""
        projects = len({entry.project for entry in self._entries})
        self._virtual_time += work / max(projects, 1)

    def remove(self, rows: Iterable[R]) -> None:
        """Forget rows that are finished or that nobody wants any more."""
        gone = {id(row) for row in rows}
        if gone:
            self._entries = [entry for entry in self._entries if id(entry.row) not in gone]
        if not self._entries:
            self._virtual_time = 0.0

    def _requests_of(self, project: str) -> Iterable[float]:
        """The remaining work of each."""
        works: dict[int, float] = defaultdict(float)
        for entry in self._entries:
            if entry.project == project:
                works[entry.request] += entry.row.remaining_work
        return works.values()

    def rows(self) -> list[R]:
        """All of them, the next ones first."""
        return [entry.row for entry in self._entries]
