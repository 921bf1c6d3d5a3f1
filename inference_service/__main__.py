"""`python -m inference_service`: read the environment, load, build, serve until stopped.

Its one rule: everything is built here, top to bottom. The base models load while the object store is waited for.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from base_models.catalog import BaseModelEntry, CatalogError, read_allow_list
from base_models.prompt_tokens import prompt_tokens
from base_models.weights.placement import OffloadName, choose_offload, weight_bytes
from base_models.weights.single_file import ready
from inference_service.adapter_cache import AdapterCache
from inference_service.adapter_uses import AdapterUses
from inference_service.adapters import Adapters
from inference_service.admission import Admission, Limits
from inference_service.content_check import ContentCheck
from inference_service.finishing import Finishing
from inference_service.host_adapters import HostAdapters
from inference_service.ledger import Ledger
from inference_service.made_images import MadeImages
from inference_service.manifests import Manifests
from inference_service.metrics import InferenceMetrics
from inference_service.observed_studio import ObservedStudio
from inference_service.picture_decoding import Decoder
from inference_service.served_adapters import ServedAdapters
from inference_service.servicer import InferenceServicer
from inference_service.settings import OTHER_PROCESSES, InferenceSettings
from inference_service.start_pictures import read_dataset_image
from inference_service.studio import ServedBaseModel, Studio
from personae.v1 import inference_pb2
from personae.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from service_kit.access import open_access
from service_kit.bucket_folders import with_bucket_folders
from service_kit.folder_cache import FolderCache
from service_kit.logs import configure_logs
from service_kit.metrics import ServiceMetrics
from service_kit.observed_store import ObservedStore
from service_kit.serving import Endpoint, StartError, Watched, check_ports, run_service, serve_until_stopped
from service_kit.settings import PREFIX, read_settings
from service_kit.store_at_start import connect_verified_store
from service_kit.traces import open_traces

if TYPE_CHECKING:
    from inference_service.content_credentials import ContentCredentials
    from inference_service.denoising.step_engine import StepEngine
    from inference_service.safety_checker import SafetyChecker

_logger = logging.getLogger(__name__)

LoadEngines = Callable[[list[BaseModelEntry], InferenceSettings], Mapping[str, Any]]

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name
# For counting tokens, encoding images and looking at the disk; who waits for the store has threads of its own.
_THREADS = 32


def load_engines(entries: list[BaseModelEntry], settings: InferenceSettings) -> dict[str, "StepEngine"]:
    """Load every base model. Takes about ten seconds, most of it imports."""
    import torch

    from base_models.loading import load_base_model
    from inference_service.denoising.step_engine import StepEngine

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, settings.inference_precision or ("bfloat16" if device.type == "cuda" else "float32"))
    engines = {}
    for entry in entries:
        offload: OffloadName = "none"
        if device.type == "cuda":
            # What earlier models and other processes left.
            free_bytes, _ = torch.cuda.mem_get_info()
            offload = offload_of(entry, settings, dtype.itemsize, free_bytes)
        base = load_base_model(entry, device, dtype, None if offload == "none" else offload)
        engines[entry.name] = StepEngine(
            entry,
            base,
            settings.inference_batch_size,
            settings.inference_slot_rank,
            settings.inference_slot_bytes,
        )
    return engines


def offload_of(entry: BaseModelEntry, settings: InferenceSettings, item_bytes: int, free_bytes: int) -> OffloadName:
    """Where a base model's weights will lie on a GPU with so many bytes free. item_bytes: of a number once loaded."""
    if settings.inference_offload != "automatic":
        return settings.inference_offload
    parts = weight_bytes(entry, item_bytes)
    chosen = choose_offload(parts, entry.traits.denoiser, free_bytes, settings.inference_slot_bytes)
    _logger.info("%s: %d bytes of weights, %d free: offload %s", entry.name, sum(parts.values()), free_bytes, chosen)
    return chosen


def load_checker(folder: Path) -> "SafetyChecker":
    """Load the operator's checker. Raises StartError where the folder holds none."""
    from inference_service.safety_checker import CheckerUnusable, SafetyChecker

    try:
        return SafetyChecker(folder)
    except CheckerUnusable as error:
        raise StartError(f"{PREFIX}INFERENCE_CHECKER={folder}: {error}") from error


