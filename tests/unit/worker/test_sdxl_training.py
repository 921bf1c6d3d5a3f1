"""Training a small random SDXL: the loop against its equations, and what becomes of both text encoders.

Shapes: B batch, C channels, H/W height and width of latents.
"""

import math
from typing import Any

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from base_models.adapter_file import write_adapter
from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from tests.benchmarks.our_loop import dictation
from tests.unit.worker.loop_runs import run
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import make_probe, prove
from trainer_service.worker.trainee import Trainee
from trainer_service.worker.training_loop import Learned, train

STEPS = 10
PROMPTS = [f"a picture of sks person, {word}" for word in ("happy", "sad", "neutral")]


@pytest.fixture(scope="module")
def base(tiny_sdxl: BaseModelEntry) -> Any:
    return load_base_model(tiny_sdxl, torch.device("cpu"))


@pytest.fixture
def plain(tiny_sdxl: BaseModelEntry) -> Any:
    """The pipeline as anybody loads it."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.folder, dtype=torch.float32, add_watermarker=False)
    for part in ("unet", "text_encoder", "text_encoder_2", "vae"):
        pipeline.components[part].requires_grad_(False)
    return pipeline


@pytest.fixture(scope="module")
def pixels() -> list[Tensor]:
    return list(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)


@pytest.fixture(scope="module")
def examples(base: Any, pixels: list[Tensor]) -> Examples:
    subject = encode(base, pixels, PROMPTS, [None] * 3, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


def config_of(tiny_sdxl: BaseModelEntry, **given: Any) -> TrainingConfig:
    quick = {"steps": STEPS, "batch_size": 2, "learning_rate": 0.02, "warmup_steps": 2, "precision": "float32"}
    without = {"sample_every": 0, "validate_every": 0, "caption_dropout": 0.0}
    return decide(quick | without | given, tiny_sdxl, seed=1, images=3, subject="a picture of sks person")


class PlainLoop:
    """Low-rank training of a UNet's attention as its equations say, on nothing but diffusers and torch."""

    def __init__(self, pipeline: Any, pixels: list[Tensor], start: dict[str, Tensor], config: TrainingConfig) -> None:
        self._pipeline, self._config = pipeline, config
        with torch.no_grad():
            posterior = pipeline.vae.encode(torch.stack(pixels)).latent_dist
            self._latents_NCHW = posterior.mean * pipeline.vae.config.scaling_factor
            self._prompt_NTD, _, self._pooled_ND, _ = pipeline.encode_prompt(PROMPTS, negative_prompt=[""] * 3)
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self._kept = (1 - betas).cumprod(0)
        self._layers = {name.partition(".lora_A.")[0] for name in start if ".lora_A." in name}
        self._values = {name: value.clone().requires_grad_() for name, value in start.items()}
        self._moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in start.items()}

    def step(self, step: int, rows: list[int], noise_BCHW: Tensor, timesteps_B: Tensor) -> float:
        """The loss of a step, and then the step."""
        # x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e (Ho et al. 2020, equation 4).
        kept_B111 = self._kept[timesteps_B].view(-1, 1, 1, 1)
        noisy_BCHW = kept_B111.sqrt() * self._latents_NCHW[rows] + (1 - kept_B111).sqrt() * noise_BCHW
        told = {
            "text_embeds": self._pooled_ND[rows],
            "time_ids": torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]] * len(rows)),
        }
        predicted_BCHW = torch.func.functional_call(
            self._pipeline.unet,
            {f"{layer}.weight": self._weight(layer) for layer in self._layers},
            (noisy_BCHW, timesteps_B, self._prompt_NTD[rows]),
            {"added_cond_kwargs": told},
        ).sample
        loss = (predicted_BCHW - noise_BCHW).square().mean()
        gradients = torch.autograd.grad(loss, list(self._values.values()))
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        rate = self._rate(step)
        with torch.no_grad():
            for (name, value), gradient in zip(self._values.items(), gradients, strict=True):
                self._adamw(step, rate, value, gradient * min(1.0, 1.0 / norm), *self._moments[name])
        return loss.item()

    def _weight(self, layer: str) -> Tensor:
        # W + alpha / r B A (Hu et al. 2021, equation 3).
        a, b = (self._values[f"{layer}.lora_{half}.subject.weight"] for half in "AB")
        scale = self._config.alpha / self._config.rank
        return self._pipeline.unet.get_submodule(layer).weight + scale * (b @ a)

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a tenth."""
        if step <= 2:
            return 0.02 * step / 2
        return 0.02 * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - 2) / (STEPS - 2))))

    def _adamw(self, step: int, rate: float, value: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> None:
        """Loshchilov and Hutter 2019, algorithm 2."""
        first.mul_(0.9).add_(0.1 * gradient)
        second.mul_(0.99).add_(0.01 * gradient.square())
        value -= rate * 1e-3 * value
        value -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)


def test_ten_steps_have_the_losses_of_the_equations(
    base: Any, plain: Any, tiny_sdxl: BaseModelEntry, pixels: list[Tensor], examples: Examples
) -> None:
    config = config_of(tiny_sdxl)
    with Trainee(base, config, Accelerator(cpu=True)) as trainee:
        start = {name.removeprefix("unet."): value for name, value in trainee.weights().own.items()}
    loop = PlainLoop(plain, pixels, start, config)
    wanted = {}
    for step in range(1, STEPS + 1):
        dictated = dictation(base, examples, config, step)
        wanted[step] = loop.step(step, dictated.rows, dictated.noise_BCHW, dictated.timesteps_B)
    found = run(base, examples, config)
    assert found.losses == pytest.approx(wanted, rel=1e-3)
    # The adapter made a difference to them.
    untrained = run(base, examples, config_of(tiny_sdxl, learning_rate=1e-9))
    assert found.losses != pytest.approx(untrained.losses, rel=1e-2)


def test_both_text_encoders_learn_and_the_adapter_is_proven_and_loads_into_plain_diffusers(
    base: Any, plain: Any, tiny_sdxl: BaseModelEntry, examples: Examples
) -> None:
    config = config_of(tiny_sdxl, steps=4, text_encoder_learning_rate=0.02)
    probe = make_probe(base, examples.subject)
    for moment in train(base, examples, config, Accelerator(cpu=True), None, lambda step: False):
        if isinstance(moment, Learned):
            body = write_adapter(moment.adapter, config.alpha / config.rank)
            trained_BCHW = probe.predictions(base)
            wanted = {part: values.detach().clone() for part, values in base.encode_prompts(PROMPTS).items()}
    prove(base, body, probe, trained_BCHW)
    tensors = safetensors.torch.load(body)
    for part in ("unet", "text_encoder", "text_encoder_2"):
        learned = [value for name, value in tensors.items() if name.startswith(f"{part}.") and ".lora_B." in name]
        assert any(value.abs().max() > 0 for value in learned), part
    untuned_BTD = base.encode_prompts(PROMPTS)["prompt_BTD"]
    plain.load_lora_weights(tensors)
    with torch.no_grad():
        prompt_BTD, _, pooled_BD, _ = plain.encode_prompt(PROMPTS, do_classifier_free_guidance=False)
    assert torch.allclose(prompt_BTD, wanted["prompt_BTD"], atol=1e-4)
    assert torch.allclose(pooled_BD, wanted["pooled_BD"], atol=1e-4)
    assert (prompt_BTD - untuned_BTD).abs().max() > 1e-2


@pytest.mark.slow
def test_a_resumed_training_of_the_text_encoders_is_bit_equal(
    base: Any, tiny_sdxl: BaseModelEntry, examples: Examples
) -> None:
    """The last layer of the first encoder says nothing to the UNet, so its layers never have a gradient."""
    config = config_of(tiny_sdxl, steps=4, text_encoder_learning_rate=0.02)
    whole = run(base, examples, config)
    half = run(base, examples, config, stop_at=2)
    rest = run(base, examples, config, resume=half.snapshots[-1])
    assert (half.losses | rest.losses) == whole.losses
    for part, tensors in whole.learned.adapter.items():
        assert all(torch.equal(value, rest.learned.adapter[part][name]) for name, value in tensors.items())
