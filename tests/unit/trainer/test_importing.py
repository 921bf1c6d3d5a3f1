"""ImportAdapter over a store in memory: what lies there afterwards, what is refused, who may repeat what."""

import asyncio
import threading
import tracemalloc
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service_kit import schema
from service_kit.adapter_manifest import AdapterManifest, ConsentEntry
from service_kit.errors import InvalidRequest, PreconditionUnmet, ResourceExists, TryLater
from service_kit.memory_store import MemoryStore
from tests.lora_files import LINEAR, file, own
from tests.unit.trainer.import_calls import BASE_MODELS, BODY, CONSENT, MIA, OTHER, ImportService, header, stream
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import wire
from trainer_service.adapters import Adapters
from trainer_service.exporting import Exporting
from trainer_service.import_request import ImportChunk, ImportPart


def test_an_imported_adapter_is_one_like_any_other(service: ImportService) -> None:
    said = {"trigger_word": "zxq", "class_noun": "dog", "licence": "CC0-1.0"}
    made = service.bring(**said, consent=CONSENT)
    assert str(made.name) == "projects/default/adapters/mia/versions/1"
    adapters = Adapters(service.store)
    assert adapters.get(MIA) == made
    assert (made.base_model, made.base_model_digest) == ("toon-64", BASE_MODELS["toon-64"].digest())
    assert (made.trigger_word, made.class_noun, made.licence) == ("zxq", "dog", "CC0-1.0")
    assert made.consent == CONSENT
    assert (made.rank, made.targets, made.pipeline) == (4, "attention", "StableDiffusionPipeline")
    seen = wire.adapter(made)
    assert (seen.training, seen.dataset_digest, seen.chosen_step) == ("", "", 0)
    absent = ("training_config", "evaluation", "validation_loss")
    assert not any(seen.HasField(field) for field in absent)  # type: ignore[arg-type]
    body = adapters.whole(made, "adapter.safetensors")
    assert len(body) == seen.artifacts[0].size_bytes
    export = Exporting(service.store, adapters, BASE_MODELS).export(MIA, "kohya")
    exported = b"".join(adapters.read(adapters.open(MIA, export.file.artifact_id, 0), 0))
    assert b"personae.training_config" not in exported
    again = service.bring(exported, adapter_id="again")
    assert adapters.whole(again, "adapter.safetensors") == body


def test_what_is_not_said_is_chosen_as_for_a_training(service: ImportService) -> None:
    made = service.bring()
    assert (made.trigger_word, made.class_noun, made.consent) == ("sks", "character", None)


def test_the_same_request_id_and_body_give_the_same_adapter_and_write_nothing(service: ImportService) -> None:
    request_id = str(uuid.uuid4())
    first = service.bring(request_id=request_id)
    before = service.stored()
    service.clock.advance(3600)
    assert service.bring(request_id=request_id) == first
    assert service.stored() == before


@pytest.mark.parametrize(
    ("body", "changes"),
    [(OTHER, {}), (BODY, {"adapter_id": "joe"}), (BODY, {"licence": "MIT"}), (BODY, {"new_version": True})],
)
def test_the_same_request_id_with_another_body_is_refused(
    service: ImportService, body: bytes, changes: dict[str, Any]
) -> None:
    request_id = str(uuid.uuid4())
    service.bring(request_id=request_id)
    before = service.stored()
    with pytest.raises(ResourceExists) as caught:
        service.bring(body, **{"request_id": request_id} | changes)
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert service.stored() == before


def test_a_name_that_is_taken_is_refused_before_the_file_and_a_new_version_is_the_next(service: ImportService) -> None:
    service.bring()
    with pytest.raises(ResourceExists, match="set new_version"):
        # The file would never end.
        service.take(header(), AssertionError("the file was read"))
    assert service.bring(new_version=True).version == 2
    assert service.bring(OTHER, new_version=True).version == 3


def test_trainings_and_imports_do_not_take_each_others_versions() -> None:
    trainer = Trainer()
    trainer.dataset()
    service = ImportService(trainer.store)
    assert trainer.trainings.create(request(adapter_id="mia")).record.adapter_version == 1
    with pytest.raises(ResourceExists):
        service.bring()
    assert service.bring(new_version=True).version == 2
    with pytest.raises(ResourceExists):
        trainer.trainings.create(request(adapter_id="mia"))
    assert trainer.trainings.create(request(adapter_id="mia", new_version=True)).record.adapter_version == 3


