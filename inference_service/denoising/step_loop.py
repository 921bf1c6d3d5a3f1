"""The engine's life: `step()`. New rows join, the next ones go one step further, finished ones leave.

Its one rule: every step chooses anew. Nothing but the rows themselves lasts from one step to the next, so whoever
comes, leaves or fails changes nothing for the others.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from inference_service.denoising.batch_thread import in_halves
from inference_service.denoising.row_queue import RowQueue
from inference_service.denoising.rows import Job, Row, RowGroup
from inference_service.events import Progress
from service_kit.errors import TryLater

_logger = logging.getLogger(__name__)
_RETRY_AFTER_OUT_OF_MEMORY_S = 30.0


@dataclass
class EngineCounters:
    """What the engine has done so far."""

    forwards: int = 0
    """Forward passes."""
    images: int = 0
    """Images that went through them, summed over the passes."""
    adapters: int = 0
    """Distinct adapters among those, summed likewise."""
    seconds: float = 0.0
    """Spent on steps. On a GPU those of giving it its work, which waits for it as soon as enough is queued."""


class StepLoop:
    """One base model's loop. `add` may be called from any thread, all else by the one that steps.

    advance: takes rows of one group a step further. finished: is given every row that has made its last step. draw: is
    given every row of which a preview is due.
    limit: most rows of a group in one forward pass. slots: most different adapters in one.
    """

    def __init__(
        self,
        advance: Callable[[Sequence[Row]], None],
        finished: Callable[[Row], None],
        draw: Callable[[Row], None],
        limit: Callable[[RowGroup], int],
        slots: int,
    ) -> None:
        self.counters = EngineCounters()
        self._advance = advance
        self._finished = finished
        self._draw = draw
        self._limit = limit
        self._slots = slots
        self._queue: RowQueue[Row] = RowQueue()
        self._arrived: deque[list[Row]] = deque()
        # Of groups that ran out of memory.
        self._reduced: dict[RowGroup, int] = {}

    def add(self, rows: list[Row]) -> None:
        """Have the rows of one request join at the next step."""
        self._arrived.append(rows)

    @property
    def has_arrivals(self) -> bool:
        """Whether rows wait to join."""
        return bool(self._arrived)

    def step(self) -> bool:
        """Make one step. False: there was nothing to do."""
        while self._arrived:
            rows = self._arrived.popleft()
            self._queue.add(rows, rows[0].job.request.project)
        self._queue.remove([row for row in self._queue.rows() if row.job.is_abandoned])
        rows = self._queue.choose(self._most, self._fits)
        if not rows:
            return False
        began_s = time.perf_counter()
        _tell_progress([row for row in rows if row.place == 0])
        advanced: list[Row] = []

        def attempt(some: Sequence[Row]) -> None:
            self._advance(some)
            advanced.extend(some)
            self._count(some)

        in_halves(rows, attempt, self._failed)
        self._queue.served(sum(row.step_work for row in advanced))
        _tell_progress(advanced)
        for row in advanced:
            if row.is_preview_due:
                self._draw(row)
        finished = [row for row in advanced if row.is_finished]
        for row in finished:
            self._finished(row)
        self._queue.remove(finished)
        self.counters.seconds += time.perf_counter() - began_s
        return True

    def fail_all(self, error: Exception) -> None:
        """End all requests with an error: a step failed in a way that is nobody's own."""
        for row in self._queue.rows():
            if not row.job.is_abandoned:
                row.job.fail(error)

    def _count(self, rows: Sequence[Row]) -> None:
        self.counters.forwards += 1
        self.counters.images += len(rows)
        self.counters.adapters += len({garment.digest for row in rows for garment in row.job.outfit})

    def _failed(self, rows: Sequence[Row], error: Exception) -> None:
        ran_out = isinstance(error, torch.OutOfMemoryError)
        if ran_out:
            # What other sizes left behind; nothing where there is no GPU.
            torch.cuda.empty_cache()
        if ran_out and len(rows) > 1:
            group = rows[0].group
            self._reduced[group] = (len(rows) + 1) // 2
            _logger.warning(
                "out of memory with %d images of %s; at most %d from now on", len(rows), group, self._reduced[group]
            )
        elif ran_out:
            rows[0].job.fail(
                TryLater(
                    "OUT_OF_MEMORY",
                    "one image of this size does not fit the memory that is left; ask for a smaller one or try later",
                    _RETRY_AFTER_OUT_OF_MEMORY_S,
                )
            )
        elif len(rows) == 1:
            rows[0].job.fail(error)

    def _most(self, group: RowGroup) -> int:
        return min(self._limit(group), self._reduced.get(group, self._limit(group)))

    def _fits(self, chosen: Sequence[Row], row: Row) -> bool:
        digests = {garment.digest for other in (*chosen, row) for garment in other.job.outfit}
        return len(digests) <= self._slots


def _tell_progress(rows: Sequence[Row]) -> None:
    """A message for the images of each job that are equally far."""
    alike: dict[tuple[Job, int], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.job, row.place), []).append(row)
    for (job, place), images in alike.items():
        job.tell(Progress(tuple(row.task.index for row in images), place, len(images[0].path.steps)))
