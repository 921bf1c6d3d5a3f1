"""Gives queued trainings to warm workers, oldest first, and takes over those whose worker is gone.

Its one rule: a training is free when nobody holds it, when the holder is a child that we saw die, or when its record
stood still for 30 s on our own clock.
"""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from service_kit import schema
from service_kit.errors import ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectStore, StoreError
from trainer_service.training_record import LeaseWatch
from trainer_service.training_store import TrainingStore
from trainer_service.warm_worker import WarmWorker

_logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0
# A child that dies at its start would otherwise be replaced without pause.
_REPLACE_AFTER_S = 1.0
# A queue entry without a record is a CreateTraining that died half way; nobody repeats it after this long.
_FORGOTTEN_MS = 24 * 3600 * 1000


class Dispatcher:
    """`slots` warm workers and the queue that they are fed from."""

    def __init__(self, store: ObjectStore, slots: int) -> None:
        self._store = store
        self._records = TrainingStore(store)
        self._slots = slots
        self._looking = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watch = LeaseWatch()
        self._workers: set[WarmWorker] = set()
        self._busy: set[TrainingName] = set()
        self._dead_holders: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the workers and begin to look for trainings."""
        self._tasks = [asyncio.create_task(self._keep_slot()) for _ in range(self._slots)]

    async def stop(self, patience_s: float) -> None:
        """Stop all workers: each checkpoints and hands over, or is killed after `patience_s`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.stop(patience_s) for worker in self._workers))

    def poke(self) -> None:
        """Look at the queue now: a training was created."""
        self._changed.set()

    async def cancel(self, name: TrainingName) -> None:
        """Interrupt a training within one step, if a worker of ours has it."""
        for worker in self._workers:
            await worker.cancel(name)

    async def _keep_slot(self) -> None:
        while True:
            try:
                await self._use_worker()
            except Exception:
                # Whatever it was, it must not cost the slot: trainings would wait for ever in a healthy service.
                _logger.exception("a worker slot failed and starts again")
            await asyncio.sleep(_REPLACE_AFTER_S)

    async def _use_worker(self) -> None:
        """Start a worker and feed it until it dies."""
        worker = await WarmWorker.start()
        self._workers.add(worker)
        if await worker.wait_until_ready():
            await self._feed(worker)
        # Its output has closed: it is dead or about to be, and its trainings are free at once.
        await worker.stop(_REPLACE_AFTER_S)
        self._workers.discard(worker)
        self._dead_holders.add(worker.holder)
        _logger.error("%s died and is replaced", worker.holder)

    async def _feed(self, worker: WarmWorker) -> None:
        """Give the worker trainings until it dies."""
        while True:
            name, etag = await self._next_training()
            try:
                if not await worker.run(name, etag):
                    return
            finally:
                self._busy.discard(name)

    async def _next_training(self) -> tuple[TrainingName, str]:
        async with self._looking:
            while True:
                self._changed.clear()
                try:
                    found = await asyncio.to_thread(self._find)
                except StoreError as error:
                    _logger.warning("cannot look at the queue: %s", error)
                    found = None
                if found is not None:
                    self._busy.add(found[0])
                    return found
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN_S)

    def _find(self) -> tuple[TrainingName, str] | None:
        """The oldest training that is free, and the ETag at which it is."""
        for key in self._store.keys(schema.queue_prefix()):
            name = schema.training_of_queue_entry(key)
            if name in self._busy:
                continue
            try:
                record, etag = self._records.read(name)
            except ResourceMissing:
                self._drop_if_forgotten(key)
                continue
            if record.state.is_final:
                self._store.delete(key)
                self._watch.forget(name)
            elif not record.holder or self._watch.is_stale(name, etag, time.monotonic()):
                self._watch.forget(name)
                return name, etag
            elif record.holder in self._dead_holders:
                with contextlib.suppress(ObjectChanged):
                    return name, self._records.replace(record.abandoned(record.holder), etag)
        return None

    def _drop_if_forgotten(self, key: str) -> None:
        age_ms = datetime.now(UTC).timestamp() * 1000 - schema.created_ms_of_queue_entry(key)
        if age_ms > _FORGOTTEN_MS:
            self._store.delete(key)