def test_twenty_equal_imports_at_once_make_one_version() -> None:
    store, request_id = MemoryStore(), str(uuid.uuid4())
    answers: list[AdapterManifest] = []
    start = threading.Barrier(20)

    def submit() -> None:
        service = ImportService(store)
        start.wait()
        answers.append(service.bring(request_id=request_id))

    threads = [threading.Thread(target=submit) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 20
    assert {str(answer.name) for answer in answers} == {"projects/default/adapters/mia/versions/1"}


def test_a_file_that_is_no_lora_for_the_base_model_leaves_nothing(service: ImportService) -> None:
    foreign = own(LINEAR) | {"unet.other.lora_A.weight": own(LINEAR)[f"{LINEAR}.lora_A.weight"]}
    for body in (b"", BODY[:-1], file(foreign)):
        with pytest.raises(PreconditionUnmet) as caught:
            service.bring(body, request_id=str(uuid.uuid4()))
        assert (caught.value.reason, caught.value.subject) == ("ADAPTER_INVALID", str(MIA))
    assert "unet.other" in str(caught.value)
    assert service.stored() == []


def test_every_field_that_is_wrong_is_named_in_one_answer(service: ImportService) -> None:
    wrong = header(
        parent="projects/a//b",
        adapter_id="Upper",
        base_model="other",
        trigger_word="two words",
        class_noun="\n",
        request_id="7",
        licence="x" * 201,
        consent=ConsentEntry(given_by="", purpose=" ", evidence="x" * 501),
    )
    with pytest.raises(InvalidRequest) as caught:
        service.take(wrong, AssertionError("the file was read"))
    names = {"parent", "adapter_id", "base_model", "trigger_word", "class_noun", "request_id", "licence"}
    names |= {"consent.given_by", "consent.purpose", "consent.evidence"}
    assert {found.field for found in caught.value.violations} == {f"header.{name}" for name in names}


def test_a_large_file_waits_on_disk_and_not_in_memory(service: ImportService) -> None:
    mebibyte = ImportChunk(bytes(2**20))

    async def receive() -> None:
        await service.importing.receive(stream(header(), *[mebibyte] * 64))

    tracemalloc.start()
    try:
        with pytest.raises(PreconditionUnmet, match="its header is not"):
            asyncio.run(receive())
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_so_many_at_once_and_no_more(service: ImportService) -> None:
    async def run() -> None:
        gate, begun = asyncio.Event(), asyncio.Semaphore(0)

        async def slow(adapter_id: str) -> AsyncIterator[ImportPart]:
            yield header(adapter_id=adapter_id)
            begun.release()
            await gate.wait()
            yield ImportChunk(BODY)

        waiting = [asyncio.create_task(service.importing.receive(slow(f"a{index}"))) for index in range(4)]
        for _ in waiting:
            await begun.acquire()
        with pytest.raises(TryLater) as caught:
            await service.importing.receive(stream(header(), ImportChunk(BODY)))
        assert caught.value.reason == "IMPORTS_FULL"
        gate.set()
        assert len(await asyncio.gather(*waiting)) == 4
        assert (await service.importing.receive(stream(header(), ImportChunk(BODY)))).version == 1

    asyncio.run(run())


def test_who_falls_silent_loses_his_place(service: ImportService) -> None:
    async def silent() -> AsyncIterator[ImportPart]:
        yield header()
        await asyncio.Event().wait()

    async def run() -> None:
        await service.importing.receive(silent(), longest_silence_s=0.05)

    with pytest.raises(InvalidRequest, match="found nothing for"):
        asyncio.run(run())
    assert service.stored() == []


def test_an_older_reservation_without_these_fields_is_a_trainings(service: ImportService) -> None:
    service.store.create(schema.adapter_reservation(MIA.version(1)), b'{"training": "projects/default/trainings/t"}')
    service.clock.advance(10**6)
    with pytest.raises(ResourceExists):
        service.bring()
