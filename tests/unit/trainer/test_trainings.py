"""CreateTraining and CancelTraining: idempotency, versions, what is refused."""

import math
import threading
import uuid

import pytest

from personae.wire import training_plan
from service_kit import schema
from service_kit.adapter_manifest import AdapterManifest
from service_kit.errors import InvalidRequest, PreconditionUnmet, ResourceExists, ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import StoreUnavailable
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.ending import end_training
from trainer_service.events import Ended, Failure
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.training_memory import Device
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.wire import created as answer_of


def end(trainer: Trainer, record: TrainingRecord, state: State) -> TrainingRecord:
    """Take a training to one of its ends, as a worker would."""
    taken = record.taken("test", trainer.clock()).moved(State.TRAINING).moved(State.PUBLISHING)
    TrainingStore(trainer.store).change(record.name, lambda _: taken)
    failure = Failure(reason="TEST", message="meant to fail") if state is State.FAILED else None
    if state is State.SUCCEEDED:
        manifest = AdapterManifest(
            project=record.project,
            adapter=record.adapter_id,
            version=record.adapter_version,
            base_model=record.base_model,
            base_model_digest="",
            training=str(record.name),
            dataset_digest="",
            trigger_word="sks",
            class_noun="character",
            rank=8,
            targets="attention",
            training_config={},
            created_at=trainer.clock(),
            artifacts=(),
        )
        trainer.store.create(schema.adapter_manifest(record.adapter), manifest.to_json())
    return end_training(trainer.store, taken, state, failure, trainer.clock)


def test_a_new_training_is_queued_with_every_hyper_parameter_decided(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request(config={"rank": 4})).record
    assert record.state is State.QUEUED
    assert (record.config.rank, record.config.alpha, record.given_config) == (4, 4.0, {"rank": 4})
    assert str(record.adapter) == "projects/default/adapters/cat/versions/1"
    assert list(trainer.store.keys(schema.queue_prefix())) == [record.queue_key]
    assert Journal(trainer.store, record.name).head() == 1


def test_the_same_request_id_gives_the_same_training_and_another_body_is_refused(trainer: Trainer) -> None:
    trainer.dataset()
    request_id = str(uuid.uuid4())
    first = trainer.trainings.create(request(request_id=request_id)).record
    trainer.clock.advance(60)
    assert trainer.trainings.create(request(request_id=request_id)).record == first
    assert len(list(trainer.store.keys(schema.queue_prefix()))) == 1
    with pytest.raises(ResourceExists) as caught:
        trainer.trainings.create(request(request_id=request_id, config={"steps": 7}))
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_fifty_equal_submits_at_once_make_one_training(trainer: Trainer) -> None:
    trainer.dataset()
    wanted = request(request_id=str(uuid.uuid4()))
    answers: list[TrainingRecord] = []
    start = threading.Barrier(50)

    def submit() -> None:
        start.wait()
        answers.append(trainer.trainings.create(wanted).record)

    threads = [threading.Thread(target=submit) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50
    assert {(answer.name, answer.adapter_version) for answer in answers} == {(answers[0].name, 1)}
    assert len(list(trainer.store.folders("projects/default/trainings/"))) == 1
    assert Journal(trainer.store, answers[0].name).head() == 1


@pytest.mark.parametrize("writes", range(5))
def test_a_repeat_mends_a_create_that_died_after_any_of_its_writes(trainer: Trainer, writes: int) -> None:
    trainer.dataset()
    wanted = request(request_id=str(uuid.uuid4()))
    genuine = (trainer.store.create, trainer.store.put)
    left = [writes]

    def dying(write):  # type: ignore[no-untyped-def]
        def attempt(key: str, body: bytes) -> object:
            if left[0] == 0:
                raise StoreUnavailable("the process dies here")
            left[0] -= 1
            return write(key, body)

        return attempt

    trainer.store.create, trainer.store.put = map(dying, genuine)  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        trainer.trainings.create(wanted)
    trainer.store.create, trainer.store.put = genuine  # type: ignore[method-assign]
    trainer.clock.advance(5)
    record = trainer.trainings.create(wanted).record
    assert (record.state, record.adapter_version) == (State.QUEUED, 1)
    assert record.queue_key in list(trainer.store.keys(schema.queue_prefix()))
    assert Journal(trainer.store, record.name).segment_with(1) is not None


def test_every_wrong_field_is_named_in_one_answer(trainer: Trainer) -> None:
    config = {"steps": 0, "rank": 10_000, "learning_rate": math.nan, "batch_size": -1, "resolution": 63, "alpha": 0.0}
    with pytest.raises(InvalidRequest) as caught:
        trainer.trainings.create(
            request(
                parent="projects/a//b",
                dataset="cat",
                adapter_id="Upper",
                trigger_word="two words",
                class_noun="\n",
                request_id="7",
                config=config,
                unknown_enums=(("training.config.targets", 99),),
            )
        )
    fields = {found.field for found in caught.value.violations}
    assert fields == {
        "parent",
        "request_id",
        "training.dataset",
        "training.adapter_id",
        "training.trigger_word",
        "training.class_noun",
        "training.config.targets",
        *(f"training.config.{name}" for name in config),
    }


@pytest.mark.parametrize("name", ["attacker/repo", "/etc/passwd", "stable-diffusion"])
def test_a_base_model_off_the_allow_list_is_refused_and_the_allowed_are_named(trainer: Trainer, name: str) -> None:
    with pytest.raises(InvalidRequest, match="allowed is toon-64"):
        trainer.trainings.create(request(base_model=name))


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, 1e9])
def test_learning_rates_out_of_range_are_refused(trainer: Trainer, rate: float) -> None:
    with pytest.raises(InvalidRequest, match=r"training\.config\.learning_rate"):
        trainer.trainings.create(request(config={"learning_rate": rate}))


