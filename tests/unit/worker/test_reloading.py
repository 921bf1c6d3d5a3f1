"""A base model that wears an adapter's file: exactly what was trained, and nothing of it afterwards."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from torch import Tensor

from base_models.adapters.adapter_file import AdapterInvalid, write_adapter
from base_models.adapters.worn_adapters import put_on, take_off
from base_models.families.stable_diffusion import StableDiffusion
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter
from trainer_service.worker.examples import Examples
from trainer_service.worker.proof import make_probe
from trainer_service.worker.reloading import reloaded

PROMPT = ["a picture of sks character, happy"]


def _weights(base: StableDiffusion) -> dict[str, Tensor]:
    return {
        f"{prefix}.{name}": tensor.clone()
        for prefix, module in base.adaptable.items()
        for name, tensor in module.state_dict().items()
    }


def _assert_same_weights(base: StableDiffusion, before: Mapping[str, Tensor]) -> None:
    after = _weights(base)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for module in base.adaptable.values() for parameter in module.parameters())


def _trained(base: StableDiffusion, targets: Mapping[str, list[str]], is_dora: bool) -> dict[str, dict[str, Tensor]]:
    """Have the modules wear what a training would have left, and return its PEFT state dicts."""
    parts = {}
    for prefix, names in targets.items():
        torch.manual_seed(1)
        configuration = LoraConfig(r=4, lora_alpha=2, use_dora=is_dora, init_lora_weights=False, target_modules=names)
        inject_adapter_in_model(configuration, base.adaptable[prefix], "subject")
        part = get_peft_model_state_dict(base.adaptable[prefix], adapter_name="subject", save_embedding_layers=False)
        with torch.no_grad():
            for name, tensor in part.items():
                tensor.mul_(1.1 if name.endswith("magnitude_vector") else 0.3)
        parts[prefix] = {name: tensor.clone() for name, tensor in part.items()}
    return parts


@pytest.mark.parametrize("is_dora", [False, True], ids=["lora", "dora"])
@pytest.mark.parametrize(
    "targets",
    [{"unet": ALL}, {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}, {"text_encoder": TEXT_ATTENTION}],
    ids=["all", "attention-and-text", "text"],
)
def test_a_reloaded_file_does_what_the_trained_network_did(
    base: StableDiffusion, examples: Examples, targets: dict[str, list[str]], is_dora: bool
) -> None:
    probe, before = make_probe(base, examples.subject), _weights(base)

    @torch.no_grad()
    def says() -> tuple[Tensor, Tensor]:
        return probe.predictions(base), base.encode_prompts(PROMPT)["prompt_BTD"]

    untuned = says()
    try:
        parts = _trained(base, targets, is_dora)
        trained = says()
    finally:
        take_off(base.adaptable)
    with reloaded(base, write_adapter(parts, scale=0.5)):
        again = says()
    for found, wanted, plain, prefix in zip(again, trained, untuned, ("unet", "text_encoder"), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)
        if prefix in targets:
            assert not torch.allclose(found, plain, atol=1e-2)
    _assert_same_weights(base, before)
    for found, plain in zip(says(), untuned, strict=True):
        assert torch.equal(found, plain)


def test_what_fails_under_an_adapter_and_a_file_that_is_refused_leave_the_base_model_as_it_was(
    base: StableDiffusion,
) -> None:
    before = _weights(base)
    body = random_adapter(base.adaptable, {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}, seed=1)
    with pytest.raises(ZeroDivisionError), reloaded(base, body):
        raise ZeroDivisionError
    _assert_same_weights(base, before)
    with pytest.raises(AdapterInvalid), reloaded(base, body[:-1]):
        pass
    _assert_same_weights(base, before)


def test_tensors_that_a_module_does_not_take_are_an_error_and_leave_nothing(base: StableDiffusion) -> None:
    modules: dict[str, Any] = {"unet": base.denoiser}
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{layer}.lora_A.weight": torch.ones(2, base.denoiser.get_submodule(layer.removeprefix("unet.")).in_features),
        f"{layer}.lora_B.weight": torch.ones(base.denoiser.get_submodule(layer.removeprefix("unet.")).out_features, 2),
        f"{layer}.lora_C.weight": torch.ones(1),
    }
    before = _weights(base)
    try:
        with pytest.raises(RuntimeError, match="not every tensor"):
            put_on(modules, tensors, "test")
        assert "test" not in base.denoiser.peft_config
    finally:
        take_off(modules)
    _assert_same_weights(base, before)
