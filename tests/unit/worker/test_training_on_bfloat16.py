"""Training on a base model whose frozen weights are held in bfloat16: what is learned, and what is proven, is exact."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from base_models.adapters.adapter_file import write_adapter
from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.traits import FAMILIES
from tests.unit.worker.loop_runs import run
from tests.unit.worker.test_sdxl_training import config_of
from trainer_service.worker.autocast import accelerator_for, config_on, weights_dtype
from trainer_service.worker.exact_forward import in_float32
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.proof import AdapterNotReproduced, AdapterWithoutEffect, make_probe, prove
from trainer_service.worker.trainee import Trainee
from trainer_service.worker.training_loop import Learned, train

CPU = torch.device("cpu")
PROMPTS = [f"a picture of sks person, {word}" for word in ("happy", "sad", "neutral")]


@pytest.fixture(scope="module")
def base(tiny_sdxl: BaseModelEntry) -> Any:
    return load_base_model(tiny_sdxl, CPU, torch.bfloat16)


@pytest.fixture(scope="module")
def examples(base: Any) -> Examples:
    pixels = list(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    subject = encode(base, pixels, PROMPTS, [None] * 3, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


def test_a_gpu_holds_what_the_family_asks_for_and_a_cpu_float32() -> None:
    flux, sdxl = FAMILIES["FluxPipeline"], FAMILIES["StableDiffusionXLPipeline"]
    gpu = torch.device("cuda")
    assert [weights_dtype(flux, gpu), weights_dtype(flux, CPU)] == [torch.bfloat16, torch.float32]
    assert [weights_dtype(sdxl, gpu), weights_dtype(sdxl, CPU)] == [torch.float32, torch.float32]


@pytest.mark.parametrize("asked", ["float32", "float16", "bfloat16"])
def test_whatever_is_asked_for_it_is_computed_in_bfloat16(base: Any, tiny_sdxl: BaseModelEntry, asked: str) -> None:
    assert config_on(base, config_of(tiny_sdxl, precision=asked)).precision == "bfloat16"


@pytest.mark.parametrize("kind", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_what_is_learned_is_float32_and_what_is_published_does_the_same(
    base: Any, tiny_sdxl: BaseModelEntry, examples: Examples, kind: str
) -> None:
    given = {"adapter_type": kind, "rank": 2, "alpha": 3.0, "text_encoder_learning_rate": 0.005, "steps": 3}
    config = config_on(base, config_of(tiny_sdxl, **given))
    before = {name: value.clone() for name, value in base.denoiser.state_dict().items()}
    probe = make_probe(base, examples.subject)
    for moment in train(base, examples, config, accelerator_for(config, CPU), None, lambda step: False):
        if isinstance(moment, Learned):
            predictions_BCHW = probe.predictions(base)
            body = write_adapter(moment.adapter, config.alpha / config.rank)
            assert {value.dtype for part in moment.adapter.values() for value in part.values()} == {torch.float32}
    prove(base, body, probe, predictions_BCHW)
    assert all(torch.equal(value, before[name]) for name, value in base.denoiser.state_dict().items())

    twice = write_adapter(moment.adapter, 1.01 * config.alpha / config.rank)
    with pytest.raises(AdapterNotReproduced):
        prove(base, twice, probe, predictions_BCHW)


def test_an_adapter_without_effect_is_told_from_one_with_a_small_one(
    base: Any, tiny_sdxl: BaseModelEntry, examples: Examples
) -> None:
    config = config_on(base, config_of(tiny_sdxl))
    probe = make_probe(base, examples.subject)
    with Trainee(base, config, accelerator_for(config, CPU)) as trainee, trainee.drawing():
        untrained = trainee.adapter()
        predictions_BCHW = probe.predictions(base)
    with pytest.raises(AdapterWithoutEffect):
        prove(base, write_adapter(untrained, 1.0), probe, predictions_BCHW)


def test_it_learns_what_it_learns_on_float32(base: Any, tiny_sdxl: BaseModelEntry, examples: Examples) -> None:
    exact = load_base_model(tiny_sdxl, CPU)
    config = config_of(tiny_sdxl, steps=4)
    subject = replace(examples.subject, conditioning=exact.encode_prompts(PROMPTS))
    expected = run(exact, Examples(subject, subject, encode_empty_prompt(exact), None), config).losses
    found = {}
    halves = config_on(base, config)
    for moment in train(base, examples, halves, accelerator_for(halves, CPU), None, lambda step: False):
        found |= {reading.step: reading.loss for reading in getattr(moment, "readings", ())}
    assert found == pytest.approx(expected, rel=0.02)


def test_computing_in_float32_is_that_of_weights_that_were_widened_for_good(
    base: Any, tiny_sdxl: BaseModelEntry, examples: Examples
) -> None:
    widened: Any = load_base_model(tiny_sdxl, CPU, torch.bfloat16)
    for module in widened.adaptable.values():
        module.float()
    probe = make_probe(base, examples.subject)
    held = {name: value.data_ptr() for name, value in base.denoiser.named_parameters()}
    said_BCHW = probe.predictions(base)
    # The denoiser's inputs are rounded once, as by the family; in between nothing is.
    assert (said_BCHW - probe.predictions(widened)).abs().max() < 0.02
    assert {name: value.data_ptr() for name, value in base.denoiser.named_parameters()} == held
    with pytest.raises(TypeError), in_float32([base.denoiser]):
        base.denoiser(None)
    assert {value.dtype for value in base.denoiser.parameters()} == {torch.bfloat16}
