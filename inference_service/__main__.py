"""`python -m inference_service`: read the environment, load, build, serve until stopped.

Its one rule: everything is built here, top to bottom. The base models load while the object store is waited for.
"""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from base_models.catalog import BaseModelEntry, CatalogError, read_allow_list
from base_models.prompt_tokens import PromptTokens
from inference_service.adapter_cache import AdapterCache
from inference_service.adapters import Adapters
from inference_service.admission import Admission
from inference_service.servicer import InferenceServicer
from inference_service.settings import OTHER_PROCESSES, InferenceSettings
from inference_service.studio import ServedBaseModel, Studio
from personae.v1 import inference_pb2
from personae.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from service_kit.logs import configure_logs
from service_kit.serving import Endpoint, StartError, check_ports, connect_store, run_service, serve_until_stopped
from service_kit.settings import PREFIX, read_settings

if TYPE_CHECKING:
    from inference_service.diffusers_engine import DiffusersEngine

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
# Threads wait for the store most of the time; one that does not answer must not hold up the encoding of images.
_THREADS = 32


def load_engines(entries: list[BaseModelEntry], batch_size: int) -> dict[str, "DiffusersEngine"]:
    """Load every base model. Takes about ten seconds, most of it imports."""
    from inference_service.diffusers_engine import DiffusersEngine

    return {entry.name: DiffusersEngine(entry, batch_size) for entry in entries}


async def main(load_engines: Callable[[list[BaseModelEntry], int], Mapping[str, Any]] = load_engines) -> None:
    """Serve until SIGTERM or SIGINT. load_engines: gives one by each entry's name; a benchmark brings others."""
    configure_logs()
    settings = read_settings(InferenceSettings, os.environ, OTHER_PROCESSES)
    try:
        entries = list(read_allow_list(settings.base_models.split(",")).values())
    except CatalogError as error:
        raise StartError(f"{PREFIX}BASE_MODELS: {error}") from error
    endpoint = Endpoint(
        settings.inference_address,
        f"{PREFIX}INFERENCE_ADDRESS",
        settings.inference_health_address,
        f"{PREFIX}INFERENCE_HEALTH_ADDRESS",
        settings.inference_reflection,
    )
    check_ports(endpoint)

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS))
    # In a pool of its own: the end of the loop waits for the default one, and would hold back the text of a StartError.
    loading = loop.run_in_executor(ThreadPoolExecutor(1), load_engines, entries, settings.inference_batch_size)
    store = await connect_store(settings.store)
    engines = await loading

    served = {
        entry.name: ServedBaseModel(entry, entry.digest(), PromptTokens(entry).count, engines[entry.name])
        for entry in entries
    }
    cache = AdapterCache(store, settings.inference_cache_dir, settings.inference_cache_bytes)
    admission = Admission(settings.inference_images_waiting, time.monotonic)
    studio = Studio(served, Adapters(store, cache, time.monotonic), admission, time.monotonic)
    # The stubs call every rpc abstract; those that are not built yet are the generated base class's.
    servicer = InferenceServicer(studio)  # type: ignore[abstract]

    def add_services(server: grpc.aio.Server) -> None:
        add_InferenceServiceServicer_to_server(servicer, server)

    try:
        await serve_until_stopped(endpoint, add_services, [_SERVICE], settings.inference_drain_s, asyncio.Event())
    finally:
        for engine in engines.values():
            engine.close()


if __name__ == "__main__":
    run_service(main)
