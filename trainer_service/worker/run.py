"""A training from its lease to its end, in the order of the design's eight steps.

Its one rule: whatever happens, the training is afterwards ended, or can be taken by another worker.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from base_models.adapter_file import AdapterInvalid, write_adapter
from base_models.catalog import BaseModelEntry
from base_models.family import BaseModel
from base_models.stable_diffusion import StableDiffusion
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectStore, StoreError
from trainer_service.ending import end_training
from trainer_service.events import CheckpointSaved, Failure
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import Stage, State
from trainer_service.training_config import TrainingConfig
from trainer_service.training_record import MAX_FRUITLESS_TAKES, LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.trainings import training_prompt
from trainer_service.worker.checkpoints import Checkpoints, DamagedCheckpoint
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.interrupts import Cancelled, Draining, Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.pictures import class_pictures, fetch_pictures
from trainer_service.worker.proof import AdapterNotReproduced, AdapterWithoutEffect, Probe, make_probe, prove
from trainer_service.worker.publishing import is_published, publish
from trainer_service.worker.reporter import INTERVAL_S, Reporter
from trainer_service.worker.training_loop import Snapshot, Step, train

_logger = logging.getLogger(__name__)


class ExitCode(IntEnum):
    """How a worker's work on a training ended; also its exit status where it does one and exits."""

    DONE = 0
    FAILED = 42
    TRY_AGAIN = 75
    HANDED_OVER = 143


