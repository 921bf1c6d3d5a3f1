"""Gives queued trainings to warm workers, oldest first, and frees those whose worker is gone.

Its one rule: a training is free when nobody holds it, when its holder is a child of ours that does not carry it out, or
when its record stood still for 30 s on our own clock. Freed, it is QUEUED again, whether or not a worker is there.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import uuid4

from prometheus_client import CollectorRegistry

from service_kit import schema
from service_kit.errors import ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectStore, StoreError
from trainer_service.handing_back import say_handed_back
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_record import HEARTBEAT_S, LeaseWatch, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.warm_worker import WarmWorker

_logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0
# A child that dies at its start would otherwise be replaced without pause.
_REPLACE_AFTER_S = 1.0
# A queue entry without a record is a CreateTraining that died half way; nobody repeats it after this long.
_FORGOTTEN_MS = 24 * 3600 * 1000


class _Free(NamedTuple):
    """A training that nobody has, with the ETag at which that is so."""

    name: TrainingName
    etag: str
    created_ms: int


class Dispatcher:
    """Warm workers, one for each entry of `gpus` (None: on the CPU), and the queue that they are fed from.

    metrics: absent where nobody reads them.
    """

    def __init__(
        self,
        store: ObjectStore,
        gpus: Sequence[str | None],
        now: Callable[[], datetime],
        metrics: TrainerMetrics | None = None,
    ) -> None:
        self._metrics = metrics or TrainerMetrics(CollectorRegistry())
        self._metrics.workers.set(len(gpus))
        self._store = store
        self._records = TrainingStore(store)
        self._gpus = gpus
        self._now = now
        self._looking = asyncio.Lock()
        self._changed = asyncio.Event()
        self._watch = LeaseWatch()
        self._workers: set[WarmWorker] = set()
        self._busy: set[TrainingName] = set()
        self._holders: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the workers and begin to look for trainings."""
        self._tasks = [asyncio.create_task(self._keep_slot(gpu)) for gpu in self._gpus]
        self._tasks.append(asyncio.create_task(self._keep_freeing()))

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

    async def _keep_slot(self, gpu: str | None) -> None:
        while True:
            try:
                await self._use_worker(gpu)
            except Exception:
                # Whatever it was, it must not cost the slot: trainings would wait for ever in a healthy service.
                _logger.exception("a worker slot failed and starts again")
            await asyncio.sleep(_REPLACE_AFTER_S)

    async def _keep_freeing(self) -> None:
        """Free what nobody carries out, even where all workers are busy or there are none."""
        while True:
            try:
                async with self._looking:
                    self._note_look(await asyncio.to_thread(lambda: list(self._free())))
            except StoreError as error:
                _logger.warning("cannot look for trainings that nobody carries out: %s", error)
            except Exception:
                _logger.exception("looking for trainings that nobody carries out failed and is tried again")
            await asyncio.sleep(HEARTBEAT_S)

    async def _use_worker(self, gpu: str | None) -> None:
        """Start a worker and feed it until it dies."""
        worker = await WarmWorker.start(gpu, self._metrics.observe)
        self._workers.add(worker)
        self._holders.add(worker.holder)
        if await worker.wait_until_ready():
            await self._feed(worker)
        # Its output has closed: it is dead or about to be.
        await worker.stop(_REPLACE_AFTER_S)
        self._workers.discard(worker)
        self._metrics.restarts.inc()
        _logger.error("%s died and is replaced", worker.holder)

    async def _feed(self, worker: WarmWorker) -> None:
        """Give the worker trainings until it dies."""
        while True:
            name, etag, _ = await self._next_training()
            watching = asyncio.create_task(self._kill_when_frozen(worker, name))
            try:
                if not await worker.run(name, etag):
                    # Its training is free once it is dead for certain.
                    await worker.stop(_REPLACE_AFTER_S)
                    return
            finally:
                watching.cancel()
                self._busy.discard(name)
                self._metrics.running.set(len(self._busy))
                self._metrics.at_rest(worker.holder)

    async def _kill_when_frozen(self, worker: WarmWorker, name: TrainingName) -> None:
        """Kill a worker that lives and renews no lease: it would keep its slot, and its training, for ever."""
        watch = LeaseWatch()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            with contextlib.suppress(StoreError):
                if watch.is_stale(name, await asyncio.to_thread(self._renewal, worker, name), time.monotonic()):
                    _logger.error("%s lives and renews no lease; it is killed", worker.holder)
                    self._metrics.frozen.inc()
                    worker.kill()
                    return

    def _note_look(self, free: Sequence[_Free]) -> None:
        oldest_ms = min((found.created_ms for found in free), default=None)
        waited_s = 0.0 if oldest_ms is None else self._now().timestamp() - oldest_ms / 1000
        self._metrics.looked(len(free), max(0.0, waited_s))

    def _renewal(self, worker: WarmWorker, name: TrainingName) -> str:
        """What is different after each renewal, and while the worker holds no lease that it could renew."""
        try:
            record, etag = self._records.read(name)
        except ResourceMissing:
            # Deleted: the worker should be leaving.
            return "deleted"
        return etag if record.holder == worker.holder else uuid4().hex

    async def _next_training(self) -> _Free:
        async with self._looking:
            while True:
                self._changed.clear()
                try:
                    found = await asyncio.to_thread(lambda: next(self._free(), None))
                except StoreError as error:
                    _logger.warning("cannot look at the queue: %s", error)
                    found = None
                else:
                    # With a worker at hand whatever is free is taken, so where it finds none, none waits.
                    if found is None:
                        self._note_look([])
                if found is not None:
                    self._busy.add(found.name)
                    self._metrics.running.set(len(self._busy))
                    return found
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _LOOK_AGAIN_S)

    def _free(self) -> Iterator[_Free]:
        """Trainings that are free, oldest first, each with the ETag at which it is; those that can be freed are."""
        for key in self._store.keys(schema.queue_prefix()):
            name, created_ms = schema.training_of_queue_entry(key), schema.created_ms_of_queue_entry(key)
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
            elif not record.holder:
                yield _Free(name, etag, created_ms)
            elif record.holder in self._holders or self._watch.is_stale(name, etag, time.monotonic()):
                self._watch.forget(name)
                with contextlib.suppress(ObjectChanged):
                    yield _Free(name, self._take_from_holder(record, etag), created_ms)

    def _take_from_holder(self, record: TrainingRecord, etag: str) -> str:
        """Free a training whose holder does not carry it out; its new ETag. Raises ObjectChanged."""
        free = record.abandoned(record.holder)
        new_etag = self._records.replace(free, etag)
        self._metrics.freed.inc()
        _logger.warning("%s: %s does not carry it out; it waits again", record.name, record.holder)
        if free.state is not record.state:
            say_handed_back(self._store, free, self._now)
        return new_etag

    def _drop_if_forgotten(self, key: str) -> None:
        age_ms = self._now().timestamp() * 1000 - schema.created_ms_of_queue_entry(key)
        if age_ms > _FORGOTTEN_MS:
            self._store.delete(key)
