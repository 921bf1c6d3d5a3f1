"""Entry point of a worker: `python -m trainer_service.worker [TRAINING]`, with the services' environment.

Without TRAINING it reads one JSON object a line: `{"run": NAME, "etag": ETAG}` or `{"cancel": NAME}`, and writes
`{"ready": true, "device": …}` once, `{"ended": NAME, "exit_code": N}` after each, and in between `{"observed": …}` for
metrics. When standard input closes, because its parent stopped or died, it checkpoints, hands over and exits.

Several processes carry out one TRAINING where a launcher starts them (`accelerate launch`, `torchrun`): process 0 is
the worker, and the others follow it.
"""

import argparse
import asyncio
import json
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime

from base_models.catalog import CatalogError, read_allow_list
from base_models.likeness.choice import judge_for
from base_models.weights.single_file import ready
from service_kit.bucket_folders import with_bucket_folders
from service_kit.errors import ResourceMissing
from service_kit.folder_cache import FolderCache
from service_kit.logs import configure_logs
from service_kit.minio_store import open_store
from service_kit.names import MalformedName, TrainingName
from service_kit.observed_store import ObservedStore
from service_kit.serving import StartError
from service_kit.settings import SettingsError, read_settings
from service_kit.store import StoreError
from service_kit.traces import open_traces
from trainer_service.settings import WorkerSettings
from trainer_service.training_record import HEARTBEAT_S, LeaseWatch
from trainer_service.training_store import TrainingStore
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.following import follow
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.processes import dismiss, join
from trainer_service.worker.run import Workbench, run_training
from trainer_service.worker.stopwatch import device_of
from trainer_service.worker.telling import Pipe

_logger = logging.getLogger(__name__)


def main() -> int:
    arguments = _arguments()
    configure_logs()
    try:
        settings = read_settings(
            WorkerSettings,
            os.environ,
            others=("TRAINER_", "INFERENCE_", "DECODER_", "TLS_", "TOKENS_", "JWT_", "EXECUTOR", "KUBERNETES_"),
        )
        store = open_store(settings.store)
        cache = FolderCache(settings.base_model_cache)
        allowed = asyncio.run(with_bucket_folders(settings.base_models.split(","), settings.store, cache))
        base_models = ready(read_allow_list(allowed), cache.folder)
    except (SettingsError, StartError, CatalogError, ValueError) as error:
        sys.exit(f"cannot start: {error}")
    this = join()
    if this.num_processes > 1 and not arguments.training:
        sys.exit("cannot start: several processes carry out one training; name it")
    traces = open_traces("personae-trainer-worker", os.environ)
    bench = Workbench(
        # For its spans; a worker serves no metrics.
        store=ObservedStore(store, lambda operation, outcome, seconds: None),
        tracer=traces.tracer,
        base_models=base_models,
        holder=arguments.holder,
        now=lambda: datetime.now(UTC),
        device=this.device,
        judge_for=lambda entry: judge_for(
            entry, this.device, settings.judges.dinov2_folder, settings.judges.clip_folder
        ),
        patience=settings.trainer_stage_patience,
    )
    if this.process_index > 0:
        return follow(bench)
    try:
        if arguments.training:
            exit_code = _run_one(bench, arguments.training)
            dismiss(exit_code)
            return exit_code
        return _stay_warm(bench)
    finally:
        traces.close()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer_service.worker", description=__doc__)
    parser.add_argument(
        "training", nargs="?", help="projects/{project}/trainings/{training}; none: read standard input"
    )
    parser.add_argument(
        "--holder",
        default=f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}",
        help="name of this worker in leases; unique for every start",
    )
    return parser.parse_args()


def _run_one(bench: Workbench, training: str) -> ExitCode:
    """Take one training, once it is free or its lease is stale, and carry it to its end. What a Job's pod runs."""
    interrupts = Interrupts()
    signal.signal(signal.SIGTERM, lambda *_: interrupts.draining.set())
    try:
        name = TrainingName.parse(training)
        watch = LeaseWatch()
        while True:
            record, etag = TrainingStore(bench.store).read(name)
            if record.state.is_final:
                return ExitCode.FAILED if record.failure else ExitCode.DONE
            if not record.holder or watch.is_stale(name, etag, time.monotonic()):
                return run_training(bench, name, etag, interrupts)
            # A live holder renews once in this time, and then the lease is not ours to take.
            if interrupts.draining.wait(HEARTBEAT_S):
                return ExitCode.HANDED_OVER
    except (MalformedName, ResourceMissing) as error:
        _logger.error("%s", error)
        return ExitCode.FAILED
    except StoreError as error:
        _logger.warning("cannot look at %s: %s", training, error)
        return ExitCode.TRY_AGAIN


def _stay_warm(bench: Workbench) -> int:
    """Run the trainings that the parent names, one after another, until standard input closes."""
    # The terminal's Ctrl-C reaches the parent too, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Standard output is for answers alone: what a library prints must not be taken for one.
    pipe = Pipe(os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    bench.tell = pipe.tell
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    jobs: queue.SimpleQueue[tuple[TrainingName, str] | None] = queue.SimpleQueue()
    present = _Present()
    threading.Thread(target=_listen, args=(jobs, present), name="orders", daemon=True).start()
    _say(pipe, {"ready": True, "device": device_of(bench.device).model_dump()})
    while True:
        job = jobs.get()
        if job is None:
            return ExitCode.DONE
        name, etag = job
        interrupts = present.begin(name)
        try:
            exit_code = run_training(bench, name, etag, interrupts)
        finally:
            present.end()
        _say(pipe, {"ended": str(name), "exit_code": int(exit_code)})
        if bench.is_suspect:
            # The parent replaces us.
            return exit_code


class _Present:
    """The training that runs now, and its interrupts; orders about any other are moot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: TrainingName | None = None
        self._interrupts = Interrupts()
        self._draining = False

    def begin(self, name: TrainingName) -> Interrupts:
        with self._lock:
            self._name, self._interrupts = name, Interrupts()
            if self._draining:
                self._interrupts.draining.set()
            return self._interrupts

    def end(self) -> None:
        with self._lock:
            self._name = None

    def cancel(self, name: TrainingName) -> None:
        with self._lock:
            if self._name == name:
                self._interrupts.cancelled.set()

    def drain(self) -> None:
        with self._lock:
            self._draining = True
            self._interrupts.draining.set()


def _listen(jobs: "queue.SimpleQueue[tuple[TrainingName, str] | None]", present: _Present) -> None:
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            jobs.put((TrainingName.parse(order["run"]), order["etag"]))
        elif "cancel" in order:
            present.cancel(TrainingName.parse(order["cancel"]))
    present.drain()
    jobs.put(None)


def _say(pipe: Pipe, message: dict[str, object]) -> None:
    try:
        pipe.say(message)
    except BrokenPipeError:
        # The parent is gone; standard input closes too, and that ends us.
        _logger.warning("the parent no longer listens")


if __name__ == "__main__":
    sys.exit(main())
