"""A training from its lease to its end, in the order of the design's eight steps.

Its one rule: whatever happens, the training is afterwards ended, or can be taken by another worker.
"""

import dataclasses
import gc
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import torch
from opentelemetry.trace import Tracer

from base_models.catalog import BaseModelEntry
from base_models.family import BaseModel
from base_models.likeness.appearance import squares
from base_models.likeness.judge import Judge
from base_models.loading import load_base_model
from base_models.weights.placement import PlacementName
from service_kit import schema
from service_kit.call_context import arrived, present_ids, span
from service_kit.document import UnreadableDocument
from service_kit.errors import ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import ObjectStore, StoreError
from trainer_service.ending import end_free_training, end_training
from trainer_service.handing_back import say_handed_back
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import Stage, State
from trainer_service.training_record import MAX_FRUITLESS_TAKES, LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.autocast import weights_dtype
from trainer_service.worker.evaluating import Candidate, evaluate_if_possible
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.faults import TrainingFault, failure_of
from trainer_service.worker.interrupts import Cancelled, Draining, Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.preparing import prepare
from trainer_service.worker.processes import ProcessLost, exchange
from trainer_service.worker.proof import prove
from trainer_service.worker.publishing import Outcome, have_swept_if_deleted, is_published, publish
from trainer_service.worker.report_file import report_if_possible
from trainer_service.worker.reporter import Reporter
from trainer_service.worker.sampling import Sampler, stored_samples
from trainer_service.worker.stepping import step_through
from trainer_service.worker.stopwatch import Stopwatch
from trainer_service.worker.telling import Account, Tell
from trainer_service.worker.watchdog import Watchdog, let_go_and_leave

_logger = logging.getLogger(__name__)

_SUSPECT = {"INTERNAL", "OUT_OF_MEMORY"}


@dataclass
class Workbench:
    """What a worker keeps between trainings. `bases` holds the loaded base models by name."""

    store: ObjectStore
    base_models: Mapping[str, BaseModelEntry]
    holder: str
    now: Callable[[], datetime]
    device: torch.device
    judge_for: Callable[[BaseModelEntry], Judge | None]
    """Loads the judge of a base model, or says that there is none."""
    patience: float = 1.0
    """Factor on how long a stage may give no sign of life."""
    leave: Callable[[int], object] = os._exit
    """Ends this process when a stage is stuck."""
    tracer: Tracer | None = None
    """Where spans go; None: nobody collects them."""
    tell: Tell = lambda said: None
    """Takes what the service that started this worker counts."""
    bases: dict[str, BaseModel] = field(default_factory=dict)
    is_suspect: bool = False
    """Set by an error of unknown origin or a want of memory: who knows what it left; another process goes on better."""

    def entry(self, name: str) -> BaseModelEntry:
        """The base model's entry on the allow-list. Raises TrainingFault."""
        entry = self.base_models.get(name)
        if entry is None:
            allowed = ", ".join(self.base_models)
            raise TrainingFault("BASE_MODEL_UNAVAILABLE", f"this worker may use {allowed}, not {name}")
        return entry

    def base(self, entry: BaseModelEntry) -> BaseModel:
        """The loaded base model; only the latest stays loaded."""
        if entry.name not in self.bases:
            self.bases.clear()
            # Parts that visit know who calls them in, and so themselves: counting references does not free them.
            gc.collect()
            self.bases[entry.name] = _loaded(entry, self.device)
        return self.bases[entry.name]


def _loaded(entry: BaseModelEntry, device: torch.device) -> BaseModel:
    # On a GPU, what only prepares and draws leaves the memory to the steps in between.
    placement: PlacementName | None = "on_request" if device.type == "cuda" else None
    return load_base_model(entry, device, weights_dtype(entry.traits, device), placement)


def run_training(bench: Workbench, name: TrainingName, seen_etag: str, interrupts: Interrupts) -> ExitCode:
    """Take a training and carry it to its end.

    seen_etag: the record's ETag when it was seen to be free, or its lease to be stale; anything newer is left alone.
    """
    records = TrainingStore(bench.store)
    with arrived({"project": name.project, "training": str(name), "worker": bench.holder}, None, {}):
        try:
            record, etag = records.read(name)
            if etag != seen_etag or record.state.is_final:
                return ExitCode.TRY_AGAIN
            return _take_and_run(bench, records, record, etag, interrupts)
        except (LeaseLost, StoreError, ResourceMissing) as error:
            _logger.warning("%s: left to another worker: %s", name, error)
            bench.tell({"lease_lost": True})
            return ExitCode.TRY_AGAIN


def _take_and_run(
    bench: Workbench, records: TrainingStore, record: TrainingRecord, etag: str, interrupts: Interrupts
) -> ExitCode:
    """In the trace of the call that created the training, as every worker's part of it."""
    with (
        arrived(dict(present_ids()), bench.tracer, {"traceparent": record.traceparent}),
        span("training", training=str(record.name), epoch=record.epoch + 1, worker=bench.holder),
    ):
        with span("take"):
            try:
                # Read before the taking, so that nothing stands between it and the first event.
                writer = JournalWriter(bench.store, record.name, record.epoch + 1, bench.now)
                only_end = writer.has_ended or is_published(bench.store, record)
            except UnreadableDocument as error:
                return _give_up(bench, record, etag, error)
            record = record.taken(bench.holder, bench.now())
            records.replace(record, etag)
        _logger.info("%s: taken in epoch %d", record.name, record.epoch)
        try:
            with LeaseKeeper(records, record, interrupts, bench.now) as keeper:
                return _run_to_end(bench, record, keeper, interrupts, None if only_end else writer)
        except (LeaseLost, StoreError):
            have_swept_if_deleted(bench.store, record)
            raise


