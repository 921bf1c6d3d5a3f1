"""What carries trainings out, as the service sees it: warm workers of its own, or Jobs in a Kubernetes cluster.

Its one rule: a training's state is in its record alone. An executor may be told too late, twice or never.
"""

from typing import Protocol

from service_kit.names import TrainingName
from trainer_service.training_memory import Device


class Executor(Protocol):
    """Has the trainings in the queue carried out from `start` to `stop`; several services may do so at once."""

    def start(self) -> None:
        """Begin to look for trainings."""

    async def stop(self, patience_s: float) -> None:
        """Stop; what can only run as long as this service does is handed over within `patience_s`, or killed."""

    def poke(self) -> None:
        """Look at the queue now: a training was created."""

    def device(self) -> Device | None:
        """The smallest that a training may be given; None where that is not known."""

    async def cancel(self, name: TrainingName) -> None:
        """Make haste with a training that its record says is cancelled, or that was deleted."""
