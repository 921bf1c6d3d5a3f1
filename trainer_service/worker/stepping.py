"""Drives the training loop: reports, checkpoints, interrupts, and what the trained network is like at the end.

Its one rule: weights that are not finite reach neither a checkpoint nor an adapter.
"""

import math
import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from base_models.adapter_file import write_adapter
from base_models.family import BaseModel
from service_kit.store import ObjectStore
from trainer_service.events import CheckpointSaved
from trainer_service.training_config import TrainingConfig
from trainer_service.training_record import TrainingRecord
from trainer_service.worker.checkpoints import Checkpoints
from trainer_service.worker.examples import Examples
from trainer_service.worker.faults import TrainingFault
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.proof import Probe, make_probe
from trainer_service.worker.reporter import INTERVAL_S, Reporter
from trainer_service.worker.training_loop import Snapshot, Step, train


@dataclass(frozen=True)
class Trained:
    """What the loop leaves: the adapter's file, and what the trained network says to the probe."""

    body: bytes
    probe: Probe
    predictions_BCHW: Tensor


def step_through(
    store: ObjectStore,
    record: TrainingRecord,
    base: BaseModel,
    examples: Examples,
    keeper: LeaseKeeper,
    interrupts: Interrupts,
    reporter: Reporter,
) -> Trained:
    """Run the loop from the last checkpoint to the last step. Raises TrainingFault and what interrupts the training."""
    config = record.config
    checkpoints = Checkpoints(store, record.name, record.epoch)
    resume = checkpoints.load()
    if resume is not None:
        reporter.notice("RESUMED", f"goes on from the checkpoint of step {resume.step}")
    probe = make_probe(base, examples.subject)

    def snapshot_due(step: int) -> bool:
        return step % config.checkpoint_every == 0 or interrupts.draining.is_set()

    losses: list[Tensor] = []
    reported_s = time.monotonic()
    for moment in train(base, examples, config, accelerator_for(config, base.device), resume, snapshot_due):
        if isinstance(moment, Snapshot):
            if resume is None or moment.step > resume.step:
                _check_finite(moment)
                checkpoints.save(moment)
                keeper.change(lambda record, step=moment.step: record.checkpointed(step))
                reporter.report(CheckpointSaved(step=moment.step))
            interrupts.check()
            if moment.step == config.steps:
                body = write_adapter({next(iter(base.adaptable)): moment.lora}, config.alpha / config.rank)
                return Trained(body, probe, probe.predictions(base))
            continue
        keeper.completed_steps = moment.step
        losses.append(moment.loss)
        if time.monotonic() - reported_s >= INTERVAL_S or moment.step == config.steps:
            _report(moment, losses, config, reporter)
            losses, reported_s = [], time.monotonic()
        interrupts.check_before_checkpoint()
    raise AssertionError("the loop ends with a snapshot of the last step")


def _report(latest: Step, losses: list[Tensor], config: TrainingConfig, reporter: Reporter) -> None:
    # The only place where the loop waits for the device, a few times a second.
    loss = torch.stack(losses).mean().item()
    if not math.isfinite(loss):
        raise TrainingFault(
            "NON_FINITE_LOSS", f"the loss became {loss} near step {latest.step}; lower the learning rate"
        )
    reporter.progress(latest.step, config.steps, loss, latest.learning_rate)


def _check_finite(snapshot: Snapshot) -> None:
    if not all(bool(torch.isfinite(value).all()) for value in snapshot.lora.values()):
        raise TrainingFault(
            "NON_FINITE_LOSS", f"weights are not finite at step {snapshot.step}; lower the learning rate"
        )


def accelerator_for(config: TrainingConfig, device: torch.device) -> Accelerator:
    """What casts and scales as the config's precision asks."""
    # A warm worker's trainings may differ in precision, which accelerate otherwise fixes for the life of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision="bf16" if config.precision == "bfloat16" else "no", cpu=device.type == "cpu")
