"""Low-rank layers in one piece compute what peft's layers compute: layer by layer, and on the whole base model."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from base_models.adapters.worn_adapters import take_off
from base_models.families.stable_diffusion import StableDiffusion
from trainer_service.worker.fused_lora import fuse

LAYERS = {
    "linear": lambda: nn.Linear(12, 20),
    "linear without bias": lambda: nn.Linear(12, 20, bias=False),
    "pointwise": lambda: nn.Conv2d(12, 20, 1),
    "pointwise with a stride": lambda: nn.Conv2d(12, 20, 1, stride=2),
    "convolution": lambda: nn.Conv2d(12, 20, 3, padding=1),
    "convolution with a stride": lambda: nn.Conv2d(12, 20, 3, stride=2, padding=1),
    "convolution with a wide margin": lambda: nn.Conv2d(12, 20, 3, padding=2, bias=False),
    "convolution with a mirrored margin": lambda: nn.Conv2d(12, 20, 3, padding=1, padding_mode="reflect"),
}


def with_adapter(layer: nn.Module, dora: bool = False) -> nn.Module:
    """The layer in a model that wears an adapter whose matrices are both not zero and whose scale is not 1."""
    model = nn.Sequential(layer).requires_grad_(False)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False, use_dora=dora)
    return inject_adapter_in_model(config, model, "subject")


def outcome(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What it says, and the gradients of all that is trained and of its input."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    y = model(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {"y": y.detach(), "x": x.grad} | gradients


def input_for(layer: nn.Module) -> Tensor:
    return torch.randn((2, 5, 12) if isinstance(layer, nn.Linear) else (2, 12, 6, 6))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == expected[name].dtype, name
        assert (value - expected[name]).norm() <= tolerance * expected[name].norm(), name


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_a_layer_in_one_piece_says_and_learns_what_pefts_does(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    layer = make()
    x, model = input_for(layer), with_adapter(layer)
    fused = copy.deepcopy(model)
    fuse(fused, "subject")
    assert ("forward" in vars(fused[0])) is (getattr(layer, "padding_mode", "zeros") == "zeros")
    assert_close(outcome(fused, x), outcome(model, x), 1e-5)


@pytest.mark.parametrize("name", ["linear", "pointwise", "convolution"])
def test_it_computes_in_the_number_format_that_autocast_asks_for(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x, model = input_for(layer), with_adapter(layer)
    exact = outcome(model, x)
    fuse(model, "subject")
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(model, x)
    assert found.pop("y").dtype == torch.bfloat16
    del exact["y"]
    assert_close(found, exact, 2e-2)


def test_dora_is_left_to_peft() -> None:
    model = with_adapter(nn.Linear(12, 20), dora=True)
    fuse(model, "subject")
    assert "forward" not in vars(model[0])


def test_the_base_model_says_and_learns_the_same_and_is_as_before_afterwards(base: StableDiffusion) -> None:
    targets = base.lora_modules("all")
    noisy_BCHW, prompt_BTD = torch.randn(2, 4, 16, 16), torch.randn(2, 40, 192)
    timesteps_B = torch.tensor([100, 900])

    def says_and_learns() -> dict[str, Tensor]:
        base.denoiser.zero_grad()
        y = base.predict(noisy_BCHW, timesteps_B, {"prompt_BTD": prompt_BTD})
        y.square().mean().backward()
        named = base.denoiser.named_parameters()
        return {"y": y.detach()} | {name: value.grad.clone() for name, value in named if value.requires_grad}

    with torch.no_grad():
        before = base.predict(noisy_BCHW, timesteps_B, {"prompt_BTD": prompt_BTD})
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights="gaussian")
    base.denoiser.add_adapter(lora, adapter_name="subject")
    try:
        for name, value in base.denoiser.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(value, std=0.02)
        expected = says_and_learns()
        fuse(base.denoiser, "subject")
        assert_close(says_and_learns(), expected, 1e-4)
        assert not torch.equal(expected["y"], before)
    finally:
        take_off({"unet": base.denoiser})
    with torch.no_grad():
        assert torch.equal(base.predict(noisy_BCHW, timesteps_B, {"prompt_BTD": prompt_BTD}), before)
