"""The training loop on the bundled base model: exact resume, exact repetition, a base model left as it was."""

import hashlib
import math

import pytest
import torch

from base_models.catalog import BaseModelEntry
from base_models.families.stable_diffusion import StableDiffusion
from service_kit.memory_store import MemoryStore
from service_kit.names import TrainingName
from tests.unit.worker.loop_runs import run, same, same_state
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.checkpoints import Checkpoints
from trainer_service.worker.examples import Examples
from trainer_service.worker.training_loop import SampleDue, Snapshot, schedule

STEPS = 4
SMALL = {
    "steps": STEPS,
    "batch_size": 2,
    "rank": 4,
    "warmup_steps": 2,
    "caption_dropout": 0.3,
    "targets": "attention",
    "validate_every": 2,
    "sample_every": 0,
}
KINDS = {
    "lora": {},
    "everything": {"targets": "all", "adapter_type": "dora", "text_encoder_learning_rate": 1e-3, "ema_decay": 0.9},
    "prodigy": {"optimizer": "prodigy", "noise_offset": 0.1, "loss_weighting": "p2"},
    "accumulated": {"gradient_accumulation": 2, "loss_weighting": "debiased"},
}
QUICK_KINDS, SLOW_KINDS = ("lora", "everything"), ("prodigy", "accumulated")


def configured(entry: BaseModelEntry, given: dict) -> TrainingConfig:
    return decide(SMALL | given, entry, seed=3, images=4, subject="a picture of sks character")


@pytest.fixture(scope="module")
def config(entry: BaseModelEntry) -> TrainingConfig:
    return configured(entry, {})


def fingerprint(base: StableDiffusion) -> str:
    total = hashlib.sha256()
    for module in base.adaptable.values():
        for name, value in sorted(module.state_dict().items()):
            total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def stored(snapshot: Snapshot) -> Snapshot:
    """A snapshot as it comes back from the bucket."""
    checkpoints = Checkpoints(MemoryStore(), TrainingName("default", "t"), epoch=1)
    checkpoints.save(snapshot)
    loaded = checkpoints.load(checkpoints.latest())
    assert loaded is not None
    return loaded


