"""An adapter that the trainer imported, in the inference service: its own reading, the real engine, the picture."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from base_models.adapters.adapter_export import renamed, stored_tensors, write_safetensors
from base_models.catalog import BaseModelEntry
from base_models.pipelines import adaptable_modules
from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUses
from inference_service.adapters import Adapters
from inference_service.engine import AppliedAdapter
from inference_service.generation import WantedAdapter
from inference_service.host_adapters import HostAdapters
from inference_service.manifests import Manifests
from service_kit.adapter_manifest import AdapterReservation
from service_kit.errors import ResourceMissing
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterName
from service_kit.schema import adapter_reservation
from tests.random_adapter import ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.engine_calls import applied, assert_equal_pictures, far_apart, generated, pictures_of
from tests.unit.inference.quick_requests import quick_request
from tests.unit.trainer.import_calls import ImportService

MIA = AdapterName("default", "mia")


def resolved(store: MemoryStore, folder: Path, toon: BaseModelEntry, engine: Any) -> AppliedAdapter:
    """The adapter as a request gets it: from the bucket, by name, checked against the base model's own weights."""
    cache, manifests = AdapterCache(store, folder, max_bytes=10**8), Manifests(store, lambda: 0.0)
    host = HostAdapters(cache, 10**8, lambda: 0.0)
    adapters = Adapters(manifests, host, AdapterUses(lambda: datetime(2026, 1, 1, tzinfo=UTC)))
    try:
        return asyncio.run(adapters.apply(WantedAdapter(MIA, 1.0), toon.name, toon.digest(), engine))
    finally:
        manifests.close()
        host.close()


def test_an_imported_adapter_draws_the_picture_of_the_original(
    tmp_path: Path, toon: BaseModelEntry, engine: Any, plain_pipeline: Any
) -> None:
    modules = adaptable_modules(plain_pipeline)
    body = random_adapter(modules, {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}, seed=1)
    service = ImportService()
    service.bring(write_safetensors(renamed(stored_tensors(body), "kohya", toon.pipeline), {}))
    served = resolved(service.store, tmp_path, toon, engine)
    assert served.name == MIA.version(1)
    found = pictures_of(generated(engine, quick_request(3), [served]))[3]
    assert_equal_pictures(found, pictures_of(generated(engine, quick_request(3), [applied(engine, body)]))[3])
    assert far_apart(found, pictures_of(generated(engine, quick_request(3)))[3])


def test_a_version_that_an_import_only_reserved_does_not_exist(tmp_path: Path) -> None:
    store = MemoryStore()
    reservation = AdapterReservation(import_id="import-1", reserved_at=datetime(2026, 1, 1, tzinfo=UTC))
    store.create(adapter_reservation(MIA.version(1)), reservation.to_json())
    manifests = Manifests(store, lambda: 0.0)
    try:
        with pytest.raises(ResourceMissing):
            manifests.read(MIA).result()
    finally:
        manifests.close()
