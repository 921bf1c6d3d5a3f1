"""Training a small random SDXL: what becomes of both text encoders.

Shapes: B batch, C channels, H/W height and width of latents.
"""

from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from tests.unit.worker.loop_runs import run
from trainer_service.training_config import TrainingConfig, decide
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import make_probe, prove
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


def test_both_text_encoders_learn_and_the_adapter_is_proven_and_loads_into_plain_diffusers(
    base: Any, plain: Any, tiny_sdxl: BaseModelEntry, examples: Examples
) -> None:
    config = config_of(tiny_sdxl, steps=4, text_encoder_learning_rate=0.02)
    probe = make_probe(base, examples.subject)
    for moment in train(base, examples, config, accelerator_for(config, torch.device("cpu")), None, lambda step: False):
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
