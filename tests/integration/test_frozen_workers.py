"""Workers that are stopped (SIGSTOP) for longer than a lease lasts: replaced, and harmless when they wake up."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.trainer_calls import UNJUDGED, UNJUDGED_CONFIG, TrainerCalls
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment
from trainer_service.worker.exit_code import ExitCode

pytestmark = [pytest.mark.slow, pytest.mark.faults]

State = training_pb2.Training.State
CONFIG = UNJUDGED_CONFIG | {"steps": 120, "checkpoint_every": 10}
EXIT_WITHIN_S = 120


@contextmanager
def service_on(store: RealStore, log: Path, **settings: str) -> Iterator[tuple[ServiceProcess, TrainerCalls]]:
    with ExitStack() as stack:
        environment = service_environment(store, **UNJUDGED, **settings)
        service = stack.enter_context(running_service("trainer_service", environment, log))
        channel = stack.enter_context(grpc.insecure_channel(service.address))
        yield service, TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


@contextmanager
def worker_on(store: RealStore, log: Path, training: str) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that was started by hand for one training."""
    environment = service_environment(store, **UNJUDGED) | {"OMP_NUM_THREADS": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer_service.worker", training], env=environment, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for_checkpoint(calls: TrainerCalls, name: str) -> None:
    next(event for event in calls.events(name) if event.WhichOneof("kind") == "checkpoint_saved")


def test_a_frozen_child_is_killed_and_its_training_ended_by_another(real_store: RealStore, tmp_path: Path) -> None:
    with service_on(real_store, tmp_path / "trainer.log", PERSONAE_TRAINER_WORKERS="1") as (service, calls):
        training = calls.train(calls.dataset(5), **CONFIG)
        wait_for_checkpoint(calls, training.name)
        (child,) = service.child_processes()
        os.kill(child, signal.SIGSTOP)
        events = list(calls.events(training.name))
        assert events[-1].ended.state == State.STATE_SUCCEEDED
        assert max(event.epoch for event in events) == 2
        assert child not in service.child_processes()
        assert not Path(f"/proc/{child}").exists()


def test_a_worker_that_wakes_up_after_it_was_succeeded_changes_nothing(real_store: RealStore, tmp_path: Path) -> None:
    with service_on(real_store, tmp_path / "trainer.log", PERSONAE_TRAINER_WORKERS="0") as (_, calls):
        training = calls.train(calls.dataset(5), **CONFIG)
        with worker_on(real_store, tmp_path / "old.log", training.name) as old:
            wait_for_checkpoint(calls, training.name)
            old.send_signal(signal.SIGSTOP)
            with worker_on(real_store, tmp_path / "new.log", training.name) as new:
                assert calls.finish(training.name).state == State.STATE_SUCCEEDED
                assert new.wait(EXIT_WITHIN_S) == ExitCode.DONE
            before = {key: real_store.store.get(key).etag for key in real_store.store.keys("projects/")}
            old.send_signal(signal.SIGCONT)
            assert old.wait(EXIT_WITHIN_S) == ExitCode.TRY_AGAIN
            assert {key: real_store.store.get(key).etag for key in real_store.store.keys("projects/")} == before
