"""Keeps the lease of a training: a heartbeat every 5 s from its own thread, and the holder's changes to the record.

Its one rule: a holder that has not managed a renewal for 15 s stops, long before anybody else may take over.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Self

from service_kit.errors import ResourceMissing, WriteConflict
from service_kit.store import StoreUnavailable
from trainer_service.lifecycle import State
from trainer_service.training_record import HEARTBEAT_S, HOLDER_PATIENCE_S, LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.interrupts import Interrupts

_logger = logging.getLogger(__name__)


class LeaseKeeper:
    """Holds the lease of one training while used as a context."""

    def __init__(
        self, records: TrainingStore, record: TrainingRecord, interrupts: Interrupts, now: Callable[[], datetime]
    ) -> None:
        self.completed_steps = record.completed_steps
        self._records = records
        self._record = record
        self._interrupts = interrupts
        self._now = now
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the heartbeat; the lease stays as it is."""
        self._stopped.set()
        self._thread.join()

    def move(self, to: State) -> None:
        """Move the training to another state. Raises LeaseLost."""
        self.change(lambda record: record.moved(to))

    def change(self, change: Callable[[TrainingRecord], TrainingRecord]) -> TrainingRecord:
        """Change the record as its holder. Raises LeaseLost, also where the training was deleted."""
        held = self._record
        try:
            return self._records.change(held.name, lambda record: change(record.held(held.holder, held.epoch)))
        except ResourceMissing as error:
            raise LeaseLost(str(error)) from error

    def _beat(self) -> None:
        renewed_s = time.monotonic()
        while not self._stopped.wait(HEARTBEAT_S):
            try:
                record = self.change(lambda record: record.renewed(self.completed_steps, self._now()))
                renewed_s = time.monotonic()
                if record.cancel_requested:
                    self._interrupts.cancelled.set()
            except LeaseLost as error:
                _logger.warning("%s: %s", self._record.name, error)
                self._interrupts.lease_lost.set()
                return
            except (StoreUnavailable, WriteConflict) as error:
                _logger.warning("%s: no heartbeat: %s", self._record.name, error)
            if time.monotonic() - renewed_s > HOLDER_PATIENCE_S:
                self._interrupts.lease_lost.set()
                return
