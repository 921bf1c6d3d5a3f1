"""Exported files in plain diffusers: the picture that the adapter itself makes, and what diffusers drops of a DoRA."""

import logging
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from base_models.adapters.adapter_export import KeyNames, renamed, stored_tensors, write_safetensors
from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.worn_adapters import put_on, take_off, wear
from base_models.catalog import read_allow_list
from base_models.pipelines import adaptable_modules, load_pipeline
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.base_models.latents_of import latents, latents_with

SD = "StableDiffusionPipeline"
QUICK = ("attention", "kohya")
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"targets": {"unet": ATTENTION}},
    "all": {"targets": {"unet": ALL}},
    "with-text-encoder": {"targets": {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION}},
    "dora": {"targets": {"unet": ALL, "text_encoder": TEXT_ATTENTION}, "is_dora": True},
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(read_allow_list(["toon-64"])["toon-64"], torch.device("cpu"), torch.float32)


def latents_with_export(pipeline: Any, folder: Path, body: bytes, key_names: KeyNames) -> Tensor:
    """Latents with an exported file, as anybody loads it."""
    exported = write_safetensors(renamed(stored_tensors(body), key_names, SD), {"modelspec.title": "x"})
    (folder / "exported.safetensors").write_bytes(exported)
    try:
        pipeline.load_lora_weights(folder, weight_name="exported.safetensors")
        return latents(pipeline)
    finally:
        pipeline.unload_lora_weights()


@pytest.mark.parametrize(
    ("kind", "key_names"),
    [
        pytest.param(kind, key_names, marks=() if (kind, key_names) == QUICK else pytest.mark.slow)
        for kind in KINDS
        for key_names in ("diffusers", "kohya")
        if (kind, key_names) != ("dora", "kohya")
    ],
)
def test_plain_diffusers_draws_the_adapters_picture_from_its_export(
    pipeline: Any, tmp_path: Path, kind: str, key_names: KeyNames, caplog: pytest.LogCaptureFixture
) -> None:
    body = random_adapter(adaptable_modules(pipeline), seed=1, **KINDS[kind])
    wanted = latents_with(pipeline, body)
    with caplog.at_level(logging.WARNING):
        found = latents_with_export(pipeline, tmp_path, body, key_names)
    assert (found - wanted).abs().max() <= 1e-3
    assert (found - latents(pipeline)).abs().max() > 0.1
    # Where nothing is for the text encoder, it says so.
    complaints = [message for message in caplog.messages if "No LoRA keys associated to CLIPTextModel" not in message]
    assert complaints == []


@pytest.mark.slow
def test_diffusers_says_that_it_leaves_out_the_magnitudes_of_a_dora_in_kohyas_names(
    pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = random_adapter(adaptable_modules(pipeline), seed=1, **KINDS["dora"])
    tensors = safetensors.torch.load(body)
    without = {name: tensor for name, tensor in tensors.items() if "magnitude" not in name}
    with caplog.at_level(logging.WARNING):
        found = latents_with_export(pipeline, tmp_path, body, "kohya")
    assert any("filter out the keys associated to 'dora_scale`" in message for message in caplog.messages)
    assert (found - latents_with(pipeline, safetensors.torch.save(without))).abs().max() <= 1e-3
    assert (found - latents_with(pipeline, body)).abs().max() > 0.1


@pytest.mark.parametrize("layer", ["conv_in", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"])
def test_a_dora_scale_means_what_it_means_to_lycoris(pipeline: Any, layer: str) -> None:
    """Its definition: W' = dora_scale * (W + up @ down * alpha / rank) / the norms of that by output."""
    modules = {"unet": pipeline.unet}
    body = random_adapter(modules, {"unet": [layer]}, seed=2, is_dora=True)
    exported = safetensors.torch.load(write_safetensors(renamed(stored_tensors(body), "kohya", SD), {}))
    kohya = f"lora_unet_{layer.replace('.', '_')}"
    module = pipeline.unet.get_submodule(layer)
    up, down = exported[f"{kohya}.lora_up.weight"], exported[f"{kohya}.lora_down.weight"]
    scale = exported[f"{kohya}.alpha"] / down.shape[0]
    merged = module.weight + scale * (up.flatten(1) @ down.flatten(1)).view_as(module.weight)
    norms = merged.flatten(1).norm(dim=1).view(-1, *[1] * (merged.dim() - 1))
    wanted = exported[f"{kohya}.dora_scale"] * merged / norms
    try:
        put_on(modules, read_adapter(body, modules), "own")
        wear(modules, {"own": 1.0})
        worn = pipeline.unet.get_submodule(layer)
        some = torch.randn(2, *merged.shape[1:], generator=torch.Generator().manual_seed(0))
        by_us = worn(some)
        plain = torch.nn.functional.conv2d if merged.dim() == 4 else torch.nn.functional.linear
        extra = {"padding": module.padding} if merged.dim() == 4 else {}
        by_definition = plain(some, wanted, module.bias, **extra)
    finally:
        take_off(modules)
    assert torch.allclose(by_us, by_definition, atol=1e-4)
