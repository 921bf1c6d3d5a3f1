"""What may interrupt a training between two steps: a cancel, a drain, a lost lease."""

import threading

from trainer_service.training_record import LeaseLost


class Cancelled(Exception):
    """The caller asked for the training to stop."""


class Draining(Exception):
    """This worker is to stop; another will go on from the checkpoint."""


class Interrupts:
    """Flags that other threads raise and the training thread checks."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.draining = threading.Event()
        self.lease_lost = threading.Event()

    def check(self) -> None:
        """Raise LeaseLost, Cancelled or Draining if its flag is up, in this order of weight."""
        self.check_before_checkpoint()
        if self.draining.is_set():
            raise Draining

    def check_before_checkpoint(self) -> None:
        """As `check`, but let a drain wait for the checkpoint that it asks for."""
        if self.lease_lost.is_set():
            raise LeaseLost("the lease was lost or could not be renewed")
        if self.cancelled.is_set():
            raise Cancelled