def load_credentials(settings: InferenceSettings) -> "ContentCredentials | None":
    """What images are signed with, where the operator wants that. Raises StartError."""
    if not (
        settings.inference_c2pa_certificates or settings.inference_c2pa_key or settings.inference_c2pa_timestamp_url
    ):
        return None
    from inference_service.content_credentials import load_content_credentials

    return load_content_credentials(settings)


async def main(load_engines: LoadEngines = load_engines) -> None:
    """Serve until SIGTERM or SIGINT. load_engines: gives one by each entry's name; a benchmark brings others."""
    configure_logs()
    settings = read_settings(InferenceSettings, os.environ, OTHER_PROCESSES)
    endpoint = Endpoint(
        settings.inference_address,
        f"{PREFIX}INFERENCE_ADDRESS",
        settings.inference_health_address,
        f"{PREFIX}INFERENCE_HEALTH_ADDRESS",
        settings.inference_reflection,
        settings.inference_metrics_address,
        f"{PREFIX}INFERENCE_METRICS_ADDRESS",
    )
    access = open_access(settings.access)
    check_ports(endpoint)
    credentials = load_credentials(settings)
    base_model_cache = FolderCache(settings.base_model_cache)
    allowed = await with_bucket_folders(settings.base_models.split(","), settings.store, base_model_cache)
    try:
        entries = list(ready(read_allow_list(allowed), base_model_cache.folder).values())
        tokens = prompt_tokens(entries)
    except CatalogError as error:
        raise StartError(f"{PREFIX}BASE_MODELS: {error}") from error

    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS))
    # In a pool of its own: the end of the loop waits for the default one, and would hold back the text of a StartError.
    loaders = ThreadPoolExecutor(1)
    loading = loop.run_in_executor(loaders, load_engines, entries, settings)
    metrics, traces = ServiceMetrics("inference"), open_traces("personae-inference", os.environ)
    store = ObservedStore(await connect_verified_store(settings.store), metrics.note_store_call)
    check = None
    if settings.inference_checker:
        check = ContentCheck(await loop.run_in_executor(loaders, load_checker, settings.inference_checker))
    engines = await loading

    served = {
        entry.name: ServedBaseModel(entry, entry.digest(), tokens[entry.name].count, engines[entry.name])
        for entry in entries
    }
    cache = AdapterCache(store, settings.inference_cache_dir, settings.inference_cache_bytes)
    limits = Limits(settings.inference_queue_cost, settings.inference_requests, settings.inference_project_share)
    admission = Admission(limits, time.monotonic)
    manifests = Manifests(store, time.monotonic)
    host = HostAdapters(cache, settings.inference_host_cache_bytes, time.monotonic)
    uses = AdapterUses(lambda: datetime.now(UTC))
    adapters = Adapters(manifests, host, uses)
    ledger = Ledger(store, lambda: datetime.now(UTC))
    made = MadeImages(store, settings.store.s3_bucket)
    finishing = Finishing(made, ledger, check, credentials)
    read_image = partial(read_dataset_image, store)
    decoder = Decoder(settings.decoding)
    studio = Studio(served, adapters, admission, finishing, time.monotonic, read_image, decoder.decode)
    served_adapters = ServedAdapters(served, adapters, uses, host, cache)
    counted = InferenceMetrics(metrics.registry, admission, engines, adapters, host, cache)
    servicer = InferenceServicer(ObservedStudio(studio, counted), served_adapters, ledger, made)

    def add_services(server: grpc.aio.Server) -> None:
        add_InferenceServiceServicer_to_server(servicer, server)

    try:
        await asyncio.to_thread(decoder.warm)
        await serve_until_stopped(
            endpoint,
            add_services,
            [_SERVICE],
            settings.inference_drain_s,
            asyncio.Event(),
            access,
            Watched(metrics, traces),
        )
    finally:
        decoder.close()
        manifests.close()
        host.close()
        for engine in engines.values():
            engine.close()
        if check:
            check.close()
        traces.close()


if __name__ == "__main__":
    run_service(main)
