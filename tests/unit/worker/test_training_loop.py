"""The training loop on the bundled base model: exact resume, exact repetition, a base model left as it was."""

import hashlib
import math

import pytest
import torch
from accelerate import Accelerator

from base_models.catalog import BaseModelEntry
from base_models.stable_diffusion import StableDiffusion
from service_kit.memory_store import MemoryStore
from service_kit.names import TrainingName
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.checkpoints import Checkpoints
from trainer_service.worker.examples import Examples
from trainer_service.worker.training_loop import Snapshot, Step, example_order, learning_rate_at, train

STEPS = 6


@pytest.fixture(scope="module")
def config(entry: BaseModelEntry) -> TrainingConfig:
    return decide({"steps": STEPS, "batch_size": 2, "warmup_steps": 2, "caption_dropout": 0.3}, entry, seed=3)


def fingerprint(module: torch.nn.Module) -> str:
    total = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        total.update(name.encode() + value.numpy().tobytes())
    return total.hexdigest()


def run(
    base: StableDiffusion, examples: Examples, config: TrainingConfig, resume: Snapshot | None = None, stop_at: int = 0
) -> tuple[list[float], Snapshot]:
    """Losses and the last snapshot of a run, abandoned after the snapshot of step `stop_at` where one is given."""
    losses = []
    for moment in train(base, examples, config, Accelerator(cpu=True), resume, lambda step: step == stop_at):
        if isinstance(moment, Step):
            losses.append(moment.loss.item())
        elif moment.step == (stop_at or config.steps):
            return losses, moment
    raise AssertionError("the loop ended without its last snapshot")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_run_is_bit_equal_to_an_uninterrupted_one(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    whole_losses, whole = run(base, examples, config)
    first_losses, half = run(base, examples, config, stop_at=STEPS // 2)
    checkpoints = Checkpoints(MemoryStore(), TrainingName("default", "t"), epoch=1)
    checkpoints.save(half)
    rest_losses, resumed = run(base, examples, config, resume=checkpoints.load())
    assert first_losses + rest_losses == whole_losses
    assert equal(resumed.lora, whole.lora)
    assert equal(resumed.optimizer, whole.optimizer)


def test_a_resume_at_the_last_step_only_gives_the_last_snapshot(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    _, whole = run(base, examples, config)
    losses, again = run(base, examples, config, resume=whole)
    assert losses == []
    assert equal(again.lora, whole.lora)


def test_another_seed_gives_another_adapter(base: StableDiffusion, examples: Examples, config: TrainingConfig) -> None:
    _, one = run(base, examples, config)
    _, other = run(base, examples, config.model_copy(update={"seed": 4}))
    assert not equal(one.lora, other.lora)


@pytest.mark.parametrize("targets", ["attention", "attention_and_convolution", "all"])
def test_the_base_model_is_left_bit_equal_even_when_the_run_is_abandoned(
    base: StableDiffusion, examples: Examples, config: TrainingConfig, targets: str
) -> None:
    before = fingerprint(base.denoiser)
    run(base, examples, config.model_copy(update={"targets": targets}), stop_at=1)
    assert fingerprint(base.denoiser) == before


def test_the_first_step_starts_from_the_base_model(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    low = config.model_copy(update={"rank": 2, "alpha": 2.0})
    (first_low, *_), _ = run(base, examples, low, stop_at=1)
    (first, *_), _ = run(base, examples, config, stop_at=1)
    assert first_low == pytest.approx(first, rel=1e-5)


def test_the_prior_loss_is_added_with_its_weight(
    base: StableDiffusion, examples: Examples, config: TrainingConfig
) -> None:
    alone, _ = run(base, examples, config, stop_at=1)
    with_prior = Examples(examples.subject, examples.empty_prompt, prior=examples.subject)
    half, _ = run(base, with_prior, config.model_copy(update={"prior_weight": 0.5}), stop_at=1)
    whole, _ = run(base, with_prior, config.model_copy(update={"prior_weight": 1.0}), stop_at=1)
    assert whole[0] - alone[0] == pytest.approx(2 * (half[0] - alone[0]), rel=1e-4)
    assert whole[0] > alone[0]


def test_min_snr_weights_follow_the_paper(base: StableDiffusion) -> None:
    timesteps_B = torch.tensor([0, 500, 999])
    alphas_B = base.pipeline.scheduler.alphas_cumprod[timesteps_B]
    snr_B = alphas_B / (1 - alphas_B)
    # toon-64 predicts v: the weight is min(SNR, gamma) / (SNR + 1).
    expected_B = torch.minimum(snr_B, torch.tensor(5.0)) / (snr_B + 1)
    assert torch.allclose(base.min_snr_weights(timesteps_B, 5.0), expected_B)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth(config: TrainingConfig) -> None:
    long = config.model_copy(update={"steps": 100, "warmup_steps": 10, "learning_rate": 1.0})
    rates = [learning_rate_at(step, long) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.55, abs=0.02)
    assert rates[-1] == pytest.approx(0.1)
    assert all(math.isfinite(rate) for rate in rates)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
def test_every_epoch_shows_every_example_once(batch_size: int) -> None:
    count, epochs = 5, 4
    shown = [
        index
        for position in range(0, count * epochs, batch_size)
        for index in example_order(9, count, position, batch_size)
    ][: count * epochs]
    for epoch in range(epochs):
        assert sorted(shown[epoch * count : (epoch + 1) * count]) == list(range(count))
