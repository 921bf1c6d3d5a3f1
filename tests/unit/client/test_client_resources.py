"""What the server says arrives whole: every field of the contract has its place in the client's own values."""

import dataclasses

import pytest

import personae
from personae import wire
from personae.v1 import adapter_pb2, dataset_pb2, evaluation_pb2, inference_pb2, trainer_pb2, training_pb2

# Where a field of the contract has another name here, or several.
RENAMED = {"failure": {"failure_reason", "failure_message"}, "time_left": {"time_left_s"}, "verdict": {"ready"}}
REPORT = {"ready", "accepted_count", "rejected_count", "minimum_count", "images", "advice"}
PLAN = {"dataset", "base_model", "trigger_word", "class_noun", "effective_config"}
ESTIMATE = {
    "duration_s", "peak_memory_bytes", "basis",
    "device_memory_bytes", "fits", "smallest_preset", "least_memory_bytes", "memory_advice",
}  # fmt: skip
MESSAGES = [
    (dataset_pb2.Dataset, wire.dataset, {"report": REPORT}),
    (training_pb2.Training, wire.training, {"adapter_id": set()}),
    (adapter_pb2.Adapter, wire.adapter, {}),
    (adapter_pb2.Artifact, wire.artifact, {}),
    (evaluation_pb2.Evaluation, wire.evaluation, {}),
    (trainer_pb2.ExportAdapterResponse, wire.exported_adapter, {}),
    (inference_pb2.ServedAdapter, wire.served_adapter, {}),
    (inference_pb2.ServedBaseModel, wire.served_base_model, {}),
    (
        trainer_pb2.CreateTrainingResponse,
        wire.training_plan,
        {"training": PLAN, "estimate": ESTIMATE},
    ),
]
KINDS = [field.name for field in training_pb2.TrainingEvent.DESCRIPTOR.oneofs_by_name["kind"].fields]


def filled(message):
    """The message with something other than its default in every field."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if isinstance(field.default_value, list):
            if field.message_type is None:
                value.append(1 if field.enum_type else "x")
            else:
                filled(value.add())
        elif field.message_type is not None:
            filled(value)
            value.SetInParent()
        elif field.enum_type is not None or isinstance(field.default_value, bool):
            setattr(message, field.name, 1)
        else:
            setattr(message, field.name, {str: "x", bytes: b"x", int: 2_000_000, float: 0.5}[type(field.default_value)])
    return message


def nothing_missing(value):
    """Whether every field, and every field of every value in it, is there."""
    if dataclasses.is_dataclass(value):
        return all(nothing_missing(getattr(value, field.name)) for field in dataclasses.fields(value))
    return all(map(nothing_missing, value)) and bool(value) if isinstance(value, tuple) else bool(value)


def names(value):
    return {field.name for field in dataclasses.fields(value)}


def expected(descriptor, renamed):
    renamed = RENAMED | renamed
    return set().union(*(renamed.get(field.name, {field.name}) for field in descriptor.fields))


@pytest.mark.parametrize(
    ("message", "translate", "renamed"), MESSAGES, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_field_of_a_message_arrives(message, translate, renamed):
    found = translate(filled(message()))
    assert names(found) == expected(message.DESCRIPTOR, renamed)
    assert nothing_missing(found)
    assert hash(found) == hash(translate(filled(message())))


def test_every_field_of_a_report_arrives():
    found = wire.dataset(filled(dataset_pb2.Dataset()))
    assert names(personae.DatasetReport) == REPORT == expected(dataset_pb2.DatasetReport.DESCRIPTOR, {})
    assert names(found.images[0]) == expected(dataset_pb2.ImageReport.DESCRIPTOR, {})
    assert found.images[0].warnings == ("blurred",)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_an_event_arrives(kind):
    message = training_pb2.TrainingEvent(sequence=3)
    message.time.FromSeconds(5)
    filled(getattr(message, kind)).SetInParent()
    event = wire.event(message)
    assert type(event).__name__.lower() == kind.replace("_", "")
    assert type(event).__name__ in personae.__all__
    of_all_events = names(personae.TrainingEvent)
    assert names(event) - of_all_events == expected(getattr(message, kind).DESCRIPTOR, {})
    assert nothing_missing(event)


def test_an_event_of_a_newer_server_keeps_its_place():
    event = wire.event(training_pb2.TrainingEvent(sequence=7))
    assert (type(event), event.sequence) == (personae.TrainingEvent, 7)


def test_what_is_absent_is_none_and_not_zero():
    adapter = wire.adapter(adapter_pb2.Adapter())
    assert (adapter.validation_loss, adapter.evaluation, adapter.training_config) == (None, None, {})
    sample = wire.event(training_pb2.TrainingEvent(sample_ready=training_pb2.TrainingEvent.SampleReady()))
    assert sample.memorisation is None


@pytest.mark.parametrize(
    ("template", "bare", "with_scene"),
    [
        ("", "a picture of sks cat", "a picture of sks cat, happy"),
        ("{caption}: {trigger_word}", ": sks", "happy: sks"),
        ("{trigger_word} the {class_noun}", "sks the cat", "sks the cat, happy"),
    ],
)
def test_a_prompt_is_worded_as_the_trainings_were(template, bare, with_scene):
    config = training_pb2.TrainingConfig(caption_template=template or None)
    adapter = wire.adapter(adapter_pb2.Adapter(trigger_word="sks", class_noun="cat", training_config=config))
    assert (adapter.prompt(), adapter.prompt("happy")) == (bare, with_scene)


def test_a_plan_is_one_line_for_people():
    message = filled(trainer_pb2.CreateTrainingResponse())
    message.estimate.duration.FromSeconds(260)
    message.estimate.peak_memory_bytes, message.estimate.basis = 1_240_000_000, "an earlier training here"
    summary = "about 4 min, 1.2 GB of device memory (an earlier training here)"
    assert wire.training_plan(message).summary() == summary
    message.estimate.duration.FromSeconds(42)
    assert wire.training_plan(message).summary().startswith("about 42 s, ")
