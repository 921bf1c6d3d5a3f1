"""SDXL's adapters in other programs: Kohya's names by themselves, and both exports in plain diffusers."""

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline

from base_models.adapters.adapter_export import KeyNames, renamed, stored_tensors, write_safetensors
from base_models.pipelines import adaptable_modules
from base_models.traits.sgm_names import sgm_name
from tests.benchmarks.random_base_model import write_tiny_sdxl
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.base_models.latents_of import latents, latents_with

SDXL = "StableDiffusionXLPipeline"
ENCODERS = {"text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION}
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"targets": {"unet": ATTENTION}},
    "all": {"targets": {"unet": ALL}},
    "with-text-encoders": {"targets": {"unet": ATTENTION, **ENCODERS}},
    "dora": {"targets": {"unet": ALL, **ENCODERS}, "is_dora": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("sdxl")
    write_tiny_sdxl(made)
    return made


@pytest.fixture
def pipeline(folder: Path) -> Any:
    """A new one every time, since diffusers leaves something of every adapter behind."""
    loaded = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32, add_watermarker=False)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "key_names"),
    [(kind, names) for kind in KINDS for names in ("diffusers", "kohya") if (kind, names) != ("dora", "kohya")],
)
def test_plain_diffusers_draws_the_adapters_picture_from_its_export(
    pipeline: Any, tmp_path: Path, kind: str, key_names: KeyNames, caplog: pytest.LogCaptureFixture
) -> None:
    body = random_adapter(adaptable_modules(pipeline), seed=1, **KINDS[kind])
    untuned, wanted = latents(pipeline), latents_with(pipeline, body)
    exported = write_safetensors(renamed(stored_tensors(body), key_names, SDXL), {"modelspec.title": "x"})
    (tmp_path / "exported.safetensors").write_bytes(exported)
    with caplog.at_level(logging.WARNING):
        pipeline.load_lora_weights(tmp_path, weight_name="exported.safetensors")
    found = latents(pipeline)
    assert (found - wanted).abs().max() <= 1e-3
    assert (found - untuned).abs().max() > 0.01
    # Where nothing is for a text encoder, it says so. Of missing and unexpected keys it would say more.
    complaints = [message for message in caplog.messages if "No LoRA keys associated to CLIPTextModel" not in message]
    assert complaints == []
    # Every pair of matrices arrived, and no other.
    worn = {name: count_pairs(module.state_dict()) for name, module in adaptable_modules(pipeline).items()}
    held = {name: count_pairs(key for key in stored_tensors(body) if key.startswith(f"{name}.")) for name in worn}
    assert worn == held


def count_pairs(names: Iterable[str]) -> int:
    return sum(".lora_A." in name for name in names)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks.2.0.in_layers.2"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.attentions.0.proj_in", "input_blocks.4.1.proj_in"),
        ("down_blocks.2.resnets.0.conv_shortcut", "input_blocks.7.0.skip_connection"),
        ("down_blocks.2.attentions.1.proj_in", "input_blocks.8.1.proj_in"),
        ("mid_block.resnets.0.conv2", "middle_block.0.out_layers.3"),
        ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks.2.1.proj_in"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv1", "output_blocks.8.0.in_layers.2"),
        ("conv_out", "out.2"),
    ],
)
def test_layers_of_the_unet_have_stabilitys_names(layer: str, name: str) -> None:
    """As diffusers' converter of published checkpoints expects them."""
    assert sgm_name(layer) == name


def test_every_layer_has_a_name_of_its_own_and_others_are_refused(pipeline: Any) -> None:
    layers = [
        name for name, layer in pipeline.unet.named_modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    ]
    assert len({sgm_name(layer) for layer in layers}) == len(layers)
    with pytest.raises(ValueError, match="no layer"):
        sgm_name("single_transformer_blocks.0.proj")


def test_kohyas_names_tell_the_text_encoders_apart(pipeline: Any) -> None:
    body = random_adapter(adaptable_modules(pipeline), seed=1, **KINDS["with-text-encoders"])
    exported = safetensors.torch.load(write_safetensors(renamed(stored_tensors(body), "kohya", SDXL), {}))
    projection = "text_model_encoder_layers_0_self_attn_q_proj"
    to_q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    wanted = safetensors.torch.load(body)
    assert torch.equal(
        exported[f"{to_q}.lora_down.weight"],
        wanted["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"],
    )
    for prefix, width in (("lora_te1", 16), ("lora_te2", 24)):
        assert exported[f"{prefix}_{projection}.lora_down.weight"].shape == (4, width)
    assert not [name for name in exported if not re.match(r"lora_(unet|te1|te2)_", name)]
