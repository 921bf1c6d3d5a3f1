"""Drives the training loop: reports, samples, checkpoints, interrupts, and what the adapter is at the end.

Its one rule: weights that are not finite reach neither a checkpoint nor an adapter.
"""

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from base_models.adapters.adapter_file import write_adapter
from base_models.family import BaseModel
from service_kit.call_context import span
from service_kit.store import ObjectStore
from trainer_service.events import CheckpointSaved
from trainer_service.events import Validated as ValidatedEvent
from trainer_service.training_config import TrainingConfig
from trainer_service.training_record import TrainingRecord
from trainer_service.worker.autocast import accelerator_for, config_on
from trainer_service.worker.checkpoints import Checkpoints
from trainer_service.worker.examples import Examples
from trainer_service.worker.faults import TrainingFault
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.processes import exchange
from trainer_service.worker.proof import Probe, make_probe
from trainer_service.worker.readings import Reading
from trainer_service.worker.reporter import INTERVAL_S, Reporter
from trainer_service.worker.sampling import Sampler
from trainer_service.worker.stopwatch import Stopwatch
from trainer_service.worker.training_loop import (
    MEMORY_RAN_OUT,
    Learned,
    Noticed,
    SampleDue,
    Snapshot,
    Step,
    Validated,
    train,
)


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the adapter's file, where it comes from, and what its network says to the probe."""

    body: bytes
    chosen_step: int
    validation_loss: float | None
    probe: Probe
    predictions_BCHW: Tensor


def step_through(
    store: ObjectStore,
    record: TrainingRecord,
    base: BaseModel,
    examples: Examples,
    sampler: Sampler,
    stopwatch: Stopwatch,
    keeper: LeaseKeeper,
    interrupts: Interrupts,
    reporter: Reporter,
) -> Trained:
    """Run the loop from the last checkpoint to its end. Raises TrainingFault and what interrupts the training."""
    config = _on_this_base(record.config, base, reporter)
    checkpoints = Checkpoints(store, record.name, record.epoch)
    pointer = checkpoints.latest()
    resume = checkpoints.load(pointer)
    if resume is not None:
        reporter.notice("RESUMED", f"goes on from the checkpoint of step {resume.step}")
    probe = make_probe(base, examples.subject)

    def snapshot_due(step: int) -> bool:
        return step % config.checkpoint_every == 0 or interrupts.draining.is_set()

    def check_between_pictures() -> None:
        reporter.alive()
        interrupts.check_before_checkpoint()

    # The others prepare now, and go on from the same checkpoint.
    exchange(pointer)
    progress = _Progress(config, reporter)
    stopwatch.steps_begin()
    began_s = time.monotonic()
    for moment in train(base, examples, config, accelerator_for(config, base.device), resume, snapshot_due):
        reporter.alive()
        match moment:
            case Step():
                stopwatch.step_took(time.monotonic() - began_s)
                keeper.completed_steps = moment.step
                progress.note(moment)
                interrupts.check_before_checkpoint()
            case Validated():
                reporter.report(ValidatedEvent(step=moment.step, loss=moment.loss, best=moment.best))
            case SampleDue():
                with span("draw samples", step=moment.step), stopwatch.drawing(len(config.sample_prompts)):
                    sampler.draw(moment.step, check_between_pictures)
            case Noticed():
                if moment.reason in MEMORY_RAN_OUT:
                    stopwatch.memory_ran_out()
                reporter.notice(moment.reason, moment.message)
            case Snapshot():
                _check_finite(moment.weights.own, moment.step)
                with span("checkpoint", step=moment.step):
                    checkpoints.save(moment)
                    keeper.change(lambda record, step=moment.step: record.checkpointed(step))
                reporter.report(CheckpointSaved(step=moment.step))
                interrupts.check()
            case Learned():
                body = write_adapter(moment.adapter, config.alpha / config.rank)
                return Trained(body, moment.chosen_step, moment.validation_loss, probe, probe.predictions(base))
        began_s = time.monotonic()
    raise AssertionError("the loop ends with what was learned")


class _Progress:
    """Turns steps into a progress a few times a second, of what is known by then."""

    def __init__(self, config: TrainingConfig, reporter: Reporter) -> None:
        self._config, self._reporter = config, reporter
        self._readings: list[Reading] = []
        self._reported_s = time.monotonic()

    def note(self, step: Step) -> None:
        self._readings += step.readings
        if time.monotonic() - self._reported_s < INTERVAL_S and step.step < self._config.steps:
            return
        losses = [reading.loss for reading in self._readings if math.isfinite(reading.loss)]
        loss = statistics.fmean(losses) if losses else None
        self._reporter.progress(step.step, self._config.steps, loss, step.learning_rate)
        self._readings, self._reported_s = [], time.monotonic()


def _on_this_base(config: TrainingConfig, base: BaseModel, reporter: Reporter) -> TrainingConfig:
    usable = config_on(base, config)
    if usable.precision != config.precision:
        where = "a CPU" if base.device.type == "cpu" else "this GPU"
        held = str(base.denoiser.dtype).removeprefix("torch.")
        message = (
            f"{where}, holding the base model in {held}, does not train in {config.precision}; "
            f"it is {usable.precision} instead"
        )
        reporter.notice("PRECISION_REPLACED", message)
    return usable


def _check_finite(tensors: dict[str, Tensor], step: int) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise TrainingFault("NON_FINITE_LOSS", f"weights are not finite at step {step}; lower the learning rate")
