"""A training's events, read by sequence: a cut stream is taken up where it broke; nothing is repeated or lost."""

from typing import ClassVar

from personae import wire
from personae.errors import ServerDefect, TrainingCancelled, TrainingFailed, Unavailable
from personae.events import Ended, TrainingEvent
from personae.patience import Outage, Patience
from personae.stream import Stream
from personae.v1 import trainer_pb2


class EventLog(Stream[TrainingEvent]):
    """The events after sequence `after`, up to and with `Ended`."""

    rpc: ClassVar[str] = "WatchTraining"

    def __init__(self, training: str, after: int, patience: Patience) -> None:
        super().__init__(Outage(patience.outage_s, patience.first_pause_s), silence_s=patience.silence_s)
        self._training, self._last = training, after
        self._ended = False

    @property
    def complete(self) -> bool:
        """Whether the training's end was seen."""
        return self._ended

    def request(self) -> trainer_pb2.WatchTrainingRequest:
        """Asks for the events after the last one seen."""
        return trainer_pb2.WatchTrainingRequest(name=self._training, after_sequence=self._last)

    def take(self, message: trainer_pb2.WatchTrainingResponse) -> TrainingEvent | None:
        """The event, unless it is an old one or a heartbeat."""
        self.outage.over()
        if message.WhichOneof("kind") != "event" or message.event.sequence <= self._last:
            return None
        if message.event.sequence > self._last + 1:
            raise ServerDefect(f"event {self._last + 1} of {self._training} is missing; the server sent a later one")
        self._last = message.event.sequence
        event = wire.event(message.event)
        self._ended = isinstance(event, Ended)
        return event

    def ended_early(self) -> Unavailable:
        """The training goes on, so its events do."""
        return Unavailable("the server ended the stream before the training ended")


def published(training: str, ended: Ended) -> str:
    """The name of the adapter that a training ended with. Raises TrainingFailed or TrainingCancelled if it has none."""
    if ended.state == "cancelled":
        raise TrainingCancelled(f"{training} was cancelled")
    if ended.state != "succeeded":
        raise TrainingFailed(ended.failure_message or f"{training} {ended.state}", reason=ended.failure_reason)
    return ended.adapter
