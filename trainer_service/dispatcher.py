"""The executor on this machine: gives queued trainings to warm workers, oldest first, and replaces those that die.

Its one rule: what a child of ours does not carry out is free at once; anybody else's lease has to stand still first
(`training_queue.py`).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import uuid4

from prometheus_client import CollectorRegistry

from service_kit.errors import ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import ObjectStore, StoreError
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_memory import Device
from trainer_service.training_queue import Free, TrainingQueue
from trainer_service.training_record import HEARTBEAT_S, LeaseWatch
from trainer_service.training_store import TrainingStore
from trainer_service.warm_worker import WarmWorker

_logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 2.0
# A child that dies at its start would otherwise be replaced without pause.
_REPLACE_AFTER_S = 1.0


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
        self._records = TrainingStore(store)
        self._queue = TrainingQueue(store, now, self._metrics)
        self._gpus = gpus
        self._looking = asyncio.Lock()
        self._changed = asyncio.Event()
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

    def device(self) -> Device | None:
        """The smallest of the workers', as far as they have said; None where none has, or there are none."""
        if self._gpus and not any(self._gpus):
            return Device(kind="cpu")
        known = [worker.device for worker in self._workers if worker.device is not None]
        return min(known, key=lambda device: device.memory_bytes, default=None)

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
                    self._queue.note_look(await asyncio.to_thread(lambda: list(self._free())))
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
            free = await self._next_training()
            name = free.record.name
            watching = asyncio.create_task(self._kill_when_frozen(worker, name))
            try:
                if not await worker.run(name, free.etag):
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

    def _renewal(self, worker: WarmWorker, name: TrainingName) -> str:
        """What is different after each renewal, and while the worker holds no lease that it could renew."""
        try:
            record, etag = self._records.read(name)
        except ResourceMissing:
            # Deleted: the worker should be leaving.
            return "deleted"
        return etag if record.holder == worker.holder else uuid4().hex

    async def _next_training(self) -> Free:
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
                        self._queue.note_look([])
                if found is not None:
                    self._busy.add(found.record.name)
                    self._metrics.running.set(len(self._busy))
                    return found
                # Not wait_for, which before Python 3.12 loses a cancel that comes together with what it waits for.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await self._changed.wait()

    def _free(self) -> Iterator[Free]:
        return self._queue.free(self._busy, self._holders)
