"""Every family's training: the loop against its equations, the density of its timesteps, and the adapter's proof.

Shapes: B batch, C channels, H/W height and width of latents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BaseModelEntry
from base_models.family import shape_of
from tests.benchmarks.our_loop import dictation
from tests.families.family_case import FamilyCase, FlowCase
from tests.plain_training import PlainTraining
from tests.unit.worker.loop_runs import run
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import make_probe, prove
from trainer_service.worker.trainee import Trainee
from trainer_service.worker.training_loop import Learned, train

STEPS = 10
# So different in length that no filling up makes them equal.
PROMPTS = [f"a picture of sks person{words}" for words in (", happy", ", blue street" * 9, ", neutral")]


@pytest.fixture(scope="module")
def pixels_NCHW(case: FamilyCase) -> Tensor:
    return torch.rand(3, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def examples(base: Any, pixels_NCHW: Tensor) -> Examples:
    subject = encode(base, list(pixels_NCHW), PROMPTS, [None] * 3, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


def config_of(entry: BaseModelEntry, case: FamilyCase, **given: Any) -> TrainingConfig:
    quick = {"steps": STEPS, "batch_size": 2, "learning_rate": 0.02, "warmup_steps": 2, "precision": "float32"}
    without = {"sample_every": 0, "validate_every": 0, "caption_dropout": 0.0, "resolution": case.size}
    return decide(quick | without | given, entry, seed=1, images=3, subject="a picture of sks person")


def test_ten_steps_have_the_losses_of_the_equations(
    case: FamilyCase, entry: BaseModelEntry, base: Any, plain: Any, pixels_NCHW: Tensor, examples: Examples
) -> None:
    config, denoiser = config_of(entry, case, targets=case.trained), plain.components[entry.traits.denoiser]
    with Trainee(base, config, accelerator_for(config, torch.device("cpu"))) as trainee:
        start = trainee.weights().own
    start = {name.removeprefix(f"{entry.traits.denoiser}."): value for name, value in start.items()}
    with torch.no_grad():
        latents_NCHW = case.encode(plain, pixels_NCHW)

    def loss(weights: Mapping[str, Tensor], rows: Sequence[int], noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        latents_BCHW = latents_NCHW[list(rows)]
        noisy_BCHW = case.noisy(latents_BCHW, noise_BCHW, timesteps_B)
        with torch.no_grad():
            told = case.told(plain, [PROMPTS[row] for row in rows])
        output = torch.func.functional_call(
            denoiser, dict(weights), (), case.forward(plain, noisy_BCHW, timesteps_B, told)
        )
        said_BCHW = case.said(plain, output, shape_of(latents_BCHW))
        return (said_BCHW - case.target(latents_BCHW, noise_BCHW, timesteps_B)).square().mean()

    plain_training = PlainTraining(denoiser, start, config, loss)
    wanted = {}
    for step in range(1, STEPS + 1):
        dictated = dictation(base, examples, config, step)
        wanted[step] = plain_training.step(step, dictated.rows, dictated.noise_BCHW, dictated.timesteps_B)
    found = run(base, examples, config)
    assert found.losses == pytest.approx(wanted, rel=1e-3)
    # The adapter made a difference to them.
    untrained = run(base, examples, config_of(entry, case, targets=case.trained, learning_rate=1e-9))
    assert found.losses != pytest.approx(untrained.losses, rel=1e-2)


def test_timesteps_are_logit_normal_and_shifted_as_the_pipelines_are(
    case: FamilyCase, entry: BaseModelEntry, base: Any
) -> None:
    if not isinstance(case, FlowCase):
        pytest.skip("its timesteps are equally likely")
    shape = base.latent_shape(case.size, 2 * case.size)
    uniform_B = torch.arange(1, 100) / 100
    normal_B = torch.special.ndtri(uniform_B)
    unshifted_B = 1 / (1 + torch.exp(-normal_B))
    shift = case.shift(base.scheduler_config, case.size * 2 * case.size, entry.generation.steps)
    # Esser et al. 2024, equation 23.
    wanted_B = shift * unshifted_B / (1 + (shift - 1) * unshifted_B)
    assert torch.allclose(base.timesteps(uniform_B, shape), 1000 * wanted_B, rtol=1e-4)
    ends_B = base.timesteps(torch.tensor([0.0, 1.0 - 2**-24]), shape)
    assert ends_B.isfinite().all()
    assert (base.snr(ends_B) > 0).all()
    assert base.snr(ends_B).isfinite().all()


# FLUX.1's norms hold float32 weights against autocast's bfloat16 and warn that this is not the fastest.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_changes_losses_by_its_rounding(
    case: FamilyCase, entry: BaseModelEntry, base: Any, examples: Examples
) -> None:
    exact, rounded = (
        run(base, examples, config_of(entry, case, steps=2, precision=which)).losses
        for which in ("float32", "bfloat16")
    )
    assert rounded == pytest.approx(exact, rel=1e-2)
    assert rounded != exact


def test_computing_activations_twice_changes_no_loss(
    case: FamilyCase, entry: BaseModelEntry, base: Any, examples: Examples
) -> None:
    once, twice = (
        run(base, examples, config_of(entry, case, steps=2, gradient_checkpointing=which)).losses
        for which in ("never", "always")
    )
    assert twice == pytest.approx(once, rel=1e-5)


def test_what_is_learned_is_proven_from_its_file(
    case: FamilyCase, entry: BaseModelEntry, base: Any, examples: Examples
) -> None:
    is_text_adaptable = len(entry.traits.adaptable) > 1
    config = config_of(entry, case, steps=3, text_encoder_learning_rate=0.02 if is_text_adaptable else 0.0)
    probe = make_probe(base, examples.subject)
    for moment in train(base, examples, config, accelerator_for(config, torch.device("cpu")), None, lambda step: False):
        if isinstance(moment, Learned):
            body = write_adapter(moment.adapter, config.alpha / config.rank)
            trained_BCHW = probe.predictions(base)
            assert set(moment.adapter) == set(entry.traits.adaptable)
    prove(base, body, probe, trained_BCHW)


def test_pictures_and_latents_are_the_autoencoders_whatever_autocast_says(
    case: FamilyCase, base: Any, plain: Any, pixels_NCHW: Tensor
) -> None:
    def there_and_back() -> tuple[Tensor, Tensor]:
        latents_BCHW = base.encode_images(pixels_NCHW)
        return latents_BCHW, base.decode_latents(latents_BCHW)

    with torch.no_grad():
        exact = there_and_back()
        with torch.autocast("cpu", torch.bfloat16):
            hurried = there_and_back()
        wanted_BCHW = case.encode(plain, pixels_NCHW)
    assert all(torch.equal(one, other) for one, other in zip(exact, hurried, strict=True))
    assert torch.allclose(exact[0], wanted_BCHW, atol=1e-5)
    assert exact[0].shape[1:] == base.latent_shape(case.size, case.size)
