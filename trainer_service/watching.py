"""Watching a training: its journal, followed, with a heartbeat in every quiet while, the first of them soon.

A caller whose connection is cut every few seconds learns so, each time, that the service is there.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from service_kit import schema
from service_kit.errors import ServiceUnavailable
from service_kit.names import TrainingName
from service_kit.store import ObjectMissing, ObjectStore
from trainer_service.events import Event, SampleReady
from trainer_service.journal import Journal
from trainer_service.trainings import Trainings

HEARTBEAT_S = 5.0
_FIRST_HEARTBEAT_S = 0.5
_COME_BACK_S = 1.0


@dataclass(frozen=True)
class Heartbeat:
    """Nothing new, but the service is alive."""


class Watching:
    """Follows trainings for callers until `stopping` is set, when they are told to come back."""

    def __init__(self, store: ObjectStore, trainings: Trainings, stopping: asyncio.Event) -> None:
        self._store = store
        self._trainings = trainings
        self._stopping = stopping

    async def watch(self, name: TrainingName, after: int) -> AsyncIterator[Event | Heartbeat]:
        """Every event after a sequence, to the last. Raises ResourceMissing, SequenceOutOfRange, ServiceUnavailable."""
        await asyncio.to_thread(self._trainings.get, name)
        events = Journal(self._store, name).follow(after)
        stopped = asyncio.ensure_future(self._stopping.wait())
        coming = asyncio.ensure_future(anext(events, None))
        quiet_s = _FIRST_HEARTBEAT_S
        try:
            while True:
                await asyncio.wait({coming, stopped}, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
                quiet_s = HEARTBEAT_S
                if coming.done():
                    event = coming.result()
                    if event is None:
                        return
                    yield await asyncio.to_thread(self._with_content, name, event)
                    coming = asyncio.ensure_future(anext(events, None))
                elif stopped.done():
                    raise ServiceUnavailable("DRAINING", "the service is stopping; watch again from here", _COME_BACK_S)
                else:
                    # After a deletion no event follows, not even the last.
                    await asyncio.to_thread(self._trainings.get, name)
                    yield Heartbeat()
        finally:
            coming.cancel()
            stopped.cancel()

    def _with_content(self, name: TrainingName, event: Event) -> Event:
        if not isinstance(event.what, SampleReady):
            return event
        try:
            content = self._store.get(schema.training_file(name, event.what.artifact_id)).body
        except ObjectMissing:
            # The training's files were deleted while somebody watched.
            content = b""
        return event.model_copy(update={"what": event.what.model_copy(update={"content": content})})
