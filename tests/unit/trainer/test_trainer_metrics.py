"""What the trainer's metrics say: of the queue as the dispatcher sees it, and of what workers told."""

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.metric_values import values
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import training_record
from trainer_service.dispatcher import Dispatcher
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_store import TrainingStore
from trainer_service.warm_worker import WarmWorker

WITHIN_S = 20.0


class Scraped:
    """Metrics, and what a scrape says of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = TrainerMetrics(self.registry)

    def __getitem__(self, sample: str) -> float:
        return values(generate_latest(self.registry).decode())[f"personae_trainer_{sample}"]


def look_until(trainer: Trainer, scraped: Scraped, holds: Callable[[], bool]) -> None:
    async def run() -> None:
        nobody = Dispatcher(trainer.store, [], lambda: datetime.now(UTC), scraped.metrics)
        nobody.start()
        while not holds():
            await asyncio.sleep(0.01)
        await nobody.stop(1.0)

    asyncio.run(asyncio.wait_for(run(), WITHIN_S))


def test_what_waits_is_counted_with_the_age_of_the_oldest(trainer: Trainer) -> None:
    trainer.dataset(count=3)
    trainer.clock.time = datetime.now(UTC) - timedelta(hours=1)
    trainer.trainings.create(request())
    trainer.clock.time = datetime.now(UTC)
    trainer.trainings.create(request(adapter_id="other"))
    scraped = Scraped()
    look_until(trainer, scraped, lambda: scraped["trainings_waiting"] > 0)
    assert scraped["trainings_waiting"] == 2
    assert 3600 <= scraped["oldest_waiting_seconds"] < 3600 + 60
    assert scraped["workers"] == scraped["trainings_freed_total"] == 0
    assert abs(scraped["queue_look_timestamp_seconds"] - datetime.now(UTC).timestamp()) < WITHIN_S


def test_a_training_that_is_taken_from_a_dead_holder_is_counted(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_record, "TAKEOVER_PATIENCE_S", 0.0)
    trainer.dataset(count=3)
    record = trainer.trainings.create(request()).record
    TrainingStore(trainer.store).change(record.name, lambda found: found.taken("somebody", datetime.now(UTC)))
    scraped = Scraped()
    look_until(trainer, scraped, lambda: scraped["trainings_freed_total"] > 0)
    assert scraped["trainings_freed_total"] == 1


def test_what_workers_tell_is_counted_and_forgotten_when_they_rest() -> None:
    scraped = Scraped()
    for worker, said in (
        ("a", {"stage": "encoding", "seconds": 4.0}),
        ("a", {"steps": 10, "per_second": 2.5}),
        ("b", {"steps": 5, "per_second": 1.5}),
        ("a", {"checkpoint": 10}),
        ("a", {"ended": "failed", "reason": "OUT_OF_MEMORY"}),
        ("b", {"lease_lost": True}),
        ("b", {"something": "of a later release"}),
    ):
        scraped.metrics.observe(worker, said)
    assert scraped["steps_per_second"] == 4.0
    scraped.metrics.at_rest("b")
    assert scraped["steps_per_second"] == 2.5
    assert scraped["steps_total"] == 15
    assert scraped['stage_seconds_sum{stage="encoding"}'] == 4.0
    assert scraped["checkpoints_total"] == scraped["lease_losses_total"] == 1
    assert scraped['trainings_ended_total{reason="OUT_OF_MEMORY",state="failed"}'] == 1


def test_a_worker_s_observations_reach_the_metrics_and_its_answers_those_who_wait() -> None:
    says = 'print(\'{"observed": {"checkpoint": 3}}\\n{"ready": true}\', flush=True)'
    observed: list[object] = []

    async def run() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", says, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        worker = WarmWorker(process, "worker-1", lambda holder, said: observed.append((holder, said)))
        assert await worker.wait_until_ready()
        await worker.stop(WITHIN_S)

    asyncio.run(run())
    assert observed == [("worker-1", {"checkpoint": 3})]