def _give_up(bench: Workbench, record: TrainingRecord, etag: str, error: UnreadableDocument) -> ExitCode:
    """End a training that no worker can begin: each would try it first, and none would come to what waits behind it."""
    _logger.error("%s cannot be carried out", record.name, exc_info=error)
    ended = end_free_training(bench.store, record, etag, State.FAILED, failure_of(error), bench.now)
    bench.tell({"ended": str(ended.state), "reason": ended.failure.reason if ended.failure else ""})
    return ExitCode.FAILED if ended.state is State.FAILED else ExitCode.DONE


def _run_to_end(
    bench: Workbench,
    record: TrainingRecord,
    keeper: LeaseKeeper,
    interrupts: Interrupts,
    writer: JournalWriter | None,
) -> ExitCode:
    state, failure = State.SUCCEEDED, None
    try:
        if writer is None:
            # An earlier worker published, or wrote the last event, and died: only the end is left.
            keeper.move(State.TRAINING)
            keeper.move(State.PUBLISHING)
        else:
            _carry_out(bench, record, keeper, interrupts, writer)
    except (LeaseLost, StoreError):
        raise
    except Draining:
        say_handed_back(bench.store, keeper.change(lambda record: record.released()), bench.now)
        return ExitCode.HANDED_OVER
    except ProcessLost as error:
        # No fault of the training's; but where it happens every time, its takes are counted.
        _logger.error("%s: handed back: %s", record.name, error)
        say_handed_back(bench.store, keeper.change(lambda record: record.abandoned(record.holder)), bench.now)
        return ExitCode.TRY_AGAIN
    except Cancelled:
        state = State.CANCELLED
    except Exception as error:
        state, failure = State.FAILED, failure_of(error)
        bench.is_suspect = failure.reason in _SUSPECT
        _logger.error("%s: failed", record.name, exc_info=error)
    keeper.stop()
    with span("end", state=str(state)):
        end_training(bench.store, keeper.change(lambda record: record), state, failure, bench.now)
    bench.tell({"ended": str(state), "reason": failure.reason if failure else ""})
    return ExitCode.FAILED if state is State.FAILED else ExitCode.DONE


def _carry_out(
    bench: Workbench, record: TrainingRecord, keeper: LeaseKeeper, interrupts: Interrupts, writer: JournalWriter
) -> None:
    """Prepare, train, prove, evaluate, report, publish.

    Returns when the adapter exists; raises what interrupts or fails the training.
    """
    if record.fruitless_takes > MAX_FRUITLESS_TAKES:
        raise TrainingFault(
            "WORKER_CRASHED",
            f"{MAX_FRUITLESS_TAKES} workers in a row did not come as far as the next checkpoint; see their logs",
        )
    if record.cancel_requested:
        raise Cancelled
    entry = bench.entry(record.base_model)
    stopwatch = Stopwatch(bench.device)

    def leave(exit_code: int) -> None:
        if exit_code == ExitCode.FAILED:
            bench.tell({"ended": str(State.FAILED), "reason": "STAGE_STUCK"})
        bench.leave(exit_code)

    let_go = let_go_and_leave(bench.store, keeper, bench.now, leave)
    with (
        Reporter(writer, keeper, interrupts, Account(bench.tell)) as reporter,
        Watchdog(lambda: reporter.sign_of_life, bench.patience, let_go),
    ):

        def report(done: int, total: int) -> None:
            interrupts.check()
            reporter.progress(done, total)

        reporter.stage(Stage.LOADING_BASE_MODEL)
        exchange(record)
        with span("load base model", base_model=entry.name):
            base = bench.base(entry)
        with span("prepare"):
            prepared = prepare(bench.store, record, entry, base, report, reporter.stage)
        reporter.stage(Stage.STEPPING)
        sampler = Sampler(bench.store, record, base, prepared.pictures, reporter)
        with span("train"):
            trained = step_through(
                bench.store, record, base, prepared.examples, sampler, stopwatch, keeper, interrupts, reporter
            )
        reporter.stage(Stage.PROVING)
        with span("prove"):
            prove(base, trained.body, trained.probe, trained.predictions_BCHW)
        reporter.stage(Stage.EVALUATING)
        with span("evaluate"):
            evaluation = evaluate_if_possible(
                base,
                Candidate(record, trained.body, squares(prepared.pictures, record.config.resolution)),
                lambda: bench.judge_for(entry),
                keeper.change(lambda record: record).fruitless_takes,
                report,
                reporter,
            )
        reporter.stage(Stage.UPLOADING)
        outcome = Outcome(
            trained.body, trained.chosen_step, trained.validation_loss, evaluation, stored_samples(bench.store, record)
        )
        with span("report"):
            report_file = report_if_possible(
                bench.store, record, prepared, outcome, reporter, interrupts.check, bench.now
            )
        with span("publish"):
            outcome = dataclasses.replace(outcome, report=report_file)
            publish(bench.store, record, prepared.dataset, base.digest, entry.pipeline, outcome, bench.now)
        speed = stopwatch.speed(record, entry, len(prepared.pictures))
        if speed is not None:
            bench.store.put(schema.training_speed(record.base_model), speed.to_json())
