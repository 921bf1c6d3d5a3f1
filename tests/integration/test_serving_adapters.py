"""A real inference process on a real store: adapters that come, are brought near, and go, without a restart."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import personae
from base_models.catalog import read_allow_list
from base_models.pipelines import adaptable_modules, load_pipeline
from service_kit import schema
from service_kit.names import AdapterVersionName
from tests.bucket_adapters import publish
from tests.random_adapter import ATTENTION, random_adapter
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

V1 = AdapterVersionName("default", "hero", 1)
V2 = AdapterVersionName("default", "hero", 2)
GONE_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def inference(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("inference")
    environment = service_environment(real_store, PERSONAE_INFERENCE_CACHE_DIR=str(folder / "cache"))
    with running_service("inference_service", environment, folder / "inference.log") as service:
        yield service


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    """Two adapters for the bundled base model."""
    pipeline = load_pipeline(read_allow_list(["toon-64"])["toon-64"], torch.device("cpu"), torch.float32)
    return [random_adapter(adaptable_modules(pipeline), {"unet": ATTENTION}, seed) for seed in (1, 2)]


def _publish(store: RealStore, name: AdapterVersionName, body: bytes) -> None:
    publish(store.store, name, body, base_model_digest=read_allow_list(["toon-64"])["toon-64"].digest())


def test_an_adapter_comes_is_brought_near_and_goes(
    inference: ServiceProcess, real_store: RealStore, files: list[bytes], tmp_path: Path
) -> None:
    def pictures(name: str) -> list[bytes]:
        return [image.content for image in client.generate("a red hat", adapter=name, seeds=[1], steps=2)]

    def ask_until(moment_s: float) -> None:
        while time.monotonic() < moment_s:
            pictures("hero")

    with personae.Client(inference=inference.address) as client:
        with pytest.raises(personae.NotFound):
            pictures("hero")
        _publish(real_store, V1, files[0])
        preloaded = client.preload_adapter("hero", pinned=True)
        assert (preloaded.adapter, preloaded.residency, preloaded.pinned) == (str(V1), "host", True)
        first = pictures("hero")
        assert [(found.adapter, found.residency) for found in client.served_adapters()] == [(str(V1), "slot")]

        # Published while the other is in use: within the age of what is remembered the latest is the new one.
        _publish(real_store, V2, files[1])
        published_s = time.monotonic()
        while client.preload_adapter("hero").adapter != str(V2):
            assert time.monotonic() - published_s < GONE_WITHIN_S
        assert pictures("hero") != first
        assert pictures("hero/versions/1") == first

        real_store.store.delete(schema.adapter_manifest(V2))
        deleted_s = time.monotonic()
        while client.preload_adapter("hero").adapter != str(V1):
            assert time.monotonic() - deleted_s < GONE_WITHIN_S
        assert pictures("hero") == first

        real_store.store.delete(schema.adapter_manifest(V1))
        gone_by_s = time.monotonic() + GONE_WITHIN_S
        with pytest.raises(personae.NotFound):
            ask_until(gone_by_s)
        with pytest.raises(personae.NotFound):
            client.preload_adapter("hero/versions/1")
