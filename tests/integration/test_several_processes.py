"""One training carried out by two worker processes: to its end, and through every kind of interruption."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.trainer_calls import CALL_S, TrainerCalls, event_kinds
from tests.real_store import RealStore, free_ports
from tests.service_process import running_service, service_environment
from trainer_service.worker.exit_code import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

State = training_pb2.Training.State
PROCESSES = 2
WITHIN_S = 600.0
CONFIG = {
    "steps": 40,
    "checkpoint_every": 10,
    "validate_every": 20,
    "sample_every": 40,
    "batch_size": 3,
    "seed": 7,
    "rank": 4,
    "prior_weight": 0.5,
    "prior_images": 2,
}


@pytest.fixture(scope="module")
def trainer(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerCalls]:
    """A service that leaves the work to others."""
    environment = service_environment(real_store, PERSONAE_TRAINER_WORKERS="0")
    log = tmp_path_factory.mktemp("trainer") / "trainer.log"
    with (
        running_service("trainer_service", environment, log) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        yield TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


@pytest.fixture(scope="module")
def dataset(trainer: TrainerCalls) -> str:
    return trainer.dataset()


@pytest.fixture(scope="module")
def uninterrupted(trainer: TrainerCalls, dataset: str, real_store: RealStore) -> training_pb2.Training:
    """A training that two processes carried out, started by torchrun as the documentation says."""
    training = trainer.train(dataset, **CONFIG)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"]
    command = [*torchrun, "-m", "trainer_service.worker", training.name]
    assert subprocess.run(command, env=worker_environment(real_store), timeout=WITHIN_S, check=False).returncode == 0
    return training


def worker_environment(store: RealStore) -> dict[str, str]:
    return service_environment(store) | {"OMP_NUM_THREADS": "1"}


@contextmanager
def two_workers(store: RealStore, training: str, log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The worker's program twice, without a launcher, which would hide how each of them ends."""
    (port,) = free_ports(1)
    group = {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = []
    with log.open("ab") as errors:
        for rank in range(PROCESSES):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            command = [sys.executable, "-m", "trainer_service.worker", training]
            environment = worker_environment(store) | group | meeting | own
            workers.append(subprocess.Popen(command, env=environment, stderr=errors))
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def exit_statuses(workers: list[subprocess.Popen[bytes]]) -> list[int]:
    return [worker.wait(WITHIN_S) for worker in workers]


def wait_for_checkpoint(trainer: TrainerCalls, name: str, step: int) -> None:
    for event in trainer.events(name, timeout_s=WITHIN_S):
        if event.checkpoint_saved.step == step:
            return
    raise AssertionError("the training ended first")


def found(trainer: TrainerCalls, name: str) -> training_pb2.Training:
    return trainer.stub.GetTraining(pb.GetTrainingRequest(name=name), timeout=CALL_S).training


def test_two_processes_carry_a_training_to_its_adapter_and_write_one_event_log(
    trainer: TrainerCalls, uninterrupted: training_pb2.Training
) -> None:
    events = list(trainer.events(uninterrupted.name))
    assert events[-1].ended.state == State.STATE_SUCCEEDED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.epoch for event in events} == {0, 1}
    kinds = event_kinds(events)
    assert {kind: kinds.count(kind) for kind in ("checkpoint_saved", "validated", "evaluated", "ended", "notice")} == {
        "checkpoint_saved": 4,
        "validated": 2,
        "evaluated": 1,
        "ended": 1,
        "notice": 0,
    }
    adapters = trainer.stub.ListAdapters(pb.ListAdaptersRequest(page_size=1000), timeout=CALL_S).adapters
    assert [adapter.name for adapter in adapters if adapter.training == uninterrupted.name] == [uninterrupted.adapter]


def test_whichever_process_dies_or_drains_a_rerun_ends_the_training_bit_equal(
    trainer: TrainerCalls,
    dataset: str,
    uninterrupted: training_pb2.Training,
    real_store: RealStore,
    tmp_path: Path,
) -> None:
    training, log = trainer.train(dataset, **CONFIG), tmp_path / "workers.log"
    with two_workers(real_store, training.name, log) as (worker, follower):
        wait_for_checkpoint(trainer, training.name, 10)
        follower.send_signal(signal.SIGKILL)
        died_s = time.monotonic()
        assert worker.wait(WITHIN_S) == ExitCode.TRY_AGAIN, log.read_text()[-3000:]
        # At the next message, not when somebody's patience ends.
        assert time.monotonic() - died_s < 60
    assert found(trainer, training.name).state == State.STATE_QUEUED
    with two_workers(real_store, training.name, log) as workers:
        wait_for_checkpoint(trainer, training.name, 20)
        # As a launcher that is stopped does: all at once.
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        assert exit_statuses(workers) == [ExitCode.HANDED_OVER] * PROCESSES, log.read_text()[-3000:]
    handed_over = found(trainer, training.name)
    assert handed_over.state == State.STATE_QUEUED
    assert handed_over.completed_steps >= 20
    with two_workers(real_store, training.name, log) as (worker, follower):
        wait_for_checkpoint(trainer, training.name, 30)
        worker.send_signal(signal.SIGKILL)
        assert follower.wait(WITHIN_S) == ExitCode.TRY_AGAIN, log.read_text()[-3000:]
    with two_workers(real_store, training.name, log) as workers:
        assert exit_statuses(workers) == [ExitCode.DONE] * PROCESSES, log.read_text()[-3000:]
    events = list(trainer.events(training.name))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].ended.state == State.STATE_SUCCEEDED
    assert [event.notice.reason for event in events if event.WhichOneof("kind") == "notice"] == ["RESUMED"] * 3
    assert trainer.adapter_file(training.adapter) == trainer.adapter_file(uninterrupted.adapter)


def test_a_cancelled_training_ends_in_both_processes(
    trainer: TrainerCalls, dataset: str, real_store: RealStore, tmp_path: Path
) -> None:
    training, log = trainer.train(dataset, **CONFIG | {"steps": 5000}), tmp_path / "workers.log"
    with two_workers(real_store, training.name, log) as workers:
        wait_for_checkpoint(trainer, training.name, 10)
        trainer.stub.CancelTraining(pb.CancelTrainingRequest(name=training.name), timeout=CALL_S)
        assert exit_statuses(workers) == [ExitCode.DONE] * PROCESSES, log.read_text()[-3000:]
    assert found(trainer, training.name).state == State.STATE_CANCELLED


def test_several_processes_without_a_training_say_what_is_missing(real_store: RealStore) -> None:
    (port,) = free_ports(1)
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "trainer_service.worker"]
    workers = [
        subprocess.Popen(
            command,
            env=os.environ | worker_environment(real_store) | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    for worker in workers:
        assert "name it" in worker.communicate(timeout=WITHIN_S)[1]
        assert worker.returncode == 1
