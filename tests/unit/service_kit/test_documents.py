"""Records and manifests: what is read back, what is passed over, what is refused."""

import json
import math

import pytest
from pydantic import ValidationError

from service_kit import schema
from service_kit.adapter_manifest import (
    AdapterManifest,
    AdapterReservation,
    EvaluationEntry,
    read_latest,
    read_manifest,
    read_reservation,
    versions,
)
from service_kit.document import SCHEMA_VERSION, Document, UnreadableDocument
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterName
from tests.bucket_adapters import publish, reserve


class Sample(Document):
    """A record."""

    name: str
    loss: float = 0.0


def test_what_was_written_is_read() -> None:
    sample = Sample(name="a", loss=0.5)
    assert Sample.from_json(sample.to_json()) == sample
    assert json.loads(sample.to_json())["schema_version"] == SCHEMA_VERSION


def test_unknown_fields_are_passed_over() -> None:
    assert Sample.from_json(b'{"schema_version": 1, "name": "a", "later": true}') == Sample(name="a")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"name": 5}', b'{"schema_version": 2, "name": "a"}', b'{"name": "a", "loss": NaN}'],
)
def test_what_is_damaged_or_newer_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableDocument):
        Sample.from_json(body)


def test_a_document_is_immutable_and_finite() -> None:
    sample = Sample(name="a")
    with pytest.raises(ValidationError):
        sample.name = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Sample(name="a", loss=math.nan)


def test_the_latest_version_is_the_highest_published_one() -> None:
    store, name = MemoryStore(), AdapterName("default", "hero")
    assert read_latest(store, name) is None
    for number in (1, 2, 10):
        publish(store, name.version(number))
    reserve(store, name.version(11))
    assert versions(store, name) == [1, 2, 10, 11]
    latest = read_latest(store, name)
    assert latest is not None
    assert latest.name == name.version(10)


def test_a_version_is_reserved_before_it_is_published() -> None:
    store, version = MemoryStore(), AdapterName("default", "hero").version(1)
    assert read_reservation(store, version) is None
    reserve(store, version)
    assert read_reservation(store, version) == AdapterReservation(training="projects/default/trainings/of-hero")
    assert read_manifest(store, version) is None


def test_a_manifest_lists_its_artifacts() -> None:
    store, version = MemoryStore(), AdapterName("default", "hero").version(1)
    digest = publish(store, version, b"body")
    manifest = read_manifest(store, version)
    assert manifest is not None
    entry = manifest.artifact("adapter.safetensors")
    assert entry is not None
    assert (entry.digest, entry.size_bytes) == (digest, 4)
    assert manifest.artifact("other") is None
    assert store.get(schema.adapter_blob(version, digest)).body == b"body"


def test_a_manifest_from_before_evaluations_is_read_and_has_none() -> None:
    store, version = MemoryStore(), AdapterName("default", "hero").version(1)
    publish(store, version)
    manifest = read_manifest(store, version)
    assert manifest is not None
    older = json.loads(manifest.to_json())
    del older["evaluation"]
    assert AdapterManifest.from_json(json.dumps(older).encode()) == manifest
    assert manifest.evaluation is None


def test_an_evaluation_holds_numbers_and_nothing_that_only_looks_like_one() -> None:
    found = EvaluationEntry(judge="eye-1", likeness=-0.25, obedience=1.0)
    assert EvaluationEntry.model_validate_json(found.model_dump_json()) == found
    assert found.diversity is None
    for value in (math.nan, math.inf):
        with pytest.raises(ValidationError):
            EvaluationEntry(judge="eye-1", memorisation=value)
