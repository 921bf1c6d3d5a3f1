"""The event log of a real training as its watchers see it: rates, times, estimates; and watchers that misbehave."""

import itertools
import statistics
import threading
import uuid
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.trainer_calls import CALL_S, TrainerCalls, details, unique
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

State = training_pb2.Training.State
pytestmark = pytest.mark.slow
CONFIG = {"steps": 60, "checkpoint_every": 25, "batch_size": 2, "seed": 3, "rank": 2}
INTERVAL_S = 0.25
# The requirement is 50 ms, which a unit test holds; here the store and a busy machine stand in between.
FIRST_EVENT_S = 2.0
WATCHERS = 20


@pytest.fixture(scope="module")
def dataset(trainer: TrainerCalls) -> str:
    return trainer.dataset(5)


@pytest.fixture(scope="module")
def training(trainer: TrainerCalls, dataset: str) -> training_pb2.Training:
    """A training that has succeeded, while some watchers went away and one never read."""
    created = trainer.train(dataset, **CONFIG)
    never_reads = trainer.stub.WatchTraining(pb.WatchTrainingRequest(name=created.name))
    watchers = [trainer.stub.WatchTraining(pb.WatchTrainingRequest(name=created.name)) for _ in range(WATCHERS)]
    for watcher in watchers:
        next(watcher)
        watcher.cancel()
    assert trainer.finish(created.name).state == State.STATE_SUCCEEDED
    never_reads.cancel()
    return trainer.stub.GetTraining(pb.GetTrainingRequest(name=created.name), timeout=CALL_S).training


@pytest.fixture(scope="module")
def events(trainer: TrainerCalls, training: training_pb2.Training) -> list[training_pb2.TrainingEvent]:
    return list(trainer.events(training.name))


def seconds(event: training_pb2.TrainingEvent) -> float:
    return event.time.ToNanoseconds() / 1e9


def test_progress_comes_at_most_four_times_a_second(events: list[training_pb2.TrainingEvent]) -> None:
    times = [seconds(event) for event in events if event.WhichOneof("kind") == "progress"]
    assert len(times) > 3
    # Times are stored to the microsecond.
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) > INTERVAL_S - 1e-5


def test_the_first_event_of_a_worker_comes_right_after_it_took_the_training(
    training: training_pb2.Training, events: list[training_pb2.TrainingEvent]
) -> None:
    first = next(event for event in events if event.epoch == 1)
    assert first.state_changed.state == State.STATE_PREPARING
    assert 0 <= seconds(first) - training.start_time.ToNanoseconds() / 1e9 < FIRST_EVENT_S


def test_the_estimate_of_the_stepping_settles_to_a_tenth(events: list[training_pb2.TrainingEvent]) -> None:
    stepping = [event for event in events if event.progress.stage == training_pb2.STAGE_STEPPING]
    begun_s = next(seconds(event) for event in events if event.stage_started.stage == training_pb2.STAGE_STEPPING)
    took_s = seconds(stepping[-1]) - begun_s
    errors = [
        abs(seconds(event) - begun_s + event.progress.time_left.ToMilliseconds() / 1000 - took_s) / took_s
        for event in stepping
        if event.progress.completed >= CONFIG["steps"] / 2 and event.progress.HasField("time_left")
    ]
    assert len(errors) >= 3
    # The middle one: what else runs on this machine comes and goes, which no estimate knows.
    assert statistics.median(errors) < 0.1


def test_a_replay_may_start_after_every_sequence(
    trainer: TrainerCalls, training: training_pb2.Training, events: list[training_pb2.TrainingEvent]
) -> None:
    for after in range(len(events)):
        assert next(trainer.events(training.name, after=after)) == events[after]
    assert list(trainer.events(training.name, after=len(events) - 1)) == events[-1:]


def refused(call: grpc.UnaryUnaryMultiCallable, request: object) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=CALL_S)
    return caught.value


def test_cancelling_a_succeeded_training_names_its_state(
    trainer: TrainerCalls, training: training_pb2.Training
) -> None:
    error = refused(trainer.stub.CancelTraining, pb.CancelTrainingRequest(name=training.name))
    assert (error.code(), details(error)[0]) == (grpc.StatusCode.FAILED_PRECONDITION, "TRAINING_ENDED")
    assert "SUCCEEDED" in error.details()


def test_an_adapter_id_that_exists_is_refused(
    trainer: TrainerCalls, training: training_pb2.Training, dataset: str
) -> None:
    again = training_pb2.Training(dataset=dataset, adapter_id=training.adapter_id)
    error = refused(trainer.stub.CreateTraining, pb.CreateTrainingRequest(training=again))
    assert (error.code(), details(error)[0]) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")
    assert training.adapter_id in error.details()


def test_watchers_that_left_leave_no_threads_or_descriptors_behind(
    trainer: TrainerCalls, trainer_process: ServiceProcess, training: training_pb2.Training
) -> None:
    def held() -> tuple[int, int]:
        process = Path(f"/proc/{trainer_process.process.pid}")
        return len(list((process / "task").iterdir())), len(list((process / "fd").iterdir()))

    def watch_and_leave() -> None:
        # Over connections of their own, which are dropped without a word.
        with grpc.insecure_channel(trainer_process.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            watching = trainer_pb2_grpc.TrainerServiceStub(channel).WatchTraining(
                pb.WatchTrainingRequest(name=training.name)
            )
            next(watching)

    for _ in range(WATCHERS):
        watch_and_leave()
    before = held()
    for _ in range(WATCHERS):
        watch_and_leave()
    # The event loop's pool may still grow to its bound; sockets may linger for a moment.
    assert held()[1] <= before[1] + 3


def test_fifty_equal_submits_whose_answers_are_lost_make_one_training(
    trainer: TrainerCalls, trainer_process: ServiceProcess, dataset: str
) -> None:
    request = pb.CreateTrainingRequest(
        training=training_pb2.Training(
            dataset=dataset, adapter_id=unique("lost"), config=training_pb2.TrainingConfig(steps=1)
        ),
        request_id=str(uuid.uuid4()),
    )
    with grpc.insecure_channel(trainer_process.address) as channel:
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        lost = [stub.CreateTraining.future(request, timeout=CALL_S) for _ in range(50)]
        answered = threading.Event()
        lost[0].add_done_callback(lambda _: answered.set())
        assert answered.wait(CALL_S)
        for call in lost:
            call.cancel()
        answers = [stub.CreateTraining.future(request, timeout=CALL_S) for _ in range(50)]
        names = {call.result().training.name for call in answers}
    assert len(names) == 1
    (name,) = names
    assert trainer.finish(name).state == State.STATE_SUCCEEDED
    every = trainer.stub.ListTrainings(pb.ListTrainingsRequest(page_size=1000), timeout=CALL_S).trainings
    assert [found.name for found in every if found.adapter_id == request.training.adapter_id] == [name]


def test_each_worker_is_started_on_a_gpu_of_its_own(real_store: RealStore, tmp_path: Path) -> None:
    environment = service_environment(real_store) | {"CUDA_VISIBLE_DEVICES": "7,MIG-9"}
    with running_service("trainer_service", environment, tmp_path / "trainer.log") as service:
        seen = []
        while len(children := service.child_processes()) < 2:
            assert service.process.poll() is None
        for child in children:
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            seen += [value for value in variables if value.startswith(b"CUDA_VISIBLE_DEVICES=")]
        assert sorted(seen) == [b"CUDA_VISIBLE_DEVICES=7", b"CUDA_VISIBLE_DEVICES=MIG-9"]
