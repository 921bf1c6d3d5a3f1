"""Trainings carried out by real worker processes: finished, cancelled, killed, handed over."""

import hashlib
import time

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc, training_pb2
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.integration.trainer_calls import CALL_S, TrainerCalls, event_kinds
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

State = training_pb2.Training.State
STEPS, CHECKPOINT_EVERY, SEED = 20, 10, 7
CONFIG = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY, "seed": SEED, "batch_size": 2}


@pytest.fixture(scope="module")
def dataset(trainer: TrainerCalls) -> str:
    return trainer.dataset()


@pytest.fixture(scope="module")
def uninterrupted(trainer: TrainerCalls, dataset: str) -> training_pb2.Training:
    """A training that nothing happened to."""
    training = trainer.train(dataset, **CONFIG)
    ended = trainer.finish(training.name)
    assert ended.state == State.STATE_SUCCEEDED, ended
    return training


def wait_for(trainer: TrainerCalls, name: str, kind: str) -> training_pb2.TrainingEvent:
    """The first event of a kind."""
    return next(event for event in trainer.events(name) if event.WhichOneof("kind") == kind)


def wait_for_step(trainer: TrainerCalls, name: str, step: int) -> None:
    """Return once that many optimizer steps are reported."""
    for event in trainer.events(name):
        progress = event.progress
        if progress.stage == training_pb2.STAGE_STEPPING and progress.completed >= step:
            return
    raise AssertionError("the training ended first")


def test_a_training_leaves_an_adapter_with_its_trigger_word_and_a_whole_event_log(
    trainer: TrainerCalls, uninterrupted: training_pb2.Training
) -> None:
    events = list(trainer.events(uninterrupted.name))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    stages = [event.stage_started.stage for event in events if event.WhichOneof("kind") == "stage_started"]
    assert stages == sorted(stages)
    assert stages[-1] == training_pb2.STAGE_UPLOADING
    steps = [event.checkpoint_saved.step for event in events if event.WhichOneof("kind") == "checkpoint_saved"]
    assert steps == [10, 20]
    last_progress = [event.progress for event in events if event.progress.stage == training_pb2.STAGE_STEPPING][-1]
    assert (last_progress.completed, last_progress.total) == (STEPS, STEPS)
    assert 0 < last_progress.loss < 2
    assert events[-1].ended.adapter == uninterrupted.adapter
    found = trainer.stub.GetTraining(pb.GetTrainingRequest(name=uninterrupted.name), timeout=CALL_S).training
    assert (found.state, found.completed_steps) == (State.STATE_SUCCEEDED, STEPS)
    adapter = trainer.stub.GetAdapter(pb.GetAdapterRequest(name=uninterrupted.adapter), timeout=CALL_S).adapter
    assert (adapter.trigger_word, adapter.class_noun, adapter.training) == ("sks", "character", uninterrupted.name)
    (evaluated,) = [event.evaluated for event in events[-6:] if event.WhichOneof("kind") == "evaluated"]
    assert adapter.evaluation == evaluated.evaluation
    assert adapter.evaluation.judge
    assert {field.name for field, _ in adapter.evaluation.ListFields()} >= {"obedience", "memorisation", "diversity"}
    body = trainer.adapter_file(adapter.name)
    assert hashlib.sha256(body).hexdigest() == adapter.artifacts[0].digest
    listed = trainer.stub.ListAdapters(pb.ListAdaptersRequest(page_size=1000), timeout=CALL_S).adapters
    assert adapter in listed


def test_a_replay_after_the_end_starts_anywhere(trainer: TrainerCalls, uninterrupted: training_pb2.Training) -> None:
    whole = list(trainer.events(uninterrupted.name))
    assert list(trainer.events(uninterrupted.name, after=5)) == whole[5:]
    with pytest.raises(grpc.RpcError) as caught:
        list(trainer.events(uninterrupted.name, after=len(whole) + 1))
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE


def test_an_artifact_can_be_read_on_from_any_byte(trainer: TrainerCalls, uninterrupted: training_pb2.Training) -> None:
    whole = trainer.adapter_file(uninterrupted.adapter)
    request = pb.ReadArtifactRequest(adapter=uninterrupted.adapter, read_offset=len(whole) - 1000)
    header, *chunks = trainer.stub.ReadArtifact(request, timeout=CALL_S)
    assert header.header.artifact.size_bytes == len(whole)
    assert b"".join(message.chunk for message in chunks) == whole[-1000:]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_resumed_adapter_is_bit_equal(
    trainer: TrainerCalls, trainer_process: ServiceProcess, dataset: str, uninterrupted: training_pb2.Training
) -> None:
    training = trainer.train(dataset, **CONFIG)
    checkpoint = wait_for(trainer, training.name, "checkpoint_saved")
    assert checkpoint.checkpoint_saved.step == CHECKPOINT_EVERY
    trainer_process.kill_workers()
    events = list(trainer.events(training.name))
    assert events[-1].ended.state == State.STATE_SUCCEEDED
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert {event.epoch for event in events} == {0, 1, 2}
    notices = [event.notice.reason for event in events if event.WhichOneof("kind") == "notice"]
    assert notices == ["RESUMED"]
    assert trainer.adapter_file(training.adapter) == trainer.adapter_file(uninterrupted.adapter)


