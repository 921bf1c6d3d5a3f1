"""What a worker's reports look like in the event log: at once, in order, progress at most four times a second."""

import itertools
import threading
import time
from datetime import UTC, datetime

import pytest

from service_kit.memory_store import MemoryStore
from service_kit.store import StoreUnavailable
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.events import CheckpointSaved, Event, Progress, StageStarted, StateChanged
from trainer_service.journal import Journal, JournalWriter
from trainer_service.lifecycle import Stage, State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.reporter import INTERVAL_S, Reporter

AT_ONCE_S = 0.05


class WatchedStore(MemoryStore):
    """Notes when each event segment is written, and can be away: `answers_lost` writes are done and not answered."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[float, str]] = []
        self.another = threading.Condition()
        self.answers_lost = 0

    def create(self, key: str, body: bytes) -> str:
        etag = super().create(key, body)
        if "/events/" in key:
            with self.another:
                self.written.append((time.monotonic(), key))
                self.another.notify_all()
            if self.answers_lost:
                self.answers_lost -= 1
                raise StoreUnavailable("the answer is lost")
        return etag

    def wait_for_writes(self, count: int) -> None:
        with self.another:
            assert self.another.wait_for(lambda: len(self.written) >= count, 20), f"{len(self.written)} writes"


class Bench:
    """A taken training and what reports on it."""

    def __init__(self) -> None:
        trainer = Trainer(WatchedStore())
        trainer.dataset(count=3)
        self.store: WatchedStore = trainer.store  # type: ignore[assignment]
        record = trainer.trainings.create(request()).record
        self.store.written.clear()
        records, interrupts = TrainingStore(self.store), Interrupts()
        self.record: TrainingRecord = records.change(record.name, lambda found: found.taken("w", _now()))
        keeper = LeaseKeeper(records, self.record, interrupts, _now)
        self.reporter = Reporter(JournalWriter(self.store, record.name, 1, _now), keeper, interrupts)

    def events(self) -> list[Event]:
        journal = Journal(self.store, self.record.name)
        found: list[Event] = []
        while (segment := journal.segment_with(len(found) + 1)) is not None:
            found.extend(segment.events)
        return found


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_no_progress_is_written_at_once(bench: Bench) -> None:
    delays = []
    with bench.reporter as reporter:
        bench.store.wait_for_writes(1)
        for step in range(5):
            written = len(bench.store.written)
            asked_s = time.monotonic()
            reporter.report(CheckpointSaved(step=step))
            bench.store.wait_for_writes(written + 1)
            delays.append(bench.store.written[written][0] - asked_s)
    # The middle one, so that a moment in which the machine was busy does not count. A tick would be 250 ms.
    assert sorted(delays)[2] < AT_ONCE_S


def test_progress_is_written_at_most_four_times_a_second_and_nothing_else_is_lost_or_moved(bench: Bench) -> None:
    with bench.reporter as reporter:
        for stage in (Stage.FETCHING_IMAGES, Stage.ENCODING, Stage.STEPPING):
            reporter.stage(stage)
            for count in range(1, 4):
                reporter.progress(count, 3)
        begun_s = time.monotonic()
        step = 3
        while time.monotonic() - begun_s < 6 * INTERVAL_S:
            step += 1
            reporter.progress(step, 10_000)
            if step % 1000 == 0:
                reporter.report(CheckpointSaved(step=step))
    events = bench.events()
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    times = [event.time for event in events if isinstance(event.what, Progress)]
    assert len(times) >= 5
    assert min((later - earlier).total_seconds() for earlier, later in itertools.pairwise(times)) >= INTERVAL_S
    # Each stage's last count is told before the next stage begins.
    stages = [event.what for event in events if isinstance(event.what, Progress | StageStarted)]
    counts = [what.completed for what in stages if isinstance(what, Progress)]
    assert counts[:2] == [3, 3]
    for before, after in itertools.pairwise(stages):
        assert not isinstance(after, Progress) or after.stage is before.stage
    checkpoints = [event.what.step for event in events if isinstance(event.what, CheckpointSaved)]
    assert checkpoints == list(range(1000, step + 1, 1000))


def test_events_whose_answer_was_lost_are_not_written_twice(bench: Bench) -> None:
    with bench.reporter as reporter:
        bench.store.wait_for_writes(1)
        bench.store.answers_lost = 2
        reporter.report(CheckpointSaved(step=1))
        bench.store.wait_for_writes(2)
        reporter.report(CheckpointSaved(step=2))
        # The first again, twice, and then the second.
        bench.store.wait_for_writes(5)
    events = bench.events()
    assert [event.what.step for event in events if isinstance(event.what, CheckpointSaved)] == [1, 2]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def test_a_report_is_a_sign_of_life_of_its_stage(bench: Bench) -> None:
    with bench.reporter as reporter:
        reporter.stage(Stage.ENCODING)
        first = reporter.sign_of_life
        reporter.alive()
        reporter.progress(1, 2)
        later = reporter.sign_of_life
    assert (first.stage, later.stage) == (Stage.ENCODING, Stage.ENCODING)
    assert later.at_s > first.at_s


def test_the_state_follows_the_stages(bench: Bench) -> None:
    with bench.reporter as reporter:
        reporter.stage(Stage.LOADING_BASE_MODEL)
        reporter.stage(Stage.STEPPING)
    states = [event.what.state for event in bench.events() if isinstance(event.what, StateChanged)]
    assert states == [State.QUEUED, State.PREPARING, State.TRAINING]
    assert TrainingStore(bench.store).read(bench.record.name)[0].state is State.TRAINING
