"""SIGTERM to the trainer in the middle of a training, with many who watch: nothing is lost, nobody notices."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import personae
from tests.integration.trainer_calls import UNJUDGED, bundled_files, unique
from tests.real_store import RealStore, free_ports
from tests.service_process import running_service, service_environment

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WATCHERS = 16
DRAIN_S = 20.0
# A loaded machine takes long to start a service and to leave a step.
WITHIN_S = 240.0
PATIENT = personae.Patience(outage_s=WITHIN_S)


@pytest.fixture
def environment(real_store: RealStore) -> dict[str, str]:
    address, health = (f"127.0.0.1:{port}" for port in free_ports(2))
    return service_environment(
        real_store,
        **UNJUDGED,
        PERSONAE_TRAINER_ADDRESS=address,
        PERSONAE_TRAINER_HEALTH_ADDRESS=health,
        PERSONAE_TRAINER_WORKERS="1",
        PERSONAE_TRAINER_DRAIN_S=str(DRAIN_S),
    )


def test_a_training_is_handed_over_and_every_watcher_sees_all_of_it_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "trainer.log"
    with (
        personae.Client(environment["PERSONAE_TRAINER_ADDRESS"], patience=PATIENT) as client,
        ThreadPoolExecutor(WATCHERS + 1) as threads,
    ):
        with running_service("trainer_service", environment, log) as old:
            dataset = client.create_dataset(unique("dataset"), pictures=list(bundled_files(3).values()))
            config = {"steps": 60, "batch_size": 1, "rank": 2, "sample_every": 0, "checkpoint_every": 10, "seed": 7}
            training = client.train(dataset, name=unique("adapter"), precision="float32", **config)
            watching = [
                threads.submit(lambda: [event.sequence for event in training.events()]) for _ in range(WATCHERS)
            ]
            next(event for event in training.events() if isinstance(event, personae.CheckpointSaved))
            stopped_s = time.monotonic()
            old.process.send_signal(signal.SIGTERM)
            # A short call that nobody serves for a while.
            asked = threads.submit(training.refresh)
            assert old.process.wait(WITHIN_S) == 0
            assert time.monotonic() - stopped_s < DRAIN_S + 5
        with running_service("trainer_service", environment, log):
            assert asked.result(WITHIN_S).state in ("queued", "preparing", "training")
            events = list(training.events())
            sequences = [watcher.result(WITHIN_S) for watcher in watching]
            adapter = training.wait()
            assert client.get_adapter(adapter.name) == adapter
            # A watch of what has ended gives all of it, and ends.
            assert list(training.events()) == events
    assert sequences == [list(range(1, len(events) + 1))] * WATCHERS
    (resumed,) = [event for event in events if isinstance(event, personae.Notice) and event.reason == "RESUMED"]
    assert resumed.sequence < events[-1].sequence
    assert "did not hand over" not in log.read_text()
