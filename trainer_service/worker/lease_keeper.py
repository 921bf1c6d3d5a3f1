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

from service_kit.call_context import beside
from service_kit.errors import ResourceMissing, WriteConflict
from service_kit.store import StoreError
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
        self._renewed_s = time.monotonic()
        self._thread = threading.Thread(target=beside(self._beat), name="lease-keeper", daemon=True)
        # Apart from the heartbeat: a store that takes a request and is silent holds that up for longer than a lease.
        self._patience = threading.Thread(target=self._give_up_in_time, name="lease-patience", daemon=True)

    def __enter__(self) -> Self:
        self._renewed_s = time.monotonic()
        self._thread.start()
        self._patience.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the heartbeat; the lease stays as it is."""
        self._stopped.set()
        self._thread.join()
        self._patience.join()

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
        while not self._stopped.wait(HEARTBEAT_S) and not self._interrupts.lease_lost.is_set():
            # What counts is when it was asked for: others see it as late as it is written, never earlier.
            began_s = time.monotonic()
            try:
                record = self.change(lambda record: record.renewed(self.completed_steps, self._now()))
                self._renewed_s = began_s
                if record.cancel_requested:
                    self._interrupts.cancelled.set()
            except LeaseLost as error:
                _logger.warning("%s: %s", self._record.name, error)
                self._interrupts.lease_lost.set()
                return
            except (StoreError, WriteConflict) as error:
                _logger.warning("%s: no heartbeat: %s", self._record.name, error)

    def _give_up_in_time(self) -> None:
        while (left_s := self._renewed_s + HOLDER_PATIENCE_S - time.monotonic()) > 0:
            if self._stopped.wait(left_s):
                return
        _logger.warning("%s: no heartbeat for %.0f s", self._record.name, HOLDER_PATIENCE_S)
        self._interrupts.lease_lost.set()
