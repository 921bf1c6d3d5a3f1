"""Entry point of the trainer service: `python -m trainer_service`. Everything is built here, top to bottom."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from base_models.catalog import CatalogError, read_allow_list
from base_models.prompt_tokens import prompt_tokens
from base_models.weights.single_file import ready
from personae.v1 import trainer_pb2, trainer_pb2_grpc
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
from trainer_service.adapters import Adapters
from trainer_service.datasets import Datasets
from trainer_service.decoder import Decoder
from trainer_service.deletion import Deletion
from trainer_service.dispatcher import Dispatcher
from trainer_service.executor import Executor
from trainer_service.exporting import Exporting
from trainer_service.gpus import gpu_of_each_worker, visible_gpus
from trainer_service.importing import Importing
from trainer_service.job_template import JobTemplate, TemplateError, read_template
from trainer_service.kubernetes_cluster import Cluster, NoCluster
from trainer_service.kubernetes_executor import KubernetesExecutor
from trainer_service.metrics import TrainerMetrics
from trainer_service.servicer import TrainerServicer
from trainer_service.settings import OTHER_PROCESSES, TrainerSettings, workers_environment
from trainer_service.sweeping import Sweeping
from trainer_service.trainings import Trainings
from trainer_service.watching import Watching

_SERVICE = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"].full_name
# Threads wait for the store most of the time, many of them for somebody who watches.
_THREADS = 32


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_logs()
    settings = read_settings(TrainerSettings, os.environ, OTHER_PROCESSES)
    endpoint = Endpoint(
        address=settings.trainer_address,
        variable=f"{PREFIX}TRAINER_ADDRESS",
        health_address=settings.trainer_health_address,
        health_variable=f"{PREFIX}TRAINER_HEALTH_ADDRESS",
        reflection=settings.trainer_reflection,
        metrics_address=settings.trainer_metrics_address,
        metrics_variable=f"{PREFIX}TRAINER_METRICS_ADDRESS",
    )
    template = _job_template(settings) if settings.executor == "kubernetes" else None
    access = open_access(settings.access)
    check_ports(endpoint)
    cache = FolderCache(settings.base_model_cache)
    allowed = await with_bucket_folders(settings.base_models.split(","), settings.store, cache)
    try:
        base_models = ready(read_allow_list(allowed), cache.folder)
    except CatalogError as error:
        raise StartError(f"{PREFIX}BASE_MODELS: {error}") from error
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    # Reading the tokenizers takes seconds, which the first CreateTraining shall not wait for.
    try:
        connected, tokens = await asyncio.gather(
            connect_verified_store(settings.store), asyncio.to_thread(prompt_tokens, base_models.values())
        )
    except CatalogError as error:
        raise StartError(f"{PREFIX}BASE_MODELS: {error}") from error

    metrics, traces = ServiceMetrics("trainer"), open_traces("personae-trainer", os.environ)
    store = ObservedStore(connected, metrics.note_store_call)

    def now() -> datetime:
        return datetime.now(UTC)

    stopping = asyncio.Event()
    decoder = Decoder(settings.decoding)
    datasets = Datasets(store, now, decoder)
    trainings = Trainings(
        store,
        datasets,
        base_models,
        lambda entry, prompt: tokens[entry.name].count(prompt),
        now,
        settings.trainer_project_trainings,
        settings.trainer_require_consent,
    )
    trainer_metrics = TrainerMetrics(metrics.registry)
    executor: Executor
    if template is None:
        gpus = gpu_of_each_worker(settings.trainer_workers, visible_gpus(os.environ))
        executor = Dispatcher(store, gpus, now, trainer_metrics)
    else:
        cluster = _cluster(template, trainer_metrics)
        executor = KubernetesExecutor(store, cluster, template, trainings.memory_of, now, trainer_metrics)
    adapters, watching = Adapters(store), Watching(store, trainings, stopping)
    exporting = Exporting(store, adapters, base_models)
    importing = Importing(store, base_models, now, settings.trainer_require_consent)
    deletion, sweeping = Deletion(store, now), Sweeping(store)
    servicer = TrainerServicer(
        datasets, trainings, adapters, exporting, importing, watching, executor, deletion, sweeping
    )

    async def hand_over() -> None:
        await stopping.wait()
        await asyncio.gather(executor.stop(settings.trainer_drain_s), sweeping.stop())

    # Workers hand over while calls drain, so that both together take no longer than the setting says.
    handing_over = asyncio.create_task(hand_over())
    executor.start()
    sweeping.start()
    try:
        await asyncio.to_thread(decoder.warm)
        await serve_until_stopped(
            endpoint,
            lambda server: trainer_pb2_grpc.add_TrainerServiceServicer_to_server(servicer, server),
            [_SERVICE],
            settings.trainer_drain_s,
            stopping,
            access,
            Watched(metrics, traces),
        )
    finally:
        stopping.set()
        decoder.close()
        await handing_over
        traces.close()


def _job_template(settings: TrainerSettings) -> JobTemplate:
    """Raises StartError."""
    variable, path = f"{PREFIX}KUBERNETES_JOB_TEMPLATE", settings.kubernetes.kubernetes_job_template
    if path is None:
        raise StartError(f"{variable}: needed with {PREFIX}EXECUTOR=kubernetes")
    deployment = f"{settings.store.s3_endpoint}/{settings.store.s3_bucket}"
    try:
        environment = workers_environment(os.environ)
        return read_template(path, deployment, environment, settings.kubernetes.kubernetes_image)
    except TemplateError as error:
        raise StartError(f"{variable}={path}: {error}") from error


def _cluster(template: JobTemplate, metrics: TrainerMetrics) -> Cluster:
    """Raises StartError."""
    try:
        return Cluster(template.labels, lambda call: metrics.cluster_failures.labels(call).inc())
    except NoCluster as error:
        raise StartError(f"{PREFIX}EXECUTOR=kubernetes: no cluster to be found: {error}") from error


if __name__ == "__main__":
    run_service(main)
