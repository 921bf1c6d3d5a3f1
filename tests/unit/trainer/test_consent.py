"""Consent: said with the dataset, carried into its trainings and adapters, required where the operator wants that."""

import json

import pytest

from personae.v1 import dataset_pb2, trainer_pb2
from service_kit import schema
from service_kit.adapter_manifest import ConsentEntry
from service_kit.errors import InvalidRequest, PreconditionUnmet, ResourceExists
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import asked, wire
from trainer_service.training_record import TrainingRecord

CONSENT = ConsentEntry(given_by="Ada Lovelace", purpose="to be drawn in our comic", evidence="form 7")


def test_a_dataset_keeps_it_and_a_training_copies_it(trainer: Trainer) -> None:
    name = trainer.dataset(consent=CONSENT)
    seen = wire.dataset(trainer.datasets.get(name)).consent
    assert (seen.given_by, seen.purpose, seen.evidence) == (CONSENT.given_by, CONSENT.purpose, CONSENT.evidence)
    assert trainer.trainings.get(trainer.trainings.create(request()).record.name).consent == CONSENT
    without = trainer.datasets.get(trainer.dataset("dog", count=0))
    assert not wire.dataset(without).HasField("consent")


def test_a_request_says_it_or_does_not() -> None:
    said = dataset_pb2.Consent(given_by=CONSENT.given_by, purpose=CONSENT.purpose, evidence=CONSENT.evidence)
    assert asked.consent(trainer_pb2.CreateDatasetRequest(consent=said)) == CONSENT
    assert asked.consent(trainer_pb2.ImportAdapterRequest.Header(consent=said)) == CONSENT
    assert asked.consent(trainer_pb2.CreateDatasetRequest()) is None


def test_everything_that_is_wrong_with_it_is_said_at_once(trainer: Trainer) -> None:
    wrong = ConsentEntry(given_by=" ", purpose="p" * 501, evidence="two\nlines")
    with pytest.raises(InvalidRequest) as caught:
        trainer.datasets.create("", "Upper", "", "", wrong)
    assert [violation.field for violation in caught.value.violations] == [
        "dataset_id",
        "consent.given_by",
        "consent.purpose",
        "consent.evidence",
    ]
    at_the_limits = ConsentEntry(given_by="g" * 200, purpose="ü" * 500, evidence="e" * 500)
    assert trainer.datasets.create("", "limits", "", "", at_the_limits).consent == at_the_limits


def test_a_repeat_with_another_consent_is_another_request(trainer: Trainer) -> None:
    request_id = "6f1c2b7e-8f57-4d7c-9d7c-2f0d9a3b1c55"
    first = trainer.datasets.create("", "", request_id, "", CONSENT)
    assert trainer.datasets.create("", "", request_id, "", CONSENT) == first
    with pytest.raises(ResourceExists) as caught:
        trainer.datasets.create("", "", request_id, "", None)
    assert caught.value.reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("validate_only", [False, True])
def test_an_operator_may_require_it(validate_only: bool) -> None:
    trainer = Trainer(require_consent=True)
    name = trainer.dataset()
    with pytest.raises(PreconditionUnmet, match="create the dataset with a consent") as caught:
        trainer.trainings.create(request(validate_only=validate_only))
    assert (caught.value.reason, caught.value.subject) == ("CONSENT_REQUIRED", str(name))
    assert not list(trainer.store.keys("queue/"))
    agreed = trainer.dataset("agreed", consent=CONSENT)
    trainer.trainings.create(request(dataset=str(agreed), validate_only=validate_only))


def test_a_record_from_before_keeps_its_sentence_as_evidence(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request()).record
    for sentence, kept in (("", None), ("by letter", ConsentEntry(given_by="", purpose="", evidence="by letter"))):
        older = json.loads(trainer.store.get(schema.training_record(record.name)).body) | {"consent": sentence}
        assert TrainingRecord.from_json(json.dumps(older).encode()).consent == kept
