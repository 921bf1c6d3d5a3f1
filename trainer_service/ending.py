"""The end of a training: the last event, then what becomes of its adapter version, its record, its queue entry.

In this order, so that whoever finds a training half ended (its log says so, its record does not) only has to go on.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from service_kit import schema
from service_kit.document import UnreadableDocument
from service_kit.store import ObjectStore
from trainer_service.events import Ended, Failure
from trainer_service.journal import Journal, JournalWriter
from trainer_service.lifecycle import State
from trainer_service.training_record import LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.publishing import is_published

_logger = logging.getLogger(__name__)

_ENDER = "ended-by-the-service"


def end_training(
    store: ObjectStore,
    record: TrainingRecord,
    state: State,
    failure: Failure | None,
    now: Callable[[], datetime],
) -> TrainingRecord:
    """End a training that the caller holds, or that nobody holds, and return its final record.

    Where the log already has its last event, that one counts; where the log cannot be read, it gets none. Raises
    LeaseLost when somebody else took the training.
    """
    ended = Ended(state=state, failure=failure, adapter=str(record.adapter) if state is State.SUCCEEDED else "")
    try:
        writer = JournalWriter(store, record.name, record.epoch, now)
        if not writer.has_ended:
            writer.append([ended])
        ended = last_event(store, record)
    except UnreadableDocument as error:
        # Who watches is told DATA_LOSS; the record must end all the same, or workers would die over it for ever.
        _logger.error("%s ends without an event: %s", record.name, error)
    if ended.state is not State.SUCCEEDED:
        store.put(schema.adapter_abandonment(record.adapter), b"{}")

    def finish(current: TrainingRecord) -> TrainingRecord:
        if current.state.is_final:
            return current
        if current.epoch != record.epoch or current.holder != record.holder:
            raise LeaseLost(f"{record.name} was taken by {current.holder} in epoch {current.epoch}")
        return current.ended(ended.state, ended.failure, now())

    final = TrainingStore(store).change(record.name, finish)
    store.delete(record.queue_key)
    return final


def end_free_training(
    store: ObjectStore,
    record: TrainingRecord,
    etag: str,
    state: State,
    failure: Failure | None,
    now: Callable[[], datetime],
) -> TrainingRecord:
    """End a training that nobody will carry out any more, as its holder for that moment; its final record.

    etag: the record's, when nobody held it. Where its adapter was published already, it has SUCCEEDED whatever the
    caller thought. Raises ObjectChanged or LeaseLost when somebody else was faster.
    """
    held = record.model_copy(update={"holder": _ENDER, "epoch": record.epoch + 1})
    if _is_published(store, record):
        held = held.moved(State.PREPARING).moved(State.TRAINING).moved(State.PUBLISHING)
        state, failure = State.SUCCEEDED, None
    TrainingStore(store).replace(held, etag)
    return end_training(store, held, state, failure, now)


def _is_published(store: ObjectStore, record: TrainingRecord) -> bool:
    """A version whose manifest cannot be read is of no use to anybody."""
    try:
        return is_published(store, record)
    except UnreadableDocument:
        return False


def last_event(store: ObjectStore, record: TrainingRecord) -> Ended:
    """The event that ended a training."""
    journal = Journal(store, record.name)
    segment = journal.segment_with(journal.head())
    last = segment.events[-1].what if segment else None
    if not isinstance(last, Ended):
        raise LeaseLost(f"{record.name}: somebody else writes its events")
    return last