@pytest.mark.parametrize("kind", [*QUICK_KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS)])
def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    base: StableDiffusion, examples: Examples, entry: BaseModelEntry, kind: str
) -> None:
    config = configured(entry, KINDS[kind])
    whole = run(base, examples, config)
    first = run(base, examples, config, stop_at=STEPS // 2)
    rest = run(base, examples, config, resume=stored(first.snapshots[-1]))
    assert first.losses | rest.losses == whole.losses
    assert same_state(rest.snapshots[-1], whole.snapshots[-1])
    for part, tensors in whole.learned.adapter.items():
        assert same(rest.learned.adapter[part], tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_model_is_left_bit_equal_even_when_the_run_is_abandoned(
    base: StableDiffusion, examples: Examples, entry: BaseModelEntry, kind: str
) -> None:
    before = fingerprint(base)
    run(base, examples, configured(entry, KINDS[kind]), stop_at=1)
    assert fingerprint(base) == before


def test_a_resume_at_the_last_step_only_gives_what_was_learned(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    whole = run(base, examples, config)
    again = run(base, examples, config, resume=whole.snapshots[-1])
    assert again.losses == {}
    assert same(again.learned.adapter["unet"], whole.learned.adapter["unet"])
    assert again.learned.chosen_step == whole.learned.chosen_step


def test_another_seed_gives_another_adapter(base: StableDiffusion, examples: Examples, config: TrainingConfig) -> None:
    one = run(base, examples, config, stop_at=2)
    other = run(base, examples, config.model_copy(update={"seed": 4}), stop_at=2)
    assert not same(one.snapshots[-1].weights.own, other.snapshots[-1].weights.own)


def test_the_first_step_starts_from_the_base_model(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    low = run(base, examples, config.model_copy(update={"rank": 2, "alpha": 2.0}), stop_at=1)
    high = run(base, examples, config, stop_at=1)
    dora = run(base, examples, config.model_copy(update={"adapter_type": "dora"}), stop_at=1)
    assert low.losses[1] == pytest.approx(high.losses[1], rel=1e-5)
    assert dora.losses[1] == pytest.approx(high.losses[1], rel=1e-4)


def test_the_prior_loss_is_added_with_its_weight(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    def first_loss(weight: float) -> float:
        prior = examples.subject if weight else None
        found = Examples(examples.subject, examples.validation, examples.empty_prompt, prior)
        return run(base, found, config.model_copy(update={"prior_weight": weight}), stop_at=1).losses[1]

    alone, half, whole = (first_loss(weight) for weight in (0.0, 0.5, 1.0))
    assert whole - alone == pytest.approx(2 * (half - alone), rel=1e-4)
    assert whole > alone


def test_accumulating_two_batches_is_one_batch_of_both(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    both = run(base, examples, config.model_copy(update={"batch_size": 4}), stop_at=2)
    parts = run(base, examples, config.model_copy(update={"batch_size": 2, "gradient_accumulation": 2}), stop_at=2)
    assert parts.losses == pytest.approx(both.losses, rel=1e-5)


def test_gradient_checkpointing_changes_nothing_but_memory(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    plain = run(base, examples, config, stop_at=2)
    saving = run(base, examples, config.model_copy(update={"gradient_checkpointing": "always"}), stop_at=2)
    assert saving.losses == pytest.approx(plain.losses, rel=1e-6)
    assert not base.denoiser.is_gradient_checkpointing


def test_the_best_validation_is_what_is_learned(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    # A rate at which the weights soon only get worse.
    wild = config.model_copy(update={"learning_rate": 0.1, "validate_every": 1, "warmup_steps": 0})
    found = run(base, examples, wild)
    best = min(found.validations, key=lambda validated: validated.loss)
    assert best.step < STEPS, "nothing to choose: every step was better than the one before"
    assert best.best
    assert (found.learned.chosen_step, found.learned.validation_loss) == (best.step, best.loss)
    until = run(base, examples, wild.model_copy(update={"validate_every": 0}), stop_at=best.step)
    assert same(found.snapshots[-1].best, until.snapshots[-1].weights.own)


def test_training_ends_early_where_asked_once_validation_gets_no_better(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    wild = config.model_copy(
        update={"learning_rate": 0.1, "validate_every": 1, "warmup_steps": 0, "early_stop_patience": 2, "steps": 40}
    )
    found = run(base, examples, wild)
    last = max(found.losses)
    assert last == found.learned.chosen_step + 2 < 40
    assert found.snapshots[-1].standing.finished
    resumed = run(base, examples, wild, resume=found.snapshots[-1])
    assert resumed.losses == {}
    assert same(resumed.learned.adapter["unet"], found.learned.adapter["unet"])


def test_the_average_is_what_is_validated_and_learned(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    found = run(base, examples, config.model_copy(update={"ema_decay": 0.5, "validate_every": 0}))
    weights = found.snapshots[-1].weights
    assert not same(weights.average, weights.own)
    learned = found.learned.adapter["unet"]
    assert same(
        {f"unet.{name.replace('.weight', '.subject.weight')}": learned[name] for name in learned}, weights.average
    )


@pytest.mark.slow
def test_samples_are_drawn_by_the_weights_that_count(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    seen = {}

    def draw(moment: object) -> None:
        if isinstance(moment, SampleDue):
            seen[moment.step] = base.generate(["a picture of sks character"], [0], 64)

    before = base.generate(["a picture of sks character"], [0], 64)
    run(base, examples, config.model_copy(update={"sample_every": 2, "learning_rate": 0.02}), on_moment=draw)
    assert list(seen) == [2, 4]
    assert not torch.equal(seen[2], before)
    assert not torch.equal(seen[2], seen[4])
    assert torch.equal(base.generate(["a picture of sks character"], [0], 64), before)


def test_the_rate_warms_up_and_falls_to_a_tenth(config: TrainingConfig) -> None:
    long = config.model_copy(update={"steps": 100, "warmup_steps": 10})
    rates = [schedule(step, long) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.55, abs=0.02)
    assert rates[-1] == pytest.approx(0.1)
    assert all(math.isfinite(rate) for rate in rates)
