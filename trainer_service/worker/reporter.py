"""Reports a training's events from a thread of its own, so that the training never waits for the bucket.

Its one rule: everything is written at once and in order, but two progress events lie at least a quarter of a second
apart: of those of a stage that wait only the latest is written, and what comes after one waits with it.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from service_kit.call_context import beside
from service_kit.store import StoreError
from trainer_service.events import Happening, Notice, Progress, StageStarted, StateChanged
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import STATE_OF_STAGE, Stage, State
from trainer_service.training_record import LeaseLost
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.pace import Pace
from trainer_service.worker.telling import Account

INTERVAL_S = 0.25
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignOfLife:
    """Which stage the training thread was in, and when (monotonic seconds), at its latest report."""

    stage: Stage
    at_s: float


class Reporter:
    """Writes events while used as a context; leaving it writes what is left."""

    def __init__(
        self, writer: JournalWriter, keeper: LeaseKeeper, interrupts: Interrupts, account: Account | None = None
    ) -> None:
        self._writer = writer
        self._account = account
        self._keeper = keeper
        self._interrupts = interrupts
        self._waiting: deque[Happening] = deque()
        self._happened: list[Happening] = []
        self._lock = threading.Lock()
        self._something_waits = threading.Event()
        self._stopped = threading.Event()
        self._progress_written_s = -math.inf
        self._state = State.PREPARING
        self._pace = Pace()
        self._sign_of_life = SignOfLife(Stage.LOADING_BASE_MODEL, time.monotonic())
        self._thread = threading.Thread(target=beside(self._write_along), name="reporter", daemon=True)

    def __enter__(self) -> Self:
        self.report(StateChanged(state=self._state))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._something_waits.set()
        self._thread.join()
        if self._account:
            self._account.close()

    @property
    def sign_of_life(self) -> SignOfLife:
        """The training thread's latest."""
        return self._sign_of_life

    @property
    def happened(self) -> Sequence[Happening]:
        """What the training thread reported so far, written or not, but for progress without a loss."""
        return self._happened

    def alive(self) -> None:
        """Say that the stage goes on, where it has nothing to count."""
        self._sign_of_life = SignOfLife(self._sign_of_life.stage, time.monotonic())

    def report(self, what: Happening) -> None:
        """Queue an event; a progress replaces one of its stage that still waits."""
        self.alive()
        if self._account:
            self._account.note(what)
        if not isinstance(what, Progress) or what.loss is not None:
            self._happened.append(what)
        with self._lock:
            if isinstance(what, Progress):
                waiting = (other for other in self._waiting if not _same_stage(other, what))
                self._waiting = deque(waiting)
            self._waiting.append(what)
        self._something_waits.set()

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
        self._sign_of_life = SignOfLife(stage, time.monotonic())
        self._pace = Pace()
        self.report(StageStarted(stage=stage))

    def progress(
        self, completed: int, total: int, loss: float | None = None, learning_rate: float | None = None
    ) -> None:
        """Say how far the stage is; speed and time left are derived from the counts so far."""
        self._pace.mark(time.monotonic(), completed)
        self.report(
            Progress(
                stage=self._sign_of_life.stage,
                completed=completed,
                total=total,
                units_per_second=self._pace.units_per_second,
                time_left_s=self._pace.time_left_s(total),
                loss=loss,
                learning_rate=learning_rate,
            )
        )

    def _write_along(self) -> None:
        while not self._stopped.is_set():
            self._something_waits.wait()
            self._something_waits.clear()
            # While the store is away, progress goes on being replaced by later progress.
            self._write([] if self._writer.is_unsettled else self._taken_from_waiting())
            if self._waiting or self._writer.is_unsettled:
                self._something_waits.set()
                self._stopped.wait(INTERVAL_S if self._writer.is_unsettled else self._progress_due_in_s())
        # What is left goes out at once; of progress that is not due the end tells more.
        left, self._waiting = self._waiting, deque()
        self._write([what for what in left if not isinstance(what, Progress) or self._progress_due_in_s() == 0])

    def _progress_due_in_s(self) -> float:
        return max(0.0, self._progress_written_s + INTERVAL_S - time.monotonic())

    def _taken_from_waiting(self) -> list[Happening]:
        """What may be written now: everything up to the first progress that is not due."""
        taken: list[Happening] = []
        may_take_progress = self._progress_due_in_s() == 0
        with self._lock:
            while self._waiting:
                if isinstance(self._waiting[0], Progress):
                    if not may_take_progress:
                        break
                    may_take_progress = False
                taken.append(self._waiting.popleft())
        return taken

    def _write(self, happenings: list[Happening]) -> None:
        if not (happenings or self._writer.is_unsettled) or self._interrupts.lease_lost.is_set():
            return
        try:
            self._writer.append(happenings)
        except LeaseLost as error:
            _logger.warning("%s", error)
            self._interrupts.lease_lost.set()
        except StoreError as error:
            _logger.warning("events wait for the store: %s", error)
        if any(isinstance(what, Progress) for what in happenings):
            # After the write, so that it holds for the times that the events bear.
            self._progress_written_s = time.monotonic()


def _same_stage(one: Happening, other: Progress) -> bool:
    return isinstance(one, Progress) and one.stage is other.stage
