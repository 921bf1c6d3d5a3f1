"""A caller whose connection is cut again and again gets everything, in order, and nothing twice."""

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import personae
from personae.generation import Generation
from service_kit.names import AdapterVersionName, TrainingName
from tests.bucket_adapters import publish
from tests.e2e.cutting_proxy import CuttingProxy, cutting_proxy
from tests.faults.modelled import modelled_service
from tests.integration.trainer_calls import bundled_files, unique
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment
from trainer_service.events import Ended, Progress
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import Stage, State

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CUT_EVERY_S = 2.0
# Each of these lasts for several cuts.
SEEDS, STEPS = list(range(64)), 15
EVENTS, EVENT_EVERY_S = 60, 0.15
# Longer than the client below waits for a server that says nothing.
QUIET_S, OUTAGE_S = 12.0, 6.0


@pytest.fixture(scope="module")
def inference(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with modelled_service(real_store, tmp_path_factory.mktemp("inference")) as service:
        yield service


@pytest.fixture(scope="module")
def trainer(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    environment = service_environment(real_store, PERSONAE_TRAINER_WORKERS="0")
    with running_service("trainer_service", environment, tmp_path_factory.mktemp("trainer") / "log") as service:
        yield service


@contextmanager
def cut_every(seconds: float, target: str) -> Iterator[CuttingProxy]:
    """A way to `target` on which every connection is cut again and again."""
    over = threading.Event()
    with cutting_proxy(target) as proxy:

        def cut() -> None:
            while not over.wait(seconds):
                proxy.cut()

        cutting = threading.Thread(target=cut)
        cutting.start()
        try:
            yield proxy
        finally:
            over.set()
            cutting.join()


def test_every_image_comes_once_however_often_the_call_is_cut(inference: ServiceProcess) -> None:
    with personae.Client(inference=inference.address) as client:
        whole = {image.seed: image.digest for image in client.generate("a red hat", seeds=SEEDS, steps=STEPS)}
    with cut_every(CUT_EVERY_S, inference.address) as proxy, personae.Client(inference=proxy.address) as client:
        images = list(client.generate("a red hat", seeds=SEEDS, steps=STEPS))
    assert proxy.cuts >= 4
    assert sorted(image.index for image in images) == SEEDS
    assert {image.seed: image.digest for image in images} == whole


def _assert_each_is_what_it_says(images: Iterator[personae.Image]) -> None:
    for image in images:
        assert image.index == image.seed


def test_without_asking_for_the_missing_ones_alone_a_cut_call_goes_wrong(
    inference: ServiceProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for_the_rest = Generation.request

    def ask_for_all(generation: Generation) -> object:
        ask_for_the_rest(generation)
        return generation._first_request

    monkeypatch.setattr(Generation, "request", ask_for_all)
    with cut_every(CUT_EVERY_S, inference.address) as proxy, personae.Client(inference=proxy.address) as client:
        images = client.generate("a red hat", seeds=SEEDS, steps=STEPS)
        with pytest.raises((IndexError, AssertionError)):
            _assert_each_is_what_it_says(images)


def test_every_event_comes_once_and_in_order_however_often_the_watch_is_cut(
    trainer: ServiceProcess, real_store: RealStore
) -> None:
    with personae.Client(trainer.address) as client:
        dataset = client.create_dataset(unique("dataset"), pictures=list(bundled_files(3).values()))
        training = client.train(dataset, name=unique("adapter"), steps=EVENTS)
    name = TrainingName.parse(training.name)
    over = threading.Event()

    def happen() -> None:
        """What a worker would write, a little at a time."""
        journal = JournalWriter(real_store.store, name, 1, lambda: datetime.now(UTC))
        progress = Progress(stage=Stage.STEPPING, completed=0, total=EVENTS, units_per_second=1.0, time_left_s=None)
        for step in range(EVENTS):
            journal.append([progress.model_copy(update={"completed": step})])
            over.wait(EVENT_EVERY_S)
        over.wait(QUIET_S)
        journal.append([Ended(state=State.SUCCEEDED)])

    happening = threading.Thread(target=happen)
    patience = personae.Patience(outage_s=OUTAGE_S)
    with (
        cut_every(CUT_EVERY_S, trainer.address) as proxy,
        personae.Client(proxy.address, patience=patience) as client,
    ):
        events = client.get_training(training.name).events()
        happening.start()
        try:
            sequences = [event.sequence for event in events]
        finally:
            over.set()
            happening.join()
    assert proxy.cuts >= 4
    # The first says that it is queued.
    assert sequences == list(range(1, EVENTS + 3))


def test_a_download_is_whole_however_often_it_is_cut(
    trainer: ServiceProcess, real_store: RealStore, tmp_path: Path
) -> None:
    name = AdapterVersionName("default", unique("large"), 1)
    body = random.Random(1).randbytes(96 * 1024 * 1024)
    publish(real_store.store, name, body)
    # It lasts for a second or two, so it is cut more often.
    with cut_every(0.15, trainer.address) as proxy, personae.Client(proxy.address) as client:
        path = client.download_adapter(str(name), tmp_path / "adapter")
    assert proxy.cuts >= 4
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(body).digest()
    assert list(tmp_path.iterdir()) == [path]
