"""Reports a training's events from a thread of its own, so that the training never waits for the bucket.

Its one rule: of progress only the latest in a quarter of a second is written; everything else is written, in order.
"""

import logging
import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

from service_kit.store import StoreUnavailable
from trainer_service.events import Happening, Notice, Progress, StageStarted, StateChanged
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import STATE_OF_STAGE, Stage, State
from trainer_service.training_record import LeaseLost
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper

INTERVAL_S = 0.25
_SPEED_WINDOW_S = 5.0
_logger = logging.getLogger(__name__)


class Reporter:
    """Writes events while used as a context; leaving it writes what is left."""

    def __init__(self, writer: JournalWriter, keeper: LeaseKeeper, interrupts: Interrupts) -> None:
        self._writer = writer
        self._keeper = keeper
        self._interrupts = interrupts
        self._waiting: deque[Happening] = deque()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._state = State.PREPARING
        self._stage = Stage.LOADING_BASE_MODEL
        self._marks: deque[tuple[float, int]] = deque()
        self._thread = threading.Thread(target=self._write_along, name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self.report(StateChanged(state=self._state))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def report(self, what: Happening) -> None:
        """Queue an event; a progress replaces one that waits at the end of the queue."""
        with self._lock:
            if isinstance(what, Progress) and self._waiting and isinstance(self._waiting[-1], Progress):
                self._waiting.pop()
            self._waiting.append(what)

    def notice(self, reason: str, message: str) -> None:
        """Tell people something while the training goes on."""
        self.report(Notice(reason=reason, message=message))

    def stage(self, stage: Stage) -> None:
        """Begin a stage, and with it perhaps a state. Raises what interrupts the training."""
        self._interrupts.check()
        state = STATE_OF_STAGE[stage]
        if state is not self._state:
            self._keeper.move(state)
            self._state = state
            self.report(StateChanged(state=state))
        self._stage = stage
        self._marks.clear()
        self.report(StageStarted(stage=stage))

    def progress(
        self, completed: int, total: int, loss: float | None = None, learning_rate: float | None = None
    ) -> None:
        """Say how far the stage is; speed and time left are derived from the last few seconds."""
        now_s = time.monotonic()
        self._marks.append((now_s, completed))
        while len(self._marks) > 2 and now_s - self._marks[0][0] > _SPEED_WINDOW_S:
            self._marks.popleft()
        first_s, first = self._marks[0]
        speed = (completed - first) / (now_s - first_s) if now_s > first_s else 0.0
        self.report(
            Progress(
                stage=self._stage,
                completed=completed,
                total=total,
                units_per_second=speed,
                time_left_s=(total - completed) / speed if speed else 0.0,
                loss=loss,
                learning_rate=learning_rate,
            )
        )

    def _write_along(self) -> None:
        while not self._stopped.is_set():
            self._write_waiting()
            self._stopped.wait(INTERVAL_S)
        self._write_waiting()

    def _write_waiting(self) -> None:
        with self._lock:
            happenings = list(self._waiting)
            self._waiting.clear()
        if not happenings or self._interrupts.lease_lost.is_set():
            return
        try:
            self._writer.append(happenings)
        except LeaseLost as error:
            _logger.warning("%s", error)
            self._interrupts.lease_lost.set()
        except StoreUnavailable as error:
            _logger.warning("events wait for the store: %s", error)
            with self._lock:
                self._waiting.extendleft(reversed(happenings))