class TrainingFault(Exception):
    """The training cannot succeed; `reason` and the text go into its failure."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class Workbench:
    """What a worker keeps between trainings. `bases` holds the loaded base models by name."""

    store: ObjectStore
    base_models: Mapping[str, BaseModelEntry]
    holder: str
    now: Callable[[], datetime]
    device: torch.device
    bases: dict[str, BaseModel] = field(default_factory=dict)

    def base(self, name: str) -> BaseModel:
        """The loaded base model; only the latest stays loaded."""
        if name not in self.bases:
            entry = self.base_models.get(name)
            if entry is None:
                raise TrainingFault(
                    "BASE_MODEL_UNAVAILABLE", f"this worker may use {', '.join(self.base_models)}, not {name}"
                )
            self.bases.clear()
            self.bases[name] = StableDiffusion(entry, self.device)
        return self.bases[name]


def run_training(bench: Workbench, name: TrainingName, seen_etag: str, interrupts: Interrupts) -> ExitCode:
    """Take a training and carry it to its end.

    seen_etag: the record's ETag when it was seen to be free, or its lease to be stale; anything newer is left alone.
    """
    records = TrainingStore(bench.store)
    record, etag = records.read(name)
    if etag != seen_etag or record.state.is_final:
        return ExitCode.TRY_AGAIN
    record = record.taken(bench.holder, bench.now())
    try:
        records.replace(record, etag)
    except ObjectChanged:
        return ExitCode.TRY_AGAIN
    _logger.info("%s: taken in epoch %d", name, record.epoch)
    with LeaseKeeper(records, record, interrupts, bench.now) as keeper:
        state, failure = State.SUCCEEDED, None
        try:
            _carry_out(bench, record, keeper, interrupts)
        except (LeaseLost, StoreError) as error:
            _logger.warning("%s: left to another worker: %s", name, error)
            return ExitCode.TRY_AGAIN
        except Draining:
            keeper.change(lambda record: record.released())
            return ExitCode.HANDED_OVER
        except Cancelled:
            state = State.CANCELLED
        except Exception as error:
            state, failure = State.FAILED, _failure(error)
            _logger.error("%s: failed", name, exc_info=error)
        keeper.stop()
        try:
            end_training(bench.store, keeper.change(lambda record: record), state, failure, bench.now)
        except (LeaseLost, StoreError) as error:
            _logger.warning("%s: its end is left to another worker: %s", name, error)
            return ExitCode.TRY_AGAIN
    return ExitCode.FAILED if state is State.FAILED else ExitCode.DONE


def _carry_out(bench: Workbench, record: TrainingRecord, keeper: LeaseKeeper, interrupts: Interrupts) -> None:
    """Prepare, train, prove, publish. Returns when the adapter exists; raises what interrupts or fails the training."""
    writer = JournalWriter(bench.store, record.name, record.epoch, bench.now)
    if writer.has_ended or is_published(bench.store, record):
        keeper.move(State.TRAINING)
        keeper.move(State.PUBLISHING)
        return
    if record.fruitless_takes > MAX_FRUITLESS_TAKES:
        raise TrainingFault(
            "WORKER_CRASHED", f"{MAX_FRUITLESS_TAKES} workers in a row died before the next checkpoint; see their logs"
        )
    if record.cancel_requested:
        raise Cancelled
    config = record.config
    with Reporter(writer, keeper, interrupts) as reporter:

        def report(done: int, total: int) -> None:
            interrupts.check()
            reporter.progress(done, total)

        reporter.stage(Stage.LOADING_BASE_MODEL)
        base = bench.base(record.base_model)
        reporter.stage(Stage.FETCHING_IMAGES)
        dataset = TrainingStore(bench.store).dataset(record.name)
        pixels_NCHW = fetch_pictures(bench.store, record.dataset_name, dataset, config.resolution, report)
        prior_NCHW = None
        class_prompt = f"a picture of a {record.class_noun}"
        if config.prior_weight:
            reporter.stage(Stage.GENERATING_CLASS_IMAGES)
            prior_NCHW = class_pictures(bench.store, base, class_prompt, config.prior_images, config.resolution, report)
        reporter.stage(Stage.ENCODING)
        prompts = [training_prompt(record.subject, image.caption) for image in dataset.images]
        examples = Examples(
            subject=encode(base, pixels_NCHW, prompts, report),
            empty_prompt=encode_empty_prompt(base),
            prior=None if prior_NCHW is None else encode(base, prior_NCHW, [class_prompt] * len(prior_NCHW), report),
        )
        reporter.stage(Stage.STEPPING)
        probe = make_probe(base, examples.subject)
        body, trained_BCHW = _step(bench, record, keeper, interrupts, reporter, base, examples, probe)
        reporter.stage(Stage.PROVING)
        prove(base, body, probe, trained_BCHW)
        reporter.stage(Stage.UPLOADING)
        publish(bench.store, record, dataset, base.digest, body, bench.now)


def _step(
    bench: Workbench,
    record: TrainingRecord,
    keeper: LeaseKeeper,
    interrupts: Interrupts,
    reporter: Reporter,
    base: BaseModel,
    examples: Examples,
    probe: Probe,
) -> tuple[bytes, Tensor]:
    """Run the loop with reports and checkpoints: the adapter file, and what the trained network says to the probe."""
    config = record.config
    checkpoints = Checkpoints(bench.store, record.name, record.epoch)
    resume = checkpoints.load()
    if resume is not None:
        reporter.notice("RESUMED", f"goes on from the checkpoint of step {resume.step}")

    def snapshot_due(step: int) -> bool:
        return step % config.checkpoint_every == 0 or interrupts.draining.is_set()

    losses: list[Tensor] = []
    reported_s = time.monotonic()
    body, trained_BCHW = b"", torch.empty(0)
    for moment in train(base, examples, config, _accelerator(config, bench.device), resume, snapshot_due):
        if isinstance(moment, Step):
            keeper.completed_steps = moment.step
            losses.append(moment.loss)
            if time.monotonic() - reported_s >= INTERVAL_S or moment.step == config.steps:
                # The only place where the loop waits for the device, a few times a second.
                loss = torch.stack(losses).mean().item()
                if not math.isfinite(loss):
                    raise TrainingFault(
                        "NON_FINITE_LOSS", f"the loss became {loss} near step {moment.step}; lower the rate"
                    )
                reporter.progress(moment.step, config.steps, loss, moment.learning_rate)
                losses, reported_s = [], time.monotonic()
            interrupts.check_before_checkpoint()
            continue
        if moment.step > (resume.step if resume else 0):
            _save(checkpoints, moment, keeper, reporter)
        interrupts.check()
        if moment.step == config.steps:
            body = write_adapter(moment.lora, base.prefix, config.alpha / config.rank)
            trained_BCHW = probe.predictions(base)
    return body, trained_BCHW


def _save(checkpoints: Checkpoints, snapshot: Snapshot, keeper: LeaseKeeper, reporter: Reporter) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in snapshot.lora.values()):
        raise TrainingFault(
            "NON_FINITE_LOSS", f"weights are not finite at step {snapshot.step}; lower the learning rate"
        )
    checkpoints.save(snapshot)
    keeper.change(lambda record: record.checkpointed(snapshot.step))
    reporter.report(CheckpointSaved(step=snapshot.step))


def _accelerator(config: TrainingConfig, device: torch.device) -> Accelerator:
    # A warm worker's trainings may differ in precision, which accelerate otherwise fixes for the life of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision="bf16" if config.precision == "bfloat16" else "no", cpu=device.type == "cpu")


def _failure(error: Exception) -> Failure:
    match error:
        case TrainingFault():
            return Failure(reason=error.reason, message=str(error))
        case AdapterWithoutEffect():
            return Failure(
                reason="ADAPTER_WITHOUT_EFFECT", message=f"{error}; train for more steps or at a higher rate"
            )
        case AdapterInvalid() | AdapterNotReproduced():
            return Failure(reason="ADAPTER_NOT_PROVEN", message=str(error))
        case DamagedCheckpoint():
            return Failure(reason="CHECKPOINT_DAMAGED", message=f"{error}; start the training again")
    return Failure(reason="INTERNAL", message="an unexpected error; the worker's log has it")
