"""A training that no worker carries out any more waits again, and its event log says so.

Its one rule: the record first, then the event. In between somebody may take the training and write, and then what we
would have said is no longer true and is not written.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from service_kit.document import UnreadableDocument
from service_kit.store import ObjectStore, StoreError
from trainer_service.events import Happening, StateChanged
from trainer_service.journal import JournalWriter
from trainer_service.training_record import LeaseLost, TrainingRecord

_logger = logging.getLogger(__name__)


def say_handed_back(
    store: ObjectStore, record: TrainingRecord, now: Callable[[], datetime], why: Sequence[Happening] = ()
) -> None:
    """Write to the log that a training waits again.

    record: as it was handed back, with the epoch of its last holder. Raises nothing: the state in the record counts.
    """
    try:
        JournalWriter(store, record.name, record.epoch, now).append([*why, StateChanged(state=record.state)])
    except (LeaseLost, StoreError, UnreadableDocument) as error:
        _logger.info("%s: handed back without an event: %s", record.name, error)
