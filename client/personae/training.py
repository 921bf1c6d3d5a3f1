"""A training as its caller holds it: what it is, its events as they come, its end.

The events follow the server's log by sequence: a cut stream is taken up where it broke; nothing is repeated or lost.
"""

from collections.abc import Callable, Iterator

from personae import wire
from personae.connection import Connection, read
from personae.errors import ServerDefect, TrainingCancelled, TrainingFailed, Unavailable
from personae.events import Ended, TrainingEvent
from personae.resources import Adapter, TrainingRecord
from personae.v1 import trainer_pb2
from personae.v1.trainer_pb2_grpc import TrainerServiceStub


class Training:
    """A handle on a training. The training runs on the server, whether or not anybody holds one."""

    def __init__(self, connection: Connection[TrainerServiceStub], record: TrainingRecord) -> None:
        self._connection = connection
        self.record = record
        """What the server said last; `refresh()` asks again."""

    def __repr__(self) -> str:
        return f"<Training {self.name} {self.record.state}>"

    @property
    def name(self) -> str:
        """`projects/{project}/trainings/{training}`"""
        return self.record.name

    def refresh(self) -> TrainingRecord:
        """Ask the server for the record as of the last event."""
        request = trainer_pb2.GetTrainingRequest(name=self.name)
        connection = self._connection
        answer = connection.ask(lambda timeout: connection.stub.GetTraining(request, timeout=timeout))
        self.record = wire.training(answer.training)
        return self.record

    def cancel(self) -> None:
        """Ask the training to stop; its `Ended` event follows. Cancelling a cancelled training changes nothing."""
        request = trainer_pb2.CancelTrainingRequest(name=self.name)
        connection = self._connection
        answer = connection.ask(lambda timeout: connection.stub.CancelTraining(request, timeout=timeout))
        self.record = wire.training(answer.training)

    def events(self, after: int = 0) -> Iterator[TrainingEvent]:
        """Every event after sequence `after`, as it happens; ends after `Ended`.

        A failed training is an event, not an error. Raises Unavailable where the server stays away, or silent, for
        longer than the client's patience.
        """
        connection, patience = self._connection, self._connection.patience
        last, outage = after, connection.outage(patience.outage_s)
        while True:
            request = trainer_pb2.WatchTrainingRequest(name=self.name, after_sequence=last)
            try:
                for answer in read(connection.stub.WatchTraining(request), patience.silence_s):
                    outage.over()
                    if answer.WhichOneof("kind") != "event" or answer.event.sequence <= last:
                        continue
                    if answer.event.sequence > last + 1:
                        raise ServerDefect(f"event {last + 1} of {self.name} is missing; the server sent a later one")
                    last = answer.event.sequence
                    event = wire.event(answer.event)
                    yield event
                    if isinstance(event, Ended):
                        return
                raise Unavailable("the server ended the stream before the training ended")
            except Unavailable as cut:
                outage.wait(cut)

    def wait(self, on_event: Callable[[TrainingEvent], None] | None = None) -> Adapter:
        """The adapter, once it is published; `on_event` sees every event until then.

        Raises TrainingFailed or TrainingCancelled where there will be none.
        """
        for event in self.events():
            if on_event:
                on_event(event)
            if isinstance(event, Ended):
                return self._outcome(event)
        raise ServerDefect(f"the events of {self.name} ended without an end")

    def _outcome(self, ended: Ended) -> Adapter:
        if ended.state == "cancelled":
            raise TrainingCancelled(f"{self.name} was cancelled")
        if ended.state != "succeeded":
            raise TrainingFailed(ended.failure_message or f"{self.name} {ended.state}", reason=ended.failure_reason)
        request = trainer_pb2.GetAdapterRequest(name=ended.adapter)
        connection = self._connection
        answer = connection.ask(lambda timeout: connection.stub.GetAdapter(request, timeout=timeout))
        return wire.adapter(answer.adapter)
