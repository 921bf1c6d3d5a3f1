"""Trainer services that have their trainings carried out by Jobs, on an API server whose pods a test moves."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, generate_latest

from tests.job_controller import JobController
from tests.kubernetes_api import KubernetesApi, Object
from tests.metric_values import values
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.job_template import JobTemplate
from trainer_service.kubernetes_cluster import Cluster
from trainer_service.kubernetes_executor import KubernetesExecutor
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore

WITHIN_S = 20.0
PAGE = Path(__file__).parents[3] / "docs" / "kubernetes-jobs.md"
_LOOK_AGAIN_S = 0.02


def now() -> datetime:
    return datetime.now(UTC)


def template(**spec: Any) -> Object:
    """The least that an operator writes."""
    pod = {"containers": [{"name": "worker", "image": "registry.example/trainer:1"}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "spec": {"template": {"spec": pod}, **spec}}


def documented_rights() -> set[tuple[str, str]]:
    """What the page has the service account allowed to do."""
    (text,) = re.findall(r"```yaml\n(rules:\n.*?)```", PAGE.read_text(), flags=re.DOTALL)
    rules = yaml.safe_load(text)["rules"]
    return {(verb, kind) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}


def eventually(holds: Callable[[], object]) -> None:
    """Return as soon as something holds; fail where it does not come to that."""
    give_up = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < give_up, "it did not come to that"
        time.sleep(_LOOK_AGAIN_S)


@dataclass
class ClusterOfTests:
    """A bucket, an API server with its controller, and the services between them."""

    trainer: Trainer
    api: KubernetesApi
    controller: JobController
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.template = JobTemplate(template(), "a-bucket", {})
        self.metrics = TrainerMetrics(self.registry)
        self.records = TrainingStore(self.trainer.store)

    def train(self, adapter_id: str = "cat") -> TrainingRecord:
        """A new training on the dataset."""
        return self.trainer.trainings.create(request(adapter_id=adapter_id)).record

    def job(self, training: TrainingRecord) -> str:
        """The name of its Job."""
        return self.template.name(training.name)

    def has_job(self, training: TrainingRecord) -> bool:
        """Whether its Job is in the cluster, and what its controller makes of it."""
        with self.api.changed:
            return self.job(training) in self.api.objects["jobs"]

    def found(self, training: TrainingRecord) -> TrainingRecord:
        """Its record as it is now."""
        return self.records.read(training.name)[0]

    def take(self, training: TrainingRecord, holder: str = "a-pod") -> TrainingRecord:
        """What a pod that runs does first."""
        return self.records.change(training.name, lambda record: record.taken(holder, now()))

    def counted(self, call: str) -> int:
        """How often a call came, as `create jobs`."""
        return self.api.calls.count(call)

    def sample(self, name: str) -> float:
        """A metric's value."""
        return values(generate_latest(self.registry).decode())[f"personae_trainer_{name}"]

    def memory_of(self, record: TrainingRecord) -> int:
        """The estimate, as the service has it."""
        return self.trainer.trainings.memory_of(record)

    @contextmanager
    def services(self, count: int = 1) -> Iterator[None]:
        """So many services at work, each with its own view of the cluster."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            executors = asyncio.run_coroutine_threadsafe(self._started(count), loop).result(WITHIN_S)
            try:
                yield
            finally:
                for executor in executors:
                    asyncio.run_coroutine_threadsafe(executor.stop(0), loop).result(WITHIN_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def _started(self, count: int) -> list[KubernetesExecutor]:
        executors = []
        for _ in range(count):
            cluster = Cluster(self.template.labels, lambda call: self.metrics.cluster_failures.labels(call).inc())
            executors.append(
                KubernetesExecutor(self.trainer.store, cluster, self.template, self.memory_of, now, self.metrics)
            )
            executors[-1].start()
        return executors
