"""A training as its caller holds it on an event loop: what it is, its events as they come, its end."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from personae import calls
from personae.aio.connection import Connection
from personae.errors import ServerDefect
from personae.event_log import EventLog, published
from personae.events import Ended, TrainingEvent
from personae.notebook import live_view
from personae.resources import Adapter, TrainingRecord


class Training:
    """A handle on a training. The training runs on the server, whether or not anybody holds one."""

    def __init__(self, connection: Connection, record: TrainingRecord) -> None:
        self._connection = connection
        self.record = record
        """What the server said last; `refresh()` asks again."""

    def __repr__(self) -> str:
        return f"<Training {self.name} {self.record.state}>"

    @property
    def name(self) -> str:
        """`projects/{project}/trainings/{training}`"""
        return self.record.name

    async def refresh(self) -> TrainingRecord:
        """Ask the server for the record as of the last event."""
        self.record = await self._connection.ask(calls.get_training(self.name))
        return self.record

    async def cancel(self) -> None:
        """Ask the training to stop; its `Ended` event follows. Cancelling a cancelled training changes nothing."""
        self.record = await self._connection.ask(calls.cancel_training(self.name))

    async def delete(self) -> None:
        """Delete its record, events, samples and checkpoints; it must have ended. Its adapter stays."""
        await self._connection.ask(calls.delete_training(self.name))

    def events(self, after: int = 0) -> AsyncGenerator[TrainingEvent, None]:
        """Every event after sequence `after`, as it happens; ends after `Ended`.

        A failed training is an event, not an error. Raises Unavailable where the server stays away, or silent, for
        longer than the client's patience.
        """
        return self._connection.follow(EventLog(self.name, after, self._connection.patience))

    async def wait(self, on_event: Callable[[TrainingEvent], None] | None = None) -> Adapter:
        """The adapter, once it is published; `on_event` sees every event until then.

        Without it, a notebook shows how far the training is, live. Raises TrainingFailed or TrainingCancelled where
        there will be no adapter.
        """
        on_event = on_event or live_view(self.record.adapter or self.name)
        async with aclosing(self.events()) as events:
            async for event in events:
                if on_event:
                    on_event(event)
                if isinstance(event, Ended):
                    return await self._connection.ask(calls.get_adapter(published(self.name, event)))
        raise ServerDefect(f"the events of {self.name} ended without an end")
