"""A training's event log: appended in segments, replayed and followed by anybody.

Its one rule: a segment is created, never changed, under the sequence of its first event. So sequences have no holes,
and of two writers one sees the other: a newer epoch means stop, an older one means append after it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime

from service_kit import schema
from service_kit.errors import SequenceOutOfRange
from service_kit.names import TrainingName
from service_kit.store import ObjectExists, ObjectMissing, ObjectStore, StoreUnavailable
from trainer_service.events import Ended, Event, EventSegment, Happening
from trainer_service.training_record import LeaseLost

_POLL_S = 0.25
_ATTEMPTS = 16


class Journal:
    """The event log of one training."""

    def __init__(self, store: ObjectStore, name: TrainingName) -> None:
        self._store = store
        self._name = name

    def head(self) -> int:
        """Sequence of the last event; 0 when there is none."""
        last = self.last_segment()
        return last.events[-1].sequence if last else 0

    def last_segment(self) -> EventSegment | None:
        """The segment of the last event; None when there is none."""
        keys = list(self._store.keys(schema.events_prefix(self._name)))
        return self._read_key(keys[-1]) if keys else None

    def before(self, epoch: int) -> Iterator[Event]:
        """Every event that an earlier epoch wrote, oldest first."""
        for key in self._store.keys(schema.events_prefix(self._name)):
            segment = self._read_key(key)
            if segment.epoch >= epoch:
                return
            yield from segment.events

    def segment_with(self, sequence: int) -> EventSegment | None:
        """The segment that holds an event, or None when it is not written yet."""
        try:
            return self._read_key(schema.event_segment(self._name, sequence))
        except ObjectMissing:
            pass
        before = ""
        for key in self._store.keys(schema.events_prefix(self._name)):
            if key > schema.event_segment(self._name, sequence):
                break
            before = key
        if not before:
            return None
        segment = self._read_key(before)
        return segment if segment.events[-1].sequence >= sequence else None

    def begin(self, what: Happening, now: datetime) -> None:
        """Write the first event, of epoch 0, unless it is there: whoever creates the training may try it again."""
        first = EventSegment(epoch=0, events=(Event(sequence=1, time=now, epoch=0, what=what),))
        with contextlib.suppress(ObjectExists):
            self._store.create(schema.event_segment(self._name, 1), first.to_json())

    async def follow(self, after: int) -> AsyncIterator[Event]:
        """Every event after a sequence, waiting for new ones; ends after `ended`. Raises SequenceOutOfRange."""
        head = await asyncio.to_thread(self.head)
        if not 0 <= after <= head:
            raise SequenceOutOfRange("after_sequence", after, 0, head)
        segment = await asyncio.to_thread(self.segment_with, after + 1) if after < head else None
        while True:
            for event in segment.events if segment else ():
                if event.sequence <= after:
                    continue
                yield event
                after = event.sequence
                if isinstance(event.what, Ended):
                    return
            segment = await self._next(after + 1)

    async def _next(self, sequence: int) -> EventSegment:
        while True:
            try:
                return await asyncio.to_thread(self._read_key, schema.event_segment(self._name, sequence))
            except ObjectMissing:
                # Polling, because a bucket tells nobody that it has changed.
                await asyncio.sleep(_POLL_S)

    def _read_key(self, key: str) -> EventSegment:
        return EventSegment.from_json(self._store.get(key).body)


class JournalWriter:
    """Appends to a training's event log in one epoch, for one thread. Raises LeaseLost where a newer has written."""

    def __init__(self, store: ObjectStore, name: TrainingName, epoch: int, now: Callable[[], datetime]) -> None:
        self._store = store
        self._name = name
        self._epoch = epoch
        self._now = now
        self._journal = Journal(store, name)
        last = self._journal.last_segment()
        if last is not None and last.epoch > epoch:
            raise _shut_out(name)
        self._head = last.events[-1].sequence if last else 0
        self._has_ended = last is not None and isinstance(last.events[-1].what, Ended)
        self._unsettled: EventSegment | None = None
        self._behind: list[Happening] = []

    @property
    def is_unsettled(self) -> bool:
        """Whether the store left open what became of the last events; the next append settles it."""
        return self._unsettled is not None

    @property
    def has_ended(self) -> bool:
        """Whether the log's last event was `ended` when this was made: nothing may follow it."""
        return self._has_ended

    def append(self, happenings: Sequence[Happening]) -> None:
        """Write events as one segment. Raises LeaseLost when a newer epoch has written, or the log has ended.

        Raises StoreError when it is open whether they were written: the next append, of nothing or of more, then
        writes them first, and never twice.
        """
        if self._has_ended:
            raise _shut_out(self._name)
        self._behind.extend(happenings)
        if self._unsettled is not None:
            # Byte by byte as before, so that the store knows its own where the write did arrive.
            self._create(self._unsettled)
        if self._behind:
            segment, self._behind = self._segment(self._head + 1, self._behind), []
            self._create(segment)

    def _create(self, segment: EventSegment) -> None:
        for _ in range(_ATTEMPTS):
            first = segment.events[0].sequence
            # Until it is known to be written: whatever the store raises, here or while reading back.
            self._unsettled = segment
            try:
                self._store.create(schema.event_segment(self._name, first), segment.to_json())
                self._head = segment.events[-1].sequence
                self._unsettled = None
                return
            except ObjectExists:
                theirs = self._journal.segment_with(first)
                if theirs is None:
                    # Another write of it is under way and not to be seen yet.
                    continue
                if theirs.epoch > self._epoch or isinstance(theirs.events[-1].what, Ended):
                    raise _shut_out(self._name) from None
                segment = self._segment(theirs.events[-1].sequence + 1, [event.what for event in segment.events])
        raise StoreUnavailable(f"{self._name}: events exist and cannot be read")

    def _segment(self, first: int, happenings: Sequence[Happening]) -> EventSegment:
        events = tuple(
            Event(sequence=first + offset, time=self._now(), epoch=self._epoch, what=what)
            for offset, what in enumerate(happenings)
        )
        return EventSegment(epoch=self._epoch, events=events)


def _shut_out(name: TrainingName) -> LeaseLost:
    return LeaseLost(f"a newer epoch writes the events of {name}, or ended them")