def test_a_dataset_with_too_few_pictures_is_refused_with_both_numbers(trainer: Trainer) -> None:
    trainer.dataset(count=2)
    with pytest.raises(PreconditionUnmet, match="has 2 usable pictures; a training starts with 3") as caught:
        trainer.trainings.create(request())
    assert caught.value.reason == "DATASET_NOT_READY"


def test_a_caption_that_does_not_fit_is_refused_and_counted(trainer: Trainer) -> None:
    trainer.dataset(caption="word " * 60)
    with pytest.raises(PreconditionUnmet, match=r"00\.png \(\d+ tokens\)") as caught:
        trainer.trainings.create(request())
    assert caught.value.reason == "CAPTION_TOO_LONG"


def test_a_missing_dataset_is_not_found(trainer: Trainer) -> None:
    with pytest.raises(ResourceMissing):
        trainer.trainings.create(request())


def test_validation_alone_creates_nothing(trainer: Trainer) -> None:
    trainer.dataset()
    keys = list(trainer.store.keys(""))
    validated = trainer.trainings.create(request(validate_only=True))
    assert validated.estimate is not None
    assert validated.estimate.seconds > 0
    assert validated.record.config.steps > 0
    assert list(trainer.store.keys("")) == keys


def test_a_caller_is_told_whether_it_fits_into_the_gpu_here(trainer: Trainer) -> None:
    trainer.dataset()
    asked = request(validate_only=True)
    unknown = training_plan(answer_of(trainer.trainings.create(asked)))
    assert (unknown.device_memory_bytes, unknown.fits, unknown.memory_advice) == (0, None, "")
    small = Device(kind="cuda", memory_bytes=unknown.peak_memory_bytes // 10)
    plan = training_plan(answer_of(trainer.trainings.create(asked, small)))
    assert (plan.device_memory_bytes, plan.fits) == (small.memory_bytes, False)
    assert plan.smallest_preset == "low-memory"
    assert small.memory_bytes < plan.least_memory_bytes < unknown.peak_memory_bytes
    assert "no preset fits" in plan.summary()


def test_an_adapter_id_in_use_is_refused_unless_a_new_version_is_asked_for(trainer: Trainer) -> None:
    trainer.dataset()
    first = trainer.trainings.create(request()).record
    with pytest.raises(ResourceExists, match="set new_version"):
        trainer.trainings.create(request())
    end(trainer, first, State.SUCCEEDED)
    with pytest.raises(ResourceExists, match="set new_version"):
        trainer.trainings.create(request())
    assert trainer.trainings.create(request(new_version=True)).record.adapter_version == 2


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_the_adapter_id_of_a_training_that_came_to_nothing_is_free_again(trainer: Trainer, state: State) -> None:
    trainer.dataset()
    end(trainer, trainer.trainings.create(request()).record, state)
    assert trainer.trainings.create(request()).record.adapter_version == 2


def test_cancelling_a_queued_training_ends_it_at_once(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request()).record
    cancelled = trainer.trainings.cancel(record.name)
    assert (cancelled.state, cancelled.cancel_requested) == (State.CANCELLED, True)
    segment = Journal(trainer.store, record.name).segment_with(2)
    assert segment is not None
    assert segment.events[0].what == Ended(state=State.CANCELLED)
    assert not list(trainer.store.keys(schema.queue_prefix()))
    assert trainer.trainings.cancel(record.name).state is State.CANCELLED


def test_cancelling_a_held_training_only_asks(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request()).record
    TrainingStore(trainer.store).change(record.name, lambda found: found.taken("somebody", trainer.clock()))
    asked = trainer.trainings.cancel(record.name)
    assert (asked.state, asked.cancel_requested, asked.holder) == (State.PREPARING, True, "somebody")


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED])
def test_cancelling_an_ended_training_names_its_state(trainer: Trainer, state: State) -> None:
    trainer.dataset()
    record = end(trainer, trainer.trainings.create(request()).record, state)
    with pytest.raises(PreconditionUnmet, match=state.upper()):
        trainer.trainings.cancel(record.name)


def test_a_training_that_does_not_exist_is_not_found(trainer: Trainer) -> None:
    with pytest.raises(ResourceMissing):
        trainer.trainings.get(TrainingName("default", "none"))
