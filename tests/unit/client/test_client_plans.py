"""Asking what a training would be, and what is said with one: nothing is created, nothing is uploaded twice."""

import pytest

import personae
from personae.v1 import trainer_pb2, training_pb2

DATASET = "projects/default/datasets/d1"


@pytest.fixture
def planned(trainer):
    """A server that answers a plan."""
    effective = training_pb2.TrainingConfig(steps=120, preset=training_pb2.PRESET_FAST)
    trainer.plan.training.MergeFrom(training_pb2.Training(dataset=DATASET, effective_config=effective))
    trainer.plan.report.accepted_count = 16
    trainer.plan.estimate.duration.FromMilliseconds(61_500)
    trainer.plan.estimate.peak_memory_bytes = 1_200_000_000
    return trainer


def test_a_plan_says_what_would_be_used_and_needed_and_creates_nothing(client, planned):
    plan = client.plan_training(DATASET, name="micah", preset="fast")
    assert (plan.dataset, plan.report.accepted_count) == (DATASET, 16)
    assert plan.effective_config == {"steps": 120, "preset": "fast"}
    assert (plan.duration_s, plan.peak_memory_bytes) == (61.5, 1_200_000_000)
    (request,) = planned.requests["CreateTraining"]
    assert request.validate_only
    assert not request.request_id


def test_a_plan_and_a_training_ask_for_the_same(client, planned):
    options = {
        "name": "micah",
        "new_version": True,
        "base_model": "toon-64",
        "trigger_word": "sks",
        "class_noun": "cat",
        "licence": "CC-BY-4.0",
        "steps": 3,
    }
    client.plan_training(DATASET, **options)
    client.train(DATASET, **options)
    plan, training = planned.requests["CreateTraining"]
    assert (plan.training, plan.new_version) == (training.training, training.new_version)
    assert {name: getattr(training.training, name) for name in ("licence", "base_model", "class_noun")} == {
        name: options[name] for name in ("licence", "base_model", "class_noun")
    }
    assert not training.validate_only


def test_what_was_planned_on_pictures_is_trained_without_another_upload(client, planned):
    plan = client.plan_training([b"picture"], name="micah")
    client.train(plan.dataset, name="micah")
    assert len(planned.requests["UploadImages"]) == 1
    assert {request.training.dataset for request in planned.requests["CreateTraining"]} == {DATASET}


def test_a_plan_raises_what_a_training_would(client, trainer):
    with pytest.raises(personae.InvalidRequest, match="allowed are fast, balanced, quality, low-memory"):
        client.plan_training([b"picture"], name="micah", preset="slow")
    assert not trainer.requests
    assert trainer.plan == trainer_pb2.CreateTrainingResponse()


@pytest.mark.parametrize("verb", ["train", "plan_training"])
def test_consent_goes_with_pictures_and_not_with_a_dataset_that_exists(client, planned, verb):
    consent = personae.Consent("Ada", "a comic", "form 7")
    getattr(client, verb)([b"picture"], name="micah", consent=consent)
    (request,) = planned.requests["CreateDataset"]
    assert (request.consent.given_by, request.consent.purpose, request.consent.evidence) == ("Ada", "a comic", "form 7")
    with pytest.raises(personae.InvalidRequest, match="consent: found one beside projects/default/datasets/d1"):
        getattr(client, verb)(DATASET, name="micah", consent=consent)
    assert len(planned.requests["CreateTraining"]) == 1
