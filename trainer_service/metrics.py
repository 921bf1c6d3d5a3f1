"""What the trainer service counts beside its calls: the queue, its workers, and what these say of their trainings.

Its one rule: it only notes. A worker is a process of its own, so what it sees comes as observations through its pipe
(`worker/telling.py`); of workers that were started elsewhere nothing is known here.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JOB_STATES = ("suspended", "waiting", "running", "finished")
_STAGE_SECONDS = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400)


class TrainerMetrics:
    """Used on the event loop only, but for `looked`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting = Gauge(
            "personae_trainer_trainings_waiting",
            "Trainings in the queue that no worker has, at the last look.",
            registry=registry,
        )
        self.oldest_waiting = Gauge(
            "personae_trainer_oldest_waiting_seconds",
            "Seconds since the oldest of them was created; 0 where none waits.",
            registry=registry,
        )
        self.looked_at = Gauge(
            "personae_trainer_queue_look_timestamp_seconds",
            "Unix time of the last look at the queue that the store answered.",
            registry=registry,
        )
        self.running = Gauge(
            "personae_trainer_trainings_running", "Trainings that this service's workers have.", registry=registry
        )
        self.workers = Gauge("personae_trainer_workers", "Workers that this service keeps.", registry=registry)
        self.restarts = Counter(
            "personae_trainer_worker_restarts",
            "Workers that died, left or were killed, and were replaced.",
            registry=registry,
        )
        self.frozen = Counter(
            "personae_trainer_workers_frozen",
            "Workers that lived and renewed no lease, and were killed for it.",
            registry=registry,
        )
        self.freed = Counter(
            "personae_trainer_trainings_freed",
            "Trainings taken from a worker, here or elsewhere, that did not carry them out.",
            registry=registry,
        )
        self.jobs = Gauge(
            "personae_trainer_jobs",
            "Jobs in the cluster by what they do: suspended, waiting (for a node, an image), running, finished.",
            ("state",),
            registry=registry,
        )
        self.job_creations = Counter(
            "personae_trainer_job_creations", "Jobs that this service created for trainings.", registry=registry
        )
        self.cluster_failures = Counter(
            "personae_trainer_cluster_failures",
            "Calls to the cluster's API that it refused or did not answer.",
            ("call",),
            registry=registry,
        )
        self.ended = Counter(
            "personae_trainer_trainings_ended",
            "Trainings that this service or its workers brought to an end, by final state and reason of failure.",
            ("state", "reason"),
            registry=registry,
        )
        self.lease_losses = Counter(
            "personae_trainer_lease_losses",
            "Trainings that this service's workers left because they held the lease no more, or the store was away.",
            registry=registry,
        )
        self.steps = Counter("personae_trainer_steps", "Optimizer steps of this service's workers.", registry=registry)
        self.steps_per_second = Gauge(
            "personae_trainer_steps_per_second",
            "Optimizer steps a second, of all trainings that are stepping here, as they last said.",
            registry=registry,
        )
        self.checkpoints = Counter(
            "personae_trainer_checkpoints", "Checkpoints that this service's workers completed.", registry=registry
        )
        self.stage_seconds = Histogram(
            "personae_trainer_stage_seconds",
            "Seconds that a stage of a training took.",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._rates: dict[str, float] = {}

    def looked(self, waiting: int, oldest_s: float) -> None:
        """Note a look at the queue. oldest_s: how long the oldest has waited."""
        self.waiting.set(waiting)
        self.oldest_waiting.set(oldest_s)
        self.looked_at.set(time.time())

    def note_jobs(self, states: Iterable[str]) -> None:
        """Note what the Jobs in the cluster do, a state for each."""
        of_each = list(states)
        for state in JOB_STATES:
            self.jobs.labels(state).set(of_each.count(state))

    def observe(self, worker: str, said: Mapping[str, Any]) -> None:
        """Note what a worker said. What is not known, of a worker of another release, is passed over."""
        match said:
            case {"stage": str(stage), "seconds": float(seconds)}:
                self.stage_seconds.labels(stage).observe(seconds)
                self._set_rate(worker, 0.0)
            case {"steps": int(steps), "per_second": float(rate)}:
                self.steps.inc(steps)
                self._set_rate(worker, rate)
            case {"checkpoint": _}:
                self.checkpoints.inc()
            case {"lease_lost": _}:
                self.lease_losses.inc()
            case {"ended": str(state), "reason": str(reason)}:
                self.ended.labels(state, reason).inc()

    def at_rest(self, worker: str) -> None:
        """Note that a worker has no training any more, however that came."""
        self._set_rate(worker, 0.0)

    def _set_rate(self, worker: str, rate: float) -> None:
        self._rates[worker] = rate
        if not rate:
            del self._rates[worker]
        self.steps_per_second.set(sum(self._rates.values()))
