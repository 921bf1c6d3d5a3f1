"""Publishing: everything that is known of an adapter ends up in its manifest, and every file under its hash."""

import hashlib

import pytest

from service_kit import schema
from service_kit.adapter_manifest import ConsentEntry, EvaluationEntry, read_manifest
from service_kit.errors import InvalidRequest, ResourceExists
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import wire
from trainer_service.training_store import TrainingStore
from trainer_service.worker.publishing import Outcome, PublishedFile, is_published, publish


def test_the_manifest_holds_everything_and_names_every_file_by_its_hash(trainer: Trainer) -> None:
    consent = ConsentEntry(given_by="Ada", purpose="a comic", evidence="form 7")
    trainer.dataset(consent=consent)
    record = trainer.trainings.create(request(licence="CC-BY-4.0")).record
    dataset = TrainingStore(trainer.store).dataset(record.name)
    evaluation = EvaluationEntry(judge="toon", likeness=0.5)
    sample = PublishedFile("samples/000035-0.png", "image/png", b"a picture")
    outcome = Outcome(b"weights", 35, validation_loss=0.25, evaluation=evaluation, samples=[sample])
    publish(trainer.store, record, dataset, "b" * 64, "StableDiffusionXLPipeline", outcome, trainer.clock)
    assert is_published(trainer.store, record)
    manifest = read_manifest(trainer.store, record.adapter)
    assert manifest is not None
    assert [(file.artifact_id, file.media_type, file.size_bytes) for file in manifest.artifacts] == [
        ("adapter.safetensors", "application/octet-stream", 7),
        ("samples/000035-0.png", "image/png", 9),
    ]
    for file, body in zip(manifest.artifacts, (b"weights", b"a picture"), strict=True):
        assert file.digest == hashlib.sha256(body).hexdigest()
        assert trainer.store.get(schema.adapter_blob(record.adapter, file.digest)).body == body
    assert (manifest.chosen_step, manifest.validation_loss, manifest.evaluation) == (35, 0.25, evaluation)
    assert (manifest.licence, manifest.consent, manifest.image_count) == ("CC-BY-4.0", consent, 16)
    assert manifest.training_config == record.config.model_dump(mode="json")
    assert (manifest.dataset_digest, manifest.base_model_digest) == (dataset.digest, "b" * 64)
    assert manifest.pipeline == "StableDiffusionXLPipeline"


def test_the_licence_is_kept_and_told_apart_by_request_id(trainer: Trainer) -> None:
    trainer.dataset()
    request_id = "6f1c2b7e-8f57-4d7c-9d7c-2f0d9a3b1c55"
    record = trainer.trainings.create(request(licence="MIT", request_id=request_id)).record
    assert wire.training(trainer.trainings.get(record.name)).licence == "MIT"
    with pytest.raises(ResourceExists) as caught:
        trainer.trainings.create(request(licence="X", request_id=request_id))
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_a_licence_that_is_too_long_or_not_printable_is_refused(trainer: Trainer) -> None:
    trainer.dataset()
    for licence in ("x" * 201, "two\nlines"):
        with pytest.raises(InvalidRequest) as caught:
            trainer.trainings.create(request(licence=licence))
        assert [violation.field for violation in caught.value.violations] == ["training.licence"]
    trainer.trainings.create(request(licence="x" * 200, validate_only=True))
