"""FLUX.1's adapters and files of other programs on a small random transformer, ours against plain diffusers."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import FluxTransformer2DModel
from diffusers.loaders import FluxLoraLoaderMixin
from transformers import CLIPTextConfig, CLIPTextModel

from base_models.adapters.adapter_export import KeyNames, renamed, stored_tensors, write_safetensors
from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.adapter_import import import_adapter
from base_models.adapters.layer_shapes import LayerShapes
from base_models.adapters.worn_adapters import put_on, take_off, wear
from tests.flux_layers import TARGETS
from tests.random_adapter import TEXT_ATTENTION, random_adapter

FLUX = "FluxPipeline"
WIDTH = 32
# diffusers cuts the published model's single blocks by heart; those are tested at full size, beside this file.
ONLY_DOUBLE = ["transformer_blocks.0.attn.to_q", "attn.add_v_proj", "attn.to_add_out", "ff_context.net.2"]


@pytest.fixture(scope="module")
def transformer() -> Any:
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=WIDTH // 2,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 6, 6),
    ).eval()


@torch.no_grad()
def said(transformer: Any) -> torch.Tensor:
    """What it says about some noise."""
    dice = torch.Generator().manual_seed(1)
    return transformer(
        hidden_states=torch.randn(2, 4, 16, generator=dice),
        encoder_hidden_states=torch.randn(2, 3, WIDTH, generator=dice),
        pooled_projections=torch.randn(2, 16, generator=dice),
        timestep=torch.tensor([0.2, 0.9]),
        img_ids=torch.tensor([[0, row, column] for row in (0, 1) for column in (0, 1)]).float(),
        txt_ids=torch.zeros(3, 3),
    ).sample


def said_with(transformer: Any, body: bytes) -> torch.Tensor:
    """The same with an adapter file, as inference wears it."""
    modules = {"transformer": transformer}
    try:
        put_on(modules, read_adapter(body, modules), "own")
        wear(modules, {"own": 1.0})
        return said(transformer)
    finally:
        take_off(modules)


def said_by_diffusers(transformer: Any, body: bytes) -> torch.Tensor:
    """The same with a file that diffusers loads."""
    state = FluxLoraLoaderMixin.lora_state_dict(safetensors.torch.load(body))
    try:
        FluxLoraLoaderMixin.load_lora_into_transformer(state, None, transformer, "theirs")
        return said(transformer)
    finally:
        transformer.unload_lora()


def adapter(transformer: Any, targets: Sequence[str], is_dora: bool = False) -> bytes:
    return random_adapter({"transformer": transformer}, {"transformer": list(targets)}, seed=1, is_dora=is_dora)


def exported(body: bytes, key_names: KeyNames) -> bytes:
    return write_safetensors(renamed(stored_tensors(body), key_names, FLUX), {"modelspec.title": "x"})


def shapes_of(transformer: Any) -> LayerShapes:
    return {
        f"transformer.{name}": tuple(layer.weight.shape)
        for name, layer in transformer.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }


@pytest.mark.parametrize(
    ("targets", "key_names", "is_dora"),
    [
        *((endings, "diffusers", is_dora) for endings in TARGETS.values() for is_dora in (False, True)),
        (ONLY_DOUBLE, "diffusers", False),
        (ONLY_DOUBLE, "kohya", False),
    ],
)
def test_plain_diffusers_says_what_the_adapter_says_from_its_export(
    transformer: Any, targets: list[str], key_names: KeyNames, is_dora: bool, caplog: pytest.LogCaptureFixture
) -> None:
    body = adapter(transformer, targets, is_dora)
    wanted = said_with(transformer, body)
    with caplog.at_level(logging.WARNING):
        found = said_by_diffusers(transformer, exported(body, key_names))
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, said(transformer), atol=1e-2)
    # No key was missing, none was unexpected.
    assert caplog.messages == []


@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
@torch.no_grad()
def test_plain_diffusers_reads_the_text_encoders_layers_from_either_export(key_names: KeyNames) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=50, max_position_embeddings=10, bos_token_id=48, eos_token_id=49, **sizes)
    encoder, words = CLIPTextModel(config).eval(), torch.arange(10)[None]
    modules, before = {"text_encoder": encoder}, encoder(words).last_hidden_state
    body = random_adapter(modules, {"text_encoder": TEXT_ATTENTION}, seed=1)
    put_on(modules, read_adapter(body, modules), "own")
    wear(modules, {"own": 1.0})
    wanted = encoder(words).last_hidden_state
    take_off(modules)
    state, alphas, _ = FluxLoraLoaderMixin.lora_state_dict(
        safetensors.torch.load(exported(body, key_names)), return_alphas=True, return_lora_metadata=True
    )
    FluxLoraLoaderMixin.load_lora_into_text_encoder(
        state, alphas, encoder, prefix="text_encoder", adapter_name="theirs"
    )
    assert torch.allclose(encoder(words).last_hidden_state, wanted, atol=1e-5)
    assert not torch.allclose(before, wanted, atol=1e-2)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("key_names", ["diffusers", "kohya"])
def test_an_export_imported_again_is_read_as_the_adapter(
    transformer: Any, targets: list[str], key_names: KeyNames
) -> None:
    body, modules = adapter(transformer, targets), {"transformer": transformer}
    again = read_adapter(import_adapter(exported(body, key_names), shapes_of(transformer), FLUX).body, modules)
    wanted = read_adapter(body, modules)
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)


def test_another_programs_fused_layers_are_worn_as_the_whole_update_added_to_the_weights(transformer: Any) -> None:
    """As ai-toolkit has them in ComfyUI's names, and sd-scripts in its own, with an alpha of half the rank."""
    double, single = transformer.transformer_blocks[0].attn, transformer.single_transformer_blocks[0]
    places = {
        "diffusion_model.double_blocks.0.img_attn.qkv": [double.to_q, double.to_k, double.to_v],
        "lora_unet_double_blocks_0_txt_attn_qkv": [double.add_q_proj, double.add_k_proj, double.add_v_proj],
        "lora_unet_single_blocks_0_linear1": [single.attn.to_q, single.attn.to_k, single.attn.to_v, single.proj_mlp],
    }
    dice = torch.Generator().manual_seed(2)
    tensors, before = {}, {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    try:
        for place, layers in places.items():
            a = torch.randn(4, WIDTH, generator=dice) / 4
            b = torch.randn(sum(layer.out_features for layer in layers), 4, generator=dice) / 4
            halves = ("lora_A", "lora_B") if "." in place else ("lora_down", "lora_up")
            tensors |= {f"{place}.{half}.weight": tensor for half, tensor in zip(halves, (a, b), strict=True)}
            tensors[f"{place}.alpha"] = torch.tensor(2.0)
            rows = (b @ a / 2).split([layer.out_features for layer in layers])
            for layer, update in zip(layers, rows, strict=True):
                layer.weight.data += update
        wanted = said(transformer)
    finally:
        transformer.load_state_dict(before)
    imported = import_adapter(safetensors.torch.save(tensors), shapes_of(transformer), FLUX)
    assert imported.rank == 4
    found = said_with(transformer, imported.body)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, said(transformer), atol=1e-2)
