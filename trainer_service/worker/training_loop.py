"""The training loop, for every base-model family: DreamBooth (Ruiz et al. 2022, https://arxiv.org/abs/2208.12242).

Its one rule: randomness is a function of (seed, step), so a resumed run equals an uninterrupted one. It yields what
happened; it knows no gRPC, bucket or job.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from accelerate import Accelerator
from torch import Tensor

from base_models.family import BaseModel
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.examples import Examples
from trainer_service.worker.gradients import Gradients
from trainer_service.worker.guard import EVERY, Guard, Verdict
from trainer_service.worker.processes import exchange
from trainer_service.worker.readings import Reading, Readings
from trainer_service.worker.trainee import Trainee, Values, Weights
from trainer_service.worker.validation import Validation

_FINAL_RATE = 0.1
_PROBE_FAILED, _STEP_FAILED = "GRADIENT_CHECKPOINTING_ON", "OUT_OF_MEMORY_RETRIED"
MEMORY_RAN_OUT = frozenset({_PROBE_FAILED, _STEP_FAILED})
"""Reasons of notices after which memory was held in full."""


@dataclass(frozen=True)
class Step:
    """A finished optimizer step, and what became known by then of it and of earlier ones."""

    step: int
    learning_rate: float
    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class Validated:
    """The weights that count were validated; `best` so far, or not."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True)
class SampleDue:
    """The base model now draws with the weights that count, until the iteration goes on."""

    step: int


@dataclass(frozen=True)
class Noticed:
    """Something a person should know."""

    reason: str
    message: str


@dataclass(frozen=True)
class Standing:
    """Where a training stands beside its weights. `finished`: no step will follow."""

    finished: bool = False
    lowered: int = 0
    bad_steps: tuple[int, ...] = ()
    best_step: int = 0
    best_loss: float | None = None
    validations_since_best: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything a resumed run needs, on the CPU. `best`: the weights of the best validation; empty before one."""

    step: int
    weights: Weights
    best: Values
    standing: Standing


@dataclass(frozen=True)
class Learned:
    """The end: PEFT state dicts by part. The base model wears them until the iteration goes on."""

    chosen_step: int
    validation_loss: float | None
    adapter: dict[str, dict[str, Tensor]]


class NonFiniteLoss(Exception):
    """Neither skipping steps nor lower rates helped."""


Moment = Step | Validated | SampleDue | Noticed | Snapshot | Learned


def train(
    base: BaseModel,
    examples: Examples,
    config: TrainingConfig,
    accelerator: Accelerator,
    resume: Snapshot | None,
    snapshot_due: Callable[[int], bool],
) -> Iterator[Moment]:
    """Train an adapter on `base`, which wears it while the iteration runs and is as before afterwards.

    Yields every Step, a Snapshot after those for which `snapshot_due(step)` is true and after the last, Learned last.
    Raises NonFiniteLoss, OutOfMemory.
    """
    # ---- Build: the adapter, what computes its gradients, what watches over it.
    with Trainee(base, config, accelerator) as trainee:
        gradients = Gradients(trainee, examples, config, accelerator)
        validation = Validation(base, examples, config, accelerator)
        readings = Readings()

        # ---- Resume: with randomness a function of the step, these are all there is to restore.
        done, best, standing = 0, Values(), Standing()
        if resume is not None:
            trainee.restore(resume.weights)
            done, best, standing = resume.step, resume.best, resume.standing
        guard = Guard(standing.bad_steps, standing.lowered)
        good = resume.weights if resume is not None else trainee.weights()
        if gradients.probe():
            yield Noticed(_PROBE_FAILED, "memory would not suffice without computing activations twice")

        # ---- The loop. `step` counts optimizer steps from 1.
        while not standing.finished and done < config.steps:
            step = done + 1
            factor = schedule(step, config) * guard.rate_scale
            if gradients.compute(step):
                yield Noticed(_STEP_FAILED, f"memory ran out at step {step}; it goes on in smaller parts")
            trainee.step(factor, gradients.finite)
            readings.add(step, gradients.loss, gradients.finite)
            done, last = step, step == config.steps
            judging = last or step % EVERY == 0
            arrived = readings.arrived(through=step if last else step - EVERY if judging else 0)
            guard.note(arrived)
            yield Step(step, factor * config.learning_rate, tuple(arrived))

            # ---- What was not finite.
            verdict = (guard.last_verdict(step) if last else guard.verdict(step)) if judging else Verdict.GOOD
            if verdict is Verdict.FAIL:
                raise NonFiniteLoss(f"the loss or its gradient was not finite in too many steps up to {step}")
            if verdict is Verdict.SKIPPED:
                yield Noticed("NON_FINITE_SKIPPED", f"some steps up to {step} were not finite and changed nothing")
            if verdict is Verdict.LOWER:
                # Process 0's, because only it took snapshots.
                trainee.restore(exchange(good if accelerator.is_main_process else None)[0])
                yield Noticed("LEARNING_RATE_LOWERED", f"up to step {step} too little was finite; now at half the rate")

            # ---- Validation chooses what is published.
            if config.validate_every and (step % config.validate_every == 0 or last):
                with trainee.drawing():
                    loss = validation.loss()
                better = math.isfinite(loss) and (standing.best_loss is None or loss < standing.best_loss)
                best = trainee.drawn_values() if better else best
                standing = _validated(standing, step, loss, better, config.early_stop_patience)
                yield Validated(step, loss, better)
                if standing.finished:
                    yield Noticed("EARLY_STOPPED", f"no better validation since step {standing.best_step}")
            if config.sample_every and (step % config.sample_every == 0 or last):
                with trainee.drawing():
                    yield SampleDue(step)

            # ---- What a resumed run goes on from.
            if last or standing.finished or snapshot_due(step):
                standing = _with_guard(standing, guard, finished=last or standing.finished)
                snapshot = Snapshot(step, trainee.weights(), best, standing)
                good = good if guard.bad_steps else snapshot.weights
                yield snapshot

        # ---- The weights that count.
        with trainee.drawing(best or None):
            yield Learned(standing.best_step or done, standing.best_loss, trainee.adapter())


def schedule(step: int, config: TrainingConfig) -> float:
    """What the learning rate is multiplied with: linear warm-up, then a cosine to a tenth. `step` counts from 1."""
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    passed = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * passed))


def _validated(standing: Standing, step: int, loss: float, better: bool, patience: int) -> Standing:
    if better:
        return dataclasses.replace(standing, best_step=step, best_loss=loss, validations_since_best=0)
    since = standing.validations_since_best + 1
    return dataclasses.replace(standing, validations_since_best=since, finished=bool(patience) and since >= patience)


def _with_guard(standing: Standing, guard: Guard, finished: bool) -> Standing:
    return dataclasses.replace(
        standing, lowered=guard.lowered, bad_steps=tuple(sorted(guard.bad_steps)), finished=finished
    )