@pytest.mark.slow
def test_a_stopped_service_hands_its_training_to_the_next_which_ends_it_bit_equal(
    trainer: TrainerCalls,
    dataset: str,
    uninterrupted: training_pb2.Training,
    real_store: RealStore,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    log = tmp_path_factory.mktemp("handover") / "trainer.log"
    # The shared service has no part in this: its only worker is kept busy by a training that is cancelled at the end.
    environment = service_environment(real_store)
    busy = trainer.train(dataset, steps=5000)
    wait_for_step(trainer, busy.name, 1)
    with running_service("trainer_service", environment, log) as first, grpc.insecure_channel(first.address) as channel:
        calls = TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))
        training = calls.train(dataset, **CONFIG)
        wait_for_step(calls, training.name, 3)
        assert first.stop() == 0
    handed_over = trainer.stub.GetTraining(pb.GetTrainingRequest(name=training.name), timeout=CALL_S).training
    assert handed_over.state == State.STATE_QUEUED
    assert handed_over.completed_steps >= 3
    trainer.stub.CancelTraining(pb.CancelTrainingRequest(name=busy.name), timeout=CALL_S)
    assert trainer.finish(busy.name).state == State.STATE_CANCELLED
    assert trainer.finish(training.name).state == State.STATE_SUCCEEDED
    assert trainer.adapter_file(training.adapter) == trainer.adapter_file(uninterrupted.adapter)


def test_a_cancelled_training_stops_within_a_step_and_frees_its_worker(
    trainer: TrainerCalls, dataset: str, real_store: RealStore
) -> None:
    training = trainer.train(dataset, steps=5000, batch_size=1)
    wait_for_step(trainer, training.name, 3)
    asked = trainer.stub.CancelTraining(pb.CancelTrainingRequest(name=training.name), timeout=CALL_S).training
    assert asked.cancel_requested
    asked_s = time.time()
    events = list(trainer.events(training.name))
    assert events[-1].ended.state == State.STATE_CANCELLED
    # A heartbeat of the lease would have taken up to 5 s to tell; the pipe tells at once.
    ended_s = events[-1].time.ToNanoseconds() / 1e9
    assert ended_s - asked_s < 4
    again = trainer.stub.CancelTraining(pb.CancelTrainingRequest(name=training.name), timeout=CALL_S).training
    assert again.state == State.STATE_CANCELLED
    with pytest.raises(grpc.RpcError) as caught:
        trainer.stub.GetAdapter(pb.GetAdapterRequest(name=training.adapter), timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert list(real_store.store.keys(schema.queue_prefix())) == []
    assert trainer.finish(trainer.train(dataset, steps=2).name).state == State.STATE_SUCCEEDED


@pytest.mark.slow
def test_class_pictures_are_generated_once_and_every_option_of_the_loop_trains(
    trainer: TrainerCalls, dataset: str, real_store: RealStore
) -> None:
    options = {
        "steps": 2,
        "batch_size": 2,
        "prior_weight": 1.0,
        "prior_images": 2,
        "min_snr_gamma": 5.0,
        "caption_dropout": 0.5,
        "alpha": 16.0,
        "rank": 4,
        "targets": training_pb2.LORA_TARGETS_ATTENTION_AND_CONVOLUTION,
        "precision": training_pb2.PRECISION_BFLOAT16,
    }
    assert trainer.finish(trainer.train(dataset, **options).name).state == State.STATE_SUCCEEDED
    pictures = list(real_store.store.keys("class-images/"))
    assert len(pictures) == 2
    made = {key: real_store.store.get(key) for key in pictures}
    assert trainer.finish(trainer.train(dataset, **options).name).state == State.STATE_SUCCEEDED
    assert {key: real_store.store.get(key) for key in real_store.store.keys("class-images/")} == made


def test_a_training_that_changes_nothing_fails_by_name_and_publishes_nothing(
    trainer: TrainerCalls, dataset: str, real_store: RealStore
) -> None:
    training = trainer.train(dataset, steps=1, warmup_steps=1, learning_rate=1e-12)
    ended = trainer.finish(training.name)
    assert (ended.state, ended.failure.reason) == (State.STATE_FAILED, "ADAPTER_WITHOUT_EFFECT")
    assert list(real_store.store.keys(schema.adapter_manifest(AdapterVersionName.parse(training.adapter)))) == []


def test_events_name_what_happened_in_the_order_of_the_work(
    trainer: TrainerCalls, uninterrupted: training_pb2.Training
) -> None:
    kinds = event_kinds(list(trainer.events(uninterrupted.name)))
    assert kinds[0] == "state_changed"
    assert kinds[-1] == "ended"
    assert kinds.count("ended") == 1
