"""The executor on a Kubernetes cluster: one Job for each training, whose pods take it as workers do everywhere.

Its one rule: Jobs follow records. A free training without a Job gets one, one whose Job came to its end fails, and a
Job whose training has ended before it began is deleted. Every service of a deployment does so, from what it sees, and
all of it may be done twice: a Job's name is its training's, and a record changes by compare-and-swap.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from datetime import datetime

from service_kit.errors import ResourceMissing, WriteConflict
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectStore, StoreError
from trainer_service.ending import end_free_training
from trainer_service.events import Failure
from trainer_service.job_template import JobTemplate
from trainer_service.kubernetes_cluster import Cluster, ClusterError, SeenJob, Trouble
from trainer_service.lifecycle import State
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_queue import Free, TrainingQueue
from trainer_service.training_record import HEARTBEAT_S, LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore

_logger = logging.getLogger(__name__)

# A burst of changes in the cluster is one look.
_PAUSE_S = 1.0
_OUT_OF_MEMORY = "OOMKilled"


class KubernetesExecutor:
    """Has trainings carried out by Jobs. memory_of: the bytes that a training will need; blocking."""

    def __init__(
        self,
        store: ObjectStore,
        cluster: Cluster,
        template: JobTemplate,
        memory_of: Callable[[TrainingRecord], int],
        now: Callable[[], datetime],
        metrics: TrainerMetrics,
    ) -> None:
        self._store = store
        self._records = TrainingStore(store)
        self._queue = TrainingQueue(store, now, metrics)
        self._cluster = cluster
        self._template = template
        self._memory_of = memory_of
        self._now = now
        self._metrics = metrics
        self._changed = asyncio.Event()
        # Of Jobs that have not finished: when one does, its pods, and what was wrong with them, may be gone.
        self._troubles: dict[str, Trouble] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look for trainings, and at the Jobs."""
        self._tasks = [asyncio.create_task(self._cluster.follow(self.poke)), asyncio.create_task(self._keep_looking())]

    async def stop(self, patience_s: float) -> None:
        """Stop looking. Jobs go on, and the next service that looks finds them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._cluster.close()

    def poke(self) -> None:
        """Look now: a training was created, or a Job has changed."""
        self._changed.set()

    def device(self) -> None:
        """Not known: nodes differ, and a Job's is chosen when it starts."""

    async def cancel(self, name: TrainingName) -> None:
        """Look now, and delete the training's Job if it waits; one that runs reads of it in the record within 5 s."""
        self.poke()

    async def _keep_looking(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._look()
            except (StoreError, ClusterError, WriteConflict) as error:
                _logger.warning("cannot bring Jobs and trainings together: %s", error)
            except Exception:
                _logger.exception("bringing Jobs and trainings together failed and is tried again")
            # Not wait_for, which before Python 3.12 loses a cancel that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._changed.wait()
            await asyncio.sleep(_PAUSE_S)

    async def _look(self) -> None:
        """Bring Jobs and trainings together, once. Raises StoreError, ClusterError, WriteConflict."""
        # Before the records: a worker ends its training, then itself, so whose Job has finished has ended already.
        jobs = self._cluster.jobs
        free = await asyncio.to_thread(lambda: list(self._queue.free()))
        self._queue.note_look(free)
        if jobs is None:
            return
        self._metrics.note_jobs(job.state for job in jobs.values())
        await self._note_troubles(jobs.values())
        for training in free:
            job = jobs.get(self._template.name(training.record.name))
            if training.record.cancel_requested:
                # Its worker died over the cancel; a pod only for that might wait for a node for hours.
                await self._end(training, State.CANCELLED, None)
            elif job is None:
                await self._create(training.record)
            elif job.end:
                await self._fail(training, job)
        waiting = {training.record.name for training in free}
        for job in jobs.values():
            if (
                job.can_be_spared
                and job.training not in waiting
                and await asyncio.to_thread(self._has_ended, job.training)
            ):
                await self._cluster.delete(job.name)
                _logger.info("%s: %s had not started and is deleted", job.training, job.name)

    async def _create(self, record: TrainingRecord) -> None:
        memory_bytes = await asyncio.to_thread(self._memory_of, record)
        try:
            created = await self._cluster.create(self._template.job(record.name, memory_bytes))
        except ClusterError as error:
            if not error.is_about_the_object:
                raise
            # The operator's to mend; the training waits, and those after it are tried.
            _logger.error("%s: the cluster refuses its Job: %s", record.name, error)
            return
        if created:
            self._metrics.job_creations.inc()
            _logger.info("%s: has %s", record.name, self._template.name(record.name))

    async def _fail(self, training: Free, job: SeenJob) -> None:
        """Fail a free training whose Job has finished: Kubernetes will make no further pod."""
        trouble = (await self._pods_troubles()).get(job.name) or self._troubles.get(job.name)
        message = f"Job {job.name} came to its end before the training did; {job.end}"
        if trouble is not None:
            message += f"; its last pod: {trouble.reason}: {trouble.message}"
        out_of_memory = trouble is not None and trouble.reason == _OUT_OF_MEMORY
        failure = Failure(reason="OUT_OF_MEMORY" if out_of_memory else "WORKER_CRASHED", message=message)
        _logger.error("%s: %s", training.record.name, message)
        await self._end(training, State.FAILED, failure)

    async def _end(self, training: Free, state: State, failure: Failure | None) -> None:
        record, etag = training.record, training.etag
        try:
            ended = await asyncio.to_thread(end_free_training, self._store, record, etag, state, failure, self._now)
        except (ObjectChanged, LeaseLost) as error:
            _logger.info("%s: another has taken or ended it: %s", record.name, error)
            return
        self._metrics.ended.labels(str(ended.state), ended.failure.reason if ended.failure else "").inc()

    async def _note_troubles(self, jobs: Collection[SeenJob]) -> None:
        """Remember what keeps pods from running."""
        if any(job.state == "waiting" for job in jobs):
            found = await self._pods_troubles()
            for name, trouble in found.items():
                if self._troubles.get(name) != trouble:
                    _logger.warning("%s: %s: %s", name, trouble.reason, trouble.message)
            self._troubles |= found
        self._troubles = {job.name: self._troubles[job.name] for job in jobs if job.name in self._troubles}

    async def _pods_troubles(self) -> dict[str, Trouble]:
        try:
            return await self._cluster.troubles()
        except ClusterError as error:
            # They explain things, and nothing depends on them.
            _logger.warning("cannot see what keeps pods from running: %s", error)
            return {}

    def _has_ended(self, name: TrainingName) -> bool:
        """Whether no worker will have anything to do, also because the training was deleted."""
        try:
            return self._records.read(name)[0].state.is_final
        except ResourceMissing:
            return True
