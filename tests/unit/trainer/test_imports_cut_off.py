"""Imports whose stream breaks, or whose service is killed: nothing half made, and no name blocked for long."""

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from service_kit.errors import InvalidRequest, ResourceExists
from service_kit.store import StoreUnavailable
from tests.unit.trainer.import_calls import BODY, OTHER, ImportService, header
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.import_request import ImportChunk
from trainer_service.versions import IMPORT_PUBLISHES_WITHIN

WRITES = ("the record", "the file", "the reservation", "the manifest")


def killed_before(service: ImportService, writes: int, request_id: str) -> None:
    """Import in a service that dies after so many writes."""
    genuine, left = (service.store.create, service.store.put), [writes]

    def dying(write: Callable[[str, bytes], Any]) -> Callable[[str, bytes], Any]:
        def attempt(key: str, body: bytes) -> Any:
            if left[0] == 0:
                raise StoreUnavailable("the process dies here")
            left[0] -= 1
            return write(key, body)

        return attempt

    service.store.create, service.store.put = map(dying, genuine)  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        service.bring(request_id=request_id)
    service.store.create, service.store.put = genuine  # type: ignore[method-assign]


@pytest.mark.parametrize("writes", range(4), ids=WRITES)
def test_a_repeat_mends_an_import_that_died_before_any_of_its_writes(service: ImportService, writes: int) -> None:
    request_id = str(uuid.uuid4())
    killed_before(service, writes, request_id)
    assert not [key for key in service.stored() if key.endswith("manifest.json")]
    service.clock.advance(5)
    made = service.bring(request_id=request_id)
    # A number that a file lies under may be skipped.
    assert made.version <= 2
    assert service.bring(request_id=request_id) == made


@pytest.mark.parametrize("who", ["an import", "a training"])
@pytest.mark.parametrize("writes", range(4), ids=WRITES)
def test_an_import_that_died_blocks_its_name_for_minutes_at_most(writes: int, who: str) -> None:
    trainer = Trainer()
    trainer.dataset()
    service, request_id = ImportService(trainer.store), str(uuid.uuid4())
    killed_before(service, writes, request_id)

    def attempt() -> int:
        if who == "an import":
            return service.bring(OTHER).version
        return trainer.trainings.create(request(adapter_id="mia")).record.adapter_version

    if WRITES[writes] == "the manifest":
        with pytest.raises(ResourceExists):
            attempt()
    for clock in (service.clock, trainer.clock):
        clock.advance(IMPORT_PUBLISHES_WITHIN.total_seconds())
    assert attempt() <= 2
    # Its own repeat does not slip in beside what came after it.
    with pytest.raises(ResourceExists):
        service.bring(request_id=request_id)


def test_an_import_that_is_published_keeps_its_name_for_ever(service: ImportService) -> None:
    service.bring(request_id=str(uuid.uuid4()))
    service.clock.advance(10 * IMPORT_PUBLISHES_WITHIN.total_seconds())
    with pytest.raises(ResourceExists):
        service.bring()
    assert not any(key.endswith("abandoned.json") for key in service.stored())


@pytest.mark.parametrize("cut", [asyncio.CancelledError(), InvalidRequest([]), RuntimeError("broken pipe")], ids=repr)
def test_a_stream_that_breaks_leaves_nothing(service: ImportService, cut: BaseException) -> None:
    before = open_files()
    with pytest.raises(type(cut)):
        service.take(header(), ImportChunk(BODY[:100]), cut)
    assert service.stored() == []
    assert open_files() == before
    assert service.bring().version == 1


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
